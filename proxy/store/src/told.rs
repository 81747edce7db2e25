//! told: what whoever opened a store hears of it, and what it is like when asked.

use std::sync::Arc;

use crate::message::Entry;

/// Where it is told.
pub(crate) type Told = Box<dyn FnMut(Event<'_>) + Send>;

/// What the store does.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A batch is about to be written.
    Begins,
    /// It is flushed: these messages were stored, in the order of positions. Told before whoever
    /// stored them hears of it.
    Committed(&'a [Entry]),
    /// It was not written, or nobody knows. Told once too, by whatever thread saw it, when the store is
    /// poisoned by something else than a batch: a read, a checkpoint, a thread that is gone.
    Failed,
    /// The look through all pages after an unclean stop has found what is in no order.
    Damaged(&'a str),
}

/// What a store is like.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Why it cannot be trusted any more.
    pub poisoned: Option<Arc<str>>,
    /// What is wrong with its pages, though it goes on with what it can read.
    pub damaged: Option<Arc<str>>,
    /// Why its files are in doubt: the disk failed before it was opened, and there was no room to copy them.
    pub doubted: Option<Arc<str>>,
    /// Why it takes nothing in at the moment.
    pub full: Option<Arc<str>>,
    /// Bytes taken of those it may take; all that is set aside counts as taken.
    pub bytes: u64,
    /// Bytes it may take.
    pub bytes_max: u64,
}
