//! recover: the index of what was left on disk.
//!
//! The store shows every message in the order of positions, before it says what its queues are: each
//! is put straight into the index, since a list of a million would take more memory than the index.
//! What stands in their heads (age, a wish to expire) is read afterwards, page by page, while delivery
//! has already begun; until then a message counts as just accepted, and is looked at exactly when its
//! turn comes anyway.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use policy::limits;
use store::message::{Entry, QueueId, State as Kept, Timestamp};
use store::{Event, OpenError, Opened, Store};
use tokio::sync::Notify;

use crate::handle::Options;
use crate::id::Class;
use crate::schedule::{Limits, backoff, plus, share};
use crate::state::State;
use crate::stored::{Head, History};
use crate::worker::Worker;

/// What the writer's thread has told and the queue's thread has not heard yet. It grows no longer than
/// what was admitted and not yet indexed.
#[derive(Default)]
pub(crate) struct Inbox {
    entries: Mutex<Vec<Entry>>,
    pub(crate) arrived: Notify,
    failed: AtomicBool,
}

impl Inbox {
    pub(crate) fn drain(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a write failed since this was last asked.
    pub(crate) fn failed(&self) -> bool {
        self.failed.swap(false, Ordering::SeqCst)
    }

    fn told(&self, event: &Event<'_>) {
        match event {
            Event::Begins | Event::Committed([]) => return,
            Event::Damaged(found) => return tracing::error!(found, "the pages of the store are in no order"),
            Event::Committed(entries) => {
                self.entries.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(entries);
            }
            Event::Failed => self.failed.store(true, Ordering::SeqCst),
        }
        self.arrived.notify_one();
    }
}

/// How much of a queue was found.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) dead_messages: u64,
    pub(crate) dead_bytes: u64,
    pub(crate) quarantined: u64,
}

/// A store that was opened, and its index.
pub(crate) struct Opening {
    pub(crate) opened: Opened,
    pub(crate) index: Index,
    pub(crate) inbox: Arc<Inbox>,
}

/// The index as it is built up.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) state: State,
    pub(crate) lines: HashMap<QueueId, u16>,
    pub(crate) found: HashMap<u16, Found>,
    /// Those whose attempts a crash cut off: how long they wait is said by their policies, which are not
    /// known yet. At most as many as were under way.
    pub(crate) cut_off: Vec<Entry>,
    /// Those that were redriven, by their rank: their turn is later than their position.
    later: BTreeMap<u64, Entry>,
}

impl Index {
    pub(crate) fn line_of(&mut self, queue: QueueId) -> u16 {
        let next = u16::try_from(self.lines.len()).unwrap_or(u16::MAX);
        *self.lines.entry(queue).or_insert_with(|| {
            self.state.set_line(next, Limits::unknown(), false);
            next
        })
    }

    fn see(&mut self, entry: Entry, now: Timestamp) {
        let line = self.line_of(entry.queue);
        let found = self.found.entry(line).or_default();
        match entry.state {
            Kept::Waiting => {
                found.messages += 1;
                found.bytes += u64::from(entry.bytes);
            }
            Kept::Dead => {
                found.dead_messages += 1;
                found.dead_bytes += u64::from(entry.bytes);
                return;
            }
            Kept::Quarantined => {
                found.quarantined += 1;
                return;
            }
        }
        if entry.begun {
            self.cut_off.push(entry);
            return;
        }
        if entry.order != entry.position.0 {
            self.later.insert(entry.order, entry);
            return;
        }
        self.put_in_before(entry.position.0, now);
        self.state.recovered(&entry, line, now, now);
    }

    fn put_in_before(&mut self, order: u64, now: Timestamp) {
        while let Some(first) = self.later.first_entry().filter(|first| *first.key() < order) {
            let entry = first.remove();
            let line = self.line_of(entry.queue);
            self.state.recovered(&entry, line, now, now);
        }
    }
}

