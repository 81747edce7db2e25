//! index: all objects in force, asked for destinations, backends and inbound documents.
//!
//! Pure: no clock, no file, no socket. [`Index::apply`] takes changes one by one into its tables and
//! says which answers they touch ([`Affected`]); all else are questions. In whatever order the objects
//! came, the same set of them gives the same answers.

mod addresses;
mod affected;
mod asynchronous;
mod changes;
mod endpoints;
mod inbound;
mod injected;
mod lookup;
mod opaque;
mod policies;
mod ranked;
mod routes;
mod subjects;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use affected::{Affected, Hold};
pub(crate) use lookup::no_port;
pub(crate) use routes::{AnyRoute, Attached};
pub(crate) use subjects::access_policy_in_force;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use policy::identity::Identity;
use policy::name::{Label, ServicePort};
use policy::snapshot::{DestinationKey, Mesh, Protocol};
use resources::{
    AccessPolicy, BackendPolicy, EndpointSlice, MeshTrust, Meta, Namespace, Pod, ReferenceGrant, Service,
    ServicePortSpec,
};

use addresses::Addresses;
use asynchronous::AsyncPolicies;
use ranked::{Rank, Ranked};
use routes::Routes;

/// A namespace and a name in it.
pub(crate) type Named = (String, String);

/// What says that a sidecar stands beside a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sidecars {
    /// The injector's mark, or the word that asks for one: files are written by hand.
    Asked,
    /// The injector's mark alone: a pod may be older than the word of its namespace.
    Marked,
}

/// All objects in force.
#[derive(Debug)]
pub(crate) struct Index {
    mesh: Mesh,
    sidecars: Sidecars,
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<Named, Pod>,
    /// Those that say of ports that they are opaque.
    opaque_pods: BTreeSet<Named>,
    services: BTreeMap<Named, Service>,
    /// By their Service, then by their own name.
    slices: BTreeMap<Named, BTreeMap<String, EndpointSlice>>,
    /// The Service of each slice that has one.
    slice_owners: BTreeMap<Named, Named>,
    routes: Routes,
    grants: BTreeMap<Named, ReferenceGrant>,
    backend_policies: BTreeMap<Named, (Rank, Arc<BackendPolicy>)>,
    /// By the Service they are for.
    backend_targets: BTreeMap<Named, Ranked<Arc<BackendPolicy>>>,
    access_policies: BTreeMap<Named, (Rank, Arc<AccessPolicy>)>,
    /// By namespace.
    access: BTreeMap<String, Ranked<Arc<AccessPolicy>>>,
    async_policies: AsyncPolicies,
    trust_ranks: BTreeMap<String, Rank>,
    trusts: Ranked<MeshTrust>,
    addresses: Addresses,
}

impl Index {
    /// Without any object.
    pub(crate) fn new(mesh: Mesh, sidecars: Sidecars) -> Self {
        Self {
            mesh,
            sidecars,
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            opaque_pods: BTreeSet::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_owners: BTreeMap::new(),
            routes: Routes::default(),
            grants: BTreeMap::new(),
            backend_policies: BTreeMap::new(),
            backend_targets: BTreeMap::new(),
            access_policies: BTreeMap::new(),
            access: BTreeMap::new(),
            async_policies: AsyncPolicies::default(),
            trust_ranks: BTreeMap::new(),
            trusts: Ranked::default(),
            addresses: Addresses::default(),
        }
    }

    /// Where the mesh ends.
    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Trust anchors besides the issuer, PEM.
    pub(crate) fn anchors(&self) -> &[String] {
        self.trust_in_force().map_or(&[], |trust| trust.anchors.as_slice())
    }

    /// The service account of every pod, as namespace and name.
    pub(crate) fn accounts(&self) -> BTreeSet<Named> {
        let account = |pod: &Pod| (pod.meta.namespace.to_string(), pod.service_account.to_string());
        self.pods.values().map(account).collect()
    }

