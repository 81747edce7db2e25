//! operate: what an operator sees of the queues, and does to them.
//!
//! Nothing here shows a header, a body or a credential, except [`Queue::export`], whose pages the
//! sidecar cleans before anybody sees them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use policy::limits;
use store::message::{Change, Changed, Entry, Loaded, Position, State as Kept, Timestamp};

use crate::dead_letter::RedriveError;
use crate::handle::{Failed, Queue};
use crate::id::MessageId;
use crate::message::{Exported, Filter, Page, Part, Peeked};
use crate::named::Named;
use crate::pressure::Sample;
use crate::redrive::Redrive;
use crate::schedule::Blocked;
use crate::state::Take;
use crate::stored::{Head, History, Record, response_read};
use crate::worker::Worker;

/// One named queue as an operator sees it.
#[derive(Debug, Clone)]
pub struct QueueView {
    /// `NAMESPACE/POLICY/DESTINATION`.
    pub name: String,
    /// Messages that wait, those under way included.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bounds of both.
    pub messages_max: u64,
    /// Bounds of both.
    pub bytes_max: u64,
    /// Of those, not due for the first time.
    pub scheduled: u64,
    /// Of those, waiting for another attempt.
    pub retrying: u64,
    /// Attempts under way.
    pub in_flight: u64,
    /// Messages in the dead letter.
    pub dead: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Messages that are damaged.
    pub quarantined: u64,
    /// The age of the oldest waiting message, to the second.
    pub oldest_age: Duration,
    /// An operator paused it.
    pub paused: bool,
    /// Why nothing goes although something could.
    pub blocked: Option<Blocked>,
    /// The last redrive of its dead letter since it was opened.
    pub redrive: Option<Redrive>,
    /// P: taken in per second, over ten seconds.
    pub arrivals: f64,
    /// C: done with per second, over ten seconds.
    pub served: f64,
    /// P/C.
    pub utilisation: f64,
    /// Q/(C−P) in seconds; +Inf when it grows.
    pub drain_seconds: f64,
    /// Taken in since the queue was opened.
    pub arrived_total: u64,
    /// Done with since the queue was opened.
    pub served_total: u64,
    /// The last ten minutes, the oldest first.
    pub history: Vec<Sample>,
}

/// A message to be removed, and what stays of it.
struct Purged {
    entry: Entry,
    record: Option<(Bytes, Timestamp)>,
}

impl Filter {
    /// Whether it means this message.
    pub(crate) fn means(&self, loaded: &Loaded) -> bool {
        if *self == Self::default() {
            return true;
        }
        let Ok(head) = Head::read(&loaded.head) else { return false };
        let history = History::read(&loaded.history).unwrap_or_default();
        let at = head.enqueued_at();
        self.reason.is_none_or(|reason| history.reason() == Some(reason))
            && self.status.is_none_or(|status| history.last_status() == Some(status))
            && self.key.as_ref().is_none_or(|key| head.key.as_ref() == Some(key))
            && self.before.is_none_or(|before| at < before)
            && self.since.is_none_or(|since| at >= since)
    }
}

impl Part {
    fn kept(self) -> Kept {
        match self {
            Self::Waiting => Kept::Waiting,
            Self::Dead => Kept::Dead,
            Self::Quarantined => Kept::Quarantined,
        }
    }
}

