//! worker: the queue's thread. The way of a message, top to bottom.
//!
//! The store's writer tells of a stored message (**take in**); the index says whose turn it is
//! (**dispatch**); a task attempts it (**deliver**, in `attempt`) and writes what came of it
//! (**settle**); when that is flushed the index hears of it. Everything here is one thread: state is
//! borrowed between awaits and never over one.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use policy::limits;
use store::message::{Position, QueueId, Timestamp};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::deliver::Deliver;
use crate::handle::{Job, Shared};
use crate::named::Named;
use crate::panics;
use crate::pressure::Sample;
use crate::recover::{Inbox, Opening};
use crate::redrive::Redrive;
use crate::schedule::plus;
use crate::state::{Dispatch, State, Step};

/// Whether messages are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not yet.
    Opened,
    Running,
    /// Not any more: a drain's budget is nearly over.
    Stopping,
    /// Never again: the disk cannot be trusted.
    Poisoned,
    Stopped,
}

/// The queue's thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) deliver: Arc<dyn Deliver>,
    pub(crate) state: RefCell<State>,
    /// The named queues by their number in the index.
    pub(crate) named: RefCell<Vec<Option<Arc<Named>>>>,
    pub(crate) lines: RefCell<HashMap<QueueId, u16>>,
    pub(crate) samples: RefCell<HashMap<u16, VecDeque<Sample>>>,
    /// Clients that wait for the end of a message.
    pub(crate) watchers: RefCell<HashMap<Position, Vec<oneshot::Sender<()>>>>,
    /// Something happened that the index should be asked about.
    pub(crate) changed: Notify,
    /// The index was asked about everything that happened.
    pub(crate) turned: Notify,
    pub(crate) stopping: RefCell<Vec<oneshot::Sender<()>>>,
    pub(crate) bodies: Semaphore,
    pub(crate) phase: Cell<Phase>,
    pub(crate) random: RefCell<fastrand::Rng>,
    /// One queue is set up at a time.
    pub(crate) setting_up: tokio::sync::Mutex<()>,
    /// Messages on their way to the dead letter because of their age.
    pub(crate) expiring: Cell<usize>,
    /// The last redrive of each dead letter.
    pub(crate) redrives: RefCell<HashMap<u16, Redrive>>,
    /// How many such jobs there were.
    pub(crate) redrives_begun: Cell<u64>,
    /// Messages whose attempts are on their way out.
    pub(crate) carried: RefCell<HashSet<Position>>,
    /// Attempts whose beginning is being written.
    pub(crate) beginning: Cell<usize>,
    /// A drain's budget is over: what has not gone out stays.
    pub(crate) cut: Cell<bool>,
    tasks: RefCell<JoinSet<()>>,
    inbox: Arc<Inbox>,
    found: RefCell<Vec<QueueId>>,
    sample_at: Cell<Timestamp>,
    sweep_at: Cell<Timestamp>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, deliver: Arc<dyn Deliver>, opening: Opening) -> Rc<Self> {
        let now = shared.steady.now();
        let index = opening.index;
        let found = index.found.iter().filter(|(_, found)| found.messages > 0);
        let found: Vec<u16> = found.map(|(line, _)| *line).collect();
        let ids = index.lines.iter().filter(|(_, line)| found.contains(line)).map(|(id, _)| *id).collect();
        let worker = Self {
            deliver,
            state: RefCell::new(index.state),
            named: RefCell::default(),
            lines: RefCell::new(index.lines),
            samples: RefCell::default(),
            watchers: RefCell::default(),
            changed: Notify::new(),
            turned: Notify::new(),
            stopping: RefCell::default(),
            bodies: Semaphore::new(usize::try_from(limits::DELIVERY_BODY_BYTES_TOTAL).unwrap_or(usize::MAX)),
            phase: Cell::new(Phase::Opened),
            random: RefCell::new(fastrand::Rng::new()),
            setting_up: tokio::sync::Mutex::new(()),
            expiring: Cell::new(0),
            redrives: RefCell::default(),
            redrives_begun: Cell::default(),
            carried: RefCell::default(),
            beginning: Cell::default(),
            cut: Cell::default(),
            tasks: RefCell::default(),
            inbox: opening.inbox,
            found: RefCell::new(ids),
            sample_at: Cell::new(plus(now, limits::QUEUE_SAMPLE_INTERVAL)),
            sweep_at: Cell::new(plus(now, limits::SWEEP_INTERVAL)),
            shared,
        };
        worker.take_over(&opening.opened.queues, &index.found);
        worker.put_in_again(index.cut_off);
        Rc::new(worker)
    }

    /// Does everything, until the queue is closed or nobody holds it any more.
    pub(crate) async fn run(self: Rc<Self>, mut jobs: mpsc::Receiver<Job>) {
        let found = self.found.take();
        if !found.is_empty() {
            self.spawn(self.clone().learn(found));
        }
        while self.phase.get() != Phase::Stopped {
            self.on_time();
            self.take_in();
            self.bury_expired();
            self.dispatch();
            self.note();
            self.turned.notify_waiters();
            let wake = self.wake_at();
            tokio::select! {
                biased;
                job = jobs.recv() => match job {
                    Some(job) => {
                        self.take_in();
                        job(&self);
                    }
                    None => break,
                },
                () = self.inbox.arrived.notified() => {}
                () = self.changed.notified() => {}
                () = sleep_until(wake) => {}
            }
            while let Some(ended) = self.tasks.borrow_mut().try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "the queue failed in a step");
                }
            }
        }
        self.tasks.borrow_mut().abort_all();
        self.shared.store.close().await;
        self.phase.set(Phase::Stopped);
        for answer in self.stopping.take() {
            let _ = answer.send(());
        }
    }

    /// Runs `work` here; it ends with the thread.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().spawn_local(work);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.steady.now()
    }

    /// The wall's `at` in the index's time.
    pub(crate) fn steady(&self, at: Timestamp) -> Timestamp {
        self.shared.steady.translate(at, self.shared.clock.now())
    }

    pub(crate) fn jitter(&self) -> f64 {
        self.random.borrow_mut().f64()
    }

    pub(crate) fn named(&self, line: u16) -> Arc<Named> {
        let named = self.named.borrow();
        named[usize::from(line)].clone().expect("a queue is known as long as one of its messages waits")
    }

    /// The queue of a waiting message.
    pub(crate) fn named_of(&self, position: Position) -> Option<Arc<Named>> {
        let line = self.state.borrow().line_of(position)?;
        self.named.borrow().get(usize::from(line)).cloned().flatten()
    }

    /// Begins to hand out.
    pub(crate) fn start(&self) {
        if self.phase.get() == Phase::Opened {
            self.phase.set(Phase::Running);
        }
        self.changed.notify_one();
    }

    // ---- take in ------------------------------------------------------------------------------

    /// Indexes what the store has told.
    fn take_in(&self) {
        if self.inbox.failed()
            && self.phase.get() != Phase::Stopped
            && let Some(why) = self.shared.store.condition().poisoned
        {
            tracing::error!(%why, "the disk cannot be trusted: nothing is taken in or handed out");
            self.phase.set(Phase::Poisoned);
        }
        let entries = self.inbox.drain();
        if entries.is_empty() {
            return;
        }
        let (now, wall) = (self.now(), self.shared.clock.now());
        let mut state = self.state.borrow_mut();
        for mut entry in entries {
            let Some(line) = self.lines.borrow().get(&entry.queue).copied() else {
                tracing::error!(queue = entry.queue.0, "a message was stored in a queue nobody set up");
                continue;
            };
            if state.place(entry.position).is_some() {
                continue;
            }
            entry.due_at = entry.due_at.map(|due| self.shared.steady.translate(due, wall));
            let age_from = entry.due_at.map_or(now, |due| due.max(now));
            state.appended(&entry, line, age_from, now);
            self.named(line).pressed(|pressure| pressure.arrived(now));
        }
    }

    /// A message's caller wants it to end at `expires`.
    pub(crate) fn note_expiry(&self, position: Position, expires: Timestamp) {
        let steady = self.steady(expires);
        self.state.borrow_mut().expires(position, steady);
    }

    // ---- dispatch -----------------------------------------------------------------------------

    pub(crate) fn may_dispatch(&self) -> bool {
        self.phase.get() == Phase::Running
    }

    /// Hands out what may go.
    fn dispatch(self: &Rc<Self>) {
        while self.may_dispatch() {
            let now = self.now();
            let Some(dispatch) = self.state.borrow_mut().next(now) else { break };
            self.begin(dispatch);
        }
    }

    fn begin(self: &Rc<Self>, dispatch: Dispatch) {
        let worker = self.clone();
        match dispatch.step {
            Step::Attempt { rate } => {
                let named = self.named(dispatch.line);
                named.in_flight.fetch_add(1, Ordering::Relaxed);
                self.spawn(async move {
                    if !panics::ended(worker.attempt(&named, dispatch)).await {
                        worker.broken(&named, dispatch.position);
                    }
                    named.in_flight.fetch_sub(1, Ordering::Relaxed);
                    let now = worker.now();
                    worker.state.borrow_mut().landed(dispatch.line, rate, now);
                    worker.changed.notify_one();
                });
            }
            Step::Classify => self.spawn(async move {
                if !panics::ended(worker.classify(dispatch)).await {
                    worker.state.borrow_mut().read(dispatch.line);
                    worker.broken(&worker.named(dispatch.line), dispatch.position);
                }
            }),
        }
    }

    /// A step panicked with a message in its hands: that waits as after a lost connection, for the longest,
    /// since nobody knows what is wrong with it. What it has used up is counted when it is read again.
    fn broken(&self, named: &Named, position: Position) {
        tracing::error!(%position, queue = %named.name, "the queue failed in the middle of an attempt");
        self.carried.borrow_mut().remove(&position);
        let now = self.now();
        let mut state = self.state.borrow_mut();
        let due = plus(now, state.line(named.line).limits.backoff_max);
        state.cleared(position);
        state.back(position, Some(due), true, now);
        self.changed.notify_one();
    }

    /// Moves what grew too old to the dead letter.
    fn bury_expired(self: &Rc<Self>) {
        let room = limits::EXPIRING_MAX.saturating_sub(self.expiring.get());
        if room == 0 || !self.may_dispatch() {
            return;
        }
        let now = self.now();
        let over = self.state.borrow_mut().expired(now, room);
        for (position, due) in over {
            self.expiring.set(self.expiring.get() + 1);
            let worker = self.clone();
            self.spawn(async move {
                worker.expire(position, due).await;
                worker.expiring.set(worker.expiring.get() - 1);
                worker.changed.notify_one();
            });
        }
    }

    // ---- time ---------------------------------------------------------------------------------

    fn wake_at(&self) -> Instant {
        let now = self.now();
        let mut at = self.sample_at.get().min(self.sweep_at.get());
        if self.may_dispatch() {
            let state = self.state.borrow();
            let room = self.expiring.get() < limits::EXPIRING_MAX;
            let expires = state.expires_at().filter(|_| room);
            at = expires.into_iter().chain(state.wake_at(now)).fold(at, Timestamp::min);
        }
        // Time is told in whole milliseconds: never before the one that is meant.
        self.shared.steady.instant(at.max(Timestamp(now.0 + 1)))
    }

    fn on_time(self: &Rc<Self>) {
        let now = self.now();
        if self.sample_at.get() <= now {
            self.sample_at.set(plus(now, limits::QUEUE_SAMPLE_INTERVAL));
            self.sample(now);
        }
        if self.sweep_at.get() <= now {
            self.sweep_at.set(plus(now, limits::SWEEP_INTERVAL));
            let worker = self.clone();
            self.spawn(async move {
                let now = worker.shared.clock.now();
                if let Err(error) = worker.shared.store.sweep(now).await {
                    tracing::warn!(%error, "old records were not removed");
                }
            });
        }
    }

    // ---- what every step needs ----------------------------------------------------------------

    /// Whoever waits for the end of a message is told to look.
    pub(crate) fn ended(&self, position: Position) {
        for watcher in self.watchers.borrow_mut().remove(&position).into_iter().flatten() {
            let _ = watcher.send(());
        }
    }

    /// A message left its queue: the index, the books and the pace know.
    pub(crate) fn left(&self, named: &Named, position: Position, bytes: u32) {
        self.state.borrow_mut().gone(position);
        let was_full = named.is_sink && named.full();
        named.left(u64::from(bytes));
        self.shared.total.fetch_sub(1, Ordering::SeqCst);
        if was_full {
            self.look_at_dead(named);
        }
        let now = self.now();
        named.pressed(|pressure| pressure.left(now));
        self.changed.notify_one();
    }
}

mod figures;
mod written;
