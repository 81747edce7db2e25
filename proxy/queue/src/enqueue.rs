//! enqueue: admit, store, answer.
//!
//! Runs on the caller's own task, not on the queue's thread: it finds the named queue, reserves room
//! in its bounds, writes, and is done when the flush is. The thread hears of the message from the
//! store, in the order of positions, before the caller does.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use policy::limits;
use policy::queue::AsyncPolicy;
use prost::Message as _;
use sha2::{Digest, Sha256};
use store::StoreError;
use store::message::{Change, Changed, Dedupe, Draft, Position, Timestamp};

use crate::admission::{Bound, Reserved};
use crate::handle::{Failed, Queue};
use crate::id::MessageId;
use crate::metrics::EnqueueResult;
use crate::named::{CALLBACKS, Named, name_of};
use crate::stored::{Head, Record};

/// A message to be taken in.
#[derive(Debug, Clone)]
pub struct Enqueue {
    /// The policy it comes under.
    pub policy: Arc<AsyncPolicy>,
    /// Where it goes, in the sidecar's words: with the policy's name it names the queue.
    pub destination: Arc<str>,
    /// The call, in the sidecar's encoding (method, path, headers).
    pub call: Bytes,
    /// The body.
    pub body: Bytes,
    /// What operators read about it, without credentials: `POST /orders`.
    pub about: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// The value of `rateLimits.key`'s header.
    pub rate_key: Option<String>,
    /// 0, the most urgent, to 7 (RFC 9218; 3 if the caller says nothing).
    pub priority: u8,
    /// Not delivered before; at most [`limits::MESSAGE_DELAY_MAX`] ahead.
    pub not_before: Option<Timestamp>,
    /// A dead letter afterwards, if that is earlier than the policy's age.
    pub expires: Option<Timestamp>,
    /// How a repetition is recognised.
    pub idempotency: Option<Idempotency>,
    /// Who is told of its end.
    pub callback: Option<String>,
    /// The identity that may read and cancel it.
    pub owner: String,
}

/// How a repetition is recognised.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The key, without quotes.
    pub key: String,
    /// SHA-256 over method, authority, path with query, and body.
    pub fingerprint: [u8; 32],
}

/// A message that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// It was taken in before: this is the first one's id.
    pub duplicate: bool,
    /// When it, the first one, was accepted.
    pub enqueued_at: Timestamp,
    /// When to ask what became of it, from depth and drain rate.
    pub retry_after: Duration,
}

/// Why a message was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 429: its queue is full.
    #[error("the queue is full: {bound}")]
    QueueFull {
        /// What is used up.
        bound: Bound,
        /// When there may be room, from depth and drain rate.
        retry_after: Duration,
    },
    /// 429: all queues together hold as many messages as they may.
    #[error("too many messages wait in this proxy")]
    SourceOverQuota {
        /// When there may be room.
        retry_after: Duration,
    },
    /// 429: as many idempotency keys are remembered as may be.
    #[error("{keys_max} idempotency keys are remembered, as many as may be")]
    TooManyKeys {
        /// Keys that may be.
        keys_max: u64,
    },
    /// 429: a queue more than may be.
    #[error("too many queues")]
    TooManyQueues,
    /// 422: the idempotency key belongs to another message.
    #[error("the idempotency key was used with another content")]
    OtherFingerprint,
    /// 503: the proxy is being stopped.
    #[error("the proxy is draining")]
    Draining,
    /// 503: the disk has no room.
    #[error("the store is full: {0}")]
    DiskFull(Arc<str>),
    /// 413: it does not fit the store, whatever its policy allows.
    #[error("{bytes} bytes do not fit the store: {bytes_max} do at most")]
    TooLarge {
        /// Bytes of head and body.
        bytes: u64,
        /// Bytes that may be.
        bytes_max: u64,
    },
    /// 503: the outcome is unknown; try again with the same key.
    #[error("the store cannot be trusted any more, the outcome is unknown: {0}")]
    Poisoned(Arc<str>),
    /// 400: outside the bounds of [`limits`].
    #[error("{0}")]
    Invalid(&'static str),
}

impl Refused {
    /// When to try again, where that helps.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. } | Self::SourceOverQuota { retry_after } => Some(*retry_after),
            Self::TooManyKeys { .. } => Some(limits::QUEUE_RETRY_AFTER_MAX),
            Self::TooManyQueues | Self::Draining | Self::DiskFull(_) => Some(limits::QUEUE_RETRY_AFTER_MIN),
            Self::OtherFingerprint | Self::TooLarge { .. } | Self::Poisoned(_) | Self::Invalid(_) => None,
        }
    }
}

