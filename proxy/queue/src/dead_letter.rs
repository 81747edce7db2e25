//! dead_letter: what will not be delivered, why, and its way back.
//!
//! Moving there and leaving the queue are one write. The dead letter has bounds of its own, a share of
//! its queue's; when it is full the queue stands still and says so, rather than drop anything. A policy
//! may name a sink: then what dies leaves for it (`sink`).

use std::rc::Rc;
use std::sync::Arc;

use policy::limits;
use store::StoreError;
use store::message::{Change, Changed, Entry, Position, State as Kept, Timestamp};
use tokio::sync::oneshot;

use crate::attempt::Opened;
use crate::deliver::Response;
use crate::handle::Failed;
use crate::id::MessageId;
use crate::message::{MessageState, Reason};
use crate::named::Named;
use crate::redrive::Redrive;
use crate::schedule::plus;
use crate::stored::{Head, History, Record, response_bytes};
use crate::worker::Worker;

/// Why a message did not come back from the dead letter.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedriveError {
    /// 404: it is unknown.
    #[error("there is no such message")]
    Unknown,
    /// 409: it is not in the dead letter.
    #[error("the message is {}, not in the dead letter", .0.as_str())]
    NotDead(MessageState),
    /// 409: it was sent on to its policy's sink.
    #[error("the message was sent on to its policy's deadLetterSink")]
    Sunk,
    /// 429: its queue is full.
    #[error("the queue is full")]
    QueueFull,
    /// 409: its dead letter is being redriven.
    #[error("{} of {} dead letters have been brought back by the one that is under way", .0.redriven, .0.of)]
    UnderWay(Redrive),
    /// It could not be asked or written.
    #[error("it was not written")]
    Failed(#[from] Failed),
}

impl From<StoreError> for RedriveError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl Worker {
    /// The message goes to the dead letter.
    pub(crate) async fn bury(
        self: &Rc<Self>,
        named: &Arc<Named>,
        message: Opened,
        reason: Reason,
        response: Option<Response>,
    ) {
        let now = self.shared.clock.now();
        let (position, bytes) = (message.position(), message.loaded.entry.bytes);
        let kept = response.as_ref();
        let kept = kept.and_then(|response| response_bytes(response, message.policy().result_bytes_max));
        let history = message.history.clone().buried(reason, now);
        let attempts = u32::from(message.loaded.entry.attempts);
        let callback =
            self.callback(&message, attempts, MessageState::DeadLettered, Some(reason), response.as_ref());
        let end = sunk(named, &message, history.clone(), now, kept.clone());
        match self.sink(&message, (reason, response.as_ref()), end, callback.as_ref()).await {
            Ok(true) => {}
            Ok(false) => {
                let bury = Change::Bury { position, history: history.bytes(), result: kept };
                if self.write_end(bury, callback).await.is_err() {
                    return;
                }
                named.buried(u64::from(bytes));
            }
            Err(_) => return,
        }
        tracing::info!(queue = %named.name, %position, reason = reason.as_str(), "a message is dead");
        self.left(named, position, bytes);
        self.look_at_dead(named);
        self.ended(position);
    }

    /// Its time may be over: if it is, it goes to the dead letter.
    pub(crate) async fn expire(self: &Rc<Self>, position: Position, due: Option<Timestamp>) {
        let Some(named) = self.named_of(position) else { return };
        let Some(message) = self.open_message(&named, position, due).await else { return };
        if self.shared.clock.now() >= message.expires_at() {
            return self.bury(&named, message, Reason::Expired, None).await;
        }
        // The index keeps seconds, and counts from a restart what it does not know yet.
        let from = message.redriven_at().unwrap_or_else(|| message.head.age_from());
        let expires = message.head.expires.filter(|_| message.redriven_at().is_none());
        let (from, expires) = (self.steady(from), expires.map(|at| self.steady(Timestamp(at))));
        let now = self.now();
        let mut state = self.state.borrow_mut();
        state.learned(position, from, expires);
        state.back(position, due, false, now);
    }

    /// Brings a message back: at the tail of its lane and queue, with its id and fresh attempts.
    pub(crate) fn redrive(self: &Rc<Self>, id: MessageId, answer: oneshot::Sender<Result<(), RedriveError>>) {
        let worker = self.clone();
        self.spawn(async move {
            let _ = answer.send(worker.redrive_by_id(id).await);
        });
    }

    async fn redrive_by_id(&self, id: MessageId) -> Result<(), RedriveError> {
        let loaded = match self.shared.store.load(id.position()).await {
            Err(StoreError::Damaged { .. }) => None,
            loaded => loaded?,
        };
        let Some(loaded) = loaded else {
            // It may have ended, or is damaged: whoever asks is told what it is by its status.
            return Err(RedriveError::Unknown);
        };
        if !Head::read(&loaded.head).is_ok_and(|head| head.is_of(id)) {
            return Err(RedriveError::Unknown);
        }
        match loaded.entry.state {
            Kept::Dead => self.redrive_entry(loaded.entry).await,
            Kept::Waiting => Err(RedriveError::NotDead(MessageState::Queued)),
            Kept::Quarantined => Err(RedriveError::Unknown),
        }
    }

    pub(crate) async fn redrive_entry(&self, mut entry: Entry) -> Result<(), RedriveError> {
        let line = self.lines.borrow().get(&entry.queue).copied().ok_or(Failed::UnknownQueue)?;
        let named = self.named(line);
        let reserved = self.shared.reserve(&named, u64::from(entry.bytes));
        let reserved = reserved.map_err(|_| RedriveError::QueueFull)?;
        // The due time says later when its new life began.
        let now = self.shared.clock.now();
        let change = Change::Redrive { position: entry.position, due_at: Some(now) };
        let changed = self.shared.store.write(vec![change]).await?;
        let Some(Changed::Done { order }) = changed.first().copied() else {
            return Err(RedriveError::NotDead(MessageState::Queued));
        };
        reserved.keep();
        named.unburied(u64::from(entry.bytes));
        (entry.order, entry.state, entry.due_at) = (order, Kept::Waiting, None);
        (entry.attempts, entry.begun, entry.tried) = (0, false, false);
        let now = self.now();
        self.state.borrow_mut().appended(&entry, line, now, now);
        named.pressed(|pressure| pressure.arrived(now));
        self.look_at_dead(&named);
        Ok(())
    }
}

/// The end of a message that leaves for a sink: what became of it is known as long as of one that was
/// delivered.
fn sunk(
    named: &Named,
    message: &Opened,
    history: History,
    now: Timestamp,
    response: Option<bytes::Bytes>,
) -> Change {
    let ttl = message.policy().result_ttl;
    let result = response.filter(|_| !ttl.is_zero());
    let record = Record {
        enqueued_at: message.head.enqueued_at,
        queue: named.name.to_string(),
        owner: message.head.owner.clone(),
        ended_at: now.0,
        history: Some(history),
        attempts_used: u32::from(message.loaded.entry.attempts),
        result_until: plus(now, ttl).0,
        had_result: result.is_some(),
        sunk: true,
        holder: message.head.holder,
        ..Record::default()
    };
    let until =
        plus(now, ttl + limits::RECORD_KEPT).max(Timestamp(message.head.remembered_until.unwrap_or(0)));
    let record = Some((record.bytes(), until));
    Change::End { position: message.position(), of: Kept::Waiting, record, result }
}
