//! disk: the store over disks that tear, forget, fill up and fail, held to what it answered.
//!
//! Most of it runs over a model of a disk ([`disk`]) that SQLite's calls are shown to ([`vfs`]); the rest
//! over real files. `TIDEGATE_LONG=1` runs thousands of seeds and every call of a long scenario instead
//! of a sample; a failure prints the `TIDEGATE_SEED` that plays it again. The writes, their answers and
//! the number of the call that fails come from the seed; which of the store's threads comes first does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod bound;
mod child;
mod client;
mod damage;
mod disk;
mod every_call;
mod full;
mod kill;
mod model;
mod random;
mod renewed;
mod seeds;
mod vfs;
