//! message: requests taken in as messages by real sidecars, held to the asynchronous contract.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "../request/client.rs"]
#[allow(dead_code, reason = "the request suite needs more of it")]
mod client;
#[path = "../request/mesh.rs"]
#[allow(dead_code, reason = "the request suite needs more of it")]
mod mesh;

mod accept;
mod broken;
mod callbacks;
mod cancel;
mod credentials;
mod drain;
mod grpc;
mod headers;
mod knative;
mod metrics;
mod observed;
mod opening;
mod operators;
mod opt_in;
mod order;
mod python;
mod quota;
mod rates;
mod receiver;
mod resources;
mod restart;
mod results;
mod shop;
mod sink;
mod spill;
mod strangers;
mod taken_in;