impl Queue {
    /// All named queues, by name.
    ///
    /// # Errors
    /// [`Failed::Stopped`].
    pub async fn queues(&self) -> Result<Vec<QueueView>, Failed> {
        self.ask(|worker, answer| drop(answer.send(worker.views()))).await
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Named>, Failed> {
        let names = self.shared().names.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        names.get(name).cloned().ok_or(Failed::UnknownQueue)
    }

    async fn list(
        &self,
        named: &Named,
        part: Part,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Loaded>, Failed> {
        let limit = limit.clamp(1, limits::PEEK_MAX);
        Ok(self.shared().store.list(named.id, part.kept(), after.map(Position), limit).await?)
    }

    /// Messages of a queue in the order of acceptance, at most `limit` and [`limits::PEEK_MAX`].
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn peek(
        &self,
        queue: &str,
        part: Part,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page<Peeked>, Failed> {
        let named = self.find(queue)?;
        let page = self.list(&named, part, after, limit).await?;
        let next = page.last().map(|last| last.entry.position.0);
        let items = page.iter().filter_map(|loaded| self.peeked(&named, loaded)).collect();
        Ok(Page { items, next })
    }

    /// What stays of a message that is removed: nothing, unless its idempotency key is remembered.
    fn purged(&self, named: &Named, loaded: &Loaded) -> Purged {
        let now = self.shared().clock.now();
        let head = Head::read(&loaded.head).unwrap_or_default();
        let until = head.remembered_until.map(Timestamp).filter(|at| *at > now);
        let record = until.map(|until| {
            let record = Record {
                enqueued_at: head.enqueued_at,
                queue: named.name.to_string(),
                owner: head.owner,
                cancelled: true,
                ended_at: now.0,
                attempts_used: u32::from(loaded.entry.attempts),
                holder: head.holder,
                ..Record::default()
            };
            (record.bytes(), until)
        });
        Purged { entry: loaded.entry, record }
    }

    fn peeked(&self, named: &Named, loaded: &Loaded) -> Option<Peeked> {
        let head = Head::read(&loaded.head).ok()?;
        let history = History::read(&loaded.history).unwrap_or_default();
        let entry = &loaded.entry;
        let id = self.shared().id(head.enqueued_at(), entry.position, head.holder);
        let redriven = crate::attempt::redriven_at(entry, &history);
        let age_max = named.settings().policy.delivery.age_max;
        let expires_at = (entry.state == Kept::Waiting).then(|| head.expires_at(age_max, redriven));
        Some(Peeked {
            status: self.status_of(id, loaded, &head),
            about: head.about,
            key: head.key,
            priority: entry.priority,
            head_bytes: loaded.head.len() as u64,
            bytes: u64::from(entry.bytes),
            expires_at,
        })
    }

    /// Messages whole, at most `limit` and [`limits::EXPORT_MAX`] on a page. The call holds what its
    /// caller sent: the sidecar takes credentials off before anybody sees it.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn export(
        &self,
        queue: &str,
        part: Part,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page<Exported>, Failed> {
        let named = self.find(queue)?;
        let page = self.list(&named, part, after, limit.min(limits::EXPORT_MAX)).await?;
        let next = page.last().map(|last| last.entry.position.0);
        let mut items = Vec::with_capacity(page.len());
        for listed in page {
            // It may have gone meanwhile.
            let Ok(Some(loaded)) = self.shared().store.load(listed.entry.position).await else { continue };
            let Some(peeked) = self.peeked(&named, &loaded) else { continue };
            let Ok(head) = Head::read(&loaded.head) else { continue };
            let response = loaded.result.and_then(|bytes| response_read(bytes).ok());
            items.push(Exported { peeked, call: head.call, body: loaded.body, response });
        }
        Ok(Page { items, next })
    }

    /// Stops handing out a queue's messages; kept over a restart.
    ///
    /// # Errors
    /// [`Failed`]: it is as it was.
    pub async fn pause(&self, queue: &str) -> Result<(), Failed> {
        let named = self.find(queue)?;
        self.ask(|worker, answer| worker.pause(named, answer)).await?
    }

    /// Lets a paused queue go on. What its policy says stays, unless there is `no_policy` any more: then the last
    /// word of it is not waited for either, until it is heard again.
    ///
    /// # Errors
    /// [`Failed`]: it is as it was.
    pub async fn resume(&self, queue: &str, no_policy: bool) -> Result<(), Failed> {
        let named = self.find(queue)?;
        self.ask(move |worker, answer| worker.resume(named, no_policy, answer)).await?
    }

    /// Removes messages for good, step by step: those that are in somebody's hands stay. Returns how
    /// many went.
    ///
    /// # Errors
    /// [`Failed`]: what went before is gone.
    ///
    /// # Cancel safety
    /// Dropping the future ends it after the step that is under way.
    pub async fn purge(&self, queue: &str, part: Part, filter: &Filter) -> Result<u64, Failed> {
        let named = self.find(queue)?;
        let (mut after, mut gone) = (None, 0);
        loop {
            let page = self.list(&named, part, after, limits::PURGE_STEP).await?;
            let Some(last) = page.last() else { return Ok(gone) };
            after = Some(last.entry.position.0);
            let meant = page.iter().filter(|loaded| filter.means(loaded));
            let entries: Vec<Purged> = meant.map(|loaded| self.purged(&named, loaded)).collect();
            let named = named.clone();
            gone += self
                .ask(move |worker, answer| {
                    let worker_ = worker.clone();
                    worker.spawn(async move {
                        let _ = answer.send(worker_.purge(&named, part, entries).await);
                    });
                })
                .await??;
        }
    }

    /// Brings one message back from the dead letter: at the tail of its queue and lane, with its id,
    /// fresh attempts and a fresh age.
    ///
    /// # Errors
    /// [`RedriveError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves it dead or waiting, never in between.
    pub async fn redrive(&self, id: MessageId) -> Result<(), RedriveError> {
        if id.class() != self.shared().class {
            return Err(RedriveError::Unknown);
        }
        match self.ask(move |worker, answer| worker.redrive(id, answer)).await? {
            Err(RedriveError::Unknown) => match self.status(id).await? {
                Some(status) if status.is_sunk() => Err(RedriveError::Sunk),
                Some(status) => Err(RedriveError::NotDead(status.state)),
                None => Err(RedriveError::Unknown),
            },
            done => done,
        }
    }
}

impl Worker {
    fn views(&self) -> Vec<QueueView> {
        let now = self.now();
        self.state.borrow_mut().survey();
        let mut views: Vec<QueueView> =
            self.shared.named().iter().map(|named| self.view(named, now)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn view(&self, named: &Named, now: Timestamp) -> QueueView {
        let settings = named.settings();
        let pressure = named.pressed(|pressure| *pressure);
        let state = self.state.borrow();
        let line = state.line(named.line);
        named.oldest.store(line.oldest, Ordering::Relaxed);
        let messages = named.messages.load(Ordering::SeqCst);
        let (arrived_total, served_total) = pressure.totals();
        QueueView {
            name: named.name.to_string(),
            messages,
            bytes: named.bytes.load(Ordering::SeqCst),
            messages_max: settings.policy.queue_messages_max,
            bytes_max: settings.policy.queue_bytes_max,
            scheduled: u64::from(line.scheduled),
            retrying: u64::from(line.retrying),
            in_flight: u64::from(line.in_flight),
            dead: named.dead_messages.load(Ordering::SeqCst),
            dead_bytes: named.dead_bytes.load(Ordering::SeqCst),
            quarantined: named.quarantined.load(Ordering::SeqCst),
            oldest_age: self.shared.age(named, now),
            paused: settings.paused,
            blocked: line.noted().or_else(|| line.held(now)),
            redrive: self.redrive_of(named.line),
            arrivals: pressure.arrivals(now),
            served: pressure.served(now),
            utilisation: pressure.utilisation(now),
            drain_seconds: pressure.drain_seconds(messages, now),
            arrived_total,
            served_total,
            history: self.samples.borrow().get(&named.line).into_iter().flatten().copied().collect(),
        }
    }

    async fn purge(&self, named: &Arc<Named>, part: Part, purged: Vec<Purged>) -> Result<u64, Failed> {
        let (mut ours, mut changes) = (Vec::new(), Vec::new());
        for Purged { entry, record } in purged {
            let due = match part {
                Part::Waiting => match self.state.borrow_mut().take(entry.position) {
                    Take::Taken(due) => due,
                    Take::Busy | Take::Unknown => continue,
                },
                Part::Dead | Part::Quarantined => None,
            };
            ours.push((entry, due));
            changes.push(Change::End { position: entry.position, of: part.kept(), record, result: None });
        }
        let (changed, error) = self.write_in_parts(&changes).await;
        let (written, left) = ours.split_at(changed.len());
        let mut gone = 0;
        for ((entry, _), changed) in written.iter().zip(changed) {
            // A dead one that was redriven meanwhile is not what was meant.
            let there = changed != Changed::Missing;
            gone += u64::from(there);
            match part {
                Part::Waiting => self.left(named, entry.position, entry.bytes),
                Part::Dead if there => named.unburied(u64::from(entry.bytes)),
                Part::Quarantined if there => drop(named.quarantined.fetch_sub(1, Ordering::SeqCst)),
                Part::Dead | Part::Quarantined => continue,
            }
            self.ended(entry.position);
        }
        let now = self.now();
        for (entry, due) in left.iter().filter(|_| part == Part::Waiting) {
            self.state.borrow_mut().back(entry.position, *due, false, now);
        }
        self.look_at_dead(named);
        error.map_or(Ok(gone), |error| Err(error.into()))
    }
}
