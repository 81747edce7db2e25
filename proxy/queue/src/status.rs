//! status: what became of a message, and taking it back.
//!
//! An id says where its message lies, so the store is asked directly; only whether an attempt is under
//! way is known to the queue's thread alone.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use policy::limits;
use store::StoreError;
use store::message::{Change, Ended, Loaded, Position, State as Kept, Timestamp};
use tokio::sync::oneshot;

use crate::handle::{Failed, Queue};
use crate::id::MessageId;
use crate::message::{MessageState, Outcome, Reason, Status};
use crate::named::Named;
use crate::schedule::plus;
use crate::slab::Place;
use crate::state::Take;
use crate::stored::{Head, History, Record, response_read};
use crate::worker::Worker;

/// Why a message was not taken back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CancelError {
    /// 404: it is unknown.
    #[error("there is no such message")]
    Unknown,
    /// 409: an attempt is under way.
    #[error("an attempt is under way")]
    Running,
    /// 409: it has ended otherwise.
    #[error("the message is {} already", .0.as_str())]
    Ended(MessageState),
    /// It could not be asked or written.
    #[error("it was not written")]
    Failed(#[from] Failed),
}

/// What the queue's thread says of a message to be cancelled.
#[derive(Debug)]
pub(crate) enum Cancelled {
    Done,
    /// It runs, has ended, or is unknown.
    NotDone,
}

