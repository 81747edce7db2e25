//! template: the pods of a document of any kind that makes pods.

use serde_json::Value;

use super::{NOT_INJECTED, Settings, Surroundings, Verdict, inject};

/// What became of a document: itself, and a word for each thing in it that makes pods.
#[derive(Debug, Clone, PartialEq)]
pub struct InjectedDocument {
    /// As it is to be.
    pub value: Value,
    /// `Deployment shop/orders` and what became of its pods, in the order they stand.
    pub verdicts: Vec<(String, Verdict)>,
}

/// Gives every pod and pod template of a document its sidecar, those of a List included. What makes no
/// pods stays as it is and has no verdict.
#[must_use]
pub fn inject_document(document: &Value, around: &Surroundings, settings: &Settings) -> InjectedDocument {
    let mut done = InjectedDocument { value: document.clone(), verdicts: Vec::new() };
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match done.value.get_mut("items").and_then(Value::as_array_mut) {
        Some(items) if is_list => {
            for item in items {
                done.verdicts.extend(one(item, around, settings));
            }
        }
        _ => done.verdicts.extend(one(&mut done.value, around, settings)),
    }
    done
}

fn one(object: &mut Value, around: &Surroundings, settings: &Settings) -> Option<(String, Verdict)> {
    let place = match object["kind"].as_str()? {
        "Pod" => "",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            "/spec/template"
        }
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    let name = name(object);
    let pod = object.pointer_mut(place).filter(|pod| pod.is_object())?;
    let mut verdict = inject(pod, around, settings);
    match &mut verdict {
        Verdict::Injected { pod: changed, .. } => *pod = changed.clone(),
        Verdict::LeftOut { pod: marked, .. } => {
            // In a file the word on the terminal is enough: nobody asks a template why.
            if let Some(annotations) = marked["metadata"]["annotations"].as_object_mut() {
                annotations.remove(NOT_INJECTED);
            }
        }
        Verdict::Unchanged(_) | Verdict::Refused(_) => {}
    }
    Some((name, verdict))
}

fn name(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    let meta = &object["metadata"];
    let name = meta["name"].as_str().or(meta["generateName"].as_str()).unwrap_or("without a name");
    match meta["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}
