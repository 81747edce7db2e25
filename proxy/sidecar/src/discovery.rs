//! discovery: from where an application wants to go to how it gets there, kept current.
//!
//! Each worker has one. What was asked for once stays in a table as a [`Cell`]: a connection keeps
//! the cell, and every request reads from it what holds now. When the snapshot changes, the cells
//! whose documents changed are filled anew; clients of backends stay, with their connections and
//! what they learned of their endpoints, and are only told their new endpoints.

mod names;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use policy::endpoint::Endpoint;
use policy::limits;
use policy::snapshot::{
    Backend, BackendKey, BackendSettings, Destination, DestinationKey, Protocol, ServicePolicy, Snapshot,
};
use request::backend::{BackendClient, Shared};
use request::forward::Target;
use request::outcome::{Cause, Failure};
use tokio::sync::watch;
use transport::resolve::Resolver;

use crate::authority::External;
use crate::feed::FeedHandle;

/// Why a destination cannot be reached. Its words go into the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    /// The controller says that nothing is there.
    #[error("{0}")]
    Unknown(String),
    /// The controller was asked and has not answered.
    #[error(
        "the controller has not answered for {0} within {wait:?}: it is away, or has not seen this destination",
        wait = limits::DESTINATION_WAIT
    )]
    NoAnswer(DestinationKey),
    /// It is another name, which is looked up.
    #[error("it is the name {}", .0.host)]
    ExternalName(External),
    /// The table is full.
    #[error("this proxy already follows {max} destinations", max = limits::DESTINATIONS_MAX)]
    TooMany,
    /// It is not known yet where the mesh ends.
    #[error("the controller has not said yet which addresses belong to the mesh, so {0} is not passed on")]
    NoMesh(String),
    /// A name of the world has no address.
    #[error("{0}")]
    NoAddress(String),
}

impl From<&Unreachable> for Failure {
    fn from(unreachable: &Unreachable) -> Self {
        let cause = match unreachable {
            Unreachable::Unknown(_) => Cause::UnknownDestination,
            Unreachable::TooMany => Cause::Overloaded,
            _ => Cause::NotReady,
        };
        Self::new(cause, unreachable.to_string())
    }
}

/// How a destination is reached, as of now.
#[derive(Clone)]
pub(crate) struct Reached {
    /// Where requests and bytes go.
    pub(crate) target: Arc<Target>,
    /// How the port is spoken to.
    pub(crate) protocol: Protocol,
    /// It lies outside the mesh: its address is no label.
    pub(crate) outside: bool,
    /// What it is found again by: the Service, where there is one.
    pub(crate) named: DestinationKey,
}

impl Reached {
    /// What connections carried there are counted under.
    pub(crate) fn label(&self, backend: &BackendClient) -> String {
        if self.outside { "outside".to_owned() } else { backend.key().to_string() }
    }
}

/// One destination, followed for as long as somebody uses it.
pub(crate) struct Cell {
    now: ArcSwap<Result<Reached, Unreachable>>,
    /// The document it was filled from; `None` until there is one, and for what was decided here.
    document: Mutex<Option<Arc<Destination>>>,
    /// The server spoke first once: this port is not HTTP.
    server_first: AtomicBool,
    /// Milliseconds since the table was made.
    used_at: AtomicU64,
    /// A backend that its document names was not in the snapshot it was filled from.
    incomplete: AtomicBool,
    /// The controller follows it for us.
    subscribed: bool,
}

impl Cell {
    fn new(now: Result<Reached, Unreachable>, subscribed: bool) -> Self {
        Self {
            now: ArcSwap::from_pointee(now),
            document: Mutex::new(None),
            server_first: AtomicBool::new(false),
            used_at: AtomicU64::new(0),
            incomplete: AtomicBool::new(false),
            subscribed,
        }
    }

    /// How it is reached now.
    pub(crate) fn now(&self) -> Arc<Result<Reached, Unreachable>> {
        self.now.load_full()
    }

    pub(crate) fn is_server_first(&self) -> bool {
        self.server_first.load(Ordering::Relaxed)
    }

    pub(crate) fn remember_server_first(&self) {
        self.server_first.store(true, Ordering::Relaxed);
    }

    fn is_answered(&self) -> bool {
        !matches!(**self.now.load(), Err(Unreachable::NoAnswer(_)))
    }
}

