//! asynchronous: which AsyncPolicy holds where.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::name::{Domain, Label};
use policy::queue::{AsyncPolicy, Sink};
use resources::{AsyncTarget, Meta, Secret};

use super::{Index, Named, within};

/// The AsyncPolicies, and what of them is in force.
#[derive(Debug, Default)]
pub(crate) struct AsyncPolicies {
    policies: BTreeMap<Named, resources::AsyncPolicy>,
    secrets: BTreeMap<Named, Secret>,
    in_force: BTreeMap<String, InForce>,
}

/// The AsyncPolicies of one namespace, by their own name and by what they hold for.
#[derive(Debug, Default)]
pub(super) struct InForce {
    by_name: BTreeMap<String, Arc<AsyncPolicy>>,
    by_target: BTreeMap<AsyncTarget, Arc<AsyncPolicy>>,
}

/// For what another policy holds than before, by its name.
pub(super) enum Differ {
    /// Routes of the namespace that name this policy.
    Policy(String),
    /// A Service.
    Service(String),
    /// An HTTPRoute, or a rule of it.
    HttpRoute(String),
}

impl AsyncPolicies {
    /// Puts `new` in the place of the policy of this name; says whether it is another.
    pub(super) fn swap(&mut self, named: Named, new: Option<resources::AsyncPolicy>) -> bool {
        swap(&mut self.policies, named, new)
    }

    /// Puts `new` in the place of the Secret of this name; says whether a policy's key is another.
    pub(super) fn swap_secret(&mut self, named: Named, new: Option<Secret>) -> bool {
        let signs = |policy: &resources::AsyncPolicy| {
            policy.callback_secret.as_ref().is_some_and(|secret| secret.as_str() == named.1)
        };
        let is_used = within(&self.policies, &named.0).any(|(_, policy)| signs(policy));
        swap(&mut self.secrets, named, new) && is_used
    }

    /// Namespaces with policies whose dead letters are sent on to a Service such as `is_meant`.
    pub(super) fn namespaces_with_sink(&self, is_meant: impl Fn(&Named) -> bool) -> BTreeSet<String> {
        let sends = |policy: &&resources::AsyncPolicy| {
            let sink = policy.sink.as_ref();
            sink.is_some_and(|sink| is_meant(&(sink.namespace.to_string(), sink.name.to_string())))
        };
        self.policies.values().filter(sends).map(|policy| policy.meta.namespace.to_string()).collect()
    }

    /// What is in force in `namespace` by the objects of now. Of two policies for one target the one of
    /// lesser rank holds.
    pub(super) fn in_force(&self, namespace: &str, index: &Index) -> InForce {
        let mut policies: Vec<_> = within(&self.policies, namespace).map(|(_, policy)| policy).collect();
        policies.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut found = InForce::default();
        for policy in policies {
            let says = complete(policy, &self.secrets, sink(policy, index));
            found.by_name.insert(policy.meta.name.to_string(), says.clone());
            for target in &policy.targets {
                found.by_target.entry(target.clone()).or_insert_with(|| says.clone());
            }
        }
        found
    }

    /// Takes what is in force in `namespace`; returns for what it is another than before.
    pub(super) fn take(&mut self, namespace: &str, new: InForce) -> Vec<Differ> {
        let old = self.in_force.remove(namespace).unwrap_or_default();
        let names = differing(&old.by_name, &new.by_name).cloned().map(Differ::Policy);
        let targets = differing(&old.by_target, &new.by_target).map(|target| match target {
            AsyncTarget::Service(name) => Differ::Service(name.to_string()),
            AsyncTarget::Route(name) | AsyncTarget::Rule(name, _) => Differ::HttpRoute(name.to_string()),
        });
        let differ = names.chain(targets).collect();
        if !new.by_name.is_empty() {
            self.in_force.insert(namespace.to_owned(), new);
        }
        differ
    }

    /// The policy of this name.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<Arc<AsyncPolicy>> {
        self.in_force.get(namespace)?.by_name.get(name).cloned()
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
        self.of_target(namespace, &target).cloned()
    }

    /// What holds for `target` of `namespace`.
    pub(super) fn of_target(&self, namespace: &str, target: &AsyncTarget) -> Option<&Arc<AsyncPolicy>> {
        self.in_force.get(namespace)?.by_target.get(target)
    }

    /// The policy of this name, as it is written.
    pub(super) fn written(&self, named: &Named) -> Option<&resources::AsyncPolicy> {
        self.policies.get(named)
    }

    /// The Secret of this name.
    pub(super) fn secret(&self, named: &Named) -> Option<&Secret> {
        self.secrets.get(named)
    }
}

/// Says whether `new` is another than what stood there.
fn swap<T: PartialEq>(table: &mut BTreeMap<Named, T>, named: Named, new: Option<T>) -> bool {
    if table.get(&named) == new.as_ref() {
        return false;
    }
    match new {
        Some(new) => table.insert(named, new),
        None => table.remove(&named),
    };
    true
}

/// Keys under which one of the two has what the other has not.
fn differing<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let gone = old.iter().filter(|(key, value)| new.get(*key) != Some(*value));
    let come = new.keys().filter(|key| !old.contains_key(key));
    gone.map(|(key, _)| key).chain(come)
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
