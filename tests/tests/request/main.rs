//! request: requests through the real controller and sidecars, to their limits and past them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod app;
mod client;
mod counted;
mod deadlines;
mod elsewhere;
mod expiry;
mod frames;
mod kept;
mod limits;
mod manifests;
mod mesh;
mod mistakes;
mod observability;
mod passage;
mod peer;
mod pieces;
mod refusals;
mod slow;
mod stops;
mod straight;
mod waits;