impl Queue {
    /// Where a message stands; `None` if it is unknown here.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn status(&self, id: MessageId) -> Result<Option<Status>, Failed> {
        Ok(self.look(id).await?.map(|outcome| outcome.status().clone()))
    }

    /// A message's final response, as far as there is one; `None` if it is unknown here.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn result(&self, id: MessageId) -> Result<Option<Outcome>, Failed> {
        self.look(id).await
    }

    /// As [`Queue::result`], after waiting for the message's end: for `Prefer: wait` and long polls.
    /// Waits at most `longest` and [`limits::RESULT_WAIT_MAX`], and not at all if
    /// [`limits::RESULT_WAITERS_MAX`] wait already.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn wait(&self, id: MessageId, longest: Duration) -> Result<Option<Outcome>, Failed> {
        let first = self.look(id).await?;
        if !matches!(first, Some(Outcome::Pending(_))) {
            return Ok(first);
        }
        let Some(_place) = Waiting::enter(self) else { return Ok(first) };
        let position = id.position();
        let (told, heard) = oneshot::channel();
        self.ask(move |worker, answer| {
            worker.watch(position, told);
            let _ = answer.send(());
        })
        .await?;
        // Over or not: what there is now is the answer.
        let _ = tokio::time::timeout(longest.min(limits::RESULT_WAIT_MAX), heard).await;
        self.look(id).await
    }

    /// Takes a message back: no further attempt. Decided on the queue's thread against its dispatch,
    /// and flushed before this returns; again is as good as once.
    ///
    /// # Errors
    /// [`CancelError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the message cancelled or not, never in between.
    pub async fn cancel(&self, id: MessageId) -> Result<(), CancelError> {
        if !self.ours(id) {
            return Err(CancelError::Unknown);
        }
        let answer = self.ask(move |worker, answer| worker.cancel(id, answer)).await?;
        if let Cancelled::Done = answer? {
            return Ok(());
        }
        match self.look(id).await?.map(|outcome| outcome.status().state) {
            None => Err(CancelError::Unknown),
            Some(MessageState::Cancelled) => Ok(()),
            Some(state) if state.is_end() => Err(CancelError::Ended(state)),
            Some(_) => Err(CancelError::Running),
        }
    }

    fn ours(&self, id: MessageId) -> bool {
        id.class() == self.shared().class
    }

    async fn look(&self, id: MessageId) -> Result<Option<Outcome>, Failed> {
        if !self.ours(id) {
            return Ok(None);
        }
        let position = id.position();
        let taken = self
            .ask(move |worker, answer| {
                let place = worker.state.borrow().place(position);
                let _ = answer.send(matches!(place, Some(Place::Taken | Place::BehindTaken)));
            })
            .await?;
        let store = &self.shared().store;
        match store.load(position).await {
            Ok(Some(loaded)) => return Ok(self.of_loaded(id, loaded, taken)),
            Err(StoreError::Damaged { .. }) => return self.of_damaged(id).await,
            Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
        match store.ended(position).await {
            // Of what ended nothing is owed but what can be read.
            Err(StoreError::Damaged { .. }) => Ok(None),
            ended => Ok(ended?.and_then(|ended| self.of_ended(id, ended))),
        }
    }

    /// A message that does not fit its checksum is never delivered. Its head has a sum of its own: if that
    /// fits, it says whose message it is; if not, only that it is here can be told, of an id that names this pod.
    async fn of_damaged(&self, id: MessageId) -> Result<Option<Outcome>, Failed> {
        let mut listed = self.listed(id.position()).await?;
        if let Some(mut loaded) = listed.take_if(|loaded| !loaded.head.is_empty()) {
            loaded.entry.state = Kept::Quarantined;
            return Ok(self.of_loaded(id, loaded, false));
        }
        if id.holder() != self.shared().holder {
            return Ok(None);
        }
        Ok(Some(Outcome::Without(Status {
            id,
            queue: listed.map_or_else(String::new, |listed| self.name_of(listed.entry.queue)),
            owner: String::new(),
            state: MessageState::DeadLettered,
            reason: Some(Reason::Damaged),
            durability: self.shared().class,
            enqueued_at: id.enqueued_at(),
            attempts: Vec::new(),
            attempts_used: 0,
            next_attempt_at: None,
            ended_at: None,
            has_result: false,
        })))
    }

    /// A message without its body, as lists show it.
    async fn listed(&self, position: Position) -> Result<Option<Loaded>, Failed> {
        let waits_in = self.ask(move |worker, answer| {
            let named = worker.named_of(position);
            let _ = answer.send(named.map(|named| (named.id, Kept::Waiting)));
        });
        let mut places: Vec<_> = waits_in.await?.into_iter().collect();
        if places.is_empty() {
            for named in self.shared().named() {
                let apart = [(Kept::Quarantined, &named.quarantined), (Kept::Dead, &named.dead_messages)];
                let used = apart.into_iter().filter(|(_, count)| count.load(Ordering::SeqCst) > 0);
                places.extend(used.map(|(state, _)| (named.id, state)));
            }
        }
        let before = Some(Position(position.0.saturating_sub(1)));
        for (queue, state) in places {
            let found = self.shared().store.list(queue, state, before, 1).await?;
            if let Some(loaded) = found.into_iter().find(|loaded| loaded.entry.position == position) {
                return Ok(Some(loaded));
            }
        }
        Ok(None)
    }

    fn of_loaded(&self, id: MessageId, loaded: Loaded, taken: bool) -> Option<Outcome> {
        let head = Head::read(&loaded.head).ok()?;
        if !head.is_of(id) {
            return None;
        }
        let mut status = self.status_of(id, &loaded, &head);
        if taken && loaded.entry.begun {
            status.state = MessageState::Delivering;
            status.next_attempt_at = None;
        }
        if !status.state.is_end() {
            return Some(Outcome::Pending(status));
        }
        let response = loaded.result.and_then(|bytes| response_read(bytes).ok());
        Some(match response {
            Some(response) => Outcome::Response(status, response),
            None => Outcome::Without(status),
        })
    }

    /// What a stored message's own bytes say.
    pub(crate) fn status_of(&self, id: MessageId, loaded: &Loaded, head: &Head) -> Status {
        let entry = &loaded.entry;
        let history = History::read(&loaded.history).unwrap_or_default();
        let now = self.shared().clock.now();
        let attempts = history.attempts();
        let later = entry.due_at.filter(|due| *due > now);
        let (state, reason) = match entry.state {
            Kept::Dead => (MessageState::DeadLettered, history.reason()),
            Kept::Quarantined => (MessageState::DeadLettered, Some(Reason::Damaged)),
            Kept::Waiting if entry.attempts > 0 || !attempts.is_empty() => (MessageState::Retrying, None),
            Kept::Waiting if later.is_some() => (MessageState::Scheduled, None),
            Kept::Waiting => (MessageState::Queued, None),
        };
        Status {
            id,
            queue: self.name_of(entry.queue),
            owner: head.owner.clone(),
            state,
            reason,
            durability: self.shared().class,
            enqueued_at: head.enqueued_at(),
            attempts,
            attempts_used: u32::from(entry.attempts),
            next_attempt_at: later.filter(|_| !state.is_end()),
            ended_at: history.buried_at.map(Timestamp),
            has_result: loaded.result.is_some(),
        }
    }

    fn name_of(&self, queue: store::message::QueueId) -> String {
        let named = self.shared().named().into_iter().find(|named| named.id == queue);
        named.map_or_else(String::new, |named| named.name.to_string())
    }

    fn of_ended(&self, id: MessageId, ended: Ended) -> Option<Outcome> {
        let record = Record::read(&ended.record).ok()?;
        let now = self.shared().clock.now();
        if !record.is_of(id) || ended.keep_until <= now {
            return None;
        }
        let result = ended.result.filter(|_| now.0 <= record.result_until);
        let response = result.and_then(|bytes| response_read(bytes).ok());
        let status = Status {
            id,
            queue: record.queue.clone(),
            owner: record.owner.clone(),
            state: record.state(),
            reason: record.history.as_ref().and_then(History::reason),
            durability: self.shared().class,
            enqueued_at: id.enqueued_at(),
            attempts: record.history.as_ref().map(History::attempts).unwrap_or_default(),
            attempts_used: record.attempts_used,
            next_attempt_at: None,
            ended_at: Some(Timestamp(record.ended_at)),
            has_result: response.is_some(),
        };
        Some(match response {
            Some(response) => Outcome::Response(status, response),
            None if record.had_result => Outcome::Gone(status),
            None if record.lacks_a_result() => Outcome::TooLarge(status),
            None => Outcome::Without(status),
        })
    }
}

