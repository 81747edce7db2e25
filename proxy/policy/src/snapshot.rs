//! snapshot: the documents a proxy is told, and all of them at one moment.

mod version;

pub use version::{Version, VersionError};

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::identity::{Identity, IdentityPattern};
use crate::limits;
use crate::name::{Domain, NameError, ServicePort};
use crate::queue::AsyncPolicy;
use crate::retry::RetryBudget;
use crate::route::Rule;

/// What a proxy asks about: where an application wants to go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DestinationKey {
    /// A Service by name, `orders.shop.svc:8080`.
    Service(ServicePort),
    /// An address as the application dialled it, `10.96.0.5:8080`.
    Address(SocketAddr),
}

/// One set of endpoints: those of a Service port, or a single pod address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackendKey {
    /// All endpoints of a Service port.
    Service(ServicePort),
    /// This address alone: the application dialled a pod.
    Address(SocketAddr),
}

macro_rules! key_as_text {
    ($($t:ident),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Service(port) => port.fmt(f),
                    Self::Address(address) => address.fmt(f),
                }
            }
        }
        impl FromStr for $t {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                match text.parse() {
                    Ok(address) => Ok(Self::Address(address)),
                    Err(_) => text.parse().map(Self::Service),
                }
            }
        }
        impl TryFrom<String> for $t {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> { text.parse() }
        }
        impl From<$t> for String {
            fn from(key: $t) -> String { key.to_string() }
        }
    )*};
}
key_as_text!(DestinationKey, BackendKey);

/// How a port is spoken to, as `appProtocol` or a policy says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Nobody said: both sides are watched.
    #[default]
    Detect,
    /// HTTP/1 or HTTP/2 with prior knowledge, told apart by the preface.
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/2 with prior knowledge (`kubernetes.io/h2c`, `grpc`).
    #[serde(rename = "HTTP2")]
    Http2,
    /// TLS of the application's own.
    #[serde(rename = "TLS")]
    Tls,
    /// Bytes, perhaps server-first.
    Opaque,
}

/// The answer to one [`DestinationKey`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Destination {
    /// A Service of the mesh, or a pod address of one.
    Service(ServicePolicy),
    /// An address or name inside the mesh's networks that nothing stands behind: refused with a
    /// cause, never passed on in plaintext.
    Unknown {
        /// Why, for the answer and the log.
        cause: String,
    },
    /// A Service of type ExternalName: passed on to this name, resolved by the proxy.
    ExternalName(Domain),
    /// Outside the mesh: passed on as it is.
    External,
}

/// How requests to a Service port are routed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePolicy {
    /// The Service; `None` for a pod address that no Service selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServicePort>,
    /// How the port is spoken to.
    #[serde(default)]
    pub protocol: Protocol,
    /// Sorted by precedence; the first match wins. Empty: everything goes to `backend`. Not empty
    /// and none matches: 404.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Where requests without rules, and bytes that are not HTTP, go.
    pub backend: BackendKey,
    /// Under which requests are taken in as messages while there are no rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<Arc<AsyncPolicy>>,
}

/// A set of endpoints and how they are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// The Service port, for labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServicePort>,
    /// How its endpoints are spoken to.
    #[serde(default)]
    pub protocol: Protocol,
    /// Bounds, budget and balancing.
    #[serde(default)]
    pub settings: BackendSettings,
    /// Sorted by address; at most [`limits::ENDPOINTS_PER_BACKEND_MAX`].
    pub endpoints: Vec<Endpoint>,
}

/// What a BackendPolicy says of a Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendSettings {
    /// The share of requests that may be retries.
    pub budget: RetryBudget,
    /// Bytes of a body kept for a retry, per request.
    pub retry_body_bytes_max: u64,
    /// Requests on their way at once.
    pub in_flight_max: u32,
    /// Requests that wait for an endpoint at once.
    pub queue_max: u32,
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self {
            budget: RetryBudget::default(),
            retry_body_bytes_max: limits::RETRY_BODY_BYTES_MAX,
            in_flight_max: limits::BACKEND_IN_FLIGHT_MAX,
            queue_max: limits::BACKEND_QUEUE_MAX,
        }
    }
}

/// What holds for traffic into the workload beside the proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inbound {
    /// The workload.
    pub identity: Identity,
    /// Ports with something of their own, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<u16, InboundPort>,
    /// Ports without.
    #[serde(default)]
    pub other: InboundPort,
}

impl Inbound {
    /// What holds for `port`.
    #[must_use]
    pub fn port(&self, port: u16) -> &InboundPort {
        self.ports.get(&port).unwrap_or(&self.other)
    }
}

/// The path of the kubelet's gRPC probes (grpc.health.v1): a pod that declares one has it among its
/// [`InboundPort::probes`].
pub const GRPC_PROBE_PATH: &str = "/grpc.health.v1.Health/Check";

