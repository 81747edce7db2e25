//! proxies: whether each sidecar is told what it needs, and holds it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kube::Client;

use super::controller::Replica;
use super::finding::Finding;
use super::held::{self, Proxy, Status};
use crate::operate::AT_ONCE;
use crate::pods::Sidecar;
use crate::print::{count, plain};

/// What was sent a moment ago is acknowledged after this; who lags then, lags.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What every replica says.
struct Said {
    statuses: Vec<Status>,
    /// Replicas that did not answer.
    silent: Vec<Finding>,
}

/// Asks every ready replica, and once more where a proxy lags.
pub(super) async fn look(client: &Client, replicas: &[Replica], sidecars: &[Sidecar]) -> Vec<Finding> {
    if !replicas.iter().any(|replica| replica.is_ready) {
        return vec![Finding::unknown("proxies", "no controller is ready that would know of them")];
    }
    let mut said = ask(client, replicas).await;
    if said.statuses.iter().flat_map(|status| &status.proxies).any(|proxy| proxy.behind() > 0) {
        tokio::time::sleep(SECOND_LOOK).await;
        let before = said;
        said = ask(client, replicas).await;
        said.forgive(&before);
    }
    judge(said, sidecars, &newest(replicas))
}

async fn ask(client: &Client, replicas: &[Replica]) -> Said {
    let asked = replicas.iter().filter(|replica| replica.is_ready).map(|replica| async move {
        let said = replica.port(client).text("/status").await;
        (replica, said.and_then(|text| held::read(&text)))
    });
    let mut said = Said { statuses: Vec::new(), silent: Vec::new() };
    let mut answers = stream::iter(asked).buffered(AT_ONCE);
    while let Some((replica, answer)) = answers.next().await {
        match answer {
            Ok(status) => said.statuses.push(status),
            Err(error) => {
                let object = format!("controller {}/{}", replica.namespace, replica.name);
                said.silent.push(Finding::unknown(object, format!("{error:#}")));
            }
        }
    }
    said
}

impl Said {
    /// Who moved on since is not behind: on a busy mesh something is always on its way.
    fn forgive(&mut self, before: &Self) {
        let old: std::collections::BTreeMap<(String, String), u64> =
            before.proxies().map(|proxy| (key(proxy), proxy.acknowledged)).collect();
        for status in &mut self.statuses {
            for proxy in &mut status.proxies {
                if old.get(&key(proxy)).is_some_and(|old| proxy.acknowledged > *old) {
                    proxy.catch_up();
                }
            }
        }
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.statuses.iter().flat_map(|status| &status.proxies)
    }
}

fn key(proxy: &Proxy) -> (String, String) {
    (proxy.identity.clone(), proxy.pod.clone())
}

fn judge(said: Said, sidecars: &[Sidecar], newest: &str) -> Vec<Finding> {
    let mut findings = problems(&said);
    let held = said.proxies().map(|proxy| (proxy, proxy.held()));
    let (well, ill): (Vec<_>, Vec<_>) = held.partition(|(_, finding)| finding.remedy.is_none());
    let old = well.iter().filter(|(proxy, _)| is_older(&proxy.version, newest));
    findings.extend(old.map(|(proxy, _)| {
        let said = format!("is of version {}, the controller of {newest}", plain(&proxy.version));
        let remedy = "make the pod anew: it is injected with the controller's version";
        Finding::warning(format!("proxy of {}", proxy.named()), said, remedy)
    }));
    if !well.is_empty() {
        let all = well.len() + ill.len();
        findings.push(Finding::ok("proxies", format!("{} of {all} hold what they were sent", well.len())));
    }
    findings.extend(ill.into_iter().map(|(_, finding)| finding));
    // With a replica unheard nobody knows who is connected to it.
    if said.silent.is_empty() {
        let connected: BTreeSet<String> = said.proxies().map(Proxy::named).collect();
        let alone = |sidecar: &&Sidecar| sidecar.is_running && !connected.contains(&sidecar.named());
        findings.extend(sidecars.iter().filter(alone).map(|sidecar| {
            Finding::failed(
                format!("proxy of {}", sidecar.named()),
                "is connected to no controller: it keeps what it last heard",
                "kubectl logs POD -c tidegate-proxy says why; does a NetworkPolicy let it reach port 8086?",
            )
        }));
    }
    findings.extend(said.silent);
    findings
}

