//! index: all objects in force, asked for destinations, backends and inbound documents.
//!
//! Pure: no clock, no file, no socket. [`Index::apply`] takes the objects as they stand and builds
//! every table anew; what follows are questions.

mod asynchronous;
mod endpoints;
mod inbound;
mod lookup;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use lookup::no_port;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::identity::Identity;
use policy::name::{Label, ServicePort};
use policy::snapshot::{Mesh, Protocol};
use resources::{
    AccessPolicy, AsyncPolicy, BackendPolicy, EndpointSlice, GrpcRoute, HttpRoute, Located, Namespace,
    Object, ParentRef, Pod, ReferenceGrant, Secret, Service, ServicePortSpec,
};

use asynchronous::AsyncPolicies;

/// A namespace and a name in it.
pub(crate) type Named = (String, String);

/// All objects in force.
#[derive(Debug)]
pub(crate) struct Index {
    mesh: Mesh,
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<Named, Pod>,
    services: BTreeMap<Named, Service>,
    slices: BTreeMap<Named, Vec<EndpointSlice>>,
    routes: BTreeMap<Named, Vec<Attached>>,
    consumers: BTreeSet<String>,
    grants: Vec<ReferenceGrant>,
    backend_policies: BTreeMap<Named, Arc<BackendPolicy>>,
    access_policies: BTreeMap<String, Vec<AccessPolicy>>,
    async_policies: AsyncPolicies,
    anchors: Vec<String>,
    cluster_addresses: HashMap<IpAddr, Named>,
    pod_addresses: HashMap<IpAddr, Named>,
    endpoint_ports: HashMap<SocketAddr, ServicePort>,
    endpoint_addresses: BTreeSet<IpAddr>,
}

/// What is of use only once all objects of its kinds are there.
#[derive(Default)]
struct Loose {
    async_policies: Vec<AsyncPolicy>,
    secrets: BTreeMap<Named, Secret>,
}

/// A route as one of its parents names it.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    /// The route.
    pub(crate) route: AnyRoute,
    /// One port alone, by number.
    pub(crate) port: Option<u16>,
    /// One port alone, by name.
    pub(crate) section: Option<String>,
}

/// A route of either kind.
#[derive(Debug, Clone)]
pub(crate) enum AnyRoute {
    /// HTTP.
    Http(Arc<HttpRoute>),
    /// gRPC.
    Grpc(Arc<GrpcRoute>),
}

impl AnyRoute {
    pub(crate) fn namespace(&self) -> &str {
        match self {
            Self::Http(route) => route.meta.namespace.as_str(),
            Self::Grpc(route) => route.meta.namespace.as_str(),
        }
    }
}