/// What holds for one inbound port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InboundPort {
    /// How it is spoken to.
    #[serde(default)]
    pub protocol: Protocol,
    /// The AccessPolicy in force (`NAMESPACE/NAME`), for metrics and answers; `None`: the proxy's
    /// own default holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<str>>,
    /// Who is let in. Without a policy: nobody is named, the proxy's default decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AccessRule>,
    /// What happens to whoever no rule names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Access>,
    /// HTTP paths of the pod's own probes on this port: let through without identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<String>,
}

/// Whether a peer is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Everybody.
    Allow,
    /// Whoever has an identity that the anchors vouch for.
    AllowAuthenticated,
    /// Nobody.
    Deny,
}

/// One peer, or one kind of peers, that is let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum AccessRule {
    /// By identity.
    Identity(IdentityPattern),
    /// By address, whether it has an identity or not.
    Network(IpNet),
}

/// Where the mesh ends and what it is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mesh {
    /// The trust domain of every identity.
    pub trust_domain: Domain,
    /// The DNS suffix of Services, `cluster.local`.
    pub cluster_domain: Domain,
    /// Addresses that belong to the mesh: unknown ones among them are refused, others pass.
    pub networks: Vec<IpNet>,
}

/// A document as the controller sends it.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Where the mesh ends.
    Mesh(Arc<Mesh>),
    /// What comes in.
    Inbound(Arc<Inbound>),
    /// Where something goes.
    Destination(DestinationKey, Arc<Destination>),
    /// Who serves it.
    Backend(BackendKey, Arc<Backend>),
}

/// All documents a proxy holds at one moment. Immutable: a change makes a new one that shares
/// every document that did not change. Serialized, it is for people to read: without secrets.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Where the mesh ends; `None` before the first answer.
    pub mesh: Option<Arc<Mesh>>,
    /// What comes in; `None` before the first answer.
    pub inbound: Option<Arc<Inbound>>,
    /// Where things go.
    #[serde(serialize_with = "crate::queue::without_secrets")]
    pub destinations: BTreeMap<DestinationKey, Arc<Destination>>,
    /// Who serves them.
    pub backends: BTreeMap<BackendKey, Arc<Backend>>,
    /// Each document's key on the wire and its version.
    pub versions: BTreeMap<String, Version>,
}

impl Snapshot {
    /// The digest of the whole.
    #[must_use]
    pub fn digest(&self) -> Version {
        Version::digest(self.versions.iter().map(|(key, version)| (key.as_str(), *version)))
    }

    /// This snapshot with `document` put in or replaced.
    pub fn put(&mut self, document: Document, version: Version) {
        self.versions.insert(document.key(), version);
        match document {
            Document::Mesh(mesh) => self.mesh = Some(mesh),
            Document::Inbound(inbound) => self.inbound = Some(inbound),
            Document::Destination(key, destination) => {
                self.destinations.insert(key, destination);
            }
            Document::Backend(key, backend) => {
                self.backends.insert(key, backend);
            }
        }
    }

    /// This snapshot without the document of wire key `key`.
    pub fn remove(&mut self, key: &str) {
        self.versions.remove(key);
        if let Some(Ok(key)) = key.strip_prefix("destination/").map(str::parse) {
            self.destinations.remove(&key);
        } else if let Some(Ok(key)) = key.strip_prefix("backend/").map(str::parse) {
            self.backends.remove(&key);
        } else if key == "inbound" {
            self.inbound = None;
        } else if key == "mesh" {
            self.mesh = None;
        }
    }
}

impl Document {
    /// Its key on the wire: `mesh`, `inbound`, `destination/KEY`, `backend/KEY`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Mesh(_) => "mesh".to_owned(),
            Self::Inbound(_) => "inbound".to_owned(),
            Self::Destination(key, _) => format!("destination/{key}"),
            Self::Backend(key, _) => format!("backend/{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_has_an_equal_version_and_the_digest_sees_every_key() {
        assert_eq!(Version::of(b"a"), Version::of(b"a"));
        assert_ne!(Version::of(b"a"), Version::of(b"b"));
        let one = Version::digest([("a", Version::of(b"x")), ("b", Version::of(b"x"))].into_iter());
        let two = Version::digest([("a", Version::of(b"x")), ("c", Version::of(b"x"))].into_iter());
        assert_ne!(one, two);
        assert_eq!(one.to_string().parse::<Version>().unwrap(), one);
    }

    #[test]
    fn a_document_put_in_and_removed_leaves_nothing_behind() {
        let mut snapshot = Snapshot::default();
        let key: DestinationKey = "10.0.0.1:80".parse().unwrap();
        let document = Document::Destination(key, Arc::new(Destination::External));
        snapshot.put(document.clone(), Version::of(b"x"));
        assert_eq!(snapshot.destinations.len(), 1);
        snapshot.remove(&document.key());
        assert!(snapshot.destinations.is_empty() && snapshot.versions.is_empty());
    }
}
