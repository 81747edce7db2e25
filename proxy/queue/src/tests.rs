//! tests: the contract, rule by rule, through a real store in memory, on a clock that stands still.
//!
//! The queue's thread is the test's own runtime. Its clock moves only when a test moves it: a blocking
//! task that lasts as long as the test keeps tokio from winding it ahead while the store's threads
//! work. What must happen is waited for by looking, never by sleeping.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use policy::queue::{AsyncPolicy, Credentials, Delivery, Durability, Mode, RateLimits};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::*;

mod accept;
mod callback;
mod crash;
mod deliver;
mod end;
mod found;
mod operate;
mod order;
mod panic;
mod sink;
mod soak;

const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const BEGIN: u64 = 1_700_000_000_000;

/// A wall clock that goes with tokio's, from wherever it was set.
struct FakeClock {
    from: Instant,
    begin: u64,
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.begin + u64::try_from(self.from.elapsed().as_millis()).unwrap())
    }
}

/// A receiver that does as it is told.
struct Receiver {
    seen: Mutex<Vec<Outgoing>>,
    answers: Mutex<VecDeque<Delivered>>,
    otherwise: Mutex<Delivered>,
    /// Every delivery takes one of these before it answers.
    gate: Semaphore,
}

impl Deliver for Arc<Receiver> {
    fn deliver(&self, outgoing: Outgoing) -> Delivering {
        let receiver = self.clone();
        Box::pin(async move {
            receiver.seen.lock().unwrap().push(outgoing);
            receiver.gate.acquire().await.unwrap().forget();
            let next = receiver.answers.lock().unwrap().pop_front();
            next.unwrap_or_else(|| receiver.otherwise.lock().unwrap().clone())
        })
    }

    fn callback(&self, of: &CallbackOf<'_>) -> Option<CallbackCall> {
        Some(CallbackCall {
            destination: "listener".into(),
            call: format!("{} {}", of.callback, of.state.as_str()).into(),
            body: of.response.map(|response| response.body.clone()).unwrap_or_default(),
        })
    }

    fn sunk(&self, of: &SunkOf<'_>) -> Option<Bytes> {
        let status = of.last.and_then(|last| last.status).unwrap_or_default();
        Some(format!("{:?} {} {} {status}", of.call, of.id, of.reason.as_str()).into())
    }
}

impl Receiver {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::default(),
            answers: Mutex::default(),
            otherwise: Mutex::new(answer(200)),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
        })
    }

    /// From now on nothing is answered before it is let through.
    fn hold(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    fn let_through(&self, n: usize) {
        self.gate.add_permits(n);
    }

    fn will(&self, answers: impl IntoIterator<Item = Delivered>) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn otherwise(&self, delivered: Delivered) {
        *self.otherwise.lock().unwrap() = delivered;
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The bodies in the order they came.
    fn bodies(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|outgoing| String::from_utf8_lossy(&outgoing.body).into_owned()).collect()
    }

    fn attempts(&self) -> Vec<u32> {
        self.seen.lock().unwrap().iter().map(|outgoing| outgoing.attempt).collect()
    }
}

fn answer(code: u16) -> Delivered {
    Delivered {
        response: Some(Response { head: code.to_string().into(), body: "said".into() }),
        ..Delivered::bare(Answer::Status { code, retry_after: None })
    }
}

fn later(code: u16, seconds: u64) -> Delivered {
    Delivered::bare(Answer::Status { code, retry_after: Some(Duration::from_secs(seconds)) })
}

fn away() -> Delivered {
    Delivered::bare(Answer::Unavailable { token: "connection_refused" })
}

/// A policy without waits that a test did not ask for.
fn policy() -> AsyncPolicy {
    AsyncPolicy {
        name: "shop/orders".into(),
        mode: Mode::Preferred,
        methods: vec!["POST".into()],
        durability: Durability::Memory,
        queue_bytes_max: 1 << 20,
        queue_messages_max: 1000,
        body_bytes_max: 1 << 20,
        ordering_header: None,
        delivery: Delivery { retry: 2, backoff_delay: Duration::from_secs(1), ..Delivery::default() },
        rate: RateLimits::default(),
        idempotency_required: false,
        idempotency_window: Duration::from_secs(3600),
        result_ttl: Duration::from_secs(600),
        result_bytes_max: 1 << 16,
        callback_hosts: Vec::new(),
        callback_secret: None,
        credentials: Credentials::Refuse,
        grpc_ack: None,
        paused: false,
    }
}

/// One delivery at a time.
fn one_by_one() -> AsyncPolicy {
    let mut policy = policy();
    policy.rate.concurrent_max = 1;
    policy
}

const NAME: &str = "shop/orders/target";

struct House {
    queue: Queue,
    receiver: Arc<Receiver>,
    registry: Registry,
    policy: Arc<AsyncPolicy>,
    work: tokio::task::JoinHandle<()>,
}

impl House {
    /// A queue over `directory`, or in memory, that has not begun to deliver.
    fn open(directory: Option<PathBuf>, policy: AsyncPolicy) -> Self {
        let receiver = Receiver::new();
        let house = Self::open_with(directory, policy, Arc::new(receiver.clone()));
        Self { receiver, ..house }
    }

    /// As before, with another way out.
    fn open_with(directory: Option<PathBuf>, policy: AsyncPolicy, deliver: Arc<dyn Deliver>) -> Self {
        Self::open_in(directory, 64 << 20, policy, deliver)
    }