    /// Namespaces whose clients see `key` otherwise than all others, who share one document.
    pub(crate) fn consumers(&self, key: &DestinationKey) -> BTreeSet<String> {
        match key {
            DestinationKey::Service(port) => self.routes.consumers(&named_of(port)),
            DestinationKey::Address(address) => {
                let service = self.addresses.service(address.ip());
                service.map(|named| self.routes.consumers(named)).unwrap_or_default()
            }
        }
    }

    /// Which requests are taken in as messages.
    pub(crate) fn async_policies(&self) -> &AsyncPolicies {
        &self.async_policies
    }

    pub(crate) fn service(&self, named: &Named) -> Option<&Service> {
        self.services.get(named)
    }

    pub(crate) fn attached(&self, named: &Named) -> &[Attached] {
        self.routes.attached(named)
    }

    /// Whether a `kind` of namespace `from` may refer to Service `to`.
    pub(crate) fn is_granted(&self, kind: &str, from: &str, to: &Named) -> bool {
        let mut grants = within(&self.grants, &to.0);
        from == to.0 || grants.any(|(_, grant)| grant.lets(kind, from, (&to.0, &to.1)))
    }

    /// How a Service port is spoken to: the BackendPolicy says, else its pods where they say that it is
    /// opaque, else `appProtocol`.
    pub(crate) fn protocol(&self, named: &Named, port: &ServicePortSpec) -> Protocol {
        let policy = self.backend_policy_of(named).and_then(|policy| policy.protocol.get(&port.port));
        policy.copied().unwrap_or_else(|| match self.is_opaque(named, port) {
            true => Protocol::Opaque,
            false => app_protocol(port.app_protocol.as_deref()),
        })
    }

    fn backend_policy_of(&self, service: &Named) -> Option<&Arc<BackendPolicy>> {
        self.backend_targets.get(service).and_then(Ranked::first)
    }

    /// The Service port whose endpoint `address` is.
    fn endpoint_port(&self, address: SocketAddr) -> Option<ServicePort> {
        self.addresses.claim(address).and_then(|(named, port)| service_port(named, port))
    }

    fn identity(&self, pod: &Pod) -> Identity {
        Identity {
            trust_domain: self.mesh.trust_domain.clone(),
            namespace: pod.meta.namespace.clone(),
            service_account: pod.service_account.clone(),
        }
    }
}

/// The Service that a port is of.
fn named_of(port: &ServicePort) -> Named {
    (port.namespace.to_string(), port.name.to_string())
}

/// What stands in `namespace`.
fn within<'a, T>(
    table: &'a BTreeMap<Named, T>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a Named, &'a T)> + use<'a, T> {
    table.range((namespace.to_owned(), String::new())..).take_while(move |(named, _)| named.0 == namespace)
}

/// What an object says of injection; an annotation goes before a label.
fn inject(meta: &Meta) -> Option<&str> {
    const INJECT: &str = "tidegate.dev/inject";
    meta.annotations.get(INJECT).or_else(|| meta.labels.get(INJECT)).map(String::as_str)
}

fn has_labels(pod: &Pod, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value))
}

/// The key of a Service port; `None` where the Service's name is not one a proxy can say.
pub(crate) fn service_port((namespace, name): &Named, port: u16) -> Option<ServicePort> {
    ServicePort::new(Label::new(namespace).ok()?, Label::new(name).ok()?, port).ok()
}

/// What `appProtocol` means: KEP-3726's names, IANA's, and those in wide use. Unknown ones are
/// watched, like none.
fn app_protocol(name: Option<&str>) -> Protocol {
    match name.unwrap_or_default().to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => Protocol::Http,
        "kubernetes.io/h2c" | "grpc" | "h2c" | "http2" => Protocol::Http2,
        "https" | "tls" | "kubernetes.io/wss" => Protocol::Tls,
        "tcp" | "linkerd.io/tcp" | "linkerd.io/opaque" | "mysql" | "redis" | "mongodb" | "mongo"
        | "postgres" | "postgresql" | "kafka" => Protocol::Opaque,
        _ => Protocol::Detect,
    }
}
