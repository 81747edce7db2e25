//! conditions: what statuses say, in the Gateway API's words, and whether there is something to write.
//!
//! A status is worked out anew from the index each time and laid over what stands in the cluster by
//! [`policy_status`] or [`route_status`]. Both are pure: the old status in, the new one out, or `None` when
//! nothing would change, so that an index that settles writes nothing. What they keep to:
//!
//! - `lastTransitionTime` moves when `status` flips and at no other time; a new reason or message alone
//!   keeps it.
//! - `observedGeneration` stands in every condition, so that `kubectl wait` and people can tell an answer
//!   from one to an older spec.
//! - A condition of ours that no longer applies is removed (`PartiallyInvalid` is there or not there); one
//!   of a type that is none of [`ConditionType`] belongs to somebody else and stays.
//! - A route's `status.parents[]` is shared by all controllers, as one list that is written whole. Entries
//!   of others are left as they are and where they are; ours are one for each `parentRef` as it is
//!   written. Therefore write with the `resourceVersion` that `old` was read with, and start again on 409.

use policy::limits;
use policy::name::Label;
use serde_json::{Map, Value, json};

use crate::async_policy::AsyncTarget;
use crate::route::ParentRef;

/// Who writes our entries (`controllerName`).
pub const CONTROLLER: &str = "tidegate.dev/controller";

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $word:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $word,)* }

        impl $name {
            /// As a status spells it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$word => stringify!($word),)* }
            }
        }
    };
}

words! {
    /// What a condition is about.
    ConditionType {
        /// The object is valid, and in force.
        Accepted,
        /// Everything it refers to is there, and may be referred to.
        ResolvedRefs,
        /// Every connected proxy that needs it has it in force.
        Programmed,
        /// A part of it is left out; there only while that is so, and then true.
        PartiallyInvalid,
    }
}

/// The conditions that are written and removed here.
const OURS: [ConditionType; 4] = [
    ConditionType::Accepted,
    ConditionType::ResolvedRefs,
    ConditionType::Programmed,
    ConditionType::PartiallyInvalid,
];

words! {
    /// Whether a condition holds.
    Truth {
        /// It does.
        True,
        /// It does not.
        False,
        /// Nobody knows.
        Unknown,
    }
}

words! {
    /// Why, in one word.
    Reason {
        /// `Accepted` is true.
        Accepted,
        /// `Accepted` is false: another policy holds for the target.
        Conflicted,
        /// `Accepted` is false: a field is wrong.
        Invalid,
        /// `Accepted` is false: the policy's target is not there.
        TargetNotFound,
        /// `Accepted` is false: the route's parent is not there.
        NoMatchingParent,
        /// `Accepted` is false, or `PartiallyInvalid` true: a value that this version does not carry out.
        UnsupportedValue,
        /// `ResolvedRefs` is true.
        ResolvedRefs,
        /// `ResolvedRefs` is false: a backend is not there.
        BackendNotFound,
        /// `ResolvedRefs` is false: something else that is named is not there, or cannot be used.
        RefNotFound,
        /// `ResolvedRefs` is false: a reference to a kind that cannot be one.
        InvalidKind,
        /// `ResolvedRefs` is false: a ReferenceGrant is missing.
        RefNotPermitted,
        /// `Programmed` is true: every proxy has acknowledged it.
        Programmed,
        /// `Programmed` is true: no connected proxy needs it.
        NoSubscribers,
        /// `Programmed` is false or unknown: some proxies have not acknowledged it yet.
        Pending,
    }
}

/// One condition, without what the cluster adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub about: ConditionType,
    /// Whether it holds.
    pub status: Truth,
    /// Why.
    pub reason: Reason,
    /// Why, for people, and what helps; cut at [`limits::CONDITION_MESSAGE_CHARS_MAX`].
    pub message: String,
}

/// Of which spec a status speaks, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment<'a> {
    /// `metadata.generation` of the object that was looked at.
    pub generation: i64,
    /// Now, RFC 3339 in UTC with whole seconds, as `metav1.Time` is written: `2026-01-31T12:00:00Z`.
    pub time: &'a str,
}

/// What an entry of a status is about: a parent or a target, as its object names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(Value);

/// What is said of one parent or target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The parent or target.
    pub of: Reference,
    /// What is said of it.
    pub conditions: Vec<Condition>,
}

impl Reference {
    /// A Service of the object's own namespace.
    #[must_use]
    pub fn service(name: &Label) -> Self {
        Self(json!({"group": "", "kind": "Service", "name": name.as_str()}))
    }
}

/// The parents of a route that are Services, as its `spec` writes them: for a route that cannot be read as a
/// whole, and is to be told so.
#[must_use]
pub fn services_named(spec: &Value) -> Vec<Reference> {
    let parents = spec["parentRefs"].as_array().map_or(&[][..], Vec::as_slice);
    let is_service = |parent: &&Value| {
        matches!(parent["group"].as_str(), Some("" | "core")) && parent["kind"] == "Service"
    };
    let reference = |parent: &Value| {
        let fields = ["group", "kind", "namespace", "name", "sectionName", "port"];
        let written = fields.into_iter().filter(|field| !parent[field].is_null());
        Reference(
            written.map(|field| (field.to_owned(), parent[field].clone())).collect::<Map<_, _>>().into(),
        )
    };
    parents.iter().filter(is_service).take(limits::STATUS_PARENTS_MAX).map(reference).collect()
}

