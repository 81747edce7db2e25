//! resources: one object, as a file or a cluster gives it, checked once.
//!
//! [`parse_file`] reads one file of YAML documents into [`Object`]s and [`Problem`]s: a document
//! that is wrong is left out and named, the others stay. Kinds of Kubernetes and the Gateway API are
//! read leniently, because they are written for others too: what this version does not know is
//! skipped, or kept as `Unknown` where skipping it would change what a rule does. Our own kinds are
//! read strictly: a field that would be ignored is an error that names it.
//!
//! [`validate_all`] finds what only shows between objects. [`crds`] are the definitions under which an
//! API server takes our kinds; they are made of the constants the readers use. [`conditions`] are what
//! statuses say.

mod access_policy;
mod async_policy;
mod backend_policy;
pub mod conditions;
mod crd;
mod document;
mod duration;
mod form;
mod grant;
pub mod inject;
mod kubernetes;
mod mesh_trust;
mod node;
mod object;
mod problem;
mod quantity;
mod review;
mod route;
mod schema;
mod secret;
mod sink;
mod validate;

pub use access_policy::{AccessPolicy, AccessRuleSpec, PolicyPort, Source};
pub use async_policy::{AsyncPolicy, AsyncTarget};
pub use backend_policy::{BackendPolicy, RetryBudgetSpec};
pub use crd::{crd_files, crds};
pub use document::{Located, parse_file, read_object};
pub use duration::{DurationError, IsoOrGoError, parse_duration, parse_iso_or_go, print_iso};
pub use grant::ReferenceGrant;
pub use kubernetes::{
    Container, ContainerPort, EndpointSlice, Namespace, Pod, PortRef, Probe, Service, ServicePortSpec,
    SliceEndpoint, SlicePort,
};
pub use mesh_trust::MeshTrust;
pub use object::{Meta, Object, ObjectId};
pub use problem::Problem;
pub use quantity::{QuantityError, parse_bytes, print_bytes};
pub use review::{Review, ReviewTarget, review};
pub use route::{
    BackendRef, Filter, GrpcMatch, GrpcMethod, GrpcRoute, GrpcRule, HttpMatch, HttpRoute, HttpRule,
    NamedMatchSpec, ParentRef, PathSpec, RetrySpec, Route, Rule, Timeouts, ValueKind,
};
pub use secret::{Secret, SigningKeyError};
pub use sink::SinkRef;
pub use validate::{check_regex, escape_regex, validate_all};

#[cfg(test)]
mod tests;
