//! attempt: load, begin, deliver, settle.
//!
//! The beginning of an attempt is flushed before its bytes leave: a message that kills its sender has
//! used an attempt up when it is found again, and reaches the dead letter in the end. Its end is
//! flushed before the lane goes on.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use policy::limits;
use store::message::{Change, Changed, Entry, Position, State as Kept, Timestamp};
use tokio::task::JoinSet;

use crate::deliver::{Answer, Delivered, Outgoing, Response};
use crate::id::MessageId;
use crate::message::{Attempt, MessageState, Reason};
use crate::metrics::AttemptOutcome;
use crate::named::Named;
use crate::settle::{Facts, Meaning, Verdict, meaning, verdict};
use crate::state::Dispatch;
use crate::stored::{Head, Record, response_bytes};
use crate::worker::Worker;

mod opened;

pub(crate) use opened::{Opened, redriven_at};

/// An attempt that was made.
struct Made {
    began: Timestamp,
    took: Duration,
    delivered: Delivered,
    /// A drain has taken it back already: it counts as none, whatever came of it.
    given_back: bool,
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
        if !self.begin_attempt(named, &message).await {
            return;
        }
        message.loaded.entry.attempts = entry.attempts.saturating_add(1);
        let mut made = self.carry(named, &message).await;
        made.given_back = !self.carried.borrow_mut().remove(&position);
        self.settle(named, message, made).await;
    }

    /// Writes that an attempt begins; `false`: it does not, and the message is ours no more.
    async fn begin_attempt(&self, named: &Named, message: &Opened) -> bool {
        let position = message.position();
        if self.cut.get() {
            self.state.borrow_mut().back(position, None, false, self.now());
            return false;
        }
        let mut steps = Vec::with_capacity(2);
        if message.changed {
            // Should this attempt be cut off too, the ones before are still told.
            let history = Some(message.history.bytes());
            steps.push(Change::Retry { position, due_at: None, free: false, history });
        }
        steps.push(Change::Begin(position));
        let begins = Begins::one_of(&self.beginning);
        let written = self.shared.store.write(steps).await;
        drop(begins);
        match written {
            Ok(changed) if changed.first() != Some(&Changed::Missing) => {
                self.carried.borrow_mut().insert(position);
                // The drain gives it back.
                !self.cut.get()
            }
            Ok(_) => {
                self.vanished(named, position, message.loaded.entry.bytes);
                false
            }
            Err(error) => {
                self.not_now(named, position, None, &error);
                false
            }
        }
    }

    async fn carry(&self, named: &Named, message: &Opened) -> Made {
        let entry = &message.loaded.entry;
        let began = self.shared.clock.now();
        let timeout = message.policy().delivery.timeout;
        let outgoing = Outgoing {
            id: self.id(&message.head, entry.position),
            queue: named.name.clone(),
            policy: message.settings.policy.clone(),
            destination: message.destination(),
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
        Made { began, took: from.elapsed(), delivered, given_back: false }
    }

    /// On a task of its own: should it panic, a lane must not hang for ever.
    async fn carrying(&self, outgoing: Outgoing) -> Delivered {
        let (deliver, id) = (self.deliver.clone(), outgoing.id);
        let mut task = JoinSet::new();
        task.spawn(async move { deliver.deliver(outgoing).await });
        let failed = match task.join_next().await {
            Some(Ok(delivered)) => return delivered,
            failed => failed,
        };
        tracing::error!(%id, ?failed, "the proxy failed during an attempt");
        let error = Some("the proxy failed during this attempt".into());
        Delivered { error, ..Delivered::bare(Answer::Broken) }
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
        if !matches!(means, Meaning::Unavailable(_)) {
            self.state.borrow_mut().cleared(message.position());
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
        if follows != Verdict::Stay {
            message.history.push(account(&made));
            message.changed = true;
        }
        let (response, given_back) = (made.delivered.response, made.given_back);
        match follows {
            Verdict::Done => self.done(named, message, attempts, response).await,
            Verdict::Bury(reason) => {
                // It has grown too old meanwhile: that used no attempt up.
                let free = matches!(means, Meaning::Unavailable(_) | Meaning::PushedBack { .. });
                if free && !given_back && !self.take_back(&mut message).await {
                    return;
                }
                self.bury(named, message, reason, response).await;
            }
            Verdict::Again { due, free } => self.again(message, Some(due), free && !given_back).await,
            Verdict::Stay => self.again(message, None, !given_back).await,
        }
    }

    /// Writes that the attempt was none; `false`: it could not be written.
    async fn take_back(&self, message: &mut Opened) -> bool {
        let none = Change::Retry { position: message.position(), due_at: None, free: true, history: None };
        message.loaded.entry.attempts = message.loaded.entry.attempts.saturating_sub(1);
        self.write(vec![none]).await.is_ok()
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
        let (tried, due) = (due.is_some(), due.map(|due| self.steady(due)));
        let now = self.now();
        self.state.borrow_mut().back(position, due, tried, now);
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
            sunk: false,
            holder: message.head.holder,
        };
        // That it succeeded is known for a while, with its response or without; nobody asks for the end
        // of a callback, or of what went to a sink.
        let asked_for = keeps || !(message.settings.callbacks || named.is_sink);
        let kept = asked_for.then(|| crate::schedule::plus(now, policy.result_ttl + limits::RECORD_KEPT));
        let remembered = message.head.remembered_until.map(Timestamp).filter(|at| *at > now);
        let until = kept.max(remembered);
        let end = Change::End {
            position: message.position(),
            of: Kept::Waiting,
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

    pub(crate) fn id(&self, head: &Head, position: Position) -> MessageId {
        self.shared.id(head.enqueued_at(), position, head.holder)
    }
}

/// An attempt whose beginning is being written, until this is dropped.
struct Begins<'a>(&'a Cell<usize>);

impl<'a> Begins<'a> {
    fn one_of(all: &'a Cell<usize>) -> Self {
        all.set(all.get() + 1);
        Self(all)
    }
}

impl Drop for Begins<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
