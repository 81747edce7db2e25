//! asynchronous: which AsyncPolicy holds where.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::name::{Domain, Label};
use policy::queue::{AsyncPolicy, Sink};
use resources::{AsyncTarget, Meta, Secret};

use super::{Index, Named};

/// The AsyncPolicies in force, by their own name and by what they hold for.
#[derive(Debug, Default)]
pub(crate) struct AsyncPolicies {
    by_name: BTreeMap<Named, Arc<AsyncPolicy>>,
    by_target: BTreeMap<(String, AsyncTarget), Arc<AsyncPolicy>>,
}

impl AsyncPolicies {
    /// Of two policies for one target the one of lesser rank holds.
    pub(super) fn new(
        mut policies: Vec<resources::AsyncPolicy>,
        secrets: &BTreeMap<Named, Secret>,
        index: &Index,
    ) -> Self {
        policies.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut found = Self::default();
        for policy in policies {
            let says = complete(&policy, secrets, sink(&policy, index));
            let namespace = policy.meta.namespace.to_string();
            found.by_name.insert((namespace.clone(), policy.meta.name.to_string()), says.clone());
            for target in policy.targets {
                found.by_target.entry((namespace.clone(), target)).or_insert_with(|| says.clone());
            }
        }
        found
    }

    /// The policy of this name.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<Arc<AsyncPolicy>> {
        self.by_name.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// What holds for a Service where no rule says otherwise.
    pub(crate) fn of_service(&self, (namespace, name): &Named) -> Option<Arc<AsyncPolicy>> {
        self.of(namespace, AsyncTarget::Service(Label::new(name).ok()?))
    }

    /// What an HTTPRoute's rule has of its own: what names the rule goes before what names the route.
    pub(crate) fn of_rule(&self, route: &Meta, rule: Option<&str>) -> Option<Arc<AsyncPolicy>> {
        let namespace = route.namespace.as_str();
        let name = || -> Domain { route.name.clone() };
        rule.and_then(|rule| self.of(namespace, AsyncTarget::Rule(name(), rule.to_owned())))
            .or_else(|| self.of(namespace, AsyncTarget::Route(name())))
    }

    fn of(&self, namespace: &str, target: AsyncTarget) -> Option<Arc<AsyncPolicy>> {
        self.by_target.get(&(namespace.to_owned(), target)).cloned()
    }
}

/// What a policy says, with its callbacks' key and its sink; without the key, without callbacks.
fn complete(
    policy: &resources::AsyncPolicy,
    secrets: &BTreeMap<Named, Secret>,
    sink: Option<Sink>,
) -> Arc<AsyncPolicy> {
    let mut says = AsyncPolicy::clone(&policy.says);
    says.delivery.sink = sink;
    if let Some(name) = &policy.callback_secret {
        let secret = secrets.get(&(policy.meta.namespace.to_string(), name.to_string()));
        match secret.and_then(|secret| secret.signing_key.as_ref().ok()) {
            Some(key) => says.callback_secret = Some(key.clone()),
            None => says.callback_hosts = Vec::new(),
        }
    }
    Arc::new(says)
}

/// Where a policy's dead letters are sent on to; where that cannot be, they stay in the built-in one.
fn sink(policy: &resources::AsyncPolicy, index: &Index) -> Option<Sink> {
    let (sink, own) = (policy.sink.as_ref()?, &policy.meta.namespace);
    let named = (sink.namespace.to_string(), sink.name.to_string());
    let granted = index.is_granted("AsyncPolicy", own.as_str(), &named);
    sink.resolve(own, index.service(&named), granted).ok()
}
