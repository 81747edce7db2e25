//! backend: one set of endpoints, who of them takes a request, and how many may be under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwap;
use http::{HeaderValue, Response};
use policy::endpoint::{Endpoint, Peer};
use policy::identity::Identity;
use policy::limits;
use policy::snapshot::{Backend, BackendKey, BackendSettings, Protocol};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use transport::connect::{ConnectError, connect};
use transport::errors::chain;
use transport::io::Io;
use transport::tls::Tls;

use crate::balance::{Load, Loaded, choose};
use crate::client::Pool;
use crate::headers::{PeerWords, ask_to_close};
use crate::metrics::{AttemptResult, EndpointSeries, Metrics};
use crate::outcome::{Cause, Failure};
use crate::replay::Kept;
use crate::retry::{Budget, seed};

/// What all requests of a process share.
#[derive(Clone)]
pub struct Shared {
    pub(crate) tls: Tls,
    pub(crate) metrics: Metrics,
    pub(crate) kept: Kept,
    pub(crate) via: HeaderValue,
    pub(crate) workers: u32,
    own: Option<Own>,
}

/// The pod beside this process.
#[derive(Clone)]
struct Own {
    pod: Arc<str>,
    peer: Peer,
}

impl Shared {
    /// For a process of `workers` workers.
    #[must_use]
    pub fn new(tls: Tls, metrics: Metrics, workers: u32) -> Self {
        // A name of this process alone, so that only its own passages are counted for a loop.
        let via = format!("1.1 tidegate-{:08x}", seed() & 0xffff_ffff);
        let via = HeaderValue::try_from(via).unwrap_or(HeaderValue::from_static("1.1 tidegate"));
        Self { tls, metrics, kept: Kept::default(), via, workers: workers.max(1), own: None }
    }

    /// With its own pod, which redirection brings nothing to from itself: its sidecar is asked at its
    /// own `inbound_port` also where that is not known to others.
    #[must_use]
    pub fn beside(mut self, pod: &str, identity: Identity, inbound_port: u16) -> Self {
        self.own = Some(Own { pod: pod.into(), peer: Peer { identity, inbound_port: Some(inbound_port) } });
        self
    }

    /// The sidecar of `endpoint`.
    fn peer(&self, endpoint: &Endpoint) -> Option<Peer> {
        let peer = endpoint.peer.as_ref()?;
        let own = self.own.as_ref().filter(|own| {
            peer.inbound_port.is_none() && endpoint.pod == own.pod && peer.identity == own.peer.identity
        });
        Some(own.map_or(peer, |own| &own.peer).clone())
    }

    /// The counters of this room.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// One backend, as one worker sees it.
pub struct BackendClient {
    key: BackendKey,
    label: String,
    shared: Shared,
    now: ArcSwap<Now>,
    changed: Notify,
    waiting: AtomicU32,
}

struct Now {
    document: Arc<Backend>,
    endpoints: Vec<Arc<EndpointClient>>,
    budget: Arc<Budget>,
    places: Arc<Semaphore>,
    queue_max: u32,
}

/// One endpoint, as one worker sees it.
pub(crate) struct EndpointClient {
    pub(crate) pool: Arc<Pool>,
    pub(crate) load: Load,
    pub(crate) series: Arc<EndpointSeries>,
    terminating: AtomicBool,
}

/// A request on its way to an endpoint.
pub(crate) struct InFlight(Arc<EndpointClient>);

impl Loaded for EndpointClient {
    fn load(&self, now: Instant) -> f64 {
        self.load.value(now)
    }
    fn is_backing_off(&self, now: Instant) -> bool {
        self.load.backs_off(now)
    }
    fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::Relaxed)
    }
}

impl InFlight {
    pub(crate) fn new(endpoint: &Arc<EndpointClient>) -> Self {
        endpoint.load.begin();
        endpoint.series.in_flight.inc();
        Self(endpoint.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.load.end();
        self.0.series.in_flight.dec();
    }
}

fn per_worker(bound: u32, workers: u32) -> u32 {
    bound.div_ceil(workers).max(1)
}

fn places(settings: &BackendSettings, workers: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(per_worker(settings.in_flight_max, workers) as usize))
}

