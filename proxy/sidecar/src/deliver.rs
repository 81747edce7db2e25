//! deliver: an attempt at a message, by the synchronous way.
//!
//! The queue has a thread of its own; an attempt is handed to a worker, where it goes through
//! discovery, routes, balancing and mTLS like any request of the workload, but without retries
//! after a response: those are the queue's. Of a response so much is read into memory as somebody
//! will want to see ([`kept`]).

mod kept;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::uri::Authority;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use policy::limits;
use policy::queue::Secret;
use policy::snapshot::DestinationKey;
use queue::{Answer, CallbackCall, CallbackOf, Deliver, Delivered, Delivering, Outgoing, SunkOf};
use request::body::{Body, Received};
use request::forward::{Passage, forward};
use request::headers::strip_hop_by_hop;
use request::outcome::{Cause, Failure};
use tokio::sync::{mpsc, oneshot};

use crate::admit::call::{Answered, AttemptOf, Call};
use crate::callback;
use crate::discovery::Cell;
use crate::observe::Observation;
use crate::outbound::Outbound;
use crate::queues::Keys;
use crate::sink;
use crate::telemetry::Metrics;
use kept::{Keeping, Room};

/// Attempts handed to one worker that it has not begun yet.
const HANDED_MAX: usize = 64;

/// An attempt on its way to a worker.
pub(crate) struct Job {
    outgoing: Outgoing,
    lent: Arc<Lent>,
    tell: oneshot::Sender<Delivered>,
}

/// What every attempt of the process uses.
struct Lent {
    keys: Arc<Keys>,
    room: Room,
}

/// Hands attempts to the workers in turn.
pub(crate) struct Deliveries {
    workers: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
    lent: Arc<Lent>,
}

/// The workers' ends of what [`Deliveries`] hands out.
pub(crate) fn handed(workers: u32) -> (Vec<mpsc::Sender<Job>>, Vec<mpsc::Receiver<Job>>) {
    (0..workers).map(|_| mpsc::channel(HANDED_MAX)).unzip()
}

impl Deliveries {
    pub(crate) fn new(workers: Vec<mpsc::Sender<Job>>, keys: Arc<Keys>, metrics: &Metrics) -> Self {
        let total = usize::try_from(limits::RESULT_BYTES_TOTAL).unwrap_or(usize::MAX);
        let room = Room::of(total, metrics);
        Self { workers, next: AtomicUsize::new(0), lent: Arc::new(Lent { keys, room }) }
    }
}

impl Deliver for Deliveries {
    fn deliver(&self, outgoing: Outgoing) -> Delivering {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let worker = self.workers.get(at).cloned();
        let (tell, told) = oneshot::channel();
        let job = Job { outgoing, lent: self.lent.clone(), tell };
        Box::pin(async move {
            let handed = match worker {
                Some(worker) => worker.send(job).await.is_ok(),
                None => false,
            };
            match told.await {
                Ok(delivered) => delivered,
                // The worker is gone: the program ends. What was handed over may have gone out.
                Err(_) if handed => Delivered::bare(Answer::Broken),
                Err(_) => Delivered::bare(Answer::Unavailable { token: "destination_unavailable" }),
            }
        })
    }

    fn callback(&self, of: &CallbackOf<'_>) -> Option<CallbackCall> {
        callback::call(of)
    }

    fn sunk(&self, of: &SunkOf<'_>) -> Option<Bytes> {
        sink::call(of)
    }
}

impl Outbound {
    /// Makes the attempts that are handed to this worker.
    pub(crate) async fn deliveries(self: Arc<Self>, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            let outbound = self.clone();
            self.drain.spawn(async move {
                let Job { outgoing, lent, mut tell } = job;
                tokio::select! {
                    delivered = outbound.attempt(&outgoing, &lent) => drop(tell.send(delivered)),
                    () = tell.closed() => {}
                }
            });
        }
    }

    async fn attempt(&self, outgoing: &Outgoing, lent: &Lent) -> Delivered {
        let call = match (Call::decode(outgoing.call.clone()), &outgoing.policy.delivery.sink) {
            (Ok(call), Some(sink)) if call.sunk => call.to(sink),
            (Ok(call), _) => call,
            (Err(error), _) => return misfit(&error),
        };
        match self.send(&call, outgoing, &lent.keys).await {
            Ok(response) => {
                let keeping = Keeping::of(&call, &outgoing.policy, response.status(), &lent.room);
                let grpc = call.is_grpc(response.headers());
                received(response, grpc, keeping).await
            }
            Err(failed) => failed,
        }
    }

    async fn send(&self, call: &Call, outgoing: &Outgoing, keys: &Keys) -> Result<Response<Body>, Delivered> {
        let attempt =
            AttemptOf { id: outgoing.id, number: outgoing.attempt, enqueued_at: outgoing.enqueued_at };
        let body = Received::Whole(outgoing.body.clone());
        let mut request = call.request(body, &attempt, keys).map_err(|error| misfit(&error))?;
        let authority: Authority = call.authority.parse().map_err(|error| misfit(&error))?;
        let watched = Watched { observation: self.observer.begin_delivery(&mut request), grpc: call.grpc };
        match self.pass(call, &authority, outgoing, request).await {
            Ok(mut response) => {
                watched.end(&mut response);
                Ok(response)
            }
            Err(failure) => {
                watched.end(&mut failure.clone().into_response(call.grpc));
                Err(failed(&failure))
            }
        }
    }

    async fn pass(
        &self,
        call: &Call,
        authority: &Authority,
        outgoing: &Outgoing,
        mut request: Request<Received>,
    ) -> Result<Response<Body>, Failure> {
        let cell = self.lead(call, authority, &outgoing.destination).await?;
        if !call.callback_of.is_empty() {
            let secret = self.key_for(&call.callback_of).await.ok_or_else(unsigned)?;
            let id = outgoing.id.to_string();
            callback::sign(request.headers_mut(), &id, &outgoing.body, &secret, SystemTime::now());
        }
        let now = cell.now();
        let reached = now.as_ref().as_ref().map_err(Failure::from)?;
        let passage = Passage {
            shared: &self.shared,
            authority,
            absolute_form: false,
            drain: &self.drain,
            tell_way: self.observer.is_on(),
            retries: false,
        };
        forward(&reached.target, request, &passage).await
    }

    /// The key to sign callbacks of `queue` with: it is in no store, so the policy itself is asked.
    async fn key_for(&self, queue: &str) -> Option<Secret> {
        let (policy, destination) = policy_and_destination(queue)?;
        let cell = self.find(&destination.parse().ok()?).await.ok()?;
        let now = cell.now();
        let reached = now.as_ref().as_ref().ok()?;
        let policy = reached.target.policies().find(|known| *known.name == *policy)?;
        policy.callback_secret.clone()
    }

    async fn lead(
        &self,
        call: &Call,
        authority: &Authority,
        destination: &str,
    ) -> Result<Arc<Cell>, Failure> {
        match destination.parse::<DestinationKey>() {
            Ok(key) if call.callback_of.is_empty() => {
                self.find(&key).await.map_err(|error| Failure::from(&error))
            }
            _ => self.find_named(authority, 80).await,
        }
    }
}