/// The destinations and backends of one worker.
pub(crate) struct Discovery {
    feed: FeedHandle,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    shared: Shared,
    resolver: Arc<Resolver>,
    cells: Mutex<HashMap<DestinationKey, Arc<Cell>>>,
    backends: Mutex<HashMap<BackendKey, Arc<BackendClient>>>,
    names: Mutex<HashMap<External, Arc<Cell>>>,
    /// Clients of what lies outside the mesh; they are in no snapshot.
    outside: Mutex<Vec<std::sync::Weak<BackendClient>>>,
    since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Discovery {
    pub(crate) fn new(feed: FeedHandle, shared: Shared, resolver: Arc<Resolver>) -> Arc<Self> {
        Arc::new(Self {
            snapshot: feed.snapshot(),
            feed,
            shared,
            resolver,
            cells: Mutex::default(),
            backends: Mutex::default(),
            names: Mutex::default(),
            outside: Mutex::default(),
            since: Instant::now(),
        })
    }

    /// What holds now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// The cell of a destination; one never seen before waits for the controller, within bounds.
    pub(crate) async fn find(&self, key: &DestinationKey) -> Result<Arc<Cell>, Unreachable> {
        let cell = match self.known(key) {
            Some(cell) => cell,
            None => self.begin(key).await?,
        };
        if cell.is_answered() {
            return Ok(cell);
        }
        let mut snapshots = self.snapshot.clone();
        let answered = async {
            while !cell.is_answered() {
                // The cell is filled by whoever sees the new snapshot first: here or in `follow`.
                let now = snapshots.borrow_and_update().clone();
                self.refill(key, &cell, &now);
                if !cell.is_answered() && snapshots.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limits::DESTINATION_WAIT, answered).await;
        if cell.is_answered() { Ok(cell) } else { Err(Unreachable::NoAnswer(key.clone())) }
    }

    fn known(&self, key: &DestinationKey) -> Option<Arc<Cell>> {
        let cell = lock(&self.cells).get(key).cloned()?;
        cell.used_at.store(self.clock(), Ordering::Relaxed);
        Some(cell)
    }

    /// Makes the cell of a destination that nobody asked for before. A full table gives up the one
    /// that nobody uses for the longest.
    async fn begin(&self, key: &DestinationKey) -> Result<Arc<Cell>, Unreachable> {
        let mut given_up = None;
        let (cell, is_new) = {
            let mut cells = lock(&self.cells);
            if let Some(cell) = cells.get(key) {
                (cell.clone(), false)
            } else {
                if cells.len() >= limits::DESTINATIONS_MAX {
                    given_up = Some(give_up_one(&mut cells).ok_or(Unreachable::TooMany)?);
                }
                let cell = Arc::new(match self.is_outside(key) {
                    Some(address) => Cell::new(Ok(self.passthrough(&[address])), false),
                    None => Cell::new(Err(Unreachable::NoAnswer(key.clone())), true),
                });
                cells.insert(key.clone(), cell.clone());
                (cell, true)
            }
        };
        cell.used_at.store(self.clock(), Ordering::Relaxed);
        if is_new && cell.subscribed {
            self.feed.need(key.clone()).await;
        }
        if let Some((key, true)) = given_up {
            self.feed.release(key).await;
        }
        Ok(cell)
    }

    /// The address, when it is known to lie outside the mesh.
    fn is_outside(&self, key: &DestinationKey) -> Option<SocketAddr> {
        let DestinationKey::Address(address) = key else { return None };
        let snapshot = self.snapshot.borrow();
        let mesh = snapshot.mesh.as_ref()?;
        (!mesh.networks.iter().any(|network| network.contains(&address.ip()))).then_some(*address)
    }

    /// Follows snapshots for as long as the worker runs.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut snapshots = self.snapshot.clone();
        loop {
            let now = snapshots.borrow_and_update().clone();
            self.apply(&now);
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    }

    fn apply(&self, snapshot: &Snapshot) {
        lock(&self.backends).retain(|key, client| match snapshot.backends.get(key) {
            Some(document) => {
                client.update(document.clone());
                true
            }
            None => false,
        });
        let cells: Vec<_> = lock(&self.cells).iter().map(|(key, cell)| (key.clone(), cell.clone())).collect();
        for (key, cell) in cells {
            self.refill(&key, &cell, snapshot);
        }
    }

    /// Fills a cell whose document changed. One that is no longer told keeps what it had.
    fn refill(&self, key: &DestinationKey, cell: &Cell, snapshot: &Snapshot) {
        let Some(document) = snapshot.destinations.get(key) else { return };
        let mut filled_from = lock(&cell.document);
        let same = filled_from.as_ref().is_some_and(|from| Arc::ptr_eq(from, document));
        if same && !cell.incomplete.load(Ordering::Relaxed) {
            return;
        }
        *filled_from = Some(document.clone());
        let mut incomplete = false;
        let filled = self.fill(key, document, |key| {
            let client = self.backend(key, snapshot);
            incomplete |= client.is_none();
            client
        });
        cell.now.store(Arc::new(filled));
        cell.incomplete.store(incomplete, Ordering::Relaxed);
    }

    /// What `document` means, with the clients that `backend` gives.
    fn fill(
        &self,
        key: &DestinationKey,
        document: &Destination,
        backend: impl FnMut(&BackendKey) -> Option<Arc<BackendClient>>,
    ) -> Result<Reached, Unreachable> {
        match (document, key) {
            (Destination::Service(policy), _) => Ok(Reached {
                target: Arc::new(Target::new(policy, &self.shared, backend)),
                protocol: policy.protocol,
                outside: false,
                named: policy.service.clone().map_or_else(|| key.clone(), DestinationKey::Service),
            }),
            (Destination::Unknown { cause }, _) => Err(Unreachable::Unknown(cause.clone())),
            (Destination::External, DestinationKey::Address(address)) => Ok(self.passthrough(&[*address])),
            (Destination::External, DestinationKey::Service(port)) => {
                Err(Unreachable::Unknown(format!("there is no Service {port}")))
            }
            (Destination::ExternalName(name), DestinationKey::Service(port)) => {
                let external = External { host: name.as_str().to_owned(), port: port.port };
                Err(Unreachable::ExternalName(external))
            }
            (Destination::ExternalName(name), DestinationKey::Address(address)) => {
                Err(Unreachable::Unknown(format!("{address} is said to be the name {name}")))
            }
        }
    }

    fn backend(&self, key: &BackendKey, snapshot: &Snapshot) -> Option<Arc<BackendClient>> {
        let document = snapshot.backends.get(key)?;
        let mut backends = lock(&self.backends);
        let client = backends
            .entry(key.clone())
            .or_insert_with(|| Arc::new(BackendClient::new(key.clone(), document.clone(), &self.shared)));
        Some(client.clone())
    }

    /// Plaintext to addresses outside the mesh, on the same way as everything else.
    fn passthrough(&self, addresses: &[SocketAddr]) -> Reached {
        let key = BackendKey::Address(addresses[0]);
        let client = Arc::new(BackendClient::new(key.clone(), Arc::new(outside(addresses)), &self.shared));
        lock(&self.outside).push(Arc::downgrade(&client));
        let policy = ServicePolicy {
            service: None,
            protocol: Protocol::Detect,
            rules: Vec::new(),
            backend: key,
            asynchronous: None,
        };
        let target = Target::new(&policy, &self.shared, |_| Some(client.clone()));
        let named = DestinationKey::Address(addresses[0]);
        Reached { target: Arc::new(target), protocol: Protocol::Detect, outside: true, named }
    }

    /// Gives up destinations that nobody used for a while, and idle connections.
    pub(crate) async fn sweep(&self) {
        let idle_ms = u64::try_from(limits::DESTINATION_IDLE.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock();
        let is_idle = |cell: &Arc<Cell>| {
            if Arc::strong_count(cell) > 1 {
                cell.used_at.store(now, Ordering::Relaxed);
                return false;
            }
            now.saturating_sub(cell.used_at.load(Ordering::Relaxed)) > idle_ms
        };
        let mut released = Vec::new();
        lock(&self.cells).retain(|key, cell| {
            if is_idle(cell) && cell.subscribed {
                released.push(key.clone());
            }
            !is_idle(cell)
        });
        lock(&self.names).retain(|_, cell| !is_idle(cell));
        lock(&self.outside).retain(|client| {
            client.upgrade().is_some_and(|client| {
                client.sweep();
                true
            })
        });
        for client in lock(&self.backends).values() {
            client.sweep();
        }
        for key in released {
            self.feed.release(key).await;
        }
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Takes out the destination that nobody uses for the longest; says whether it was followed.
fn give_up_one(cells: &mut HashMap<DestinationKey, Arc<Cell>>) -> Option<(DestinationKey, bool)> {
    let unused = cells.iter().filter(|(_, cell)| Arc::strong_count(cell) == 1);
    let oldest = unused.min_by_key(|(_, cell)| cell.used_at.load(Ordering::Relaxed))?.0.clone();
    let cell = cells.remove(&oldest)?;
    Some((oldest, cell.subscribed))
}

/// A backend of plain addresses.
fn outside(addresses: &[SocketAddr]) -> Backend {
    Backend {
        service: None,
        protocol: Protocol::Detect,
        settings: BackendSettings::default(),
        endpoints: addresses.iter().copied().map(Endpoint::plain).collect(),
    }
}
