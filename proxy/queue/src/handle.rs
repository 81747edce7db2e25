//! handle: what the sidecar holds of a queue.
//!
//! Cheap to clone. Taking in, reading status and results run on the caller's task; what needs the index
//! is asked of the queue's thread over a bounded channel.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use policy::limits;
use policy::queue::AsyncPolicy;
use store::message::{Position, Timestamp};
use store::{OpenError, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, Steady};
use crate::deliver::Deliver;
use crate::enqueue::Refused;
use crate::id::{Class, MessageId};
use crate::metrics::Metrics;
use crate::named::{Named, name_of};
use crate::worker::Worker;

/// How a queue is opened.
pub struct Options {
    /// Where its store is: a directory is class Local; `None` is class Memory.
    pub directory: Option<PathBuf>,
    /// Whose messages the directory keeps; another's is refused.
    pub owner: Option<String>,
    /// Bytes the store may take.
    pub bytes_max: u64,
    /// Messages that may wait in all queues together; at most [`limits::MESSAGES_TOTAL`].
    pub messages_max: u64,
    /// Idempotency keys that may be remembered; at most [`store::limits::DEDUPE_ROWS_MAX`].
    pub keys_max: u64,
    /// Keep what can be read of a damaged directory.
    pub salvage: bool,
    /// Open it also on a file system that keeps nothing over a crash. For demonstrations and for
    /// tests of everything but durability.
    pub allow_volatile: bool,
    /// The name of a registered SQLite VFS to open the files with. For tests that make the disk fail.
    pub vfs: Option<String>,
    /// This pod's address, which the ids of new messages carry.
    pub holder: Ipv4Addr,
    /// The way out.
    pub deliver: Arc<dyn Deliver>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where it counts; one for all queues of a process.
    pub metrics: Metrics,
}

/// A question could not be answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// The store did not do it.
    #[error("the store did not do it")]
    Store(#[from] StoreError),
    /// A queue's settings were not stored.
    #[error("the queue's settings were not stored")]
    Refused(#[source] Box<Refused>),
    /// No such named queue.
    #[error("there is no such queue")]
    UnknownQueue,
    /// The queue is closed.
    #[error("the queue is closed")]
    Stopped,
}

/// Work for the queue's thread.
pub(crate) type Job = Box<dyn FnOnce(&Rc<Worker>) + Send>;

/// What every thread sees of a queue.
pub(crate) struct Shared {
    pub(crate) class: Class,
    pub(crate) holder: Ipv4Addr,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) steady: Steady,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) messages_max: u64,
    pub(crate) runtime: Handle,
    /// Messages that wait or are being written, in all queues.
    pub(crate) total: AtomicU64,
    /// Clients that wait for results.
    pub(crate) waiting: AtomicUsize,
    pub(crate) names: RwLock<HashMap<Arc<str>, Arc<Named>>>,
    draining: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("class", &self.class).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// The id of a message that lies at `position`, with the address that was stored with it.
    pub(crate) fn id(&self, enqueued_at: Timestamp, position: Position, holder: Option<u32>) -> MessageId {
        let holder = holder.map_or(self.holder, Ipv4Addr::from_bits);
        MessageId::new(self.class, enqueued_at, position, holder)
    }

    pub(crate) fn named(&self) -> Vec<Arc<Named>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The age of a queue's oldest message; to the second, and as of the last survey.
    pub(crate) fn age(&self, named: &Named, now: Timestamp) -> Duration {
        match named.oldest.load(Ordering::Relaxed) {
            u32::MAX => Duration::ZERO,
            seconds => Duration::from_millis(now.0.saturating_sub(u64::from(seconds) * 1000)),
        }
    }
}

