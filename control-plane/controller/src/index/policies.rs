//! policies: policies, grants, secrets and trust put in or taken out.

use std::sync::Arc;

use resources::{AccessPolicy, AsyncPolicy, BackendPolicy, MeshTrust, ReferenceGrant, Secret};

use super::changes::Batch;
use super::ranked::Rank;
use super::{Index, Named, has_labels, within};

impl Index {
    pub(super) fn grant(&mut self, named: Named, new: Option<ReferenceGrant>, batch: &mut Batch) {
        if self.grants.get(&named) == new.as_ref() {
            return;
        }
        let namespace = named.0.clone();
        match new {
            Some(new) => self.grants.insert(named, new),
            None => self.grants.remove(&named),
        };
        batch.affected.destinations.extend(self.routes.parents_of_foreign_referrers(&namespace));
        batch.asynchronous.extend(self.async_policies.namespaces_with_sink(|sink| sink.0 == namespace));
    }

    pub(super) fn backend_policy(
        &mut self,
        named: Named,
        new: Option<(Rank, BackendPolicy)>,
        batch: &mut Batch,
    ) {
        let new = new.map(|(rank, policy)| (rank, Arc::new(policy)));
        let old = match &new {
            Some(new) => self.backend_policies.insert(named.clone(), new.clone()),
            None => self.backend_policies.remove(&named),
        };
        if old == new {
            return;
        }
        let service = |target: &policy::name::Label| (named.0.clone(), target.to_string());
        if let Some((rank, policy)) = &old {
            for target in policy.targets.iter().map(service) {
                if let Some(policies) = self.backend_targets.get_mut(&target) {
                    policies.remove(rank);
                    if policies.is_empty() {
                        self.backend_targets.remove(&target);
                    }
                }
            }
        }
        if let Some((rank, policy)) = &new {
            for target in policy.targets.iter().map(service) {
                self.backend_targets.entry(target).or_default().insert(rank.clone(), policy.clone());
            }
        }
        for (_, policy) in old.iter().chain(&new) {
            for target in policy.targets.iter().map(service) {
                self.touch_inbound(&target, &mut batch.affected);
                batch.affected.destinations.insert(target.clone());
                batch.affected.backends.insert(target);
            }
        }
    }

    pub(super) fn access_policy(
        &mut self,
        named: Named,
        new: Option<(Rank, AccessPolicy)>,
        batch: &mut Batch,
    ) {
        let namespace = named.0.clone();
        let new = new.map(|(rank, policy)| (rank, Arc::new(policy)));
        let old = match &new {
            Some(new) => self.access_policies.insert(named, new.clone()),
            None => self.access_policies.remove(&named),
        };
        if old == new {
            return;
        }
        let policies = self.access.entry(namespace.clone()).or_default();
        let had_any = !policies.is_empty();
        if let Some((rank, _)) = &old {
            policies.remove(rank);
        }
        if let Some((rank, policy)) = &new {
            policies.insert(rank.clone(), policy.clone());
        }
        let has_any = !policies.is_empty();
        if !has_any {
            self.access.remove(&namespace);
        }
        if had_any != has_any {
            batch.affected.namespaces.insert(namespace.clone());
        }
        for (_, policy) in old.iter().chain(&new) {
            let selected =
                within(&self.pods, &namespace).filter(|(_, pod)| has_labels(pod, &policy.selector));
            batch.affected.pods.extend(selected.map(|(pod, _)| pod.clone()));
        }
    }

    pub(super) fn async_policy(&mut self, named: Named, new: Option<AsyncPolicy>, batch: &mut Batch) {
        let namespace = named.0.clone();
        if self.async_policies.swap(named, new) {
            batch.asynchronous.insert(namespace);
        }
    }

    pub(super) fn secret(&mut self, named: Named, new: Option<Secret>, batch: &mut Batch) {
        let namespace = named.0.clone();
        if self.async_policies.swap_secret(named, new) {
            batch.asynchronous.insert(namespace);
        }
    }

    pub(super) fn trust(&mut self, name: String, new: Option<(Rank, MeshTrust)>, batch: &mut Batch) {
        let before = self.anchors().to_vec();
        let old = match &new {
            Some((rank, _)) => self.trust_ranks.insert(name, rank.clone()),
            None => self.trust_ranks.remove(&name),
        };
        if let Some(old) = old {
            self.trusts.remove(&old);
        }
        if let Some((rank, trust)) = new {
            self.trusts.insert(rank, trust);
        }
        batch.affected.anchors |= self.anchors() != before;
    }
}