/// The parts of a queue's name, `NAMESPACE/POLICY/DESTINATION`.
pub(crate) fn policy_and_destination(queue: &str) -> Option<(&str, &str)> {
    let slash = queue.match_indices('/').nth(1)?.0;
    Some((&queue[..slash], &queue[slash + 1..]))
}

fn misfit(error: &dyn std::error::Error) -> Delivered {
    Delivered { error: Some(error.to_string()), ..Delivered::bare(Answer::Misconfigured) }
}

/// The key may come with the next snapshot.
fn unsigned() -> Failure {
    Failure::new(Cause::Configuration, "the key to sign callbacks with is not known yet")
}

/// An attempt that somebody may look at. Given up before it was answered, it ends all the same.
struct Watched {
    observation: Option<Observation>,
    grpc: bool,
}

impl Watched {
    fn end(mut self, response: &mut Response<Body>) {
        if let Some(observation) = self.observation.take() {
            observation.end(response);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(observation) = self.observation.take() {
            let failure = Failure::new(Cause::Timeout, "the queue has given the attempt up");
            observation.end(&mut failure.into_response(self.grpc));
        }
    }
}

/// What a failure of our own says of the message.
fn failed(failure: &Failure) -> Delivered {
    let token = failure.cause.token();
    let answer = match failure.cause {
        Cause::Connect(_)
        | Cause::NoEndpoint
        | Cause::NotReady
        | Cause::Overloaded
        | Cause::Refused
        | Cause::UnknownDestination
        | Cause::Configuration => Answer::Unavailable { token },
        Cause::Timeout => Answer::TimedOut,
        Cause::Terminated => Answer::Broken,
        Cause::BadRequest | Cause::HeadTooLarge => Answer::Misconfigured,
        Cause::NoRoute | Cause::Denied | Cause::Loop => {
            Answer::Status { code: failure.cause.status().as_u16(), retry_after: None }
        }
    };
    Delivered { error: Some(format!("{token}: {}", failure.details)), ..Delivered::bare(answer) }
}

/// Reads a response to its end; only then it counts.
async fn received(response: Response<Body>, grpc: bool, mut keeping: Keeping) -> Delivered {
    let (mut parts, mut body) = response.into_parts();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                let error = Some(format!("the response broke off: {error}"));
                return Delivered { error, ..Delivered::bare(Answer::Broken) };
            }
        };
        match frame.into_data() {
            Ok(data) => keeping.take(&data, http_body::Body::size_hint(&body).exact()).await,
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let answer = answer(parts.status, &parts.headers, trailers.as_ref(), grpc);
    strip_hop_by_hop(&mut parts.headers);
    let response = keeping.whole().map(|body| {
        let head = Answered::of(parts.status, &parts.headers, trailers.as_ref()).encode();
        queue::Response { head, body }
    });
    Delivered { answer, response, error: None }
}

fn answer(status: StatusCode, headers: &HeaderMap, trailers: Option<&HeaderMap>, grpc: bool) -> Answer {
    let number = |name: &str| {
        let value = headers.get(name).or_else(|| trailers?.get(name))?;
        value.to_str().ok()?.trim().parse::<u64>().ok()
    };
    if grpc && status.is_success() {
        // No status at all is UNKNOWN (gRPC over HTTP/2, "Responses"), whoever answered.
        let code = number("grpc-status").and_then(|code| u8::try_from(code).ok()).unwrap_or(2);
        return Answer::Grpc { code, pushback: number("grpc-retry-pushback-ms").map(Duration::from_millis) };
    }
    Answer::Status { code: status.as_u16(), retry_after: retry_after(headers, SystemTime::now()) }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(SystemTime::from(at).duration_since(now).unwrap_or_default())
}