/// What is wrong with objects, by one replica: all read the same.
fn problems(said: &Said) -> Vec<Finding> {
    let Some(status) = said.statuses.iter().max_by_key(|status| status.problems.len()) else {
        return Vec::new();
    };
    let Some(first) = status.problems.first() else {
        return vec![Finding::ok("objects", "the controller has no problem with any")];
    };
    let said = format!("{}, the first: {first}", count(status.problems.len(), "problem"));
    vec![Finding::warning("objects", said, "see the objects' conditions below, and the controller's /status")]
}

/// The newest version among the replicas.
fn newest(replicas: &[Replica]) -> String {
    let newest = replicas.iter().max_by_key(|replica| numbers(&replica.version));
    newest.map(|replica| replica.version.clone()).unwrap_or_default()
}

/// The numbers of a version; none of what is no version.
fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let release = version.trim_start_matches('v').split(['-', '+']).next()?;
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

fn is_older(version: &str, than: &str) -> bool {
    numbers(version).zip(numbers(than)).is_some_and(|(version, than)| version < than)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::Level;
    use super::*;
    use crate::scripted;

    fn proxy(pod: &str, sent: u64, acknowledged: u64, version: &str) -> Value {
        json!({
            "identity": "spiffe://cluster.local/ns/shop/sa/web", "pod": pod, "version": version,
            "sent": sent, "acknowledged": acknowledged, "digest_ok": true, "documents": 3, "rejected": [],
        })
    }

    fn said(proxies: &[Value]) -> Said {
        let status = json!({"problems": [], "proxies": proxies});
        Said { statuses: vec![held::read(&status.to_string()).unwrap()], silent: Vec::new() }
    }

    fn sidecar(name: &str) -> Sidecar {
        Sidecar::of(&serde_json::from_value(scripted::pod("shop", name)).unwrap()).unwrap()
    }

    fn told(said: Said, sidecars: &[Sidecar]) -> Vec<(Level, String)> {
        let findings = judge(said, sidecars, "0.2.0").into_iter();
        let findings = findings.filter(|finding| finding.level != Level::Ok);
        findings.map(|finding| (finding.level, format!("{}: {}", finding.object, finding.says))).collect()
    }

    #[test]
    fn a_proxy_that_lags_is_old_or_is_alone_is_told() {
        let said = said(&[
            proxy("web-0", 9, 9, "0.2.0"),
            proxy("web-1", 9, 7, "0.2.0"),
            proxy("web-2", 9, 9, "0.1.9"),
        ]);
        let sidecars = ["web-0", "web-1", "web-2", "web-3"].map(sidecar);
        let expected = [
            (Level::Warning, "proxy of shop/web-2: is of version 0.1.9, the controller of 0.2.0"),
            (
                Level::Failed,
                "proxy of web-1 (spiffe://cluster.local/ns/shop/sa/web): 2 answers unacknowledged",
            ),
            (
                Level::Failed,
                "proxy of shop/web-3: is connected to no controller: it keeps what it last heard",
            ),
        ];
        assert_eq!(told(said, &sidecars), expected.map(|(level, said)| (level, said.to_owned())));
    }

    #[test]
    fn a_proxy_that_moves_on_does_not_lag() {
        let before = said(&[proxy("web-0", 9, 7, "0.2.0"), proxy("web-1", 9, 7, "0.2.0")]);
        let mut after = said(&[proxy("web-0", 12, 11, "0.2.0"), proxy("web-1", 12, 7, "0.2.0")]);
        after.forgive(&before);
        let behind: Vec<u64> = after.proxies().map(Proxy::behind).collect();
        assert_eq!(behind, [0, 5]);
    }

    #[test]
    fn who_is_connected_is_not_known_while_a_replica_is_silent() {
        let mut said = said(&[]);
        said.silent.push(Finding::unknown("controller tidegate/a", "no answer"));
        assert_eq!(
            told(said, &[sidecar("web-0")]),
            [(Level::Unknown, "controller tidegate/a: no answer".to_owned())]
        );
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_older("0.9.0", "0.10.0") && is_older("v0.1.0-rc.1", "0.1.1"));
        assert!(!is_older("0.1.0", "0.1.0") && !is_older("unknown", "0.1.0"));
    }
}