impl Index {
    /// Without any object.
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            routes: BTreeMap::new(),
            consumers: BTreeSet::new(),
            grants: Vec::new(),
            backend_policies: BTreeMap::new(),
            access_policies: BTreeMap::new(),
            async_policies: AsyncPolicies::default(),
            anchors: Vec::new(),
            cluster_addresses: HashMap::new(),
            pod_addresses: HashMap::new(),
            endpoint_ports: HashMap::new(),
            endpoint_addresses: BTreeSet::new(),
        }
    }

    /// Takes `objects` as all there is. Of two with one name the first holds.
    pub(crate) fn apply(&mut self, objects: &[Located<Object>]) {
        *self = Self::new(self.mesh.clone());
        let (mut seen, mut loose) = (BTreeSet::new(), Loose::default());
        for object in objects.iter().map(|located| &located.value) {
            if seen.insert(object.id()) {
                self.put(object.clone(), &mut loose);
            }
        }
        self.async_policies = AsyncPolicies::new(loose.async_policies, &loose.secrets, self);
        self.join();
    }

    fn put(&mut self, object: Object, loose: &mut Loose) {
        let meta = object.meta();
        let named = (meta.namespace.to_string(), meta.name.to_string());
        match object {
            Object::Namespace(namespace) => {
                self.namespaces.insert(named.1, namespace);
            }
            Object::Pod(pod) => {
                self.pods.insert(named, pod);
            }
            Object::Service(service) => {
                self.services.insert(named, service);
            }
            Object::EndpointSlice(slice) => {
                if let Some(service) = slice.service.clone() {
                    self.slices.entry((named.0, service)).or_default().push(slice);
                }
            }
            Object::HttpRoute(route) => {
                let route = Arc::new(route);
                self.attach(&route.parents, &named.0, &AnyRoute::Http(route.clone()));
            }
            Object::GrpcRoute(route) => {
                let route = Arc::new(route);
                self.attach(&route.parents, &named.0, &AnyRoute::Grpc(route.clone()));
            }
            Object::ReferenceGrant(grant) => self.grants.push(grant),
            Object::BackendPolicy(policy) => {
                let policy = Arc::new(policy);
                for target in &policy.targets {
                    let service = (named.0.clone(), target.to_string());
                    self.backend_policies.entry(service).or_insert_with(|| policy.clone());
                }
            }
            Object::AsyncPolicy(policy) => loose.async_policies.push(policy),
            Object::Secret(secret) => {
                loose.secrets.insert(named, secret);
            }
            Object::AccessPolicy(policy) => {
                self.access_policies.entry(named.0).or_default().push(policy);
            }
            Object::MeshTrust(trust) => {
                if self.anchors.is_empty() {
                    self.anchors = trust.anchors;
                }
            }
        }
    }

    fn attach(&mut self, parents: &[ParentRef], own: &str, route: &AnyRoute) {
        for parent in parents.iter().filter(|parent| parent.is_service()) {
            let namespace = parent.namespace.as_ref().map_or(own, Label::as_str).to_owned();
            if namespace != own {
                self.consumers.insert(own.to_owned());
            }
            let attached =
                Attached { route: route.clone(), port: parent.port, section: parent.section.clone() };
            self.routes.entry((namespace, parent.name.clone())).or_default().push(attached);
        }
    }

    /// Tables that need more than one kind.
    fn join(&mut self) {
        for (named, service) in &self.services {
            for address in &service.addresses {
                self.cluster_addresses.entry(*address).or_insert_with(|| named.clone());
            }
        }
        for (named, pod) in &self.pods {
            for address in &pod.addresses {
                self.pod_addresses.entry(*address).or_insert_with(|| named.clone());
            }
        }
        let mut endpoint_ports = HashMap::new();
        for (named, service) in &self.services {
            for port in &service.ports {
                let Some(key) = service_port(named, port.port) else { continue };
                for (address, _) in self.slice_endpoints(named, port) {
                    endpoint_ports.entry(address).or_insert_with(|| key.clone());
                }
            }
        }
        self.endpoint_ports = endpoint_ports;
        let endpoints = self.slices.values().flatten().flat_map(|slice| &slice.endpoints);
        self.endpoint_addresses = endpoints.flat_map(|endpoint| endpoint.addresses.clone()).collect();
    }

    /// Where the mesh ends.
    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Trust anchors besides the issuer, PEM.
    pub(crate) fn anchors(&self) -> &[String] {
        &self.anchors
    }

    /// The service account of every pod, as namespace and name.
    pub(crate) fn accounts(&self) -> BTreeSet<Named> {
        let account = |pod: &Pod| (pod.meta.namespace.to_string(), pod.service_account.to_string());
        self.pods.values().map(account).collect()
    }

    /// Whether routes of `namespace` change how its own clients see Services elsewhere; where not,
    /// clients of all namespaces share one document.
    pub(crate) fn is_consumer(&self, namespace: &str) -> bool {
        self.consumers.contains(namespace)
    }

    /// Which requests are taken in as messages.
    pub(crate) fn async_policies(&self) -> &AsyncPolicies {
        &self.async_policies
    }

    pub(crate) fn service(&self, named: &Named) -> Option<&Service> {
        self.services.get(named)
    }

    pub(crate) fn attached(&self, named: &Named) -> &[Attached] {
        self.routes.get(named).map_or(&[], Vec::as_slice)
    }

    /// Whether a `kind` of namespace `from` may refer to Service `to`.
    pub(crate) fn is_granted(&self, kind: &str, from: &str, to: &Named) -> bool {
        from == to.0 || self.grants.iter().any(|grant| grant.lets(kind, from, (&to.0, &to.1)))
    }

    /// How a Service port is spoken to: the BackendPolicy says, else `appProtocol`.
    pub(crate) fn protocol(&self, named: &Named, port: &ServicePortSpec) -> Protocol {
        let policy = self.backend_policies.get(named).and_then(|policy| policy.protocol.get(&port.port));
        policy.copied().unwrap_or_else(|| app_protocol(port.app_protocol.as_deref()))
    }

    fn identity(&self, pod: &Pod) -> Identity {
        Identity {
            trust_domain: self.mesh.trust_domain.clone(),
            namespace: pod.meta.namespace.clone(),
            service_account: pod.service_account.clone(),
        }
    }
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
