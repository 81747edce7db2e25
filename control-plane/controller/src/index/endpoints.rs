//! endpoints: who serves a backend.

use std::net::SocketAddr;

use policy::endpoint::{Endpoint, Peer};
use policy::limits;
use policy::name::parse_port;
use policy::snapshot::{Backend, BackendKey, BackendSettings};
use resources::{Pod, ServicePortSpec, SliceEndpoint};

use super::injected::INJECTED;
use super::{Index, Named, Sidecars, inject};

/// Where a sidecar of ours takes connections of other sidecars, where its pod does not say.
const INBOUND_PORT: u16 = 4143;
/// Where the sidecar of a pod takes them. What is no port, `none` by agreement, says that nobody
/// knows: TLS goes straight to the application's port, and redirection brings it to the sidecar.
const INBOUND_PORT_ANNOTATION: &str = "tidegate.dev/proxy-inbound-port";

impl Index {
    /// The backend `key`; `None` when nothing of that name is there.
    pub(crate) fn backend(&self, key: &BackendKey) -> Option<Backend> {
        match key {
            BackendKey::Service(port) => {
                let named = super::named_of(port);
                let spec = self.service(&named)?.ports.iter().find(|spec| spec.port == port.port)?;
                Some(Backend {
                    service: Some(port.clone()),
                    protocol: self.protocol(&named, spec),
                    settings: self.settings(&named),
                    endpoints: self.endpoints(&named, spec),
                })
            }
            BackendKey::Address(address) => Some(self.single(*address)),
        }
    }

    /// A pod that was dialled by its own address.
    fn single(&self, address: SocketAddr) -> Backend {
        let service = self.endpoint_port(address);
        let named = service.as_ref().map(super::named_of);
        let spec = service
            .as_ref()
            .zip(named.as_ref())
            .and_then(|(port, named)| self.service(named)?.ports.iter().find(|spec| spec.port == port.port));
        let protocol = match (&named, spec) {
            (Some(named), Some(spec)) => self.protocol(named, spec),
            _ if self.is_opaque_address(address) => policy::snapshot::Protocol::Opaque,
            _ => policy::snapshot::Protocol::Detect,
        };
        let known = named
            .as_ref()
            .zip(spec)
            .and_then(|(named, spec)| self.slice_endpoints(named, spec).find(|(found, _)| *found == address));
        let known = named.as_ref().zip(known.map(|(_, endpoint)| endpoint));
        let endpoint = self.endpoint(address, known);
        Backend {
            service,
            protocol,
            settings: named.map(|named| self.settings(&named)).unwrap_or_default(),
            // It was asked for by its address: whether it is on its way out is the client's matter.
            endpoints: vec![Endpoint { terminating: false, ..endpoint }],
        }
    }

    fn endpoints(&self, named: &Named, spec: &ServicePortSpec) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = self
            .slice_endpoints(named, spec)
            .filter(|(_, endpoint)| endpoint.ready || (endpoint.serving && endpoint.terminating))
            .map(|(address, endpoint)| self.endpoint(address, Some((named, endpoint))))
            .collect();
        // While an endpoint moves between slices it may stand in both; the one that stays counts.
        endpoints.sort_by_key(|endpoint| (endpoint.address, endpoint.terminating));
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        if endpoints.len() > limits::ENDPOINTS_PER_BACKEND_MAX {
            tracing::warn!(
                service = %format!("{}/{}", named.0, named.1),
                endpoints = endpoints.len(),
                limit = limits::ENDPOINTS_PER_BACKEND_MAX,
                "endpoints beyond the limit are left out"
            );
            endpoints.truncate(limits::ENDPOINTS_PER_BACKEND_MAX);
        }
        endpoints
    }

    /// Every address of a Service port, in force or not, with what the slice says of it.
    pub(super) fn slice_endpoints<'a>(
        &'a self,
        named: &Named,
        spec: &'a ServicePortSpec,
    ) -> impl Iterator<Item = (SocketAddr, &'a SliceEndpoint)> {
        let slices = self.slices.get(named).into_iter().flat_map(|slices| slices.values());
        slices.flat_map(move |slice| {
            let port = slice.ports.iter().find(|port| port.name == spec.name).map(|port| port.port);
            // Only the first address of an endpoint is for use (EndpointSlice API, `addresses`).
            let address = move |endpoint: &'a SliceEndpoint| {
                let address = endpoint.addresses.first()?;
                Some((SocketAddr::new(*address, port?), endpoint))
            };
            slice.endpoints.iter().filter_map(address)
        })
    }

    /// The endpoint at `address`; `known` is what a slice of a Service says of it.
    fn endpoint(&self, address: SocketAddr, known: Option<(&Named, &SliceEndpoint)>) -> Endpoint {
        // The slice's word for the pod goes before the address, which pods hand on to each other.
        let said = known.and_then(|(named, endpoint)| Some((named.0.clone(), endpoint.pod.clone()?)));
        let named = said.as_ref().or_else(|| self.addresses.pod(address.ip()));
        let pod = named.and_then(|named| self.pods.get(named));
        let name = named.map(|named| named.1.as_str()).unwrap_or_default();
        let known = known.map(|(_, endpoint)| endpoint);
        Endpoint {
            address,
            pod: name.into(),
            zone: known.and_then(|endpoint| endpoint.zone.as_deref()).map(Into::into),
            peer: pod.and_then(|pod| self.peer(pod)),
            terminating: known.is_some_and(|endpoint| !endpoint.ready && endpoint.terminating),
        }
    }

    /// The sidecar of `pod`. Whoever injected one has marked the pod; else the pod's own word goes
    /// before its namespace's.
    fn peer(&self, pod: &Pod) -> Option<Peer> {
        let namespace = self.namespaces.get(pod.meta.namespace.as_str());
        let word = || inject(&pod.meta).or_else(|| inject(&namespace?.meta));
        let asked = || self.sidecars == Sidecars::Asked && word() == Some("enabled");
        if !pod.meta.annotations.contains_key(INJECTED) && !asked() {
            return None;
        }
        let inbound_port = match pod.meta.annotations.get(INBOUND_PORT_ANNOTATION) {
            None => Some(INBOUND_PORT),
            Some(text) => parse_port(text).ok(),
        };
        Some(Peer { identity: self.identity(pod), inbound_port })
    }

    fn settings(&self, named: &Named) -> BackendSettings {
        let mut settings = BackendSettings::default();
        let Some(policy) = self.backend_policy_of(named) else { return settings };
        if let Some(budget) = policy.budget {
            let default = settings.budget;
            settings.budget.ratio =
                budget.percent.map_or(default.ratio, |percent| f64::from(percent) / 100.0);
            settings.budget.interval = budget.interval.unwrap_or(default.interval);
            settings.budget.min_per_second = budget.min_per_second.unwrap_or(default.min_per_second);
        }
        settings.retry_body_bytes_max = policy.retry_body_bytes_max.unwrap_or(settings.retry_body_bytes_max);
        settings.in_flight_max = policy.in_flight_max.unwrap_or(settings.in_flight_max);
        settings.queue_max = policy.queue_max.unwrap_or(settings.queue_max);
        settings
    }
}