impl Queue {
    /// Takes a message in: returns after the flush that made it durable (class Local).
    ///
    /// # Errors
    /// [`Refused`]: it was not taken in; after [`Refused::Poisoned`] nobody knows.
    ///
    /// # Cancel safety
    /// Dropping the future before the write began leaves nothing behind. Afterwards the message may be
    /// stored, unheard: it will be delivered as any other, and the same idempotency key finds it.
    pub async fn enqueue(&self, enqueue: Enqueue) -> Result<Accepted, Refused> {
        let shared = self.shared();
        let now = shared.clock.now();
        let named = match self.queue_of(&enqueue, now).await {
            Ok(named) => named,
            Err(refused) => {
                shared.metrics.refused(EnqueueResult::of(&Err(refused.clone())));
                return Err(refused);
            }
        };
        let accepted = self.admit(&named, &enqueue, now).await;
        named.series.enqueued(EnqueueResult::of(&accepted));
        accepted
    }

    async fn queue_of(&self, enqueue: &Enqueue, now: Timestamp) -> Result<Arc<Named>, Refused> {
        check(enqueue, now)?;
        if self.shared().draining() {
            return Err(Refused::Draining);
        }
        self.named(&enqueue.policy, &enqueue.destination, false).await
    }

    async fn admit(
        &self,
        named: &Arc<Named>,
        enqueue: &Enqueue,
        now: Timestamp,
    ) -> Result<Accepted, Refused> {
        let head = Head { holder: Some(self.shared().holder.to_bits()), ..head(enqueue, now) };
        let draft = draft(named, enqueue, &head, now);
        let bytes = (draft.head.len() + draft.body.len()) as u64;
        let reserved = match self.shared().reserve(named, bytes) {
            Ok(reserved) => reserved,
            Err(full) => return self.known_or(named, draft.dedupe, full).await,
        };
        if enqueue.callback.is_some() {
            // A settle appends to it: as long as room is taken under its policy it is not removed.
            self.named(&enqueue.policy, CALLBACKS, true).await?;
        }
        match self.append(draft, reserved, &head).await {
            Ok(Changed::Stored(position)) => {
                Ok(self.accepted(named, self.shared().id(now, position, None), false))
            }
            Ok(Changed::Duplicate { same: false, .. }) => Err(Refused::OtherFingerprint),
            Ok(Changed::Duplicate { position, same: true }) => self.first_of(named, position).await,
            Ok(other) => {
                tracing::error!(?other, "the store answered an append with something else");
                Err(Refused::Poisoned("the store gave an answer that it cannot give".into()))
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// A repetition needs no room: it is told so also when there is none.
    async fn known_or(
        &self,
        named: &Arc<Named>,
        dedupe: Option<Dedupe>,
        full: Refused,
    ) -> Result<Accepted, Refused> {
        let Some(dedupe) = dedupe else { return Err(full) };
        self.repeated(named, dedupe).await?.ok_or(full)
    }

    /// The message that a key stands for within its window, if it does: nothing is taken in.
    ///
    /// # Errors
    /// [`Refused::OtherFingerprint`], or what ails the store.
    pub async fn known(
        &self,
        policy: &AsyncPolicy,
        destination: &str,
        owner: &str,
        idempotency: &Idempotency,
    ) -> Result<Option<Accepted>, Refused> {
        let (shared, name) = (self.shared(), name_of(policy, destination));
        let known = shared.names.read().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned();
        let Some(named) = known else { return Ok(None) };
        let now = shared.clock.now();
        self.repeated(&named, dedupe(&named, owner, idempotency, now, now)).await
    }

    async fn repeated(&self, named: &Named, dedupe: Dedupe) -> Result<Option<Accepted>, Refused> {
        match self.shared().store.find(dedupe).await.map_err(refused)? {
            Some(Changed::Duplicate { position, same: true }) => {
                self.first_of(named, position).await.map(Some)
            }
            Some(Changed::Duplicate { same: false, .. }) => Err(Refused::OtherFingerprint),
            _ => Ok(None),
        }
    }

    /// Writes; the rest of it happens also when nobody waits any more.
    async fn append(&self, draft: Draft, reserved: Reserved, head: &Head) -> Result<Changed, StoreError> {
        let store = self.shared().store.clone();
        let expires = head.expires.map(Timestamp);
        let queue = self.clone();
        let write = async move {
            let changed = store.write(vec![Change::Append(draft)]).await.map(|changed| changed[0]);
            match &changed {
                Ok(Changed::Stored(position)) => {
                    reserved.keep();
                    if let Some(expires) = expires {
                        queue.note_expiry(*position, expires).await;
                    }
                }
                // Nobody knows: what may be on disk keeps its room.
                Err(StoreError::Poisoned(_)) => reserved.keep(),
                _ => drop(reserved),
            }
            changed
        };
        crate::unheard::Unheard::new(self.shared().runtime.clone(), write).await
    }

    fn accepted(&self, named: &Named, id: MessageId, duplicate: bool) -> Accepted {
        let retry_after = named.retry_after_those_before(self.shared().steady.now());
        Accepted { id, duplicate, enqueued_at: id.enqueued_at(), retry_after }
    }

    /// The message a repetition repeats, which may have ended since.
    async fn first_of(&self, named: &Named, position: Position) -> Result<Accepted, Refused> {
        let (shared, store) = (self.shared(), &self.shared().store);
        if let Some(loaded) = unless_damaged(store.load(position).await)?
            && let Ok(head) = Head::read(&loaded.head)
        {
            let id = shared.id(head.enqueued_at(), position, head.holder);
            return Ok(self.accepted(named, id, true));
        }
        if let Some(ended) = unless_damaged(store.ended(position).await)?
            && let Ok(record) = Record::read(&ended.record)
        {
            let id = shared.id(Timestamp(record.enqueued_at), position, record.holder);
            return Ok(self.accepted(named, id, true));
        }
        // Its record had to make room. It is not taken in again; the id, of another time, answers 404.
        tracing::debug!(%position, "nothing is left of a message whose idempotency key is remembered");
        Ok(self.accepted(named, shared.id(shared.clock.now(), position, None), true))
    }
}

/// What is damaged is as good as gone.
fn unless_damaged<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, Refused> {
    match read {
        Err(StoreError::Damaged { .. }) => Ok(None),
        read => read.map_err(refused),
    }
}

fn refused(error: StoreError) -> Refused {
    match error {
        StoreError::Full(why) => Refused::DiskFull(why),
        StoreError::TooManyKeys(keys_max) => Refused::TooManyKeys { keys_max },
        StoreError::TooLarge { bytes, bytes_max } => Refused::TooLarge { bytes, bytes_max },
        StoreError::Closed => Refused::Draining,
        StoreError::Poisoned(why) | StoreError::Read(why) => Refused::Poisoned(why),
        StoreError::Damaged { details, .. } => Refused::Poisoned(details),
    }
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(error) => refused(error),
            Failed::Refused(refused) => *refused,
            Failed::Stopped | Failed::UnknownQueue => Self::Draining,
        }
    }
}

fn check(enqueue: &Enqueue, now: Timestamp) -> Result<(), Refused> {
    let long =
        |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > limits::MESSAGE_KEY_BYTES_MAX);
    let delay = enqueue.not_before.map_or(0, |at| at.0.saturating_sub(now.0));
    if long(&enqueue.key) || long(&enqueue.rate_key) || long(&enqueue.callback) {
        return Err(Refused::Invalid("a key or a callback is too long"));
    }
    if enqueue.idempotency.as_ref().is_some_and(|it| it.key.len() > limits::MESSAGE_KEY_BYTES_MAX) {
        return Err(Refused::Invalid("the idempotency key is too long"));
    }
    if u128::from(delay) > limits::MESSAGE_DELAY_MAX.as_millis() {
        return Err(Refused::Invalid("the delay is too long"));
    }
    if enqueue.body.len() as u64 > limits::MESSAGE_BODY_BYTES_CAP {
        return Err(Refused::Invalid("the body is too long"));
    }
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn head(enqueue: &Enqueue, now: Timestamp) -> Head {
    let remembered =
        enqueue.idempotency.as_ref().map(|_| now.0.saturating_add(millis(enqueue.policy.idempotency_window)));
    Head {
        enqueued_at: now.0,
        call: enqueue.call.clone(),
        owner: enqueue.owner.clone(),
        key: enqueue.key.clone(),
        rate_key: enqueue.rate_key.clone(),
        expires: enqueue.expires.map(|at| at.0),
        callback: enqueue.callback.clone(),
        about: enqueue.about.clone(),
        destination: None,
        remembered_until: remembered,
        not_before: enqueue.not_before.map(|at| at.0),
        holder: None,
    }
}

fn draft(named: &Named, enqueue: &Enqueue, head: &Head, now: Timestamp) -> Draft {
    let until = Timestamp(head.remembered_until.unwrap_or(now.0));
    let dedupe = enqueue.idempotency.as_ref().map(|it| dedupe(named, &enqueue.owner, it, now, until));
    Draft {
        queue: named.id,
        lane: enqueue.key.as_deref().map(lane_of),
        priority: enqueue.priority.min(7),
        due_at: enqueue.not_before.filter(|at| *at > now),
        head: head.encode_to_vec().into(),
        body: enqueue.body.clone(),
        dedupe,
    }
}

fn dedupe(named: &Named, owner: &str, it: &Idempotency, now: Timestamp, until: Timestamp) -> Dedupe {
    let key = hash128(&[named.name.as_bytes(), owner.as_bytes(), it.key.as_bytes()]);
    Dedupe { key, fingerprint: hash128(&[&it.fingerprint]), now, until }
}

/// The hash of an ordering key. Two keys of one hash share a lane, at the cost of time: 1 in 37 million at 10⁶ keys.
pub(crate) fn lane_of(key: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash128(&[key.as_bytes()]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn hash128(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hash.finalize()[..16]);
    out
}
