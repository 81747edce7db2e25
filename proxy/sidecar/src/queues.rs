//! queues: the two stores of messages, opened when a policy first needs them.
//!
//! Messages of class `Local` lie in the configured directory; one that holds messages from before is
//! opened when the program starts. A directory that cannot be opened holds up no synchronous
//! request: asynchronous ones are refused with the reason, and it is tried again now and then, by a
//! request or, where messages wait in it, without one. An opening has a task of its own: the client
//! who asked first may go away.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use policy::limits;
use policy::queue::Durability;
use queue::{Class, Deliver, MessageId, OpenError, Options, Queue, WallClock};
use request::drain::Drain;
use tokio::sync::watch;

use crate::admit::problem::{self, Problem};
use crate::admit::seal::Sealer;
use crate::health::Health;
use crate::telemetry::Metrics;

/// How long a failed opening is answered for before it is tried again: a predecessor that still has
/// the directory goes within seconds.
const RETRY: Duration = Duration::from_secs(2);

/// How often it is looked whether the proxy is ready to deliver.
const READY_POLL: Duration = Duration::from_millis(50);

/// Where the queues are and what they may take.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// For class `Local`.
    pub(crate) directory: Option<PathBuf>,
    /// Bytes the directory may take.
    pub(crate) bytes_max: u64,
    /// Bytes that messages of class `Memory` may take.
    pub(crate) memory_bytes_max: u64,
    /// Messages that may wait in each store, in all its queues.
    pub(crate) messages_max: u64,
    /// Idempotency keys that each may remember.
    pub(crate) keys_max: u64,
    pub(crate) salvage: bool,
    pub(crate) allow_volatile: bool,
    pub(crate) key_file: Option<PathBuf>,
}

/// The workload whose requests are kept.
pub(crate) struct Owner {
    pub(crate) identity: Arc<str>,
    /// Where its pod is asked for them.
    pub(crate) address: Ipv4Addr,
}

/// Both stores.
pub(crate) struct Queues {
    place: Place,
    owner: Owner,
    keys: Arc<Keys>,
    deliveries: Arc<dyn Deliver>,
    metrics: queue::Metrics,
    health: Arc<Health>,
    /// What openings belong to.
    tasks: Drain,
    draining: AtomicBool,
    local: watch::Sender<Opening>,
    memory: watch::Sender<Opening>,
}

/// How far a store is.
#[derive(Default)]
enum Opening {
    #[default]
    Closed,
    /// A task is at it; with why the time before failed.
    UnderWay(Option<Trouble>),
    Failed(Instant, Trouble),
    Open(Queue),
}

/// Why a store is not open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) why: String,
    /// The same as the word of a metric: `damaged`, `in_use`, `other_format`, `other_owner`, `volatile`,
    /// `unusable`.
    pub(crate) condition: &'static str,
}

impl Trouble {
    fn unusable(why: impl Into<String>) -> Self {
        Self { why: why.into(), condition: "unusable" }
    }
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        Self { why: error.to_string(), condition: queue::closed_for(&error) }
    }
}

impl Opening {
    /// Whether it is for the caller to open it.
    fn begin(&mut self) -> bool {
        let before = match self {
            Self::Closed => None,
            Self::Failed(at, why) if at.elapsed() >= RETRY => Some(std::mem::take(why)),
            _ => return false,
        };
        *self = Self::UnderWay(before);
        true
    }

    fn is_settled(&self) -> bool {
        !matches!(self, Self::UnderWay(_))
    }

    fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Failed(_, why) | Self::UnderWay(Some(why)) => Some(why),
            _ => None,
        }
    }
}

/// The key for credentials at rest, read or made when a policy first stores any.
#[derive(Default)]
pub(crate) struct Keys {
    file: Option<PathBuf>,
    sealer: Mutex<Option<Arc<Sealer>>>,
}

impl Keys {
    pub(crate) fn new(place: &Place) -> Arc<Self> {
        let beside = || place.directory.as_ref().map(|directory| directory.join("credentials.key"));
        Arc::new(Self { file: place.key_file.clone().or_else(beside), sealer: Mutex::default() })
    }

