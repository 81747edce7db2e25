//! evidence: what sidecars, receivers and the controller say after the traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::messages::Messages;
use super::pods::{CONTROLLER_ADMIN, PODS, Pod, RECEIVERS, WEB};
use super::traffic::Sent;
use crate::figures::{Figures, Sample};
use crate::workload::Counts;
use crate::{ask, check};

/// Attempts of web's sidecar by endpoint and result.
const ATTEMPTS: &str = "tidegate_request_endpoint_attempts_total";
/// Requests a sidecar was asked by others, by their identity.
const PEERS: &str = "tidegate_sidecar_peer_requests_total";
/// Further attempts by reason.
const RETRIES: &str = "tidegate_request_retries_total";
/// Responses that ended, by direction and class of status (`2xx`).
const RESPONSES: &str = "tidegate_request_responses_total";
/// How long a sidecar may take to count a response whose end its client has seen.
const COUNTED_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What one pod's sidecar and application say.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// Attempts of web's sidecar at it, by result.
    pub(crate) attempts: BTreeMap<String, u64>,
    /// What its application received.
    pub(crate) counts: Counts,
    /// Requests its sidecar took, by the client's identity and whether over TLS.
    pub(crate) peers: BTreeMap<(String, bool), u64>,
}

impl Receiver {
    /// Attempts that ended so.
    pub(crate) fn attempts(&self, result: &str) -> u64 {
        self.attempts.get(result).copied().unwrap_or(0)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// How many requests were to be sent.
    pub(crate) requests: u64,
    /// How they were answered, as whoever sent them saw it.
    pub(crate) sent: Sent,
    /// Responses that web's sidecar gave, by class of status (`2xx`), as it counts them itself.
    pub(crate) responses: BTreeMap<String, u64>,
    /// By the pod's name.
    pub(crate) receivers: BTreeMap<&'static str, Receiver>,
    /// Further attempts of web's sidecar by reason.
    pub(crate) retries: BTreeMap<String, u64>,
    /// Whom each pod's certificate names, by the pod's name; as the controller knows it.
    pub(crate) identities: BTreeMap<String, String>,
    /// Successful attempts at orders-2 when its application was started again; none when it was not
    /// stopped.
    pub(crate) before_restart: Option<u64>,
    /// What became of the messages; none when none were sent.
    pub(crate) messages: Option<Messages>,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole and not negative"
)]
fn whole<K: Ord>(sums: BTreeMap<K, f64>) -> BTreeMap<K, u64> {
    sums.into_iter().map(|(key, value)| (key, value as u64)).collect()
}

/// Whom each connected sidecar's certificate names, by pod.
pub(crate) async fn identities() -> anyhow::Result<BTreeMap<String, String>> {
    let status = check::status(CONTROLLER_ADMIN).await?;
    Ok(status.proxies.into_iter().map(|proxy| (proxy.pod, proxy.identity)).collect())
}

/// Attempts of web's sidecar at one pod, by result.
fn attempts(web: &Figures, pod: Pod) -> BTreeMap<String, u64> {
    let endpoint = pod.application().to_string();
    let result = |sample: &Sample| {
        let of_pod = sample.label("endpoint") == endpoint;
        if of_pod { sample.label("result").to_owned() } else { String::new() }
    };
    let mut sums = whole(web.by(ATTEMPTS, result));
    sums.remove("");
    sums
}

/// Successful attempts at one pod until now.
pub(crate) async fn successes(pod: Pod) -> anyhow::Result<u64> {
    let web = Figures::read(&ask::text(WEB.admin(), "/metrics").await?);
    Ok(attempts(&web, pod).remove("success").unwrap_or(0))
}

/// Responses that web's sidecar gave its application, by class of status.
fn responses(web: &Figures) -> BTreeMap<String, u64> {
    let class = |sample: &Sample| {
        let outbound = sample.label("direction") == "outbound";
        if outbound { sample.label("status").to_owned() } else { String::new() }
    };
    let mut sums = whole(web.by(RESPONSES, class));
    sums.remove("");
    sums
}

/// What web's sidecar counts once it counts what its client saw, or when the time for that is over.
async fn counted(sent: &Sent) -> anyhow::Result<Figures> {
    let end = Instant::now() + COUNTED_TIMEOUT;
    loop {
        let web = Figures::read(&ask::text(WEB.admin(), "/metrics").await?);
        if responses(&web) == sent.classes || Instant::now() > end {
            return Ok(web);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Collects what all say.
///
/// # Errors
/// When one does not answer.
pub(crate) async fn collect(evidence: &mut Evidence, unstarted: Option<Pod>) -> anyhow::Result<()> {
    evidence.identities = identities().await?;
    evidence.identities.retain(|pod, _| PODS.iter().any(|known| known.name == pod));
    let web = counted(&evidence.sent).await?;
    evidence.responses = responses(&web);
    evidence.retries = whole(web.by(RETRIES, |sample| sample.label("reason").to_owned()));
    for pod in RECEIVERS {
        let sidecar = Figures::read(&ask::text(pod.admin(), "/metrics").await?);
        let peers =
            sidecar.by(PEERS, |sample| (sample.label("client").to_owned(), sample.label("tls") == "true"));
        let counts = if unstarted == Some(pod) {
            Counts::default()
        } else {
            serde_json::from_str(&ask::text(pod.application(), "/counts").await?)?
        };
        let receiver = Receiver { attempts: attempts(&web, pod), counts, peers: whole(peers) };
        evidence.receivers.insert(pod.name, receiver);
    }
    Ok(())
}
