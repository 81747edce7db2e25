//! message: the words for a message as its caller and an operator see it.

use std::time::Duration;

use bytes::Bytes;
use store::message::Timestamp;

use crate::deliver::Response;
use crate::id::{Class, MessageId};

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageState {
    /// It may be delivered, or waits behind another of its lane.
    Queued,
    /// It waits for the time its caller named.
    Scheduled,
    /// An attempt is under way.
    Delivering,
    /// An attempt failed; it waits for the next.
    Retrying,
    /// It was delivered.
    Succeeded,
    /// It will not be delivered unless somebody redrives it.
    DeadLettered,
    /// Its caller took it back.
    Cancelled,
}

impl MessageState {
    /// The word of the status document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Scheduled => "Scheduled",
            Self::Delivering => "Delivering",
            Self::Retrying => "Retrying",
            Self::Succeeded => "Succeeded",
            Self::DeadLettered => "DeadLettered",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::DeadLettered | Self::Cancelled)
    }
}

/// Why a message is in the dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The receiver refused it for good.
    NonRetryable,
    /// Its attempts are used up.
    Exhausted,
    /// It grew too old.
    Expired,
    /// The receiver says it is gone for ever (410).
    Gone,
    /// It cannot be sent as it is stored.
    Misconfigured,
    /// What is stored is damaged.
    Damaged,
}

impl Reason {
    /// The word of the status document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NonRetryable => "NonRetryable",
            Self::Exhausted => "Exhausted",
            Self::Expired => "Expired",
            Self::Gone => "Gone",
            Self::Misconfigured => "Misconfigured",
            Self::Damaged => "Damaged",
        }
    }

    /// The reason of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::NonRetryable,
            Self::Exhausted,
            Self::Expired,
            Self::Gone,
            Self::Misconfigured,
            Self::Damaged,
        ];
        all.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// One attempt, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// The response's status: HTTP's, or gRPC's when `grpc`.
    pub status: Option<u16>,
    /// `status` is gRPC's.
    pub grpc: bool,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took; zero if nobody knows, because the sender stopped in the middle.
    pub duration: Duration,
}

/// All that may be told of a message to whoever enqueued it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub id: MessageId,
    /// Its queue: `NAMESPACE/POLICY/DESTINATION`.
    pub queue: String,
    /// Who enqueued it: whoever asks is compared with it by the sidecar.
    pub owner: String,
    /// Where it stands.
    pub state: MessageState,
    /// Why, in the dead letter.
    pub reason: Option<Reason>,
    /// Which store keeps it.
    pub durability: Class,
    /// When it was accepted.
    pub enqueued_at: Timestamp,
    /// Its attempts: of more than [`policy::limits::ATTEMPTS_KEPT`], the first and the last ones.
    pub attempts: Vec<Attempt>,
    /// Attempts used up, also those that are not kept.
    pub attempts_used: u32,
    /// Not attempted before.
    pub next_attempt_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// A response is kept.
    pub has_result: bool,
}

impl Status {
    /// Whether it was sent on to its policy's sink: it is known, but not kept here.
    pub(crate) fn is_sunk(&self) -> bool {
        self.state == MessageState::DeadLettered && self.reason != Some(Reason::Damaged)
    }
}

/// What there is of a message's final response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended: 202.
    Pending(Status),
    /// It ended with this response, whatever its status: replayed.
    Response(Status, Response),
    /// It ended without a response, or its policy keeps none: a problem document.
    Without(Status),
    /// It was delivered, and the response was larger than its policy keeps.
    TooLarge(Status),
    /// The response's time is over, or it had to make room: 410.
    Gone(Status),
}

impl Outcome {
    /// The message's status, which every outcome has.
    #[must_use]
    pub fn status(&self) -> &Status {
        match self {
            Self::Pending(status)
            | Self::Response(status, _)
            | Self::Without(status)
            | Self::TooLarge(status)
            | Self::Gone(status) => status,
        }
    }
}

/// Which messages of a queue an operator means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Those to be delivered.
    Waiting,
    /// Those in the dead letter.
    Dead,
    /// Those whose stored bytes are damaged.
    Quarantined,
}

/// Which of those, by what is known without the body. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In the dead letter for this reason.
    pub reason: Option<Reason>,
    /// With this ordering key.
    pub key: Option<String>,
    /// Whose last attempt was answered with this status.
    pub status: Option<u16>,
    /// Accepted before.
    pub before: Option<Timestamp>,
    /// Accepted at that time or later.
    pub since: Option<Timestamp>,
}

/// A message as an operator sees it: no header, no body, no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// What its owner may know too.
    pub status: Status,
    /// What the sidecar called it: method and path, say.
    pub about: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// 0, the most urgent, to 7.
    pub priority: u8,
    /// Bytes of call and what is kept with it.
    pub head_bytes: u64,
    /// Bytes of the whole as the store counts them.
    pub bytes: u64,
    /// When it turns into a dead letter if it is not delivered before.
    pub expires_at: Option<Timestamp>,
}

/// A message whole, for an export. The sidecar takes credentials off the call before it shows it.
#[derive(Debug, Clone)]
pub struct Exported {
    /// What is known of it.
    pub peeked: Peeked,
    /// The call, in the sidecar's encoding.
    pub call: Bytes,
    /// The body.
    pub body: Bytes,
    /// The response kept with a dead letter.
    pub response: Option<Response>,
}

/// A part of a longer list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// In the order of acceptance.
    pub items: Vec<T>,
    /// Give it back to get what follows; `None`: that was all.
    pub next: Option<u64>,
}
