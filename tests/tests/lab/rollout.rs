//! rollout: what changes under load, and costs nobody a request.
//!
//! The load is a program in Go (`tests/lab/apps/load`): an open loop over HTTP/1.1, HTTP/2 and gRPC,
//! whose libraries may not ask twice unnoticed. Every order has an id; the servers write down those
//! they carry out, so a request lost and a request doubled are both seen. `go` builds it at the first
//! use; the module proxy is asked then.

mod away;
mod load;
mod moved;
mod orders;
mod renewed;
mod restarts;
mod silence;
mod stop;

pub(crate) use load::wait;
