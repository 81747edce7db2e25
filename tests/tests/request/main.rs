//! request: requests through the real controller and sidecars, to their limits and past them.

mod app;
mod client;
mod expiry;
mod frames;
mod kept;
mod limits;
mod mesh;
mod mistakes;
mod observability;
mod passage;
mod peer;
mod pieces;
mod refusals;
mod stops;
