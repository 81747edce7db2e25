//! certificates: how long those of the control plane still hold.
//!
//! Of the Secrets only the certificates are read; the API server sends a Secret whole, so who may not read
//! it is told what the controller says of it instead.

use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use x509_parser::pem::Pem;

use super::controller::Replica;
use super::finding::Finding;
use crate::answer::{Unanswered, answered, every};
use crate::figures::Figures;
use crate::print::count;

/// The issuer's Secret.
const ISSUER: &str = "tidegate-issuer";
/// The Secret of the webhooks' certificate.
pub(super) const WEBHOOK: &str = "tidegate-webhook-tls";
/// The ConfigMap of anchors in every namespace with sidecars, and its key.
const ANCHORS: (&str, &str) = ("tidegate-anchors", "anchors.pem");
/// When the controller says a certificate ends.
const EXPIRY: &str = "tidegate_controller_certificate_expiry_timestamp_seconds";
const DAY: i64 = 24 * 3600;
/// Days before the end in which somebody should act, and in which it is late.
const SOON: i64 = 30;
const LATE: i64 = 7;

/// What a Secret holds of certificates.
pub(super) struct Kept {
    secret: Result<Option<Secret>, Unanswered>,
}

/// Reads the Secret of that name.
pub(super) async fn read(client: &Client, namespace: &str, name: &str) -> Kept {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    Kept { secret: answered(secrets.get_opt(name)).await }
}

impl Kept {
    /// The certificates of a key, DER.
    pub(super) fn certificates(&self, key: &str) -> Vec<Vec<u8>> {
        let secret = self.secret.as_ref().ok().and_then(Option::as_ref);
        let data = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(key));
        data.map(|ByteString(bytes)| certificates(bytes)).unwrap_or_default()
    }
}

/// The certificates of a PEM text, DER.
pub(super) fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    blocks.filter(|block| block.label == "CERTIFICATE").map(|block| block.contents).collect()
}

/// Looks at all of them.
pub(super) async fn look(
    client: &Client,
    namespace: &str,
    replicas: &[Replica],
    now: SystemTime,
) -> Vec<Finding> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let said = said(client, replicas).await;
    let remedies = [
        (ISSUER, "issuer", "put a new issuer in its place, its anchor in a MeshTrust before"),
        (WEBHOOK, "webhook", "the leading controller renews it: see its log for what keeps it from that"),
    ];
    let mut findings = Vec::new();
    for (name, certificate, remedy) in remedies {
        let object = format!("Secret {namespace}/{name}");
        let kept = read(client, namespace, name).await;
        findings.push(match &kept.secret {
            Ok(Some(_)) => holds(object, ends(&kept.certificates("tls.crt")), now, remedy),
            Ok(None) => Finding::failed(
                object,
                "is not there",
                "the controller makes it when it starts: see its log for what keeps it from that",
            ),
            Err(error) if error.is_forbidden() => match said(certificate) {
                Some(end) => holds(object, Some(end), now, remedy),
                None => Finding::unknown(object, error.to_string()),
            },
            Err(error) => Finding::unknown(object, error.to_string()),
        });
    }
    findings.extend(anchors(client, now).await);
    findings
}

/// When the controller says that a certificate ends, by the certificate's name.
async fn said(client: &Client, replicas: &[Replica]) -> impl Fn(&str) -> Option<i64> {
    let mut ends = Vec::new();
    if let Some(replica) = replicas.iter().find(|replica| replica.is_ready)
        && let Ok(page) = replica.port(client).text("/metrics").await
    {
        let figures = Figures::read(&page);
        let each =
            figures.of(EXPIRY).map(|sample| (sample.label("certificate").to_lowercase(), sample.value));
        ends.extend(each);
    }
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970, and saturating")]
    move |name| ends.iter().find(|(certificate, _)| certificate == name).map(|(_, end)| *end as i64)
}