    pub(crate) fn sealer(&self) -> anyhow::Result<Arc<Sealer>> {
        // Locked while the key is made: two workers must not make two.
        let mut known = self.sealer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sealer) = &*known {
            return Ok(sealer.clone());
        }
        let sealer = match &self.file {
            Some(file) => Sealer::open_or_make(file)?,
            None => Sealer::for_now()?,
        };
        Ok(known.insert(Arc::new(sealer)).clone())
    }
}

impl Queues {
    pub(crate) fn new(
        place: Place,
        owner: Owner,
        keys: Arc<Keys>,
        deliveries: Arc<dyn Deliver>,
        metrics: &Metrics,
        health: Arc<Health>,
        tasks: Drain,
    ) -> Arc<Self> {
        Arc::new(Self {
            place,
            owner,
            keys,
            deliveries,
            metrics: metrics.with(queue::Metrics::new),
            health,
            tasks,
            draining: AtomicBool::new(false),
            local: watch::Sender::default(),
            memory: watch::Sender::default(),
        })
    }

    /// Who takes requests in here.
    pub(crate) fn owner(&self) -> &Arc<str> {
        &self.owner.identity
    }

    pub(crate) fn sealer(&self) -> Result<Arc<Sealer>, Problem> {
        self.keys.sealer().map_err(|error| Problem::new(problem::NO_QUEUE, format!("{error:#}")))
    }

    fn opening(&self, class: Durability) -> &watch::Sender<Opening> {
        match class {
            Durability::Local => &self.local,
            Durability::Memory => &self.memory,
        }
    }

    /// The store of `class`, if it is open.
    pub(crate) fn opened(&self, class: Durability) -> Option<Queue> {
        match &*self.opening(class).borrow() {
            Opening::Open(queue) => Some(queue.clone()),
            _ => None,
        }
    }

    /// The store that keeps `id`; `None` if nothing was taken in yet.
    ///
    /// # Errors
    /// It cannot be opened, so nobody knows.
    pub(crate) fn keeping(&self, id: MessageId) -> Result<Option<Queue>, Problem> {
        let class = match id.class() {
            Class::Local => Durability::Local,
            Class::Memory => Durability::Memory,
        };
        match self.opening(class).borrow().trouble() {
            Some(trouble) => Err(refused(&trouble.why)),
            None => Ok(self.opened(class)),
        }
    }

    /// All that are open.
    pub(crate) fn all_opened(&self) -> impl Iterator<Item = Queue> {
        [Durability::Local, Durability::Memory].into_iter().filter_map(|class| self.opened(class))
    }

