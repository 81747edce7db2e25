//! write: one status read, laid over what stands there, and written where that changes something.
//!
//! The lists in a status are atomic, and other controllers write in them too: what is written carries
//! the version that was read, and is worked out anew where somebody was faster.

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client};
use policy::limits;
use resources::ObjectId;
use resources::conditions::{Condition, Entry, Moment, policy_status, route_status, services_named};
use serde_json::Value;

use super::counts::Outcome;
use crate::asked::{Refusal, ask};
use crate::cluster::{KINDS, Kind};

/// What a status is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// Of which spec.
    pub(super) generation: i64,
    /// Of the whole; of a route that cannot be read, of each parent.
    pub(super) whole: Vec<Condition>,
    /// Of each parent or target.
    pub(super) parts: Vec<Entry>,
}

/// Why a status is not written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) outcome: Outcome,
    /// Whether it goes for all objects of the kind: a permission is missing.
    pub(super) is_of_kind: bool,
    /// Why, and what helps.
    pub(super) error: anyhow::Error,
}

/// Writes the status of `id`, an object of `version` of its kind.
///
/// # Errors
/// What the API server has against it.
///
/// # Cancel safety
/// It is written or not; which of the two the next try finds out.
pub(super) async fn write(
    client: &Client,
    id: &ObjectId,
    version: &str,
    words: &Words,
) -> Result<Outcome, Unwritten> {
    let Some(kind) = KINDS.iter().find(|kind| kind.name == id.kind) else { return Ok(Outcome::Outdated) };
    let api = api(client, kind, id, version);
    for _ in 0..limits::STATUS_TRIES_MAX {
        let found = ask(format!("get {id}"), api.get_opt(&id.name)).await;
        let Some(mut object) = found.map_err(|refusal| unwritten(refusal, kind, "get"))? else {
            return Ok(Outcome::Outdated);
        };
        if object.metadata.generation.unwrap_or(0) != words.generation {
            return Ok(Outcome::Outdated);
        }
        let Some(status) = laid_over(&object.data, kind, words) else { return Ok(Outcome::Unchanged) };
        object.data["status"] = status;
        let doing = format!("update the status of {id}");
        match ask(doing, api.replace_status(&id.name, &PostParams::default(), &object)).await {
            Ok(_) => return Ok(Outcome::Written),
            Err(refusal) if refusal.has_code(409) => {}
            Err(refusal) if refusal.has_code(404) => return Ok(Outcome::Outdated),
            Err(refusal) => return Err(unwritten(refusal, kind, "update")),
        }
    }
    Ok(Outcome::Contended)
}

fn api(client: &Client, kind: &Kind, id: &ObjectId, version: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: kind.group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{}/{version}", kind.group),
        kind: kind.name.to_owned(),
        plural: kind.plural.to_owned(),
    };
    if kind.is_cluster_wide() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &id.namespace, &resource)
    }
}

/// The new status; `None` where it says the same.
fn laid_over(object: &Value, kind: &Kind, words: &Words) -> Option<Value> {
    let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (old, at) = (&object["status"], Moment { generation: words.generation, time: &time });
    if !matches!(kind.name, "HTTPRoute" | "GRPCRoute") {
        return policy_status(old, &words.whole, &words.parts, at);
    }
    if words.whole.is_empty() {
        return route_status(old, &words.parts, at);
    }
    let of_each = services_named(&object["spec"]).into_iter();
    let parts: Vec<Entry> = of_each.map(|of| Entry { of, conditions: words.whole.clone() }).collect();
    route_status(old, &parts, at)
}

fn unwritten(refusal: Refusal, kind: &Kind, verb: &str) -> Unwritten {
    let outcome = if refusal.is_passing() { Outcome::Unavailable } else { Outcome::Refused };
    let subresource = if verb == "update" { "/status" } else { "" };
    let is_of_kind = refusal.has_code(403);
    let mut error = anyhow::Error::from(refusal);
    if is_of_kind {
        let Kind { plural, group, .. } = kind;
        error = error.context(format!(
            "grant {verb} on {plural}{subresource} of {group} in the ClusterRole tidegate-controller"
        ));
    }
    Unwritten { outcome, is_of_kind, error }
}
