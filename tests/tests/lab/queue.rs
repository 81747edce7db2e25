//! queue: messages in a sidecar's durable queue, through kills, outages and stops.
//!
//! The programs beside the sidecars are in Go (`tests/lab/apps/queue`). The producer writes down what it
//! sends and each 202, the recorder each delivery, both line by line with a write of its own, so that
//! what was promised and what came of it can be laid side by side ([`ledger`]). The queue's directory is on
//! a real disk.
//!
//! `TIDEGATE_LONG=1` makes the long runs of these: 1,000 kills instead of 100.

mod aside;
mod away;
mod crash;
mod deadly;
mod failing;
mod ledger;
mod mathematics;
mod post;
mod programs;
mod stop;

/// Whether the long run is asked for.
fn is_long() -> bool {
    std::env::var("TIDEGATE_LONG").is_ok_and(|long| long == "1")
}