/// A place among the clients that wait for results.
struct Waiting(Queue);

impl Waiting {
    fn enter(queue: &Queue) -> Option<Self> {
        let waiting = &queue.shared().waiting;
        if waiting.fetch_add(1, Ordering::SeqCst) >= limits::RESULT_WAITERS_MAX {
            waiting.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Self(queue.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.shared().waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Worker {
    /// Tells when a message has ended; at once if it does not wait.
    fn watch(&self, position: Position, told: oneshot::Sender<()>) {
        if self.state.borrow().place(position).is_none() {
            let _ = told.send(());
            return;
        }
        let mut watchers = self.watchers.borrow_mut();
        let of = watchers.entry(position).or_default();
        of.retain(|watcher| !watcher.is_closed());
        of.push(told);
        if watchers.len() > limits::RESULT_WAITERS_MAX {
            // So many do not wait: clients have gone before their messages ended.
            watchers.retain(|_, of| {
                of.retain(|watcher| !watcher.is_closed());
                !of.is_empty()
            });
        }
    }

    /// Takes a message out of turn and ends it.
    fn cancel(self: &Rc<Self>, id: MessageId, answer: oneshot::Sender<Result<Cancelled, Failed>>) {
        let Some(named) = self.named_of(id.position()) else {
            return drop(answer.send(Ok(Cancelled::NotDone)));
        };
        let taken = self.state.borrow_mut().take(id.position());
        let due = match taken {
            Take::Taken(due) => due,
            Take::Busy | Take::Unknown => return drop(answer.send(Ok(Cancelled::NotDone))),
        };
        let worker = self.clone();
        self.spawn(async move {
            let _ = answer.send(worker.end_cancelled(&named, id, due).await);
        });
    }

    async fn end_cancelled(
        &self,
        named: &Named,
        id: MessageId,
        due: Option<Timestamp>,
    ) -> Result<Cancelled, Failed> {
        let position = id.position();
        let Some(message) = self.open_message(named, position, due).await else {
            return Ok(Cancelled::NotDone);
        };
        let put_back = || {
            let now = self.now();
            self.state.borrow_mut().back(position, due, false, now);
            self.changed.notify_one();
        };
        if !message.head.is_of(id) {
            put_back();
            return Ok(Cancelled::NotDone);
        }
        let now = self.shared.clock.now();
        let record = Record {
            enqueued_at: message.head.enqueued_at,
            queue: named.name.to_string(),
            owner: message.head.owner.clone(),
            cancelled: true,
            ended_at: now.0,
            attempts_used: u32::from(message.loaded.entry.attempts),
            history: Some(message.history.clone()),
            holder: message.head.holder,
            ..Record::default()
        };
        let kept = message.policy().result_ttl.max(limits::CANCELLED_KEPT);
        let until = plus(now, kept).max(Timestamp(message.head.remembered_until.unwrap_or(0)));
        let record = Some((record.bytes(), until));
        let end = Change::End { position, of: Kept::Waiting, record, result: None };
        match self.shared.store.write(vec![end]).await {
            Ok(_) => {}
            Err(error @ StoreError::Poisoned(_)) => return Err(error.into()),
            Err(error) => {
                put_back();
                return Err(error.into());
            }
        }
        self.left(named, position, message.loaded.entry.bytes);
        self.ended(position);
        Ok(Cancelled::Done)
    }
}
