//! queues: the two stores of messages, opened when a policy first needs them.
//!
//! Messages of class `Local` lie in the configured directory; one that holds messages from before is
//! opened when the program starts. A directory that cannot be opened holds up no synchronous
//! request: asynchronous ones are refused with the reason, and it is tried again now and then.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use policy::queue::Durability;
use queue::{Class, Deliver, MessageId, Options, Queue, WallClock};
use tokio::sync::OnceCell;

use crate::admit::problem::{self, Problem};
use crate::admit::seal::Sealer;
use crate::health::Health;
use crate::telemetry::Metrics;

/// How long a failed opening is answered for before it is tried again.
const RETRY: Duration = Duration::from_secs(5);

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
    pub(crate) salvage: bool,
    pub(crate) allow_volatile: bool,
    pub(crate) key_file: Option<PathBuf>,
}

/// Both stores.
pub(crate) struct Queues {
    place: Place,
    owner: Arc<str>,
    holder: Ipv4Addr,
    keys: Arc<Keys>,
    deliveries: Arc<dyn Deliver>,
    metrics: queue::Metrics,
    health: Arc<Health>,
    local: Opening,
    memory: Opening,
}

#[derive(Default)]
struct Opening {
    queue: OnceCell<Queue>,
    failed: Mutex<Option<(Instant, String)>>,
}

/// The key for credentials at rest, read or made when a policy first stores any.
#[derive(Default)]
pub(crate) struct Keys {
    file: Option<PathBuf>,
    sealer: OnceLock<Arc<Sealer>>,
}

impl Keys {
    pub(crate) fn new(place: &Place) -> Arc<Self> {
        let beside = || place.directory.as_ref().map(|directory| directory.join("credentials.key"));
        Arc::new(Self { file: place.key_file.clone().or_else(beside), sealer: OnceLock::new() })
    }

    pub(crate) fn sealer(&self) -> anyhow::Result<Arc<Sealer>> {
        if let Some(sealer) = self.sealer.get() {
            return Ok(sealer.clone());
        }
        let sealer = match &self.file {
            Some(file) => Sealer::open_or_make(file)?,
            None => Sealer::for_now()?,
        };
        Ok(self.sealer.get_or_init(|| Arc::new(sealer)).clone())
    }
}

impl Queues {
    pub(crate) fn new(
        place: Place,
        owner: Arc<str>,
        holder: Ipv4Addr,
        keys: Arc<Keys>,
        deliveries: Arc<dyn Deliver>,
        metrics: &Metrics,
        health: Arc<Health>,
    ) -> Arc<Self> {
        let (local, memory) = (Opening::default(), Opening::default());
        let metrics = metrics.with(queue::Metrics::new);
        Arc::new(Self { place, owner, holder, keys, deliveries, metrics, health, local, memory })
    }

    /// Who takes requests in here.
    pub(crate) fn owner(&self) -> &Arc<str> {
        &self.owner
    }

    pub(crate) fn sealer(&self) -> Result<Arc<Sealer>, Problem> {
        self.keys.sealer().map_err(|error| Problem::new(problem::NO_QUEUE, format!("{error:#}")))
    }

    fn opening(&self, class: Durability) -> &Opening {
        match class {
            Durability::Local => &self.local,
            Durability::Memory => &self.memory,
        }
    }

    /// The store of `class`, if it is open.
    pub(crate) fn opened(&self, class: Durability) -> Option<Queue> {
        self.opening(class).queue.get().cloned()
    }

    /// The store that keeps `id`, if it is open.
    pub(crate) fn keeping(&self, id: MessageId) -> Option<Queue> {
        self.opened(match id.class() {
            Class::Local => Durability::Local,
            Class::Memory => Durability::Memory,
        })
    }

    /// All that are open.
    pub(crate) fn all_opened(&self) -> impl Iterator<Item = Queue> {
        [Durability::Local, Durability::Memory].into_iter().filter_map(|class| self.opened(class))
    }

    /// Why the directory is not open, if it was tried.
    pub(crate) fn trouble(&self) -> Option<String> {
        let failed = self.local.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map(|(_, why)| why.clone())
    }

    /// Opens what messages were left in.
    pub(crate) async fn open_what_was_left(&self) {
        let left = self.place.directory.as_ref().is_some_and(|directory| store::is_used(directory));
        if left && let Err(problem) = self.open(Durability::Local).await {
            tracing::error!(
                reason = problem.detail,
                "the queue's directory is not opened: its messages wait"
            );
        }
    }

    /// The store of `class`, opened if it was not.
    pub(crate) async fn open(&self, class: Durability) -> Result<Queue, Problem> {
        let opening = self.opening(class);
        if let Some(queue) = opening.queue.get() {
            return Ok(queue.clone());
        }
        let refused = |why: String| Problem::new(problem::NO_QUEUE, why).retry_after(RETRY);
        if let Some((at, why)) = &*opening.failed.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < RETRY
        {
            return Err(refused(why.clone()));
        }
        let opened = opening.queue.get_or_try_init(|| self.open_now(class)).await.cloned();
        let mut failed = opening.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed = opened.as_ref().err().map(|why| (Instant::now(), why.clone()));
        opened.map_err(refused)
    }

    async fn open_now(&self, class: Durability) -> Result<Queue, String> {
        let (directory, bytes_max) = match (class, &self.place.directory) {
            (Durability::Memory, _) => (None, self.place.memory_bytes_max),
            (Durability::Local, Some(directory)) => (Some(directory.clone()), self.place.bytes_max),
            (Durability::Local, None) => {
                return Err(
                    "the sidecar has no directory for durable messages (--queue-directory)".to_owned()
                );
            }
        };
        let options = Options {
            directory,
            bytes_max,
            salvage: self.place.salvage,
            allow_volatile: self.place.allow_volatile,
            vfs: None,
            holder: self.holder,
            deliver: self.deliveries.clone(),
            clock: Arc::new(WallClock),
            metrics: self.metrics.clone(),
        };
        let opened = tokio::task::spawn_blocking(move || Queue::open(options)).await;
        let queue = opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tokio::spawn(start(queue.clone(), self.health.clone()));
        Ok(queue)
    }

    /// New requests are refused from now on; what is stored is still delivered.
    pub(crate) fn begin_drain(&self) {
        self.all_opened().for_each(|queue| queue.begin_drain());
    }

    /// Delivers until `until` at most, then closes; says how many messages stay.
    pub(crate) async fn drain(&self, until: tokio::time::Instant) {
        for queue in self.all_opened() {
            let budget = until.saturating_duration_since(tokio::time::Instant::now());
            match queue.drained(budget).await {
                Ok(left) if left.messages > 0 => {
                    let (messages, bytes, in_flight) = (left.messages, left.bytes, left.in_flight);
                    tracing::warn!(messages, bytes, in_flight, "messages stay in the queue");
                }
                Ok(_) => tracing::info!("every message was delivered"),
                Err(error) => tracing::warn!(%error, "the queue is not drained"),
            }
            queue.close().await;
        }
    }
}

/// Delivers from when the proxy can: before, every attempt would fail.
async fn start(queue: Queue, health: Arc<Health>) {
    while !health.missing().is_empty() {
        tokio::time::sleep(READY_POLL).await;
    }
    // Closed meanwhile: then there is nothing to start.
    let _ = queue.start().await;
}
