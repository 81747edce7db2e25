//! attempt: load, begin, deliver, settle.
//!
//! The beginning of an attempt is flushed before its bytes leave: a message that kills its sender has
//! used an attempt up when it is found again, and reaches the dead letter in the end. Its end is
//! flushed before the lane goes on.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use policy::limits;
use policy::queue::AsyncPolicy;
use store::StoreError;
use store::message::{Change, Changed, Entry, Loaded, Position, Timestamp};
use tokio::task::JoinSet;

use crate::deliver::{Answer, Delivered, Outgoing, Response};
use crate::id::MessageId;
use crate::message::{Attempt, MessageState, Reason};
use crate::metrics::AttemptOutcome;
use crate::named::Named;
use crate::settle::{Facts, Meaning, Verdict, meaning, verdict};
use crate::state::Dispatch;
use crate::stored::{Head, History, Record, Settings, response_bytes};
use crate::worker::Worker;

/// When a message last came back from the dead letter. The store keeps no time of it, but a due time
/// that we set; the first attempt afterwards moves it into the history.
pub(crate) fn redriven_at(entry: &Entry, history: &History) -> Option<Timestamp> {
    if entry.order == entry.position.0 {
        return None;
    }
    history.redriven_at.map(Timestamp).or(entry.due_at)
}

/// A message that was read, and all that is said about it.
pub(crate) struct Opened {
    pub(crate) loaded: Loaded,
    pub(crate) head: Head,
    pub(crate) history: History,
    pub(crate) settings: Arc<Settings>,
    pub(crate) redriven_at: Option<Timestamp>,
    /// The history says more than what is stored.
    changed: bool,
}

impl Opened {
    pub(crate) fn position(&self) -> Position {
        self.loaded.entry.position
    }

    pub(crate) fn policy(&self) -> &AsyncPolicy {
        &self.settings.policy
    }

    pub(crate) fn expires_at(&self) -> Timestamp {
        self.head.expires_at(self.policy().delivery.age_max, self.redriven_at)
    }
}

/// An attempt that was made.
struct Made {
    began: Timestamp,
    took: Duration,
    delivered: Delivered,
}

impl Worker {
    /// One attempt of a message that is ours; at its end it is gone from the index or waits again.
    pub(crate) async fn attempt(self: &Rc<Self>, named: &Arc<Named>, dispatch: Dispatch) {
        let most = u32::try_from(limits::DELIVERY_BODY_BYTES_TOTAL).unwrap_or(u32::MAX);
        let room = self.bodies.acquire_many(dispatch.size.min(most)).await;
        let _room = room.expect("the semaphore is never closed");
        let position = dispatch.position;
        let Some(mut message) = self.open_message(named, position, None).await else { return };
        let entry = message.loaded.entry;
        if entry.begun {
            message.history.push(interrupted(&entry, &message.head));
            message.changed = true;
        }
        let wall = self.shared.clock.now();
        if wall >= message.expires_at() {
            return self.bury(named, message, Reason::Expired, None).await;
        }
        if u32::from(entry.attempts) > message.policy().delivery.retry {
            return self.bury(named, message, Reason::Exhausted, None).await;
        }
        let mut steps = Vec::with_capacity(2);
        if message.changed {
            // Should this attempt be cut off too, the ones before are still told.
            let history = Some(message.history.bytes());
            steps.push(Change::Retry { position, due_at: None, free: false, history });
        }
        steps.push(Change::Begin(position));
        match self.shared.store.write(steps).await {
            Ok(changed) if changed.first() != Some(&Changed::Missing) => {}
            Ok(_) => return self.vanished(named, position, entry.bytes),
            Err(error) => return self.not_now(named, position, None, &error),
        }
        message.loaded.entry.attempts = entry.attempts.saturating_add(1);
        self.carried.borrow_mut().insert(position);
        let made = self.carry(named, &message).await;
        self.carried.borrow_mut().remove(&position);
        self.settle(named, message, made).await;
    }

