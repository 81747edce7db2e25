//! queue: one message, taken in, kept, handed out, delivered or buried.

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
mod pressure;
mod rates;
mod recover;
mod schedule;
mod settle;
mod setup;
mod slab;
mod state;
mod status;
mod stored;
mod unheard;
mod worker;

pub use clock::{Clock, WallClock};
pub use dead_letter::RedriveError;
pub use deliver::{
    Answer, CallbackCall, CallbackOf, Deliver, Delivered, Delivering, Outgoing, Response,
};
pub use enqueue::{Accepted, Enqueue, Idempotency, Refused};
pub use handle::{Failed, Left, Options, Queue};
pub use id::{Class, MessageId, NotAnId};
pub use message::{
    Attempt, Exported, Filter, MessageState, Outcome, Page, Part, Peeked, Reason, Status,
};
pub use metrics::Metrics;
pub use operate::QueueView;
pub use pressure::Sample;
pub use schedule::Blocked;
pub use status::CancelError;
pub use store::message::Timestamp;
pub use store::{Condition, OpenError, StoreError};
