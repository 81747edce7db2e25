//! deliver: what the sidecar lends this room, the way out; and what comes back from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use policy::queue::{AsyncPolicy, Sink};
use store::message::Timestamp;

use crate::id::MessageId;
use crate::message::{Attempt, MessageState, Reason};

/// A delivery under way.
pub type Delivering = Pin<Box<dyn Future<Output = Delivered> + Send>>;

/// The way out: given by the sidecar, which knows HTTP.
pub trait Deliver: Send + Sync + 'static {
    /// Makes one attempt, the synchronous way without its response retries. The future is polled on
    /// the queue's thread and dropped when `outgoing.timeout` is over, which counts as
    /// [`Answer::TimedOut`]: it must not block, and bytes must stop flowing when it is dropped.
    fn deliver(&self, outgoing: Outgoing) -> Delivering;

    /// Makes the request that tells a caller's callback of an end. It is called on the queue's thread
    /// just before the end is written, and must be short. `None`: nobody is told (a log line says so).
    /// It is not signed here: secrets are not stored, and a signature carries the time of its attempt.
    /// [`Deliver::deliver`] signs, with [`Outgoing::policy`]'s secret; without it (after a restart,
    /// before the controller was heard) it answers [`Answer::Unavailable`].
    fn callback(&self, of: &CallbackOf<'_>) -> Option<CallbackCall>;

    /// Makes of a message that died the call to its policy's sink; its body goes with it as it is. Called
    /// as [`Deliver::callback`] is. Where it goes is said by each attempt's [`Outgoing::policy`], as far as
    /// that still names a sink. `None`: the built-in dead letter keeps the message.
    fn sunk(&self, of: &SunkOf<'_>) -> Option<Bytes> {
        let _ = of;
        None
    }
}

/// One attempt of one message.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The message: `Tidegate-Request-Id`.
    pub id: MessageId,
    /// Its queue: `NAMESPACE/POLICY/DESTINATION`.
    pub queue: Arc<str>,
    /// The policy it is delivered under, as last heard.
    pub policy: Arc<AsyncPolicy>,
    /// Where it goes, in the sidecar's words.
    pub destination: Arc<str>,
    /// The call, in the sidecar's encoding.
    pub call: Bytes,
    /// The body.
    pub body: Bytes,
    /// From 1: `Tidegate-Attempt`.
    pub attempt: u32,
    /// When it was accepted: `Tidegate-Enqueued-At`.
    pub enqueued_at: Timestamp,
    /// Time for this attempt, enforced by this room as well.
    pub timeout: Duration,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// What decides.
    pub answer: Answer,
    /// The response, to be kept; `None` if there was none or it was too long.
    pub response: Option<Response>,
    /// For the operator's eyes: bounded, without credentials.
    pub error: Option<String>,
}

impl Delivered {
    /// An answer and nothing else.
    #[must_use]
    pub fn bare(answer: Answer) -> Self {
        Self { answer, response: None, error: None }
    }
}

/// A response in the sidecar's encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status and headers.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
}

/// What the receiver said, or why it said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A complete HTTP response.
    Status {
        /// Its status code.
        code: u16,
        /// `Retry-After`, as a span from now.
        retry_after: Option<Duration>,
    },
    /// A complete gRPC response.
    Grpc {
        /// `grpc-status`.
        code: u8,
        /// `grpc-retry-pushback-ms`.
        pushback: Option<Duration>,
    },
    /// It took longer than the attempt's timeout.
    TimedOut,
    /// The connection was lost after bytes went out.
    Broken,
    /// Nothing went out: no ready endpoint, failed connect, TLS refusal, open breaker.
    Unavailable {
        /// The error token of RFC 9209, shown as the reason why the queue waits.
        token: &'static str,
    },
    /// It cannot be sent as it is stored: a programming error, or a setting that is gone.
    Misconfigured,
}

/// The end of a message whose caller asked to be told.
#[derive(Debug, Clone, Copy)]
pub struct CallbackOf<'a> {
    /// The message that ended.
    pub id: MessageId,
    /// Its queue.
    pub queue: &'a str,
    /// The policy it was delivered under.
    pub policy: &'a AsyncPolicy,
    /// What its caller sent as `Tidegate-Callback`.
    pub callback: &'a str,
    /// Who enqueued it.
    pub owner: &'a str,
    /// [`MessageState::Succeeded`] or [`MessageState::DeadLettered`].
    pub state: MessageState,
    /// Why, in the dead letter.
    pub reason: Option<Reason>,
    /// The last response.
    pub response: Option<&'a Response>,
    /// Attempts used up.
    pub attempts: u32,
    /// When it was accepted.
    pub enqueued_at: Timestamp,
    /// Now.
    pub at: Timestamp,
}

/// A message that died and is sent on to its policy's sink.
#[derive(Debug, Clone, Copy)]
pub struct SunkOf<'a> {
    /// The message that died.
    pub id: MessageId,
    /// Where it is sent on to.
    pub sink: &'a Sink,
    /// Its call.
    pub call: &'a Bytes,
    /// Why it died.
    pub reason: Reason,
    /// Its last attempt.
    pub last: Option<&'a Attempt>,
    /// The last attempt's response, if that is why it died.
    pub response: Option<&'a Response>,
}

/// The request that tells a callback: stored as a message of its own.
#[derive(Debug, Clone)]
pub struct CallbackCall {
    /// Where it goes.
    pub destination: Arc<str>,
    /// The call.
    pub call: Bytes,
    /// The body.
    pub body: Bytes,
}
