//! lab: everything through two real sidecars under true redirection, with programs we did not write.
//!
//! Run by `tests/run --only lab`, as root; each test has a cluster of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod go;
mod mesh;
mod names;
mod network;
mod queue;
mod rollout;
mod traffic;
mod world;
