//! expiry: when each certificate of the control plane ends, shown and said in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use policy::limits;

use super::counts::{Certificate, Counts};
use super::issuer::{end, parse};
use super::{Authority, pem};
use crate::webhook_tls::WebhookTls;

/// How often one certificate is spoken of.
const SAID_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Looks at the ends of the issuer, the anchors and the webhook's certificate.
pub(crate) struct Expiry {
    authority: Arc<Authority>,
    webhook: Option<Arc<WebhookTls>>,
    counts: Counts,
    said: BTreeMap<Certificate, Instant>,
}

/// What is to be said of a certificate.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Nothing,
    Warning,
    Error,
}

impl Expiry {
    pub(crate) fn new(authority: Arc<Authority>, webhook: Option<Arc<WebhookTls>>, counts: Counts) -> Self {
        Self { authority, webhook, counts, said: BTreeMap::new() }
    }

    /// Looks again and again until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut changed = self.authority.anchors();
        loop {
            self.look(SystemTime::now());
            tokio::select! {
                Ok(()) = changed.changed() => {}
                () = tokio::time::sleep(limits::CLUSTER_POLL) => {}
            }
        }
    }

    fn look(&mut self, now: SystemTime) {
        let issuer = Some((Certificate::Issuer, self.authority.issuer_end(), self.authority.place()));
        let anchors = first_end(&self.authority.anchors().borrow());
        let anchors =
            anchors.map(|(at, name)| (Certificate::Anchors, at, format!("the trust anchor {name}")));
        let webhook =
            self.webhook.as_ref().and_then(|webhook| Some((webhook.not_after()?, webhook.object())));
        let webhook = webhook.map(|(at, object)| (Certificate::Webhook, at, object));
        for (certificate, at, object) in [issuer, anchors, webhook].into_iter().flatten() {
            let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.counts.ends(certificate, i64::try_from(seconds).unwrap_or(i64::MAX));
            self.say(
                certificate,
                word(certificate, at, now),
                &object,
                at.duration_since(now).unwrap_or_default(),
            );
        }
    }

    fn say(&mut self, certificate: Certificate, word: Word, object: &str, left: Duration) {
        if word == Word::Nothing || self.said.get(&certificate).is_some_and(|at| at.elapsed() < SAID_EVERY) {
            return;
        }
        self.said.insert(certificate, Instant::now());
        let days = left.as_secs() / (24 * 3600);
        let remedy = match certificate {
            Certificate::Issuer => "put a new issuer in its place, its anchor in MeshTrust first",
            Certificate::Anchors => "add its successor to MeshTrust and let proxies take it before this ends",
            Certificate::Webhook => "the lease holder renews it: see the log for what keeps it from that",
        };
        if word == Word::Error {
            tracing::error!(object, days, remedy, "ends soon");
        } else {
            tracing::warn!(object, days, remedy, "ends within a month");
        }
    }
}

/// The webhook's is renewed by itself a month before its end: only when that fails it is spoken of.
fn word(certificate: Certificate, at: SystemTime, now: SystemTime) -> Word {
    let left = at.duration_since(now).unwrap_or_default();
    match certificate {
        _ if left < limits::EXPIRY_NEAR => Word::Error,
        Certificate::Issuer | Certificate::Anchors if left < limits::EXPIRY_SOON => Word::Warning,
        _ => Word::Nothing,
    }
}

/// The end of the anchor that ends first, and its subject.
fn first_end(pem: &str) -> Option<(SystemTime, String)> {
    let certificates = pem::certificates(pem).ok()?;
    let ends = certificates.iter().filter_map(|der| {
        let parsed = parse(der).ok()?;
        Some((end(&parsed), format!("{:?}", parsed.subject().to_string())))
    });
    ends.min_by_key(|(at, _)| *at)
}
