//! queue: one message, taken in, kept, handed out, delivered or buried.
//!
//! # What it is
//! A [`Queue`] is one store, on a volume or in memory, and all **named queues** in it: a policy and a
//! destination each, `NAMESPACE/POLICY/DESTINATION`. It knows no HTTP: a message is a *call* and a
//! *body* in the sidecar's encoding, and the way out is lent by the sidecar ([`Deliver`]). What a caller
//! can rely on is the asynchronous contract; each sentence of it has a test here.
//!
//! # The way of a message
//! **admit** (`enqueue`): on its caller's own task, room is reserved in the queue's bounds and the
//! message is written; the caller hears of it after the flush. The store's writer has told the queue's
//! thread before that, in the order of positions.
//! **dispatch** (`worker`, `state`): one thread owns an index of 32 bytes for each waiting message, and
//! asks it what is next: by priority and order, one at a time for each ordering key, as fast as the
//! policy allows and the receiver takes it.
//! **deliver** (`attempt`): the message is read, the beginning of the attempt is flushed, then its
//! bytes leave. A message that kills its sender has used that attempt up.
//! **settle** (`settle`): the answer is looked up in a table, and what follows is one write: done, with
//! a record and a result; again, at a wall time; or to the dead letter. What tells a callback is a
//! message in that same write. Only when it is flushed does the index hear of it, and the lane go on: so
//! after a crash at most one message of each key repeats.
//!
//! # Who owns what
//! The index, the pace of each queue and all decisions belong to the queue's thread, which never blocks
//! on the disk: what it writes and reads are tasks on the same thread that wait for the store's own
//! threads. Handles ask it over a bounded channel. Shared are only counts: room that is taken, messages
//! in the dead letter, figures for metrics.
//!
//! # What is pure
//! `slab`, `heap`, `lanes`, `rates`, `schedule`, `state` and `settle` know no clock, no disk and no
//! task: they are told what happened and when. They are compared with a list of messages and three
//! rules (`state/tests/model`).
//!
//! # Time
//! Stored times are wall time, given by a [`Clock`]. Waiting goes by tokio's clock; times are translated
//! when they come in, so a wall clock that is set moves nothing that waits.
//!
//! # When the receiver is away
//! No ready endpoint, a failed connect, an open breaker: nothing is said about any message, so none is
//! touched. The queue waits, longer each time, and then lets one through to see. The same holds after a
//! few answers 429 or 503 in a row. One message that alone is pushed back waits alone.
//!
//! # When something is full
//! A full queue refuses with the time at which there may be room. A full dead letter stops its queue,
//! visibly. A full disk refuses what comes and waits with what is under way. Nothing is dropped.
//!
//! # When the disk lies
//! After a failed flush the store is poisoned: nothing is taken in or handed out until the program is
//! started again, and whoever waited for that flush hears that the outcome is unknown.
//!
//! # How it is found again
//! The settings of each queue stand in the store: messages are handled before the controller was heard.
//! The index is built from one pass over the store; ages are read from the messages' heads afterwards, in
//! the background (`recover`).
//!
//! # How it ends
//! [`Queue::begin_drain`] refuses what comes; [`Queue::drained`] goes on at full speed for as long as it
//! may, waits for what is under way, and says what is left; [`Queue::close`] lets the store go. What an
//! end cuts off is found begun, and repeats; nothing comes into the dead letter because of it.

mod admission;
mod attempt;
mod callback;
mod clock;
mod dead_letter;
mod deliver;
mod drain;
mod enqueue;
mod handle;
mod heap;
mod id;
mod lanes;
mod message;
mod metrics;
mod named;
mod operate;
mod panics;
mod pressure;
mod rates;
mod recover;
mod redrive;
mod schedule;
mod settle;
mod setup;
mod sink;
mod slab;
mod state;
mod status;
mod stored;
#[cfg(test)]
mod tests;
mod unheard;
mod worker;

pub use admission::Bound;
pub use clock::{Clock, WallClock};
pub use dead_letter::RedriveError;
pub use deliver::{
    Answer, CallbackCall, CallbackOf, Deliver, Delivered, Delivering, Outgoing, Response, SunkOf,
};
pub use enqueue::{Accepted, Enqueue, Idempotency, Refused};
pub use handle::{Failed, Left, Options, Queue};
pub use id::{Class, MessageId, NotAnId};
pub use message::{Attempt, Exported, Filter, MessageState, Outcome, Page, Part, Peeked, Reason, Status};
pub use metrics::{Metrics, closed_for};
pub use operate::QueueView;
pub use pressure::Sample;
pub use redrive::Redrive;
pub use schedule::Blocked;
pub use status::CancelError;
pub use store::message::Timestamp;
pub use store::{Condition, OpenError, StoreError};