    /// Reads a message that is ours; if it cannot be read it is set aside, or waits again until `due`,
    /// and is ours no more.
    pub(crate) async fn open_message(
        &self,
        named: &Named,
        position: Position,
        due: Option<Timestamp>,
    ) -> Option<Opened> {
        let loaded = match self.shared.store.load(position).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                self.vanished(named, position, 0);
                return None;
            }
            Err(StoreError::Damaged { details, .. }) => {
                self.set_aside(named, position, &details).await;
                return None;
            }
            Err(error) => {
                self.not_now(named, position, due, &error);
                return None;
            }
        };
        let read = Head::read(&loaded.head).and_then(|head| Ok((head, History::read(&loaded.history)?)));
        match read {
            Ok((head, history)) => {
                let redriven_at = redriven_at(&loaded.entry, &history);
                let changed = redriven_at.is_some();
                Some(Opened { loaded, head, history, settings: named.settings(), redriven_at, changed })
            }
            Err(error) => {
                self.set_aside(named, position, &error.to_string()).await;
                None
            }
        }
    }

    async fn carry(&self, named: &Named, message: &Opened) -> Made {
        let entry = &message.loaded.entry;
        let began = self.shared.clock.now();
        let timeout = message.policy().delivery.timeout;
        let destination = message.head.destination.as_deref();
        let outgoing = Outgoing {
            id: self.id(&message.head, entry.position),
            queue: named.name.clone(),
            policy: message.settings.policy.clone(),
            destination: destination.map_or_else(|| message.settings.destination.clone(), Arc::from),
            call: message.head.call.clone(),
            body: message.loaded.body.clone(),
            attempt: u32::from(entry.attempts),
            enqueued_at: message.head.enqueued_at(),
            timeout,
        };
        let from = tokio::time::Instant::now();
        let delivered = match tokio::time::timeout(timeout, self.carrying(outgoing)).await {
            Ok(delivered) => delivered,
            Err(_) => Delivered {
                error: Some(format!("no answer within {} ms", timeout.as_millis())),
                ..Delivered::bare(Answer::TimedOut)
            },
        };
        Made { began, took: from.elapsed(), delivered }
    }

    /// On a task of its own: should it panic, a lane must not hang for ever.
    async fn carrying(&self, outgoing: Outgoing) -> Delivered {
        let mut task = JoinSet::new();
        task.spawn(self.deliver.deliver(outgoing));
        match task.join_next().await {
            Some(Ok(delivered)) => delivered,
            _ => Delivered {
                error: Some("the proxy failed during this attempt".into()),
                ..Delivered::bare(Answer::Broken)
            },
        }
    }

    async fn settle(self: &Rc<Self>, named: &Arc<Named>, mut message: Opened, made: Made) {
        let means = meaning(made.delivered.answer);
        let attempts = u32::from(message.loaded.entry.attempts);
        let facts = Facts {
            now: self.shared.clock.now(),
            expires_at: message.expires_at(),
            delivery: &message.policy().delivery,
            attempts,
            pushed_back: message.history.pushed_back,
        };
        let mut follows = verdict(means, facts, self.jitter());
        let each_for_itself = message.settings.callbacks;
        if follows == Verdict::Stay && each_for_itself {
            // Callbacks share a queue but no receiver: one that is away must hold up no other.
            follows = verdict(Meaning::PushedBack { retry_after: None }, facts, self.jitter());
        }
        self.tell_line(named, means, each_for_itself, message.policy().delivery.retry_after_max);
        named.series.attempted(match (follows, means) {
            (Verdict::Done, _) => AttemptOutcome::Delivered,
            (Verdict::Bury(_), _) => AttemptOutcome::DeadLettered,
            (_, Meaning::Unavailable(_)) => AttemptOutcome::Unavailable,
            (_, Meaning::PushedBack { .. }) => AttemptOutcome::PushedBack,
            _ => AttemptOutcome::Retried,
        });
        if let Meaning::PushedBack { .. } = means {
            message.history.pushed_back += 1;
        }
        message.history.redriven_at = message.redriven_at.map(|at| at.0);
        if follows != Verdict::Stay {
            message.history.push(account(&made));
            message.changed = true;
        }
        let response = made.delivered.response;
        match follows {
            Verdict::Done => self.done(named, message, attempts, response).await,
            Verdict::Bury(reason) => self.bury(named, message, reason, response).await,
            Verdict::Again { due, free } => self.again(message, Some(due), free).await,
            Verdict::Stay => self.again(message, None, true).await,
        }
    }

    /// The queue learns whether its receiver is there.
    fn tell_line(&self, named: &Named, means: Meaning, each_for_itself: bool, longest: Duration) {
        let (now, jitter) = (self.now(), self.jitter());
        let mut state = self.state.borrow_mut();
        let line = state.line_mut(named.line);
        match means {
            _ if each_for_itself => line.answered(),
            Meaning::Unavailable(token) => line.unavailable(token, now, jitter),
            Meaning::PushedBack { retry_after } => {
                line.pushed_back(retry_after.map(|after| after.min(longest)), now, jitter);
            }
            _ => line.answered(),
        }
    }

    async fn again(&self, message: Opened, due: Option<Timestamp>, free: bool) {
        let position = message.position();
        let history = message.changed.then(|| message.history.bytes());
        let change = Change::Retry { position, due_at: due, free, history };
        if self.write(vec![change]).await.is_err() {
            return;
        }
        let due = due.map(|due| self.steady(due));
        let now = self.now();
        self.state.borrow_mut().back(position, due, true, now);
        self.changed.notify_one();
    }

    async fn done(
        self: &Rc<Self>,
        named: &Arc<Named>,
        message: Opened,
        attempts: u32,
        response: Option<Response>,
    ) {
        let now = self.shared.clock.now();
        let policy = message.policy();
        let keeps = !policy.result_ttl.is_zero();
        let result = response.as_ref().filter(|_| keeps);
        let result = result.and_then(|response| response_bytes(response, policy.result_bytes_max));
        let record = Record {
            enqueued_at: message.head.enqueued_at,
            queue: named.name.to_string(),
            owner: message.head.owner.clone(),
            cancelled: false,
            ended_at: now.0,
            history: Some(message.history.clone()),
            attempts_used: attempts,
            result_until: crate::schedule::plus(now, policy.result_ttl).0,
            had_result: result.is_some(),
        };
        // That it succeeded is known for a while, with its response or without; nobody asks for the end
        // of a callback.
        let asked_for = keeps || !message.settings.callbacks;
        let kept = asked_for.then(|| crate::schedule::plus(now, policy.result_ttl + limits::RECORD_KEPT));
        let remembered = message.head.remembered_until.map(Timestamp).filter(|at| *at > now);
        let until = kept.max(remembered);
        let end = Change::End {
            position: message.position(),
            record: until.map(|until| (record.bytes(), until)),
            result,
        };
        let callback = self.callback(&message, attempts, MessageState::Succeeded, None, response.as_ref());
        let (position, bytes) = (message.position(), message.loaded.entry.bytes);
        if self.write_end(end, callback).await.is_err() {
            return;
        }
        self.left(named, position, bytes);
        self.ended(position);
    }

    /// Reads a message only to learn its value of the rate limit's key.
    pub(crate) async fn classify(self: &Rc<Self>, dispatch: Dispatch) {
        let named = self.named(dispatch.line);
        let message = self.open_message(&named, dispatch.position, None).await;
        let now = self.now();
        let mut state = self.state.borrow_mut();
        match message {
            None => state.read(dispatch.line),
            Some(message) => {
                let key = message.head.rate_key.unwrap_or_default();
                state.classified(dispatch.position, dispatch.line, &key, now);
            }
        }
        self.changed.notify_one();
    }

    // ---- what may go wrong --------------------------------------------------------------------

    /// The store has no room, or cannot read: the queue waits as if its receiver were away, rather
    /// than take up every message in turn.
    pub(crate) fn not_now(
        &self,
        named: &Named,
        position: Position,
        due: Option<Timestamp>,
        error: &StoreError,
    ) {
        if matches!(error, StoreError::Poisoned(_) | StoreError::Closed) {
            // Nothing is handed out any more; the message stays as it is.
            return;
        }
        tracing::warn!(%error, %position, queue = %named.name, "a queue waits for the store");
        let (now, jitter) = (self.now(), self.jitter());
        let mut state = self.state.borrow_mut();
        state.line_mut(named.line).unavailable("store_unavailable", now, jitter);
        state.back(position, due, false, now);
    }

    fn vanished(&self, named: &Named, position: Position, bytes: u32) {
        tracing::error!(%position, queue = %named.name, "a message of the index is not in the store");
        self.left(named, position, bytes);
    }

    /// Its bytes are wrong: kept for an operator, never delivered.
    async fn set_aside(&self, named: &Named, position: Position, details: &str) {
        tracing::error!(%position, queue = %named.name, details, "a damaged message is set aside");
        if self.write(vec![Change::Quarantine(position)]).await.is_ok() {
            named.quarantined.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let bytes = self.state.borrow().size_min(position);
            self.left(named, position, bytes);
            self.ended(position);
        }
    }

    pub(crate) fn id(&self, head: &Head, position: Position) -> MessageId {
        MessageId::new(self.shared.class, head.enqueued_at(), position, self.shared.holder)
    }
}

fn account(made: &Made) -> Attempt {
    let (status, grpc) = match made.delivered.answer {
        Answer::Status { code, .. } => (Some(code), false),
        Answer::Grpc { code, .. } => (Some(u16::from(code)), true),
        _ => (None, false),
    };
    let said = made.delivered.error.clone();
    let error = said.or_else(|| match made.delivered.answer {
        Answer::TimedOut => Some("timeout".into()),
        Answer::Broken => Some("the connection was lost".into()),
        Answer::Unavailable { token } => Some(token.into()),
        Answer::Misconfigured => Some("it cannot be sent".into()),
        Answer::Status { .. } | Answer::Grpc { .. } => None,
    });
    Attempt { at: made.began, status, grpc, error, duration: made.took }
}

/// An attempt whose end nobody saw. It began when the message was due, or later.
fn interrupted(entry: &Entry, head: &Head) -> Attempt {
    Attempt {
        at: entry.due_at.unwrap_or(head.enqueued_at()),
        status: None,
        grpc: false,
        error: Some("the proxy stopped during this attempt".into()),
        duration: Duration::ZERO,
    }
}