/// Opens a store and builds its index.
pub(crate) fn open(options: &Options, class: Class) -> Result<Opening, OpenError> {
    let inbox = Arc::new(Inbox::default());
    let (told, commits) = (inbox.clone(), options.metrics.commits(class));
    let mut began = None;
    let store = store::Options {
        directory: options.directory.clone(),
        owner: options.owner.clone(),
        bytes_max: options.bytes_max,
        keys_max: options.keys_max,
        salvage: options.salvage,
        allow_volatile: options.allow_volatile,
        vfs: options.vfs.clone(),
        told: Box::new(move |event| {
            match event {
                Event::Begins => began = Some(std::time::Instant::now()),
                Event::Damaged(_) => {}
                Event::Committed(_) | Event::Failed => {
                    if let Some(began) = began.take() {
                        commits.observe(began.elapsed().as_secs_f64());
                    }
                }
            }
            told.told(&event);
        }),
    };
    let now = options.clock.now();
    let mut index = Index::default();
    let opened = Store::open(store, &mut |entry| index.see(entry, now))?;
    index.put_in_before(u64::MAX, now);
    if let Some(store::AfterPoison { reason, in_place }) = &opened.after_poison {
        match in_place {
            None => {
                tracing::warn!(reason, "the disk had failed: what checks was copied into a fresh database")
            }
            Some(why) => tracing::warn!(
                reason,
                why,
                "the disk had failed and nothing was copied: all pages are in order, and the store goes on with \
                 them; give it more room or another volume, and start it again"
            ),
        }
    }
    if let Some(messages) = left_behind(&opened) {
        tracing::error!(messages, "messages that do not check were left behind, in the files damaged-*.db");
    }
    Ok(Opening { opened, index, inbox })
}

/// How many messages an opening had to leave behind, if any.
fn left_behind(opened: &Opened) -> Option<String> {
    match (&opened.uncounted, opened.lost) {
        (None, 0) => None,
        (None, lost) => Some(lost.to_string()),
        (Some(why), 0) => Some(format!("nobody knows how many: {why}")),
        (Some(why), lost) => Some(format!("at least {lost}; {why}")),
    }
}

impl Worker {
    /// An attempt that a crash cut off waits as after any lost connection: what kills its sender kills it
    /// less and less often. It was the head of its lane, so it comes in front of it last of all as well.
    pub(crate) fn put_in_again(&self, cut_off: Vec<Entry>) {
        let now = self.now();
        for mut entry in cut_off {
            let Some(line) = self.lines.borrow().get(&entry.queue).copied() else { continue };
            let mut state = self.state.borrow_mut();
            let limits = &state.line(line).limits;
            let before = u32::from(entry.attempts.saturating_sub(1));
            let longest = backoff(limits.backoff, limits.backoff_delay, limits.backoff_max, before);
            let due = plus(now, share(longest, self.jitter()));
            entry.due_at = Some(entry.due_at.map_or(due, |known| known.max(due)));
            state.recovered(&entry, line, now, now);
        }
    }

    /// Reads the heads of all messages that were found, to learn how old they are.
    pub(crate) async fn learn(self: Rc<Self>, queues: Vec<QueueId>) {
        for queue in queues {
            if let Err(error) = self.learn_queue(queue).await {
                // An age that is not known counts from the restart.
                tracing::warn!(%error, queue = queue.0, "the age of messages could not be read");
            }
        }
    }

    async fn learn_queue(&self, queue: QueueId) -> Result<(), store::StoreError> {
        let mut after = None;
        loop {
            let page = self.shared.store.list(queue, Kept::Waiting, after, limits::PEEK_MAX).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.entry.position);
            let wall = self.shared.clock.now();
            for loaded in page {
                let Ok(head) = Head::read(&loaded.head) else { continue };
                let Ok(history) = History::read(&loaded.history) else { continue };
                let redriven = crate::attempt::redriven_at(&loaded.entry, &history);
                let from = redriven.unwrap_or_else(|| head.age_from());
                let expires = head.expires.filter(|_| redriven.is_none()).map(Timestamp);
                let steady = |at| self.shared.steady.translate(at, wall);
                self.state.borrow_mut().learned(loaded.entry.position, steady(from), expires.map(steady));
            }
            tokio::task::yield_now().await;
        }
    }
}