    /// As before, in a store of so many bytes.
    fn open_in(
        directory: Option<PathBuf>,
        bytes_max: u64,
        policy: AsyncPolicy,
        deliver: Arc<dyn Deliver>,
    ) -> Self {
        Self::open_at(directory, bytes_max, policy, deliver, POD)
    }

    /// As before, in a pod at an address.
    fn open_at(
        directory: Option<PathBuf>,
        bytes_max: u64,
        policy: AsyncPolicy,
        deliver: Arc<dyn Deliver>,
        holder: Ipv4Addr,
    ) -> Self {
        let (receiver, mut registry) = (Receiver::new(), Registry::default());
        let start = START.with(std::cell::Cell::get).expect("inside a test");
        let passed = u64::try_from(start.elapsed().as_millis()).unwrap();
        let options = Options {
            directory,
            owner: None,
            bytes_max,
            messages_max: policy::limits::MESSAGES_TOTAL,
            keys_max: store::limits::DEDUPE_ROWS_MAX,
            salvage: false,
            allow_volatile: true,
            vfs: None,
            holder,
            deliver,
            clock: Arc::new(FakeClock { from: Instant::now(), begin: BEGIN + passed }),
            metrics: Metrics::new(&mut registry),
        };
        let (queue, work) = Queue::open_here(options).unwrap();
        let work = tokio::task::spawn_local(work);
        Self { queue, receiver, registry, policy: Arc::new(policy), work }
    }

    fn message(&self, body: &str) -> Enqueue {
        Enqueue {
            policy: self.policy.clone(),
            destination: "target".into(),
            call: "POST /orders".into(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            about: "POST /orders".into(),
            key: None,
            rate_key: None,
            priority: 3,
            not_before: None,
            expires: None,
            idempotency: None,
            callback: None,
            owner: "spiffe://cluster.local/ns/shop/sa/cart".into(),
        }
    }

    fn now(&self) -> Timestamp {
        self.queue.shared().clock.now()
    }

    fn after(&self, seconds: u64) -> Timestamp {
        Timestamp(self.now().0 + seconds * 1000)
    }

    async fn add(&self, body: &str) -> MessageId {
        self.queue.enqueue(self.message(body)).await.unwrap().id
    }

    async fn add_keyed(&self, body: &str, key: &str) -> MessageId {
        let message = Enqueue { key: Some(key.into()), ..self.message(body) };
        self.queue.enqueue(message).await.unwrap().id
    }

    async fn status(&self, id: MessageId) -> Status {
        self.queue.status(id).await.unwrap().unwrap()
    }

    async fn state(&self, id: MessageId) -> MessageState {
        self.status(id).await.state
    }

    /// Waits until a message stands there; of one that ended, until the books say so too, a moment
    /// after the flush.
    async fn until(&self, id: MessageId, state: MessageState) -> Status {
        until(|| async { self.status(id).await.state == state }, state.as_str()).await;
        let position = id.position();
        let left = || async {
            let asked = self.queue.ask(move |worker, answer| {
                let place = worker.state.borrow().place(position);
                let _ = answer.send(place.is_none());
            });
            !state.is_end() || asked.await.unwrap()
        };
        until(left, "the books").await;
        self.status(id).await
    }

    /// Waits until `n` messages wait for another attempt.
    async fn retrying(&self, n: u64) {
        until(|| async { self.view().await.retrying == n }, "retries").await;
    }

    /// Waits until the receiver has seen `n` deliveries.
    async fn seen(&self, n: usize) {
        until(|| async { self.receiver.count() >= n }, "deliveries").await;
        assert_eq!(self.receiver.count(), n);
    }

    /// Nothing more happens although everything had its turn: asked of the queue's own thread, after
    /// two writes by which whatever was under way is flushed.
    async fn still(&self, n: usize) {
        for _ in 0..3 {
            self.queue.shared().store.sweep(Timestamp(0)).await.unwrap();
            let _ = self.queue.queues().await;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(self.receiver.count(), n, "{:?}", self.receiver.bodies());
    }

    /// Waits until the books say that nothing waits: a moment after the flush of the last end.
    async fn empty(&self) {
        until(|| async { self.view().await.messages == 0 }, "nothing waits").await;
    }

    async fn view(&self) -> QueueView {
        let all = self.queue.queues().await.unwrap();
        all.into_iter().find(|view| view.name == NAME).unwrap()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    async fn close(self) {
        self.queue.close().await;
        self.work.await.unwrap();
    }
}

/// Looks until it is so; half a minute of the machine's own time is as good as never, however busy it is.
async fn until<F: Future<Output = bool>>(mut so: impl FnMut() -> F, what: &str) {
    let began = std::time::Instant::now();
    while !so().await {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::yield_now();
        tokio::task::yield_now().await;
    }
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

thread_local! {
    static START: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// Runs a test on a clock that stands still.
fn paused<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        START.with(|start| start.set(Some(Instant::now())));
        let (over, wait) = std::sync::mpsc::channel::<()>();
        // While a blocking task runs, tokio does not move the clock by itself.
        let keeps = tokio::task::spawn_blocking(move || wait.recv().is_err());
        test().await;
        drop(over);
        keeps.await.unwrap();
    });
}

/// A test over one queue in memory that delivers.
fn house<F: Future<Output = ()>>(policy: AsyncPolicy, test: impl FnOnce(Arc<House>) -> F) {
    paused(|| async {
        let house = Arc::new(House::open(None, policy));
        house.queue.start().await.unwrap();
        test(house.clone()).await;
        house.queue.close().await;
    });
}
