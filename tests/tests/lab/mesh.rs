//! mesh: the mesh cases of the Gateway API's conformance suite, and what lies between them.
//!
//! The cases bear the suite's own names (`kubernetes-sigs/gateway-api`, `conformance/tests/mesh`)
//! and check what it checks, with manifests of our own. There as here a pod asks from beside an
//! echo server: every case is asked from a pod that is only a client, and from `echo-v1` itself,
//! whose requests may come back to its own pod.

mod access;
mod ask;
mod basic;
mod grpc;
mod headers;
mod live;
mod matching;
mod redirects;
mod refusals;
mod retries;
mod shares;
mod town;
