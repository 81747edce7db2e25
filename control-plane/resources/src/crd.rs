//! crd: the CustomResourceDefinitions of our kinds, made of what their readers know.
//!
//! Policies that have targets follow the shape of the Gateway API's direct policies (GEP-713): one entry
//! of `status.ancestors` for every target as it is written, since one of them may be missing or held by
//! an older policy while the others are in force. Beside it every kind has `status.conditions`, the sum
//! of it: what is in a column of `kubectl get`, what `kubectl wait` waits for, and all there is for an
//! AccessPolicy, which selects pods by label, and a MeshTrust, which has no target.

use policy::limits;
use serde_json::{Value, json};

use crate::access_policy::AccessPolicy;
use crate::async_policy::AsyncPolicy;
use crate::backend_policy::BackendPolicy;
use crate::mesh_trust::MeshTrust;
use crate::object::{GROUP, VERSION};
use crate::schema::Schema;

/// One of our kinds, as the API server knows it.
struct Kind {
    name: &'static str,
    plural: &'static str,
    short: &'static str,
    /// What `kubectl explain` says first.
    says: &'static str,
    spec: Schema,
    /// What it is attached to.
    attached: Attached,
    /// Columns of its own, by name, type and path.
    columns: &'static [(&'static str, &'static str, &'static str)],
}

enum Attached {
    /// To `spec.targetRefs`.
    Targets,
    /// To pods by label.
    Pods,
    /// To the whole mesh.
    Mesh,
}

const TARGET: (&str, &str, &str) = ("Target", "string", ".spec.targetRefs[*].name");
const MODE: (&str, &str, &str) = ("Mode", "string", ".spec.mode");
const SELECTOR: (&str, &str, &str) = ("Target", "string", ".spec.selector.matchLabels");
const DEFAULT: (&str, &str, &str) = ("Default", "string", ".spec.default");

/// The definitions of every kind of `tidegate.dev`, in the order they are applied.
#[must_use]
pub fn crds() -> Vec<Value> {
    kinds().into_iter().map(definition).collect()
}

/// The same as files: a name, `asyncpolicies.yaml`, and YAML.
#[must_use]
pub fn crd_files() -> Vec<(String, String)> {
    let file = |kind: Kind| {
        let name = format!("{}.yaml", kind.plural);
        let body = serde_saphyr::to_string(&definition(kind)).expect("maps, lists and texts are YAML");
        (
            name,
            format!("# Made by `tidegate crds` of the types of Tidegate; changed there, not here.\n{body}"),
        )
    };
    kinds().into_iter().map(file).collect()
}

fn kinds() -> [Kind; 4] {
    [
        Kind {
            name: "AccessPolicy",
            plural: "accesspolicies",
            short: "accesspol",
            says: "Who may reach the pods it selects.",
            spec: AccessPolicy::schema(),
            attached: Attached::Pods,
            columns: &[SELECTOR, DEFAULT],
        },
        Kind {
            name: "AsyncPolicy",
            plural: "asyncpolicies",
            short: "asyncpol",
            says: "Requests that are taken to disk by the sender's sidecar, answered 202, and delivered when their \
                   receiver can take them.",
            spec: AsyncPolicy::schema(),
            attached: Attached::Targets,
            columns: &[TARGET, MODE],
        },
        Kind {
            name: "BackendPolicy",
            plural: "backendpolicies",
            short: "backendpol",
            says: "How Services are used by their clients: protocols, balancing, retries, bounds.",
            spec: BackendPolicy::schema(),
            attached: Attached::Targets,
            columns: &[TARGET],
        },
        Kind {
            name: "MeshTrust",
            plural: "meshtrusts",
            short: "trust",
            says: "Certificates that the mesh trusts beside its own issuer. There is one for the whole mesh: of \
                   several the oldest holds.",
            spec: MeshTrust::schema(),
            attached: Attached::Mesh,
            columns: &[],
        },
    ]
}

fn definition(kind: Kind) -> Value {
    let scope = if matches!(kind.attached, Attached::Mesh) { "Cluster" } else { "Namespaced" };
    let mut labels = json!({"app.kubernetes.io/part-of": "tidegate"});
    if !matches!(kind.attached, Attached::Mesh) {
        labels["gateway.networking.k8s.io/policy"] = "Direct".into();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{GROUP}", kind.plural), "labels": labels},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind.name,
                "listKind": format!("{}List", kind.name),
                "plural": kind.plural,
                "singular": kind.name.to_lowercase(),
                "shortNames": [kind.short],
                "categories": ["tidegate"],
            },
            "versions": [version(kind)],
        },
    })
}

fn version(kind: Kind) -> Value {
    let column = |(name, of, path): &(&str, &str, &str)| json!({"name": name, "type": of, "jsonPath": path});
    let condition = |name: &str| {
        let path = format!(".status.conditions[?(@.type==\"{name}\")].status");
        json!({"name": name, "type": "string", "jsonPath": path})
    };
    let mut columns: Vec<Value> = kind.columns.iter().map(column).collect();
    columns.extend([condition("Accepted"), condition("Programmed")]);
    columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    json!({
        "name": VERSION,
        "served": true,
        "storage": true,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "description": kind.says,
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string", "description": format!("{GROUP}/{VERSION}.")},
                "kind": {"type": "string", "description": format!("{}.", kind.name)},
                "metadata": {"type": "object"},
                "spec": kind.spec.value(),
                "status": status(&kind.attached),
            },
        }},
    })
}

fn status(attached: &Attached) -> Value {
    let mut properties = json!({
        "conditions": conditions(),
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "description": "The generation of the spec that the conditions speak of.",
        },
    });
    if matches!(attached, Attached::Targets) {
        properties["ancestors"] = ancestors();
    }
    json!({"type": "object", "description": "What became of it, as the controller sees it.", "properties": properties})
}

/// `metav1.Condition`.
fn conditions() -> Value {
    let text =
        |chars_max: usize, says: &str| json!({"type": "string", "maxLength": chars_max, "description": says});
    json!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "description": "Accepted: it is valid and in force. ResolvedRefs: what it names is there. Programmed: every \
            connected proxy that needs it has it in force.",
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": text(316, "Which condition."),
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "reason": text(1024, "Why, in one word."),
                "message": text(limits::CONDITION_MESSAGE_CHARS_MAX, "Why, and what helps."),
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "Since when the status is this."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The generation it speaks of."},
            },
        },
    })
}

/// `gateway.networking.k8s.io/v1` PolicyStatus.
fn ancestors() -> Value {
    let text = |says: &str| json!({"type": "string", "maxLength": 253, "description": says});
    json!({
        "type": "array",
        "maxItems": limits::POLICY_TARGETS_MAX,
        "x-kubernetes-list-type": "atomic",
        "description": "What became of it for each target.",
        "items": {
            "type": "object",
            "required": ["ancestorRef", "controllerName"],
            "properties": {
                "ancestorRef": {
                    "type": "object",
                    "required": ["name"],
                    "description": "The target, as the policy names it.",
                    "properties": {
                        "group": text("Its API group."),
                        "kind": text("Its kind."),
                        "namespace": text("Its namespace; the policy's own where none is written."),
                        "name": text("Its name."),
                        "sectionName": text("A part of it by name."),
                        "port": Schema::port().says("A port of it.").value(),
                    },
                },
                "controllerName": text("Who wrote this entry."),
                "conditions": conditions(),
            },
        },
    })
}
