//! verdict: what there is to say of an object as the index has it; whether proxies have it comes later.
//!
//! Pure. What is said is asked of the functions that decide what proxies are told, so that a status
//! cannot differ from what happens.

use resources::ObjectId;
use resources::conditions::{Condition, ConditionType, Reason, Reference, Truth};

use super::{policies, routes};
use crate::documents::Need;
use crate::index::{Index, Named};

/// Causes that one message names; of more the number is told.
const CAUSES_MAX: usize = 8;

/// What there is to say of one object.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    /// Which of its specs that is.
    pub(super) generation: i64,
    /// Of the whole; none for routes, which are spoken of by parent alone.
    pub(super) whole: Option<Part>,
    /// Of each parent or target.
    pub(super) parts: Vec<(Reference, Part)>,
}

impl Verdict {
    /// The whole, where there is one, then each parent or target.
    pub(super) fn every_part(&self) -> impl Iterator<Item = &Part> {
        self.whole.iter().chain(self.parts.iter().map(|(_, part)| part))
    }
}

/// What there is to say of the whole, a parent or a target.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    /// All but [`ConditionType::Programmed`].
    pub(super) conditions: Vec<Condition>,
    /// Whose proxies need it; `None` where it is not in force.
    pub(super) needs: Option<Vec<Need>>,
}

/// Why something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What there is to say of `id`; `None` where the index has no such object.
pub(super) fn verdict(index: &Index, id: &ObjectId) -> Option<Verdict> {
    let named: Named = (id.namespace.clone(), id.name.clone());
    match id.kind {
        "HTTPRoute" => index.http_route(&named).map(|route| routes::verdict(index, route)),
        "GRPCRoute" => index.grpc_route(&named).map(|route| routes::verdict(index, route)),
        "BackendPolicy" => index.backend_policy_named(&named).map(|policy| policies::backend(index, policy)),
        "AccessPolicy" => index.access_policy_named(&named).map(|policy| policies::access(index, policy)),
        "AsyncPolicy" => index.async_policy_named(&named).map(|policy| policies::asynchronous(index, policy)),
        "MeshTrust" => index.trust_named(&id.name).map(|trust| policies::trust(index, trust)),
        _ => None,
    }
}

/// `Accepted`: true, or what is wrong.
pub(super) fn accepted(wrong: Option<&Wrong>, said: &str) -> Condition {
    condition(ConditionType::Accepted, wrong, (Reason::Accepted, said))
}

/// `ResolvedRefs`: true, or what is wrong.
pub(super) fn resolved(wrong: Option<&Wrong>) -> Condition {
    condition(ConditionType::ResolvedRefs, wrong, (Reason::ResolvedRefs, "Everything it names is there."))
}

fn condition(about: ConditionType, wrong: Option<&Wrong>, (reason, said): (Reason, &str)) -> Condition {
    match wrong {
        None => Condition { about, status: Truth::True, reason, message: said.to_owned() },
        Some(wrong) => {
            Condition { about, status: Truth::False, reason: wrong.reason, message: wrong.message.clone() }
        }
    }
}

/// Several things that are wrong as one, by the reason of the first.
pub(super) fn joined<'a>(mut all: impl Iterator<Item = &'a Wrong>) -> Option<Wrong> {
    let first = all.next()?;
    let mut messages = vec![first.message.as_str()];
    let mut more = 0_usize;
    for wrong in all {
        if messages.contains(&wrong.message.as_str()) {
            continue;
        }
        if messages.len() < CAUSES_MAX {
            messages.push(&wrong.message);
        } else {
            more += 1;
        }
    }
    let mut message = messages.join("; ");
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    Some(Wrong { reason: first.reason, message })
}