impl BackendClient {
    /// A backend as `document` says, without a connection yet.
    #[must_use]
    pub fn new(key: BackendKey, document: Arc<Backend>, shared: &Shared) -> Self {
        let label = key.to_string();
        let endpoints = endpoints(&label, &document, &[], shared);
        let settings = &document.settings;
        let now = Now {
            budget: Arc::new(Budget::new(settings.budget, shared.workers)),
            places: places(settings, shared.workers),
            queue_max: per_worker(settings.queue_max, shared.workers),
            endpoints,
            document,
        };
        Self {
            key,
            label,
            shared: shared.clone(),
            now: ArcSwap::from_pointee(now),
            changed: Notify::new(),
            waiting: AtomicU32::new(0),
        }
    }

    /// Which backend it is.
    #[must_use]
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// How its endpoints are spoken to.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.now.load().document.protocol
    }

    /// Takes over a new document. Endpoints that stay keep their connections and what was learned
    /// of them; those that went take no further request, and their idle connections are closed.
    pub fn update(&self, document: Arc<Backend>) {
        let before = self.now.load_full();
        if *before.document == *document {
            return;
        }
        let (was, is) = (&before.document.settings, &document.settings);
        let workers = self.shared.workers;
        let keep_places = was.in_flight_max == is.in_flight_max;
        let now = Now {
            endpoints: endpoints(&self.label, &document, &before.endpoints, &self.shared),
            budget: if was.budget == is.budget {
                before.budget.clone()
            } else {
                Arc::new(Budget::new(is.budget, workers))
            },
            places: if keep_places { before.places.clone() } else { places(is, workers) },
            queue_max: per_worker(is.queue_max, workers),
            document: document.clone(),
        };
        self.now.store(Arc::new(now));
        self.changed.notify_waiters();
    }

    /// Closes idle connections; says whether any is left.
    pub fn sweep(&self) -> bool {
        let now = Instant::now();
        let kept = self.now.load().endpoints.iter().filter(|endpoint| endpoint.pool.sweep(now)).count();
        kept > 0
    }

    pub(crate) fn budget(&self) -> Arc<Budget> {
        self.now.load().budget.clone()
    }

    pub(crate) fn retry_body_bytes_max(&self) -> u64 {
        self.now.load().document.settings.retry_body_bytes_max
    }

    pub(crate) fn endpoints_total(&self) -> usize {
        self.now.load().endpoints.len()
    }

    /// A place among the requests under way; waits for one within bounds.
    pub(crate) async fn admit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let now = self.now.load_full();
        if let Ok(permit) = now.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = self.wait(now.queue_max)?;
        match timeout(limits::BACKEND_QUEUE_TIMEOUT, now.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Failure::new(
                Cause::Overloaded,
                format!(
                    "{}: all {} places were taken for {:?}",
                    self.label,
                    now.document.settings.in_flight_max,
                    limits::BACKEND_QUEUE_TIMEOUT
                ),
            )),
        }
    }

    fn wait(&self, queue_max: u32) -> Result<Waiting<'_>, Failure> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= queue_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let details = format!("{}: {queue_max} requests wait already", self.label);
            return Err(Failure::new(Cause::Overloaded, details));
        }
        Ok(Waiting(&self.waiting))
    }

    /// An endpoint that is not among `tried`. With none at all, one is waited for within bounds.
    pub(crate) async fn choose(&self, tried: &[Arc<EndpointClient>]) -> Result<Arc<EndpointClient>, Failure> {
        let now = self.now.load();
        if !now.endpoints.is_empty() {
            let exclude: Vec<_> = tried.iter().map(Arc::as_ptr).collect();
            return choose(&now.endpoints, &exclude, Instant::now())
                .cloned()
                .ok_or_else(|| self.none_left(tried));
        }
        let queue_max = now.queue_max;
        drop(now);
        let _waiting = self.wait(queue_max)?;
        let appeared = async {
            loop {
                let changed = self.changed.notified();
                if let Some(endpoint) = choose(&self.now.load().endpoints, &[], Instant::now()) {
                    return endpoint.clone();
                }
                changed.await;
            }
        };
        timeout(limits::BACKEND_QUEUE_TIMEOUT, appeared).await.map_err(|_| self.none_left(tried))
    }

    fn none_left(&self, tried: &[Arc<EndpointClient>]) -> Failure {
        let details = format!("{}: total={} tried={}", self.label, self.endpoints_total(), tried.len());
        Failure::new(Cause::NoEndpoint, details)
    }

    /// A connection for bytes to one of the endpoints; those that cannot be reached are passed by.
    ///
    /// # Errors
    /// [`Failure`] when none could be reached.
    pub async fn open(&self) -> Result<(Io, OpenStream), Failure> {
        let mut tried = Vec::new();
        loop {
            let endpoint = match self.choose(&tried).await {
                Ok(endpoint) => endpoint,
                Err(failure) => return Err(failure),
            };
            match connect(&endpoint.pool.endpoint, None, &self.shared.tls).await {
                Ok(io) => {
                    endpoint.load.connected();
                    endpoint.series.record(AttemptResult::Success);
                    return Ok((io, OpenStream { _in_flight: InFlight::new(&endpoint) }));
                }
                Err(error) => {
                    endpoint.not_connected();
                    tried.push(endpoint);
                    if tried.len() >= limits::CONNECT_ATTEMPTS_MAX as usize
                        || tried.len() >= self.endpoints_total()
                    {
                        return Err(self.unreachable(&error, tried.len()));
                    }
                }
            }
        }
    }

    fn unreachable(&self, error: &ConnectError, tried: usize) -> Failure {
        let total = self.endpoints_total();
        let details = format!("{}: {}; total={total} tried={tried}", self.label, chain(error));
        Failure::new(Cause::Connect(error.token()), details)
    }
}

