//! looks: each part of an installation against this version; pure.

use std::cmp::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use kube::api::DynamicObject;
use serde_json::Value;
use x509_parser::pem::Pem;

use crate::install::{Choices, objects};
use crate::print::{count, span};

/// This program's version, which an upgrade brings.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A certificate that is renewed at two thirds of its life has not been when less than this share is left.
const LEFT_LEAST: i64 = 4;
/// That of an issuer which lives for years is somebody's to plan: this long before.
const NOTICE_SECONDS: i64 = 30 * 86_400;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Well,
    ToDo,
    InTheWay,
}

/// What was looked at, what was seen, and what helps; no remedy where all is well.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) weight: Weight,
    pub(super) subject: String,
    pub(super) said: String,
    pub(super) remedy: String,
}

impl Finding {
    fn well(subject: &str, said: impl Into<String>) -> Self {
        Self { weight: Weight::Well, subject: subject.to_owned(), said: said.into(), remedy: String::new() }
    }

    fn new(weight: Weight, subject: &str, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { weight, subject: subject.to_owned(), said: said.into(), remedy: remedy.into() }
    }
}

/// The version of a Deployment of the chart or of `tidegate install`, as its label has it.
pub(super) fn version(deployment: &DynamicObject) -> Option<String> {
    deployment.metadata.labels.as_ref()?.get("app.kubernetes.io/version").cloned()
}

/// The numbers of a version, without what stands behind a `-` or `+`; nothing for what is none.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let core = version.trim_start_matches('v').split(['-', '+']).next()?;
    core.split('.').map(|part| part.parse().ok()).collect()
}

/// How a version stands to another; nothing where one is no version.
fn compare(one: &str, other: &str) -> Option<Ordering> {
    Some(numbers(one)?.cmp(&numbers(other)?))
}

pub(super) fn controller(running: Option<&str>) -> Finding {
    let subject = "controller";
    let Some(running) = running else {
        let remedy = "is the Deployment there? tidegate install puts it back";
        return Finding::new(Weight::ToDo, subject, "says no version", remedy);
    };
    match compare(running, VERSION) {
        Some(Ordering::Equal) => Finding::well(subject, running),
        Some(Ordering::Less) => {
            let remedy = "helm upgrade, or tidegate install";
            Finding::new(Weight::ToDo, subject, format!("{running}, older than {VERSION}"), remedy)
        }
        Some(Ordering::Greater) => {
            let remedy = format!("use the tidegate of version {running}");
            Finding::new(
                Weight::InTheWay,
                subject,
                format!("{running}, newer than this program ({VERSION})"),
                remedy,
            )
        }
        None => Finding::new(Weight::ToDo, subject, format!("{running:?} is no version"), "see its labels"),
    }
}

/// The CustomResourceDefinitions that this version brings.
///
/// # Errors
/// When the embedded manifest is not as this program expects.
pub(super) fn crds() -> anyhow::Result<Vec<Value>> {
    let choices = Choices { namespace: "tidegate".to_owned(), image: None, replicas: 1 };
    let mut all = objects(&choices)?;
    all.retain(|object| object["kind"] == "CustomResourceDefinition");
    Ok(all)
}

/// The names of a definition's versions.
fn versions(definition: &Value) -> Vec<&str> {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter_map(|version| version["name"].as_str()).collect()
}

/// A definition in the cluster against the one this version brings. The server refuses a new one that
/// lacks a version in which objects are stored.
pub(super) fn crd(name: &str, wanted: &Value, found: Option<&DynamicObject>) -> Finding {
    let subject = format!("kind {name}");
    let Some(found) = found else {
        let remedy = "helm upgrade with crds.install, or tidegate install, brings it";
        return Finding::new(Weight::ToDo, &subject, "is not there", remedy);
    };
    let brought = versions(wanted);
    let stored = found.data["status"]["storedVersions"].as_array().into_iter().flatten();
    let lost: Vec<&str> =
        stored.filter_map(Value::as_str).filter(|version| !brought.contains(version)).collect();
    if !lost.is_empty() {
        let lost = lost.join(", ");
        let remedy = format!(
            "write each object anew with kubectl replace, then take {lost} out of status.storedVersions"
        );
        return Finding::new(Weight::InTheWay, &subject, format!("objects are stored as {lost}"), remedy);
    }
    let missing: Vec<&str> =
        brought.iter().copied().filter(|version| !versions(&found.data).contains(version)).collect();
    if missing.is_empty() {
        return Finding::well(&subject, brought.join(", "));
    }
    let said = format!("does not serve {}", missing.join(", "));
    Finding::new(
        Weight::ToDo,
        &subject,
        said,
        "helm upgrade with crds.install, or tidegate install, brings it",
    )
}

/// Sidecars that were put in by an older version than the controller's.
pub(super) fn proxies(injected: &[(String, String)], running: Option<&str>) -> Finding {
    let subject = "sidecars";
    let running = running.unwrap_or(VERSION);
    let older: Vec<&str> = injected
        .iter()
        .filter(|(_, version)| compare(version, running) != Some(Ordering::Equal))
        .map(|(pod, _)| pod.as_str())
        .collect();
    let Some(first) = older.first() else {
        return Finding::well(subject, format!("{}, all of {running}", count(injected.len(), "pod")));
    };
    let said = format!("{} not of {running}, the first {first}", count(older.len(), "pod"));
    let remedy = "kubectl rollout restart what made them; they work on until then";
    Finding::new(Weight::ToDo, subject, said, remedy)
}

/// How long the certificate in a Secret still lives.
pub(super) fn certificate(name: &str, secret: Option<&DynamicObject>) -> Finding {
    let subject = format!("certificate {name}");
    let Some(secret) = secret else {
        return Finding::new(
            Weight::ToDo,
            &subject,
            "is not there",
            "the controller makes it when it starts",
        );
    };
    let Some((begin, end)) = life(&secret.data["data"]["tls.crt"]) else {
        let remedy =
            "put a PEM certificate under tls.crt, or delete the Secret: the controller makes a new one";
        return Finding::new(Weight::InTheWay, &subject, "tls.crt holds no certificate", remedy);
    };
    let left = end - now();
    #[expect(clippy::cast_precision_loss, reason = "days are printed")]
    let said = format!("ends in {}", span(left.max(0) as f64));
    match left {
        ..=0 => Finding::new(Weight::InTheWay, &subject, "has ended", remedy_of(name)),
        left if left < NOTICE_SECONDS.min((end - begin) / LEFT_LEAST) => {
            Finding::new(Weight::ToDo, &subject, said, remedy_of(name))
        }
        _ => Finding::well(&subject, said),
    }
}

fn remedy_of(name: &str) -> &'static str {
    if name == "tidegate-issuer" {
        "renew the issuer: add the new one to MeshTrust first, then replace the Secret"
    } else {
        "the controller renews it: see its log; deleting the Secret makes it anew"
    }
}

/// When the first certificate of a Secret's field begins and ends, in seconds since 1970.
fn life(field: &Value) -> Option<(i64, i64)> {
    let pem: ByteString = serde_json::from_value(field.clone()).ok()?;
    let first = Pem::iter_from_buffer(&pem.0).next()?.ok()?;
    let certificate = first.parse_x509().ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
