//! subjects: objects that are told what became of them, and which of several holds.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::name::Label;
use resources::{AccessPolicy, AsyncPolicy, AsyncTarget, BackendPolicy, MeshTrust, Pod, Secret};

use super::ranked::Ranked;
use super::routes::{AnyRoute, Kind};
use super::{Index, Named, has_labels, within};

impl Index {
    /// Ready endpoints of a Service's port of this name, each with its pod where one is named.
    pub(crate) fn ready(&self, service: &Named, port: &str) -> Vec<(SocketAddr, Option<String>)> {
        let spec = self.service(service).and_then(|found| found.ports.iter().find(|spec| spec.name == port));
        let endpoints = spec.into_iter().flat_map(|spec| self.slice_endpoints(service, spec));
        endpoints.filter(|(_, one)| one.ready).map(|(at, one)| (at, one.pod.clone())).collect()
    }

    /// The HTTPRoute of this name.
    pub(crate) fn http_route(&self, named: &Named) -> Option<&AnyRoute> {
        self.routes.named(named, Kind::Http)
    }

    /// The GRPCRoute of this name.
    pub(crate) fn grpc_route(&self, named: &Named) -> Option<&AnyRoute> {
        self.routes.named(named, Kind::Grpc)
    }

    /// Routes of `namespace` that name the AsyncPolicy `policy` lead to these Services.
    pub(crate) fn services_by_filter(&self, namespace: &str, policy: &str) -> Vec<Named> {
        self.routes.parents_of_policy(namespace, policy).into_iter().collect()
    }

    /// The Services to which an HTTPRoute is attached.
    pub(crate) fn services_of_route(&self, named: &Named) -> Vec<Named> {
        self.routes.parents_of_http(named).into_iter().collect()
    }

    /// The BackendPolicy of this name.
    pub(crate) fn backend_policy_named(&self, named: &Named) -> Option<&BackendPolicy> {
        self.backend_policies.get(named).map(|(_, policy)| &**policy)
    }

    /// The BackendPolicy that holds for a Service.
    pub(crate) fn backend_policy_in_force(&self, service: &Named) -> Option<&BackendPolicy> {
        self.backend_policy_of(service).map(Arc::as_ref)
    }

    /// The AccessPolicy of this name.
    pub(crate) fn access_policy_named(&self, named: &Named) -> Option<&AccessPolicy> {
        self.access_policies.get(named).map(|(_, policy)| &**policy)
    }

    /// The pods that an AccessPolicy selects.
    pub(crate) fn selected<'a>(
        &'a self,
        policy: &'a AccessPolicy,
    ) -> impl Iterator<Item = (&'a Named, &'a Pod)> {
        within(&self.pods, policy.meta.namespace.as_str())
            .filter(|(_, pod)| has_labels(pod, &policy.selector))
    }

    /// The AccessPolicies that select `pod`, the first first.
    pub(crate) fn access_policies_of(&self, pod: &Pod) -> Vec<&AccessPolicy> {
        let policies = self.access.get(pod.meta.namespace.as_str()).into_iter().flat_map(Ranked::iter);
        policies.map(Arc::as_ref).filter(|policy| has_labels(pod, &policy.selector)).collect()
    }

    /// The MeshTrust of this name.
    pub(crate) fn trust_named(&self, name: &str) -> Option<&MeshTrust> {
        self.trust_ranks.get(name).and_then(|rank| self.trusts.get(rank))
    }

    /// The MeshTrust that holds.
    pub(crate) fn trust_in_force(&self) -> Option<&MeshTrust> {
        self.trusts.iter().find(|trust| !trust.anchors.is_empty())
    }

    /// The AsyncPolicy of this name, as it is written.
    pub(crate) fn async_policy_named(&self, named: &Named) -> Option<&AsyncPolicy> {
        self.async_policies.written(named)
    }

    /// The name of the AsyncPolicy that holds for `target`, `NAMESPACE/NAME`.
    pub(crate) fn async_policy_in_force(&self, namespace: &Label, target: &AsyncTarget) -> Option<Arc<str>> {
        self.async_policies.of_target(namespace.as_str(), target).map(|policy| policy.name.clone())
    }

    /// A Secret that an AsyncPolicy names.
    pub(crate) fn secret_named(&self, named: &Named) -> Option<&Secret> {
        self.async_policies.secret(named)
    }
}

/// Of the AccessPolicies that select `pod` the one that holds for `port`, or where it is `None` for
/// ports that none names: one for this port goes before one for all; of equals the first holds.
pub(crate) fn access_policy_in_force<'a>(
    policies: &[&'a AccessPolicy],
    pod: &Pod,
    port: Option<u16>,
) -> Option<&'a AccessPolicy> {
    let names = |policy: &&&AccessPolicy| {
        port.is_some() && policy.ports.iter().any(|reference| pod.resolve(reference) == port)
    };
    let for_all = || policies.iter().find(|policy| policy.ports.is_empty());
    policies.iter().find(names).or_else(for_all).copied()
}
