//! lab: everything through two real sidecars under true redirection, with programs we did not write.
//!
//! Run by `tests/run --only lab`, as root; each test has a cluster of its own.

mod mesh;
mod rollout;
mod traffic;
mod world;