/// A carried connection, counted with its endpoint until dropped.
pub struct OpenStream {
    _in_flight: InFlight,
}

struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EndpointClient {
    fn new(label: &str, endpoint: Endpoint, shared: &Shared) -> Self {
        Self {
            load: Load::new(),
            series: shared.metrics.endpoint(label, &endpoint),
            terminating: AtomicBool::new(endpoint.terminating),
            pool: Arc::new(Pool::new(endpoint, shared.tls.clone())),
        }
    }

    /// Counts an attempt that was answered, and does as its sidecar says.
    pub(crate) fn answered<B>(&self, response: &mut Response<B>, words: PeerWords) {
        let words = if self.pool.endpoint.peer.is_some() { words } else { PeerWords::default() };
        if words.close {
            ask_to_close(response);
        }
        let Some(error) = words.error else {
            return self.series.record(AttemptResult::of(response.status()));
        };
        tracing::debug!(endpoint = %self.pool.endpoint.address, ?error, "the endpoint's sidecar has answered");
        self.series.record(AttemptResult::PeerError);
    }

    pub(crate) fn not_connected(&self) {
        self.load.connect_failed(Instant::now());
        self.series.record(AttemptResult::NotConnected);
    }
}

/// The endpoints of `document`; those that were there `before`, at the same address with the same
/// sidecar, stay as they are.
fn endpoints(
    label: &str,
    document: &Backend,
    before: &[Arc<EndpointClient>],
    shared: &Shared,
) -> Vec<Arc<EndpointClient>> {
    let known: std::collections::HashMap<_, _> = before
        .iter()
        .map(|client| ((client.pool.endpoint.address, client.pool.endpoint.peer.as_ref()), client))
        .collect();
    let listed = document.endpoints.iter().take(limits::ENDPOINTS_PER_BACKEND_MAX);
    listed
        .map(|endpoint| {
            let peer = shared.peer(endpoint);
            match known.get(&(endpoint.address, peer.as_ref())) {
                Some(client) if client.pool.endpoint.pod == endpoint.pod => {
                    client.terminating.store(endpoint.terminating, Ordering::Relaxed);
                    Arc::clone(client)
                }
                _ => Arc::new(EndpointClient::new(label, Endpoint { peer, ..endpoint.clone() }, shared)),
            }
        })
        .collect()
}