/// A durable queue, or one in memory: all named queues of one store.
#[derive(Clone, Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl Queue {
    /// Opens or makes a queue, with all messages that were left in it, and its thread. Nothing is
    /// delivered before [`Queue::start`]. **Blocks** while the store is opened: not for a worker's
    /// thread.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let class = if options.directory.is_some() { Class::Local } else { Class::Memory };
        let (opened, open) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("queue-{}", class.as_str()));
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(no_thread(&error)))),
            };
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                match Self::open_here(options) {
                    Ok((queue, work)) => {
                        let _ = opened.send(Ok(queue));
                        work.await;
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
            });
        };
        thread.spawn(run).map_err(|error| no_thread(&error))?;
        open.recv().map_err(|error| no_thread(&error))?
    }

    /// As [`Queue::open`], on the runtime it is called in: the future is the queue's thread, and must
    /// be run in a [`tokio::task::LocalSet`]. For tests, whose clock is paused.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed.
    pub fn open_here(options: Options) -> Result<(Self, impl Future<Output = ()> + 'static), OpenError> {
        let class = if options.directory.is_some() { Class::Local } else { Class::Memory };
        let (jobs, inbound) = mpsc::channel(limits::QUEUE_COMMANDS_MAX);
        let steady = Steady::begin(options.clock.now());
        let opening = crate::recover::open(&options, class)?;
        let shared = Arc::new(Shared {
            class,
            holder: options.holder,
            clock: options.clock,
            steady,
            store: opening.opened.store.clone(),
            metrics: options.metrics,
            messages_max: options.messages_max.min(limits::MESSAGES_TOTAL),
            runtime: Handle::current(),
            total: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            names: RwLock::default(),
            draining: AtomicBool::new(false),
        });
        shared.metrics.watch(&shared);
        let worker = Worker::new(shared.clone(), options.deliver, opening);
        Ok((Self { shared, jobs }, worker.run(inbound)))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has `job` done on the queue's thread, which answers through the sender.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Rc<Worker>, oneshot::Sender<T>) + Send + 'static,
    ) -> Result<T, Failed> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |worker| job(worker, answer));
        self.jobs.send(job).await.map_err(|_| Failed::Stopped)?;
        answered.await.map_err(|_| Failed::Stopped)
    }

    /// Begins to deliver: once the proxy is ready to (a receiver that is still starting would answer
    /// 404, a proxy without its certificate could not connect).
    ///
    /// # Errors
    /// [`Failed::Stopped`].
    pub async fn start(&self) -> Result<(), Failed> {
        self.ask(|worker, answer| {
            worker.start();
            let _ = answer.send(());
        })
        .await
    }

    /// Tells it a policy's words again: all named queues of that policy take them over, and keep them
    /// over a restart.
    ///
    /// # Errors
    /// [`Failed`]: some may have the old ones.
    pub async fn update(&self, policy: &Arc<AsyncPolicy>) -> Result<(), Failed> {
        for named in self.shared.named() {
            let settings = named.settings();
            if settings.policy.name == policy.name && !named.knows(policy) {
                let (policy, callbacks) = (policy.clone(), settings.callbacks);
                self.set_up(named.name.clone(), policy, settings.destination.clone(), callbacks)
                    .await?
                    .map_err(|refused| Failed::Refused(Box::new(refused)))?;
            }
        }
        Ok(())
    }

    /// The named queue of a policy and a destination, made if need be.
    pub(crate) async fn named(
        &self,
        policy: &Arc<AsyncPolicy>,
        destination: &str,
        callbacks: bool,
    ) -> Result<Arc<Named>, Refused> {
        let name = name_of(policy, destination);
        let known =
            self.shared.names.read().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned();
        if let Some(named) = known.filter(|named| named.knows(policy) && !named.is_closed()) {
            return Ok(named);
        }
        self.set_up(name.into(), policy.clone(), destination.into(), callbacks).await?
    }

    async fn set_up(
        &self,
        name: Arc<str>,
        policy: Arc<AsyncPolicy>,
        destination: Arc<str>,
        callbacks: bool,
    ) -> Result<Result<Arc<Named>, Refused>, Failed> {
        self.ask(move |worker, answer| worker.set_up(name, policy, destination, callbacks, answer)).await
    }

    /// Tells the index of a message's own end of life.
    pub(crate) async fn note_expiry(&self, position: Position, expires: Timestamp) {
        // A queue that has stopped reads it from disk again.
        let _ = self
            .ask(move |worker, answer| {
                worker.note_expiry(position, expires);
                let _ = answer.send(());
            })
            .await;
    }

    /// Whether no message with this ordering key waits: `Spill` stores at once if one does.
    ///
    /// # Errors
    /// [`Failed::Stopped`].
    pub async fn lane_is_empty(
        &self,
        policy: &AsyncPolicy,
        destination: &str,
        key: &str,
    ) -> Result<bool, Failed> {
        let (name, lane) = (name_of(policy, destination), crate::enqueue::lane_of(key));
        let known =
            self.shared.names.read().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned();
        let Some(named) = known else { return Ok(true) };
        self.ask(move |worker, answer| {
            let _ = answer.send(worker.state.borrow().lane_is_empty(named.line, lane));
        })
        .await
    }

    /// What the store is like now.
    #[must_use]
    pub fn condition(&self) -> store::Condition {
        self.shared.store.condition()
    }

    /// From now on nothing is taken in ([`Refused::Draining`]); what waits goes on at full speed.
    pub fn begin_drain(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
    }

    /// Waits until nothing more can be delivered within `budget`, or it is over; then nothing is
    /// handed out any more. What is left stays on disk, never in the dead letter because of this: an
    /// attempt that is still under way counts as none and may repeat.
    ///
    /// # Errors
    /// [`Failed::Stopped`].
    pub async fn drained(&self, budget: Duration) -> Result<Left, Failed> {
        self.begin_drain();
        self.ask(move |worker, answer| worker.drain(budget, answer)).await
    }

    /// Stops the thread and closes the store, after what is on its way to disk. Attempts under way
    /// are dropped: [`Queue::drained`] first. Dropping every handle does the same, unheard.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the stopping.
    pub async fn close(&self) {
        self.begin_drain();
        // Closed already is as good.
        let _ = self.ask(|worker, answer| worker.stop(answer)).await;
    }
}

/// What a drain left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Messages that wait, on disk if the class is Local.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, attempts that were still under way.
    pub in_flight: u64,
}

fn no_thread(error: &dyn std::error::Error) -> OpenError {
    OpenError::Disk { directory: PathBuf::new(), details: format!("no thread for the queue: {error}") }
}
