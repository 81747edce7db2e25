//! deliver: an attempt at a message, by the synchronous way.
//!
//! The queue has a thread of its own; an attempt is handed to a worker, where it goes through
//! discovery, routes, balancing and mTLS like any request of the workload, but without retries
//! after a response: those are the queue's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::uri::Authority;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use policy::queue::Secret;
use policy::snapshot::DestinationKey;
use queue::{Answer, CallbackCall, CallbackOf, Deliver, Delivered, Delivering, Outgoing};
use request::body::{Body, Received};
use request::forward::{Passage, forward};
use request::headers::strip_hop_by_hop;
use request::outcome::{Cause, Failure, is_grpc};
use tokio::sync::{mpsc, oneshot};

use crate::admit::call::{Answered, AttemptOf, Call};
use crate::callback;
use crate::discovery::Cell;
use crate::outbound::Outbound;
use crate::queues::Keys;

/// Attempts handed to one worker that it has not begun yet.
const HANDED_MAX: usize = 64;

/// An attempt on its way to a worker.
pub(crate) struct Job {
    outgoing: Outgoing,
    keys: Arc<Keys>,
    tell: oneshot::Sender<Delivered>,
}

/// Hands attempts to the workers in turn.
pub(crate) struct Deliveries {
    workers: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
    keys: Arc<Keys>,
}

/// The workers' ends of what [`Deliveries`] hands out.
pub(crate) fn handed(workers: u32) -> (Vec<mpsc::Sender<Job>>, Vec<mpsc::Receiver<Job>>) {
    (0..workers).map(|_| mpsc::channel(HANDED_MAX)).unzip()
}

impl Deliveries {
    pub(crate) fn new(workers: Vec<mpsc::Sender<Job>>, keys: Arc<Keys>) -> Self {
        Self { workers, next: AtomicUsize::new(0), keys }
    }
}

impl Deliver for Deliveries {
    fn deliver(&self, outgoing: Outgoing) -> Delivering {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let worker = self.workers.get(at).cloned();
        let (tell, told) = oneshot::channel();
        let job = Job { outgoing, keys: self.keys.clone(), tell };
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
}

impl Outbound {
    /// Makes the attempts that are handed to this worker.
    pub(crate) async fn deliveries(self: Arc<Self>, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            let outbound = self.clone();
            self.drain.spawn(async move {
                let Job { outgoing, keys, mut tell } = job;
                tokio::select! {
                    delivered = outbound.attempt(outgoing, &keys) => drop(tell.send(delivered)),
                    () = tell.closed() => {}
                }
            });
        }
    }

    async fn attempt(&self, outgoing: Outgoing, keys: &Keys) -> Delivered {
        let kept_max = usize::try_from(outgoing.policy.result_bytes_max).unwrap_or(usize::MAX);
        match self.send(outgoing, keys).await {
            Ok((response, grpc)) => received(response, grpc, kept_max).await,
            Err(failed) => failed,
        }
    }

    async fn send(&self, outgoing: Outgoing, keys: &Keys) -> Result<(Response<Body>, bool), Delivered> {
        let call = Call::decode(outgoing.call.clone()).map_err(|error| misfit(&error))?;
        let attempt =
            AttemptOf { id: outgoing.id, number: outgoing.attempt, enqueued_at: outgoing.enqueued_at };
        let body = Received::Whole(outgoing.body.clone());
        let mut request = call.request(body, &attempt, keys).map_err(|error| misfit(&error))?;
        let authority: Authority = call.authority.parse().map_err(|error| misfit(&error))?;
        let cell =
            self.lead(&call, &authority, &outgoing.destination).await.map_err(|failure| failed(&failure))?;
        if !call.callback_of.is_empty() {
            let secret = self.key_for(&call.callback_of).await.ok_or_else(unsigned)?;
            let id = outgoing.id.to_string();
            callback::sign(request.headers_mut(), &id, &outgoing.body, &secret, SystemTime::now());
        }
        let observation = self.observer.begin_delivery(&mut request);
        let now = cell.now();
        let reached = now.as_ref().as_ref().map_err(|unreachable| failed(&Failure::from(unreachable)))?;
        let passage = Passage {
            shared: &self.shared,
            authority: &authority,
            absolute_form: false,
            drain: &self.drain,
            tell_way: self.observer.is_on(),
            retries: false,
        };
        let sent = forward(&reached.target, request, &passage).await;
        let mut response = sent.map_err(|failure| failed(&failure))?;
        if let Some(observation) = observation {
            observation.end(&mut response);
        }
        Ok((response, call.grpc))
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
fn unsigned() -> Delivered {
    let error = Some("the key to sign callbacks with is not known yet".to_owned());
    Delivered { error, ..Delivered::bare(Answer::Unavailable { token: "proxy_configuration_error" }) }
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
async fn received(response: Response<Body>, grpc: bool, kept_max: usize) -> Delivered {
    let (mut parts, mut body) = response.into_parts();
    let (mut kept, mut whole, mut trailers) = (BytesMut::new(), true, None);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                let error = Some(format!("the response broke off: {error}"));
                return Delivered { error, ..Delivered::bare(Answer::Broken) };
            }
        };
        match frame.into_data() {
            Ok(data) if whole && kept.len() + data.len() <= kept_max => kept.extend_from_slice(&data),
            Ok(_) => {
                (kept, whole) = (BytesMut::new(), false);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let answer = answer(parts.status, &parts.headers, trailers.as_ref(), grpc);
    strip_hop_by_hop(&mut parts.headers);
    let head = Answered::of(parts.status, &parts.headers, trailers.as_ref()).encode();
    let response = whole.then(|| queue::Response { head, body: Bytes::from(kept) });
    Delivered { answer, response, error: None }
}

fn answer(status: StatusCode, headers: &HeaderMap, trailers: Option<&HeaderMap>, grpc: bool) -> Answer {
    let number = |name: &str| {
        let value = headers.get(name).or_else(|| trailers?.get(name))?;
        value.to_str().ok()?.trim().parse::<u64>().ok()
    };
    if grpc && status == StatusCode::OK && (is_grpc(headers) || trailers.is_some()) {
        // No status at all is UNKNOWN (gRPC over HTTP/2, "Responses").
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