    /// Why the directory is not open, if it was tried.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.local.borrow().trouble().cloned()
    }

    /// Opens what messages were left in. Why it cannot be is in the log.
    pub(crate) async fn open_what_was_left(self: &Arc<Self>) {
        if self.place.directory.as_ref().is_some_and(|directory| store::is_used(directory)) {
            let _ = self.open(Durability::Local).await;
        }
    }

    /// The same now and then, until it is open.
    pub(crate) async fn retry_what_was_left(self: Arc<Self>) {
        while self.opened(Durability::Local).is_none() && !self.is_draining() {
            tokio::time::sleep(RETRY).await;
            self.open_what_was_left().await;
        }
    }

    /// The store of `class`, opened if it was not.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the opening.
    pub(crate) async fn open(self: &Arc<Self>, class: Durability) -> Result<Queue, Problem> {
        if let Some(queue) = self.opened(class) {
            return Ok(queue);
        }
        if self.is_draining() {
            let problem = Problem::new(problem::DRAINING, "nothing is taken in any more");
            return Err(problem.retry_after(limits::QUEUE_RETRY_AFTER_MIN));
        }
        let opening = self.opening(class);
        if opening.send_if_modified(Opening::begin) {
            self.tasks.spawn(self.clone().open_now(class));
        }
        let mut seen = opening.subscribe();
        // The sender is ours.
        let settled = seen.wait_for(Opening::is_settled).await;
        match settled.as_deref() {
            Ok(Opening::Open(queue)) => Ok(queue.clone()),
            Ok(opening) => Err(refused(opening.trouble().map_or("", |trouble| &trouble.why))),
            Err(closed) => Err(refused(&closed.to_string())),
        }
    }

    /// Opens a store, says so, and has it deliver from when the proxy can: before, every attempt
    /// would fail.
    async fn open_now(self: Arc<Self>, class: Durability) {
        let opening = self.opening(class);
        let queue = match self.opened_queue(class).await {
            Ok(queue) => queue,
            Err(trouble) => {
                if opening.borrow().trouble() != Some(&trouble) {
                    let reason = &trouble.why;
                    tracing::error!(?class, reason, "the queue is not opened: what is in it waits");
                }
                self.metrics.closed(id_class(class), Some(trouble.condition));
                opening.send_replace(Opening::Failed(Instant::now(), trouble));
                return;
            }
        };
        self.metrics.closed(id_class(class), None);
        opening.send_replace(Opening::Open(queue.clone()));
        if self.is_draining() {
            queue.begin_drain();
        }
        let ready = async {
            while !self.health.missing().is_empty() {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        tokio::select! {
            () = self.tasks.draining() => {}
            () = ready => {
                // Closed meanwhile: then there is nothing to start.
                let _ = queue.start().await;
            }
        }
    }

    async fn opened_queue(&self, class: Durability) -> Result<Queue, Trouble> {
        let (directory, bytes_max) = match (class, &self.place.directory) {
            (Durability::Memory, _) => (None, self.place.memory_bytes_max),
            (Durability::Local, Some(directory)) => (Some(directory.clone()), self.place.bytes_max),
            (Durability::Local, None) => {
                let why = "the sidecar has no directory for durable messages (--queue-directory)";
                return Err(Trouble::unusable(why));
            }
        };
        let options = Options {
            directory,
            owner: Some(self.owner.identity.to_string()),
            bytes_max,
            messages_max: self.place.messages_max,
            keys_max: self.place.keys_max,
            salvage: self.place.salvage,
            allow_volatile: self.place.allow_volatile,
            vfs: None,
            holder: self.owner.address,
            deliver: self.deliveries.clone(),
            clock: Arc::new(WallClock),
            metrics: self.metrics.clone(),
        };
        let opened = tokio::task::spawn_blocking(move || Queue::open(options)).await;
        opened.map_err(|error| Trouble::unusable(error.to_string()))?.map_err(Trouble::from)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// New requests are refused from now on; what is stored is still delivered.
    pub(crate) fn begin_drain(&self) {
        // First: a store that opens just now is told by whoever opens it.
        self.draining.store(true, Ordering::SeqCst);
        self.all_opened().for_each(|queue| queue.begin_drain());
    }

    /// Delivers until `until` at most, then closes; says how many messages stay.
    pub(crate) async fn drain(&self, until: tokio::time::Instant) {
        for opening in [&self.local, &self.memory] {
            // One that is just being opened is to be closed in order too.
            let _ = tokio::time::timeout_at(until, opening.subscribe().wait_for(Opening::is_settled)).await;
        }
        let classes = [Durability::Local, Durability::Memory].into_iter();
        for (class, queue) in classes.filter_map(|class| Some((id_class(class), self.opened(class)?))) {
            let durability = class.as_str();
            let budget = until.saturating_duration_since(tokio::time::Instant::now());
            match queue.drained(budget).await {
                Ok(left) if left.messages > 0 => {
                    let (messages, bytes, in_flight) = (left.messages, left.bytes, left.in_flight);
                    tracing::warn!(messages, bytes, in_flight, durability, "messages stay in the queue");
                }
                Ok(_) => tracing::info!("every message was delivered"),
                Err(error) => tracing::warn!(%error, "the queue is not drained"),
            }
            queue.close().await;
        }
    }
}

fn id_class(class: Durability) -> Class {
    match class {
        Durability::Local => Class::Local,
        Durability::Memory => Class::Memory,
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(problem::NO_QUEUE, why).retry_after(RETRY)
}

#[cfg(test)]
pub(crate) mod tests;
