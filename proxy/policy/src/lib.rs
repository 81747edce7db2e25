//! policy: the words in which the controller tells a proxy what to do.
//!
//! A proxy never reads Kubernetes objects. The controller compiles them into **documents**: one
//! [`Destination`](snapshot::Destination) for each address or name that the proxy asked for, one
//! [`Backend`](snapshot::Backend) for each set of endpoints those destinations send to, one
//! [`Inbound`](snapshot::Inbound) for the workload the proxy stands beside, and one
//! [`Mesh`](snapshot::Mesh) that says where the mesh ends. All documents a proxy holds at one
//! moment are its [`Snapshot`](snapshot::Snapshot): immutable, shared between workers, swapped
//! whole. Asking it a question lives with the asker; this room only defines the words.
//!
//! # On the wire
//! [`wire`] carries documents over the `Watch` stream of `tidegate.policy.v1`. The envelope is
//! protobuf; a document's body is JSON of the types in this crate. That is on purpose: prost drops
//! fields it does not know, so a typed message from a newer controller would silently lose, say, a
//! restriction. Here a document with a field this proxy does not know is refused whole
//! (`deny_unknown_fields`), the proxy keeps its last good version and says so in its
//! acknowledgement: policy fails closed. New fields are left out while they have their default, so
//! a rolling upgrade of the controller disturbs no proxy until a new feature is used.
//!
//! # Parse once
//! Names, ports, ratios, identities are types whose constructor is the only check. Whoever holds
//! one needs no second look.

pub mod endpoint;
pub mod identity;
pub mod limits;
pub mod name;
pub mod queue;
pub mod retry;
pub mod route;
pub mod snapshot;
pub mod wire;
