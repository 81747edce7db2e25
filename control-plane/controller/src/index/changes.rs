//! changes: one object put in or taken out, and what hangs on it.
//!
//! Each step changes one table and names every answer that this table takes part in, as it stood
//! before and as it stands after. What needs more than one table (the endpoints of a Service, the
//! AsyncPolicies of a namespace) is noted and joined anew once for each batch.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use resources::{EndpointSlice, Located, Namespace, Object, ObjectId, Pod, Service};

use super::addresses::Joined;
use super::asynchronous::Differ;
use super::injected::has_sidecar;
use super::opaque;
use super::ranked::Rank;
use super::routes::{AnyRoute, Kind};
use super::{Affected, Index, Named, has_labels, inject, within};
use crate::objects::Change;

/// What a batch has touched so far.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) affected: Affected,
    /// Services whose endpoints are to be joined anew.
    pub(super) joins: BTreeSet<Named>,
    /// Namespaces whose AsyncPolicies are to be completed anew.
    pub(super) asynchronous: BTreeSet<String>,
}

impl Index {
    /// Takes a batch; says which answers may be others now.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Affected {
        let mut batch = Batch::default();
        for change in changes {
            match change {
                Change::Put(located) => self.put(located, &mut batch),
                Change::Remove(id) => self.remove(id, &mut batch),
            }
        }
        for service in std::mem::take(&mut batch.joins) {
            self.join(&service, &mut batch.affected);
        }
        for namespace in std::mem::take(&mut batch.asynchronous) {
            self.complete(&namespace, &mut batch.affected);
        }
        batch.affected
    }

    fn put(&mut self, located: Located<Object>, batch: &mut Batch) {
        let rank = Rank::of(&located);
        let meta = located.value.meta();
        let named = (meta.namespace.to_string(), meta.name.to_string());
        match located.value {
            Object::Namespace(namespace) => self.namespace(named.1, Some(namespace), batch),
            Object::Pod(pod) => self.pod(named, Some(pod), batch),
            Object::Service(service) => self.put_service(named, Some(service), batch),
            Object::EndpointSlice(slice) => self.slice(named, Some(slice), batch),
            Object::HttpRoute(route) => {
                self.route(&named, Kind::Http, Some(AnyRoute::Http(Arc::new(route))), batch);
            }
            Object::GrpcRoute(route) => {
                self.route(&named, Kind::Grpc, Some(AnyRoute::Grpc(Arc::new(route))), batch);
            }
            Object::ReferenceGrant(grant) => self.grant(named, Some(grant), batch),
            Object::BackendPolicy(policy) => self.backend_policy(named, Some((rank, policy)), batch),
            Object::AccessPolicy(policy) => self.access_policy(named, Some((rank, policy)), batch),
            Object::AsyncPolicy(policy) => self.async_policy(named, Some(policy), batch),
            Object::Secret(secret) => self.secret(named, Some(secret), batch),
            Object::MeshTrust(trust) => self.trust(named.1, Some((rank, trust)), batch),
        }
    }

    fn remove(&mut self, id: ObjectId, batch: &mut Batch) {
        let named = (id.namespace, id.name);
        match id.kind {
            "Namespace" => self.namespace(named.1, None, batch),
            "Pod" => self.pod(named, None, batch),
            "Service" => self.put_service(named, None, batch),
            "EndpointSlice" => self.slice(named, None, batch),
            "HTTPRoute" => self.route(&named, Kind::Http, None, batch),
            "GRPCRoute" => self.route(&named, Kind::Grpc, None, batch),
            "ReferenceGrant" => self.grant(named, None, batch),
            "BackendPolicy" => self.backend_policy(named, None, batch),
            "AccessPolicy" => self.access_policy(named, None, batch),
            "AsyncPolicy" => self.async_policy(named, None, batch),
            "Secret" => self.secret(named, None, batch),
            "MeshTrust" => self.trust(named.1, None, batch),
            kind => tracing::error!(kind, "an object of a kind that is not kept was taken out"),
        }
    }

    fn namespace(&mut self, name: String, new: Option<Namespace>, batch: &mut Batch) {
        let word = |namespace: &Option<Namespace>| {
            namespace.as_ref().and_then(|namespace| inject(&namespace.meta).map(str::to_owned))
        };
        let now = word(&new);
        let before = word(&match new {
            Some(new) => self.namespaces.insert(name.clone(), new),
            None => self.namespaces.remove(&name),
        });
        if now != before {
            batch.affected.injected = true;
            let pods: Vec<Named> = within(&self.pods, &name).map(|(named, _)| named.clone()).collect();
            pods.iter().for_each(|pod| self.touch_endpoints(pod, batch));
        }
    }

    fn pod(&mut self, named: Named, new: Option<Pod>, batch: &mut Batch) {
        if self.pods.get(&named) == new.as_ref() {
            return;
        }
        // While it is known under its old addresses, and again under its new ones.
        self.touch_endpoints(&named, batch);
        let addresses = |pod: Option<&Pod>| pod.map(|pod| pod.addresses.clone()).unwrap_or_default();
        let (old, to) = (addresses(self.pods.get(&named)), addresses(new.as_ref()));
        self.addresses.move_pod(&named, &old, &to);
        let account = |pod: Option<&Pod>| pod.map(|pod| pod.service_account.clone());
        batch.affected.accounts |= account(self.pods.get(&named)) != account(new.as_ref());
        let sidecar = |pod: Option<&Pod>| pod.is_some_and(has_sidecar);
        batch.affected.injected |= sidecar(self.pods.get(&named)) != sidecar(new.as_ref());
        let speaks = |pod: &Pod| !opaque::ports(pod).is_empty();
        for pod in self.pods.get(&named).into_iter().chain(&new).filter(|pod| speaks(pod)) {
            self.touch_opaque(pod, &mut batch.affected);
        }
        match new.as_ref().is_some_and(speaks) {
            true => self.opaque_pods.insert(named.clone()),
            false => self.opaque_pods.remove(&named),
        };
        match new {
            Some(new) => self.pods.insert(named.clone(), new),
            None => self.pods.remove(&named),
        };
        self.touch_endpoints(&named, batch);
        batch.affected.pods.insert(named);
    }

    /// Names the backends in which a pod stands.
    fn touch_endpoints(&self, named: &Named, batch: &mut Batch) {
        let affected = &mut batch.affected;
        affected.backends.extend(self.addresses.served_by_pod(named).iter().cloned());
        for address in self.pods.get(named).into_iter().flat_map(|pod| &pod.addresses) {
            affected.addresses.insert(*address);
            affected.backends.extend(self.addresses.served_by(*address).iter().cloned());
        }
    }

    fn put_service(&mut self, named: Named, new: Option<Service>, batch: &mut Batch) {
        if self.services.get(&named) == new.as_ref() {
            return;
        }
        self.touch_inbound(&named, &mut batch.affected);
        let addresses =
            |service: Option<&Service>| service.map(|service| service.addresses.clone()).unwrap_or_default();
        let (old, to) = (addresses(self.services.get(&named)), addresses(new.as_ref()));
        batch.affected.addresses.extend(self.addresses.move_service(&named, &old, &to));
        match new {
            Some(new) => self.services.insert(named.clone(), new),
            None => self.services.remove(&named),
        };
        self.touch_inbound(&named, &mut batch.affected);
        batch.affected.destinations.extend(self.routes.parents_of_referrers(&named));
        batch.affected.destinations.insert(named.clone());
        batch.affected.backends.insert(named.clone());
        batch.asynchronous.extend(self.async_policies.namespaces_with_sink(|sink| *sink == named));
        batch.joins.insert(named);
    }

    /// Names the pods before which a Service stands: how it is spoken to is how they are.
    pub(super) fn touch_inbound(&self, named: &Named, affected: &mut Affected) {
        if let Some(service) = self.services.get(named).filter(|service| !service.selector.is_empty()) {
            let selected = within(&self.pods, &named.0).filter(|(_, pod)| has_labels(pod, &service.selector));
            affected.pods.extend(selected.map(|(pod, _)| pod.clone()));
        }
        for address in self.addresses.claimed(named) {
            affected.pods.extend(self.addresses.pods(address).iter().cloned());
        }
    }

    fn slice(&mut self, named: Named, new: Option<EndpointSlice>, batch: &mut Batch) {
        let (namespace, name) = named;
        let service = |slice: &EndpointSlice| slice.service.clone().map(|name| (namespace.clone(), name));
        let before = self.slice_owners.get(&(namespace.clone(), name.clone())).cloned();
        let now = new.as_ref().and_then(service);
        let kept = before.as_ref().and_then(|service| self.slices.get(service)?.get(&name));
        if kept == new.as_ref() {
            return;
        }
        for touched in before.iter().chain(&now) {
            batch.affected.backends.insert(touched.clone());
            batch.joins.insert(touched.clone());
        }
        if let Some(before) = before.filter(|before| Some(before) != now.as_ref()) {
            let slices = self.slices.entry(before.clone()).or_default();
            slices.remove(&name);
            if slices.is_empty() {
                self.slices.remove(&before);
            }
            self.slice_owners.remove(&(namespace.clone(), name.clone()));
        }
        if let Some((now, new)) = now.zip(new) {
            self.slice_owners.insert((namespace, name.clone()), now.clone());
            self.slices.entry(now).or_default().insert(name, new);
        }
    }

    fn route(&mut self, named: &Named, kind: Kind, new: Option<AnyRoute>, batch: &mut Batch) {
        batch.affected.destinations.extend(self.routes.swap(named, kind, new));
    }

    /// Finds anew where a Service's ports lead.
    fn join(&mut self, named: &Named, affected: &mut Affected) {
        let mut joined = Joined::default();
        for (place, spec) in
            self.services.get(named).into_iter().flat_map(|service| &service.ports).enumerate()
        {
            if super::service_port(named, spec.port).is_some() {
                let addresses =
                    self.slice_endpoints(named, spec).map(|(address, _)| (address, place, spec.port));
                joined.claims.extend(addresses);
            }
        }
        for endpoint in
            self.slices.get(named).into_iter().flat_map(|slices| slices.values()).flat_map(|s| &s.endpoints)
        {
            joined.pods.extend(endpoint.pod.iter().map(|pod| (named.0.clone(), pod.clone())));
            joined.addresses.extend(&endpoint.addresses);
        }
        let differ: BTreeSet<IpAddr> = self.addresses.join(named, joined);
        for address in differ {
            affected.addresses.insert(address);
            affected.pods.extend(self.addresses.pods(address).iter().cloned());
        }
    }

    /// Completes the AsyncPolicies of a namespace with their keys and sinks anew.
    fn complete(&mut self, namespace: &str, affected: &mut Affected) {
        let new = self.async_policies.in_force(namespace, self);
        for differ in self.async_policies.take(namespace, new) {
            let own = |name: String| (namespace.to_owned(), name);
            match differ {
                Differ::Policy(name) => {
                    affected.destinations.extend(self.routes.parents_of_policy(namespace, &name));
                }
                Differ::Service(name) => {
                    affected.destinations.insert(own(name));
                }
                Differ::HttpRoute(name) => {
                    affected.destinations.extend(self.routes.parents_of_http(&own(name)));
                }
            }
        }
    }
}