/// The trust anchors as every namespace has them.
async fn anchors(client: &Client, now: i64) -> Vec<Finding> {
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let which = ListParams::default().fields(&format!("metadata.name={}", ANCHORS.0));
    let mut texts: Vec<(String, Vec<String>)> = Vec::new();
    let looked = every(&maps, which, |map: ConfigMap| {
        let namespace = map.namespace().unwrap_or_default();
        let text = map.data.and_then(|mut data| data.remove(ANCHORS.1)).unwrap_or_default();
        match texts.iter_mut().find(|(known, _)| *known == text) {
            Some((_, namespaces)) => namespaces.push(namespace),
            None => texts.push((text, vec![namespace])),
        }
    });
    if let Err(error) = looked.await {
        return vec![Finding::unknown(format!("ConfigMaps {}", ANCHORS.0), error.to_string())];
    }
    texts.sort_by_key(|(_, namespaces)| std::cmp::Reverse(namespaces.len()));
    let each = texts.iter().enumerate();
    each.flat_map(|(at, (text, namespaces))| anchors_of(text, namespaces, at == 0, now)).collect()
}

/// The anchors that these namespaces have; `most` have those of the first.
fn anchors_of(text: &str, namespaces: &[String], most: bool, now: i64) -> Vec<Finding> {
    let object = match namespaces {
        [one] => format!("ConfigMap {one}/{}", ANCHORS.0),
        [first, rest @ ..] => format!("ConfigMaps {first}/{} and {} more", ANCHORS.0, rest.len()),
        [] => return Vec::new(),
    };
    let all = certificates(text.as_bytes());
    let remedy = "add its successor to a MeshTrust, and let every proxy take it before this ends";
    let first = all.iter().filter_map(|der| end(der)).min();
    let mut findings = vec![holds(object.clone(), first, now, remedy)];
    if all.len() > 1 {
        findings[0].says = format!("{}; the first: {}", count(all.len(), "anchor"), findings[0].says);
    }
    if !most {
        let remedy = "the leading controller writes them: see its log, and ask again in a minute";
        findings.push(Finding::failed(object, "differs from those of other namespaces", remedy));
    }
    findings
}

/// When the first of these ends, which is the certificate itself; seconds since 1970.
fn ends(chain: &[Vec<u8>]) -> Option<i64> {
    chain.first().and_then(|der| end(der))
}

fn end(der: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn holds(object: String, end: Option<i64>, now: i64, remedy: &str) -> Finding {
    let Some(end) = end else {
        return Finding::failed(object, "holds no certificate that can be read", remedy);
    };
    let left = end.saturating_sub(now);
    if left <= 0 {
        let said = format!("ended {} ago", count(u64::try_from(-left / DAY).unwrap_or(0), "day"));
        return Finding::failed(object, said, remedy);
    }
    let said = format!("ends in {}", count(u64::try_from(left / DAY).unwrap_or(0), "day"));
    match left / DAY {
        days if days < LATE => Finding::failed(object, said, remedy),
        days if days < SOON => Finding::warning(object, said, remedy),
        _ => Finding::ok(object, said),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_certificate_is_told_in_days_and_by_how_near_its_end_is() {
        let at = |days: i64| holds("c".to_owned(), Some(1000 * DAY), (1000 - days) * DAY, "renew it");
        assert_eq!((at(31).level, at(31).says.as_str()), (Level::Ok, "ends in 31 days"));
        assert_eq!(at(29).level, Level::Warning);
        assert_eq!((at(6).level, at(1).says.as_str()), (Level::Failed, "ends in 1 day"));
        assert_eq!((at(-2).level, at(-2).says.as_str()), (Level::Failed, "ended 2 days ago"));
        assert_eq!(holds("c".to_owned(), None, 0, "renew it").level, Level::Failed);
    }

    #[test]
    fn anchors_that_differ_from_those_of_most_namespaces_are_told() {
        let namespaces = ["shop", "edge"].map(str::to_owned);
        let findings = anchors_of("nonsense", &namespaces, false, 0);
        let said: Vec<&str> = findings.iter().map(|finding| finding.says.as_str()).collect();
        assert_eq!(said, ["holds no certificate that can be read", "differs from those of other namespaces"]);
        assert_eq!(findings[0].object, "ConfigMaps shop/tidegate-anchors and 1 more");
    }
}