impl From<&AsyncTarget> for Reference {
    fn from(target: &AsyncTarget) -> Self {
        let route =
            |name: &str| json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name});
        match target {
            AsyncTarget::Service(name) => Self::service(name),
            AsyncTarget::Route(name) => Self(route(name.as_str())),
            AsyncTarget::Rule(name, rule) => {
                let mut reference = route(name.as_str());
                reference["sectionName"] = rule.as_str().into();
                Self(reference)
            }
        }
    }
}

impl From<&ParentRef> for Reference {
    /// Only what is written, but group and kind always: the empty group is a Service's, and a reader
    /// takes an absent one for the Gateway API's.
    fn from(parent: &ParentRef) -> Self {
        let mut reference = json!({"group": parent.group, "kind": parent.kind, "name": parent.name});
        if let Some(namespace) = &parent.namespace {
            reference["namespace"] = namespace.as_str().into();
        }
        if let Some(section) = &parent.section {
            reference["sectionName"] = section.as_str().into();
        }
        if let Some(port) = parent.port {
            reference["port"] = port.into();
        }
        Self(reference)
    }
}

/// The status of one of our kinds: `old` as it stands, `conditions` for the whole and `targets` for each
/// entry of `spec.targetRefs` (none for kinds without). `None` when nothing would change.
#[must_use]
pub fn policy_status(
    old: &Value,
    conditions: &[Condition],
    targets: &[Entry],
    at: Moment<'_>,
) -> Option<Value> {
    let mut status = if old.is_object() { old.clone() } else { json!({}) };
    status["conditions"] = merge(&old["conditions"], conditions, at);
    status["observedGeneration"] = at.generation.into();
    let entries = entries(&old["ancestors"], "ancestorRef", targets, limits::POLICY_TARGETS_MAX, at);
    if !entries.is_empty() || !old["ancestors"].is_null() {
        status["ancestors"] = entries.into();
    }
    (status != *old).then_some(status)
}

/// The status of a route: `old` as it stands, and `parents` for each of its `parentRefs` that is ours.
/// `None` when nothing would change.
#[must_use]
pub fn route_status(old: &Value, parents: &[Entry], at: Moment<'_>) -> Option<Value> {
    let mut status = if old.is_object() { old.clone() } else { json!({}) };
    let entries = entries(&old["parents"], "parentRef", parents, limits::STATUS_PARENTS_MAX, at);
    if entries.is_empty() && old["parents"].is_null() {
        return None;
    }
    status["parents"] = entries.into();
    (status != *old).then_some(status)
}

/// The list with the entries of others where they are, then ours; `most` in all, for the API server
/// refuses a longer one.
fn entries(old: &Value, field: &str, new: &[Entry], most: usize, at: Moment<'_>) -> Vec<Value> {
    let old: &[Value] = old.as_array().map_or(&[], Vec::as_slice);
    let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER;
    let mut list: Vec<Value> = old.iter().filter(|entry| !is_ours(entry)).cloned().collect();
    for entry in new.iter().take(most.saturating_sub(list.len())) {
        let was = old.iter().filter(is_ours).find(|old| old[field] == entry.of.0);
        let conditions = merge(&was.unwrap_or(&Value::Null)["conditions"], &entry.conditions, at);
        list.push(json!({field: entry.of.0, "controllerName": CONTROLLER, "conditions": conditions}));
    }
    // The order of the list is the writers'; one that only differs in it is no change.
    let same = |list: &[Value]| list.len() == old.len() && list.iter().all(|entry| old.contains(entry));
    if same(&list) { old.to_vec() } else { list }
}

/// `new` over the conditions that stand in `old`.
fn merge(old: &Value, new: &[Condition], at: Moment<'_>) -> Value {
    let old: &[Value] = old.as_array().map_or(&[], Vec::as_slice);
    let is_ours = |entry: &Value| OURS.iter().any(|about| entry["type"] == about.as_str());
    let made = new.iter().map(|condition| {
        let was = old.iter().find(|entry| entry["type"] == condition.about.as_str());
        spell(condition, was, at)
    });
    let mut list: Vec<Value> = made.collect();
    list.extend(old.iter().filter(|entry| !is_ours(entry)).cloned());
    list.into()
}

fn spell(condition: &Condition, was: Option<&Value>, at: Moment<'_>) -> Value {
    let status = condition.status.as_str();
    let since = was.filter(|was| was["status"] == status).and_then(|was| was["lastTransitionTime"].as_str());
    let message: String = condition.message.chars().take(limits::CONDITION_MESSAGE_CHARS_MAX).collect();
    json!({
        "type": condition.about.as_str(),
        "status": status,
        "reason": condition.reason.as_str(),
        "message": message,
        "lastTransitionTime": since.unwrap_or(at.time),
        "observedGeneration": at.generation,
    })
}

#[cfg(test)]
mod tests;
