//! object: any of the kinds that are read here, and what each is called.

use std::collections::BTreeMap;
use std::fmt;

use policy::name::{Domain, Label};

use crate::access_policy::AccessPolicy;
use crate::async_policy::AsyncPolicy;
use crate::backend_policy::BackendPolicy;
use crate::grant::ReferenceGrant;
use crate::kubernetes::{EndpointSlice, Namespace, Pod, Service};
use crate::mesh_trust::MeshTrust;
use crate::node::{Node, Read};
use crate::problem::Fault;
use crate::route::{GrpcRoute, HttpRoute};
use crate::secret::Secret;

/// The API server counts in int64.
const GENERATION_MAX: u64 = i64::MAX as u64;

/// What every object carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The namespace; `default` where none is written. Of no meaning for cluster-wide kinds.
    pub namespace: Label,
    /// The name.
    pub name: Domain,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, RFC 3339 in UTC, so that text order is time order.
    pub created: Option<String>,
    /// Which of its specs it is, counted by the API server from 1; 0 where it stands in no cluster.
    pub generation: i64,
}

impl Meta {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let meta = root.need("metadata")?;
        let namespace = match meta.label_of("namespace")? {
            Some(namespace) => namespace,
            None => Label::new("default").map_err(|error| meta.fault(error.to_string()))?,
        };
        Ok(Self {
            namespace,
            name: meta.need("name")?.parsed()?,
            labels: meta.text_map("labels")?,
            annotations: meta.text_map("annotations")?,
            created: meta.text_of("creationTimestamp")?,
            generation: meta
                .get("generation")?
                .map_or(Ok(0), |number| number.number_in(0..=GENERATION_MAX))?,
        })
    }
}

/// Which object: no two of one kind, namespace and name are in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// The kind, `HTTPRoute`.
    pub kind: &'static str,
    /// The namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

macro_rules! objects {
    ($($kind:ident = $name:literal: $doc:literal),* $(,)?) => {
        /// One object of a kind that is read here.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Object {
            $(#[doc = $doc] $kind($kind),)*
        }

        impl Object {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$kind(_) => $name,)* }
            }

            /// What it carries as every object does.
            #[must_use]
            pub fn meta(&self) -> &Meta {
                match self { $(Self::$kind(object) => &object.meta,)* }
            }
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self { Self::$kind(object) }
        })*
    };
}
objects! {
    Namespace = "Namespace": "A namespace.",
    Pod = "Pod": "A pod.",
    Service = "Service": "A Service.",
    EndpointSlice = "EndpointSlice": "Some endpoints of a Service.",
    HttpRoute = "HTTPRoute": "A route for HTTP.",
    GrpcRoute = "GRPCRoute": "A route for gRPC.",
    ReferenceGrant = "ReferenceGrant": "Leave to refer into another namespace.",
    BackendPolicy = "BackendPolicy": "How a Service is used.",
    Secret = "Secret": "A secret, as far as callbacks need it.",
    AsyncPolicy = "AsyncPolicy": "Which requests are taken in as messages.",
    AccessPolicy = "AccessPolicy": "Who may reach pods.",
    MeshTrust = "MeshTrust": "Whom the mesh trusts.",
}

impl Object {
    /// Which object it is.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        let meta = self.meta();
        let cluster_wide = matches!(self, Self::Namespace(_) | Self::MeshTrust(_));
        let namespace = if cluster_wide { String::new() } else { meta.namespace.to_string() };
        ObjectId { kind: self.kind(), namespace, name: meta.name.to_string() }
    }

    /// Reads a document; `None` for kinds that are none of ours.
    pub(crate) fn read(root: &Node<'_>) -> Read<Option<Self>> {
        let api = root.need("apiVersion")?.text()?;
        let kind = root.need("kind")?.text()?;
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let gateway =
            group == "gateway.networking.k8s.io" && matches!(version, "v1" | "v1beta1" | "v1alpha2");
        let read: Self = match (group, kind) {
            ("", "Namespace") => Namespace::read(root)?.into(),
            ("", "Pod") => Pod::read(root)?.into(),
            ("", "Service") => Service::read(root)?.into(),
            ("", "Secret") => Secret::read(root)?.into(),
            ("discovery.k8s.io", "EndpointSlice") => EndpointSlice::read(root)?.into(),
            (_, "HTTPRoute") if gateway => HttpRoute::read(root)?.into(),
            (_, "GRPCRoute") if gateway => GrpcRoute::read(root)?.into(),
            (_, "ReferenceGrant") if gateway => ReferenceGrant::read(root)?.into(),
            _ => return Self::read_ours(root, api, kind),
        };
        Ok(Some(read))
    }

    fn read_ours(root: &Node<'_>, api: &str, kind: &str) -> Read<Option<Self>> {
        let known = matches!(kind, "AsyncPolicy" | "BackendPolicy" | "AccessPolicy" | "MeshTrust");
        let later = matches!(kind, "Topic" | "Subscription");
        let ours = api == OUR_API;
        let group = api.split('/').next().unwrap_or_default();
        if !ours && (group == GROUP || (known && !group.contains('.')) || looks_like_ours(group)) {
            return Err(Fault::new("apiVersion", format!("{api:?} is not known; write \"{OUR_API}\"")));
        }
        if !ours {
            let gateway = matches!(kind, "HTTPRoute" | "GRPCRoute" | "ReferenceGrant")
                && group == "gateway.networking.k8s.io";
            return if gateway {
                let remedy = "write \"gateway.networking.k8s.io/v1\"";
                Err(Fault::new("apiVersion", format!("{api:?} is not known for {kind}; {remedy}")))
            } else {
                Ok(None)
            };
        }
        if later {
            return Err(Fault::not_implemented("kind", kind));
        }
        if !known {
            let remedy = "AsyncPolicy, BackendPolicy, AccessPolicy and MeshTrust are";
            return Err(Fault::new("kind", format!("{kind:?} is no kind of {OUR_API}; {remedy}")));
        }
        root.only(&["apiVersion", "kind", "metadata", "spec", "status"], &[])?;
        Ok(Some(match kind {
            "AsyncPolicy" => AsyncPolicy::read(root)?.into(),
            "BackendPolicy" => BackendPolicy::read(root)?.into(),
            "AccessPolicy" => AccessPolicy::read(root)?.into(),
            _ => MeshTrust::read(root)?.into(),
        }))
    }
}

/// The API group of our own kinds.
pub(crate) const GROUP: &str = "tidegate.dev";
/// Their version.
pub(crate) const VERSION: &str = "v1alpha1";
const OUR_API: &str = "tidegate.dev/v1alpha1";

/// Whether a group is ours but for a slip of the hand (`tidegate.io`, `tidgate.dev`).
fn looks_like_ours(group: &str) -> bool {
    group.contains("tidegate") || (group.ends_with("gate.dev") && group.starts_with("ti"))
}
