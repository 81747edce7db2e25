//! stored: a message's head, history, record and result as bytes in the store.
//!
//! Protobuf by hand-numbered fields: a field is never renumbered, a new one has a default, so that a
//! message stored by one version is delivered by the next. The store checks sums; what still does not
//! parse here was written by a newer version or by nobody, and is treated as damaged.

use bytes::Bytes;
use policy::limits;
use policy::queue::AsyncPolicy;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::message::Timestamp;

use crate::deliver::Response;
use crate::id::MessageId;
use crate::message::{Attempt, MessageState, Reason};
use crate::named::SINK;

/// What was stored cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} cannot be read: {why}")]
pub(crate) struct Unreadable {
    what: &'static str,
    why: String,
}

fn decode<M: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, Unreadable> {
    M::decode(bytes).map_err(|error| Unreadable { what, why: error.to_string() })
}

/// What is stored in front of the body, once and for all.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    #[prost(uint64, tag = "1")]
    pub(crate) enqueued_at: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) call: Bytes,
    #[prost(string, tag = "3")]
    pub(crate) owner: String,
    #[prost(string, optional, tag = "4")]
    pub(crate) key: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(crate) rate_key: Option<String>,
    #[prost(uint64, optional, tag = "6")]
    pub(crate) expires: Option<u64>,
    #[prost(string, optional, tag = "7")]
    pub(crate) callback: Option<String>,
    /// What the sidecar called it.
    #[prost(string, tag = "8")]
    pub(crate) about: String,
    /// Where it goes, if not where its queue goes (callbacks).
    #[prost(string, optional, tag = "9")]
    pub(crate) destination: Option<String>,
    /// Until when its idempotency key is remembered: as long, what became of it is.
    #[prost(uint64, optional, tag = "10")]
    pub(crate) remembered_until: Option<u64>,
    /// When its caller wanted it delivered at the earliest.
    #[prost(uint64, optional, tag = "11")]
    pub(crate) not_before: Option<u64>,
    /// The address that its id carries, which its caller was told; a pod may have another by now. None of what was
    /// stored before ids were to stay as they are.
    #[prost(fixed32, optional, tag = "12")]
    pub(crate) holder: Option<u32>,
}

impl Head {
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, Unreadable> {
        Self::decode(bytes.clone()).map_err(|error| Unreadable { what: "a head", why: error.to_string() })
    }

    pub(crate) fn enqueued_at(&self) -> Timestamp {
        Timestamp(self.enqueued_at)
    }

    /// Whether the message at the id's position is the one that the id means.
    pub(crate) fn is_of(&self, id: MessageId) -> bool {
        is_of(id, self.enqueued_at, self.holder)
    }

    /// What its age counts from.
    pub(crate) fn age_from(&self) -> Timestamp {
        Timestamp(self.not_before.map_or(self.enqueued_at, |at| at.max(self.enqueued_at)))
    }

    /// When it turns into a dead letter: by its policy's age, or earlier by its caller's wish. An age
    /// counts from when it may first be delivered, so that a delay is not taken off it. One that was
    /// redriven begins a new life then, and its caller's wish, which was not met, is over.
    pub(crate) fn expires_at(&self, age_max: Duration, redriven_at: Option<Timestamp>) -> Timestamp {
        let age_max = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        match redriven_at {
            Some(at) => Timestamp(at.0.saturating_add(age_max)),
            None => {
                let by_age = self.age_from().0.saturating_add(age_max);
                Timestamp(self.expires.map_or(by_age, |at| at.min(by_age)))
            }
        }
    }
}

fn is_of(id: MessageId, enqueued_at: u64, holder: Option<u32>) -> bool {
    id.enqueued_at().0 == enqueued_at && holder.is_none_or(|holder| id.holder().to_bits() == holder)
}

#[derive(Clone, PartialEq, Message)]
struct StoredAttempt {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(uint32, optional, tag = "2")]
    status: Option<u32>,
    #[prost(bool, tag = "3")]
    grpc: bool,
    #[prost(string, optional, tag = "4")]
    error: Option<String>,
    #[prost(uint64, tag = "5")]
    duration_ms: u64,
}

/// What became of a message so far.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct History {
    #[prost(message, repeated, tag = "1")]
    attempts: Vec<StoredAttempt>,
    /// Attempts that the receiver pushed back (429, 503): not counted, but waits grow with them.
    #[prost(uint32, tag = "2")]
    pub(crate) pushed_back: u32,
    /// Attempts that are not in `attempts` any more, from its middle.
    #[prost(uint32, tag = "3")]
    pub(crate) left_out: u32,
    /// Set in the dead letter.
    #[prost(string, optional, tag = "4")]
    word: Option<String>,
    /// When it came into the dead letter.
    #[prost(uint64, optional, tag = "5")]
    pub(crate) buried_at: Option<u64>,
    /// When it last came back from there.
    #[prost(uint64, optional, tag = "6")]
    pub(crate) redriven_at: Option<u64>,
}

