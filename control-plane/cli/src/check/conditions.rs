//! conditions: objects whose status says that something of them is not in force.

use kube::Client;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::definitions::{GROUP, VERSION};
use super::finding::Finding;
use crate::answer::every;
use crate::print::count;

/// Who writes our entries of a route's status.
const CONTROLLER: &str = "tidegate.dev/controller";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// A kind that the controller writes statuses of.
struct Kind {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    /// The list of its status that has an entry of each controller; none where the status is ours alone.
    entries: Option<&'static str>,
}

const fn ours(name: &'static str) -> Kind {
    Kind { group: GROUP, version: VERSION, name, entries: None }
}

const fn route(name: &'static str) -> Kind {
    Kind { group: GATEWAY, version: "v1", name, entries: Some("parents") }
}

const KINDS: [Kind; 6] = [
    ours("AccessPolicy"),
    ours("AsyncPolicy"),
    ours("BackendPolicy"),
    ours("MeshTrust"),
    route("HTTPRoute"),
    route("GRPCRoute"),
];

/// Looks at every object of these kinds.
pub(super) async fn look(client: &Client) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut all = 0;
    for kind in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, kind.version, kind.name));
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let looked = every(&objects, ListParams::default(), |object: DynamicObject| {
            all += 1;
            findings.extend(judge(&kind, &object));
        });
        match looked.await {
            Ok(()) => {}
            // The kind is not there: that is told with the definitions.
            Err(error) if error.is_absent() => {}
            Err(error) => findings.push(Finding::unknown(resource.plural, error.to_string())),
        }
    }
    let well = all - findings.iter().filter(|finding| finding.remedy.is_some()).count().min(all);
    if well > 0 {
        findings.push(Finding::ok("objects", format!("{well} of {} in force", count(all, "object"))));
    }
    findings
}

/// What an object's status says against it: one finding at most.
fn judge(kind: &Kind, object: &DynamicObject) -> Option<Finding> {
    let status = &object.data["status"];
    let named = match object.namespace() {
        Some(namespace) => format!("{} {namespace}/{}", kind.name, object.name_any()),
        None => format!("{} {}", kind.name, object.name_any()),
    };
    let conditions: Vec<&Value> = match kind.entries {
        None => list(&status["conditions"]).iter().collect(),
        Some(entries) => {
            let ours = list(&status[entries]).iter().filter(|entry| entry["controllerName"] == CONTROLLER);
            ours.flat_map(|entry| list(&entry["conditions"])).collect()
        }
    };
    if conditions.is_empty() {
        // A route may be another's; of ours the controller says something at once.
        return kind.entries.is_none().then(|| {
            let remedy = "is the controller there, and does it lead? see above";
            Finding::warning(named, "has no status: no controller has looked at it", remedy)
        });
    }
    let is = |condition: &&&Value, name: &str, status: &str| {
        condition["type"] == name && condition["status"] == status
    };
    for name in ["Accepted", "ResolvedRefs", "Programmed"] {
        if let Some(condition) = conditions.iter().find(|condition| is(condition, name, "False")) {
            let remedy = match name {
                "Accepted" => "mend what it names; tidegate validate says it for files",
                "ResolvedRefs" => "make what it names, or a ReferenceGrant that permits it",
                _ => "see the proxies above: which has not acknowledged it?",
            };
            return Some(Finding::failed(named, said(condition), remedy));
        }
    }
    let partial = conditions.iter().find(|condition| is(condition, "PartiallyInvalid", "True"));
    if let Some(condition) = partial {
        return Some(Finding::warning(
            named,
            said(condition),
            "mend the part it names; the rest is in force",
        ));
    }
    let stale = |condition: &&&Value| condition["observedGeneration"].as_i64() < object.metadata.generation;
    conditions.iter().any(|condition| stale(&condition)).then(|| {
        let said = "its status speaks of an older generation";
        Finding::warning(named, said, "ask again; when it stays, see whether a controller leads")
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `Accepted is False (Conflicted): another policy holds`.
fn said(condition: &Value) -> String {
    let text = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
    format!("{} is {} ({}): {}", text("type"), text("status"), text("reason"), text("message"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    fn judged(kind: &Kind, status: Value) -> Option<(Level, String)> {
        let object = json!({
            "apiVersion": "x/v1", "kind": kind.name, "status": status,
            "metadata": {"name": "orders", "namespace": "shop", "generation": 2},
        });
        let finding = judge(kind, &serde_json::from_value(object).unwrap())?;
        Some((finding.level, format!("{}: {}", finding.object, finding.says)))
    }

    fn condition(about: &str, status: &str, generation: i64) -> Value {
        json!({
            "type": about, "status": status, "reason": "Why", "message": "because",
            "observedGeneration": generation,
        })
    }

    #[test]
    fn a_condition_that_does_not_hold_is_told_in_its_words() {
        let status =
            json!({"conditions": [condition("Accepted", "True", 2), condition("Programmed", "False", 2)]});
        let said = "AsyncPolicy shop/orders: Programmed is False (Why): because";
        assert_eq!(judged(&ours("AsyncPolicy"), status), Some((Level::Failed, said.to_owned())));
        let good = json!({"conditions": [condition("Accepted", "True", 2)]});
        assert_eq!(judged(&ours("AsyncPolicy"), good), None);
        let old = json!({"conditions": [condition("Accepted", "True", 1)]});
        assert_eq!(judged(&ours("AsyncPolicy"), old).map(|(level, _)| level), Some(Level::Warning));
        assert_eq!(judged(&ours("AsyncPolicy"), Value::Null).map(|(level, _)| level), Some(Level::Warning));
        let partial = json!({"conditions": [condition("Accepted", "True", 2), condition("PartiallyInvalid", "True", 2)]});
        assert_eq!(judged(&ours("AsyncPolicy"), partial).map(|(level, _)| level), Some(Level::Warning));
    }

    #[test]
    fn of_a_route_only_our_entry_counts() {
        let entry = |controller: &str| json!({"controllerName": controller, "conditions": [condition("Accepted", "False", 2)]});
        let others = json!({"parents": [entry("istio.io/gateway-controller")]});
        assert_eq!(judged(&route("HTTPRoute"), others), None);
        let both = json!({"parents": [entry("istio.io/gateway-controller"), entry(CONTROLLER)]});
        let said = "HTTPRoute shop/orders: Accepted is False (Why): because";
        assert_eq!(judged(&route("HTTPRoute"), both), Some((Level::Failed, said.to_owned())));
    }
}