impl History {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        decode("a history", bytes)
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Adds an attempt; of too many, those in the middle go.
    pub(crate) fn push(&mut self, attempt: Attempt) {
        let error = attempt.error.map(|mut error| {
            let mut end = error.len().min(limits::ATTEMPT_ERROR_BYTES_MAX);
            while !error.is_char_boundary(end) {
                end -= 1;
            }
            error.truncate(end);
            error
        });
        self.attempts.push(StoredAttempt {
            at: attempt.at.0,
            status: attempt.status.map(u32::from),
            grpc: attempt.grpc,
            error,
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        });
        if self.attempts.len() > limits::ATTEMPTS_KEPT {
            self.attempts.remove(limits::ATTEMPTS_KEPT / 2);
            self.left_out += 1;
        }
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts
            .iter()
            .map(|stored| Attempt {
                at: Timestamp(stored.at),
                status: stored.status.and_then(|status| u16::try_from(status).ok()),
                grpc: stored.grpc,
                error: stored.error.clone(),
                duration: Duration::from_millis(stored.duration_ms),
            })
            .collect()
    }

    pub(crate) fn last_status(&self) -> Option<u16> {
        self.attempts.last()?.status.and_then(|status| u16::try_from(status).ok())
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        self.word.as_deref().and_then(Reason::parse)
    }

    pub(crate) fn buried(mut self, reason: Reason, at: Timestamp) -> Self {
        self.word = Some(reason.as_str().into());
        self.buried_at = Some(at.0);
        self
    }
}

/// What stays of a message that ended.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Record {
    #[prost(uint64, tag = "1")]
    pub(crate) enqueued_at: u64,
    #[prost(string, tag = "2")]
    pub(crate) queue: String,
    #[prost(string, tag = "3")]
    pub(crate) owner: String,
    /// Cancelled rather than delivered.
    #[prost(bool, tag = "4")]
    pub(crate) cancelled: bool,
    #[prost(uint64, tag = "5")]
    pub(crate) ended_at: u64,
    #[prost(message, optional, tag = "6")]
    pub(crate) history: Option<History>,
    #[prost(uint32, tag = "7")]
    pub(crate) attempts_used: u32,
    /// Until when a result is shown.
    #[prost(uint64, tag = "8")]
    pub(crate) result_until: u64,
    /// There was a response that could be kept.
    #[prost(bool, tag = "9")]
    pub(crate) had_result: bool,
    /// It died, and was sent on to its policy's sink.
    #[prost(bool, tag = "10")]
    pub(crate) sunk: bool,
    /// As in its head.
    #[prost(fixed32, optional, tag = "11")]
    pub(crate) holder: Option<u32>,
}

impl Record {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        decode("a record", bytes)
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// It was delivered under a policy that keeps responses, and this one it did not: whatever is
    /// answered is small enough or too large.
    pub(crate) fn lacks_a_result(&self) -> bool {
        !self.had_result && self.state() == MessageState::Succeeded && self.result_until > self.ended_at
    }

    /// Whether the message at the id's position is the one that the id means.
    pub(crate) fn is_of(&self, id: MessageId) -> bool {
        is_of(id, self.enqueued_at, self.holder)
    }

    pub(crate) fn state(&self) -> MessageState {
        match (self.cancelled, self.sunk) {
            (true, _) => MessageState::Cancelled,
            (false, true) => MessageState::DeadLettered,
            (false, false) => MessageState::Succeeded,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct StoredResponse {
    #[prost(bytes = "bytes", tag = "1")]
    head: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

/// A response as bytes, if `bytes_max` allows its body.
pub(crate) fn response_bytes(response: &Response, bytes_max: u64) -> Option<Bytes> {
    if u64::try_from(response.body.len()).unwrap_or(u64::MAX) > bytes_max {
        return None;
    }
    let stored = StoredResponse { head: response.head.clone(), body: response.body.clone() };
    Some(stored.encode_to_vec().into())
}

/// A response from its bytes.
pub(crate) fn response_read(bytes: Bytes) -> Result<Response, Unreadable> {
    let stored = StoredResponse::decode(bytes)
        .map_err(|error| Unreadable { what: "a response", why: error.to_string() })?;
    Ok(Response { head: stored.head, body: stored.body })
}

/// A named queue's settings, so that its messages can be handled after a restart before the
/// controller was heard. JSON, as the policy's own wire form is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) policy: Arc<AsyncPolicy>,
    pub(crate) destination: Arc<str>,
    /// An operator paused it.
    #[serde(default)]
    pub(crate) paused: bool,
    /// Its messages are callbacks: each has a destination of its own.
    #[serde(default)]
    pub(crate) callbacks: bool,
}

impl Settings {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(bytes)
            .map_err(|error| Unreadable { what: "a queue's settings", why: error.to_string() })
    }

    /// Its messages are dead letters on their way to the policy's sink.
    pub(crate) fn is_sink(&self) -> bool {
        &*self.destination == SINK
    }

    /// Its dead letters are sent on to a sink.
    pub(crate) fn sinks(&self) -> bool {
        self.policy.delivery.sink.is_some() && !self.is_sink()
    }

    /// Without the secret: it does not belong on a disk, and comes again with the controller's word.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut stored = self.clone();
        if stored.policy.callback_secret.is_some() {
            let mut policy = (*stored.policy).clone();
            policy.callback_secret = None;
            stored.policy = Arc::new(policy);
        }
        // A policy is a plain tree of strings, numbers and spans.
        serde_json::to_vec(&stored).expect("a policy has a JSON form").into()
    }
}
