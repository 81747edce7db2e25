//! admit: whether a request is proxied or taken in as a message, and the answer to one taken in.
//!
//! **decide → read → store → 202.** What the policy of the rule and the client's `Prefer` say
//! decides; a request that is taken in is read whole, handed to the queue, and answered only when
//! the queue says that it is as durable as promised. Read [`Admit::request`] top to bottom.

pub(crate) mod answer;
pub(crate) mod asked;
pub(crate) mod call;
pub(crate) mod problem;
mod ready;
mod room;
pub(crate) mod seal;
mod spill;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use policy::limits;
use policy::queue::{AsyncPolicy, Credentials, Mode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use queue::{Accepted, Enqueue, Outcome, Queue, Refused};
use request::body::{Body, Received};
use request::headers::{strip_hop_by_hop, wants_upgrade};
use request::outcome::{Cause, Failure, is_grpc};
use store::message::Timestamp;

use crate::queues::Queues;
use crate::telemetry::Metrics;
use answer::{Answer, Stands};
use asked::{Asked, Preference};
use call::{CREDENTIALS, Call};
use problem::Problem;
use ready::Ready;
use room::{Bounds, Held, Room, Unread};

/// Takes requests in, for all workers.
pub(crate) struct Admit {
    queues: Arc<Queues>,
    room: Room,
    /// Keys of synchronous attempts under way, hashed.
    running: Mutex<HashSet<[u8; 32]>>,
    refused: Family<RefusedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    problem: &'static str,
}

/// A request's way when it is not taken in.
pub(crate) trait Proxy {
    /// Sends it where it was going.
    fn forward(
        &self,
        request: Request<Received>,
    ) -> impl Future<Output = Result<Response<Body>, Failure>> + Send;

    /// Refuses a head that could not be sent.
    fn check(&self, head: &mut Request<()>) -> Result<(), Failure>;
}

/// Where a request was going.
#[derive(Debug, Clone)]
pub(crate) struct Going {
    /// As discovery finds it again.
    pub(crate) destination: Arc<str>,
    /// As the client named it.
    pub(crate) authority: String,
}

impl Going {
    /// `connected` is where its connection went, for a request that names nothing.
    pub(crate) fn to(destination: Arc<str>, parts: &Parts, connected: &Authority) -> Self {
        let host = || Authority::try_from(parts.headers.get(HOST)?.as_bytes()).ok();
        let named = parts.uri.authority().cloned().or_else(host);
        let named = named.as_ref().unwrap_or(connected).as_str();
        // Without userinfo, which no Host has (RFC 9110 §7.2).
        let authority = named.rsplit_once('@').map_or(named, |(_, host)| host).to_owned();
        Self { destination, authority }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Proxy,
    TryFirst,
    TakeIn,
}

fn decide(policy: &AsyncPolicy, parts: &Parts, preference: Preference, upgrade: bool) -> Decision {
    let taken = policy.methods.iter().any(|method| *method == parts.method.as_str());
    if upgrade || parts.method == Method::CONNECT || !taken {
        return Decision::Proxy;
    }
    if is_grpc(&parts.headers) && policy.grpc_ack.is_none() && !preference.respond_async {
        return Decision::Proxy;
    }
    match policy.mode {
        Mode::Always => Decision::TakeIn,
        _ if preference.respond_async => Decision::TakeIn,
        Mode::Preferred => Decision::Proxy,
        Mode::Spill => Decision::TryFirst,
    }
}

impl Admit {
    pub(crate) fn new(queues: Arc<Queues>, metrics: &Metrics) -> Self {
        let refused = Family::default();
        metrics.with(|registry| {
            registry.register(
                "tidegate_sidecar_async_refused",
                "Asynchronous requests that were not taken in, by the problem they were told",
                refused.clone(),
            );
        });
        let room = Room::of(limits::MESSAGE_BODY_BYTES_TOTAL);
        Self { queues, room, running: Mutex::default(), refused }
    }

    /// Answers a request whose rule has a policy.
    pub(crate) async fn request(
        &self,
        policy: &Arc<AsyncPolicy>,
        request: Request<Incoming>,
        going: &Going,
        proxy: &impl Proxy,
    ) -> Result<Response<Body>, Failure> {
        let upgrade = wants_upgrade(&request);
        let (parts, body) = request.into_parts();
        let preference = Preference::of(&parts.headers);
        let answer = Answer::to(&parts, preference);
        match decide(policy, &parts, preference, upgrade) {
            Decision::Proxy => proxy.forward(Request::from_parts(parts, body.into())).await,
            Decision::TakeIn if answer.is_grpc() && !preference.respond_async => {
                self.unary_or_proxy(policy, parts, body, going, &answer, proxy).await
            }
            Decision::TakeIn => {
                let taken = match unsendable(proxy, &parts)? {
                    Some(problem) => Err(problem),
                    None => self.take_in(policy, parts, body, going, &answer).await,
                };
                Ok(taken.unwrap_or_else(|problem| self.refuse(&answer, problem)))
            }
            Decision::TryFirst => self.try_first(policy, parts, body, going, &answer, proxy).await,
        }
    }

    /// A call that nobody asked to be asynchronous is taken in if it is unary: one message and the
    /// end. A stream goes its way; what was read of it goes first.
    async fn unary_or_proxy(
        &self,
        policy: &Arc<AsyncPolicy>,
        parts: Parts,
        mut body: Incoming,
        going: &Going,
        answer: &Answer,
        proxy: &impl Proxy,
    ) -> Result<Response<Body>, Failure> {
        let stored = match self.room.read_unary(&mut body, &Bounds::to_store(policy)).await {
            Ok((whole, held)) => {
                match unsendable(proxy, &parts)?.map_or_else(|| check(policy, &parts), Err) {
                    Ok(asked) => {
                        self.store(policy, Ready { parts, body: whole, asked, held }, going, answer).await
                    }
                    Err(problem) => Err(problem),
                }
            }
            Err(Unread::Stream(read)) => {
                return proxy.forward(Request::from_parts(parts, begun(read, body))).await;
            }
            Err(unread) => Err(unread.into()),
        };
        Ok(stored.unwrap_or_else(|problem| self.refuse(answer, problem)))
    }

    async fn take_in(
        &self,
        policy: &Arc<AsyncPolicy>,
        parts: Parts,
        mut body: Incoming,
        going: &Going,
        answer: &Answer,
    ) -> Result<Response<Body>, Problem> {
        if answer.is_grpc() && policy.grpc_ack.is_none() {
            return Ok(answer::unimplemented(policy));
        }
        let asked = check(policy, &parts)?;
        let (body, held) = self.room.read(&mut body, length(&parts), &Bounds::to_store(policy)).await?;
        if answer.is_grpc() {
            room::check_unary(&body)?;
        }
        self.store(policy, Ready { parts, body, asked, held }, going, answer).await
    }

    /// Stores a request, unless one with its key is tried synchronously right now, and answers it.
    async fn store(
        &self,
        policy: &Arc<AsyncPolicy>,
        ready: Ready,
        going: &Going,
        answer: &Answer,
    ) -> Result<Response<Body>, Problem> {
        if let Some(key) = &ready.asked.idempotency_key
            && self.is_running(&spill::scope(&going.destination, key))
        {
            let detail = "a synchronous attempt with the same Idempotency-Key is under way";
            return Err(Problem::new(problem::IN_PROGRESS, detail));
        }
        self.keep(policy, ready, going, answer).await
    }

    async fn keep(
        &self,
        policy: &Arc<AsyncPolicy>,
        ready: Ready,
        going: &Going,
        answer: &Answer,
    ) -> Result<Response<Body>, Problem> {
        let queue = self.queues.open(policy.durability).await?;
        let (message, held) = self.message(policy, ready, going)?;
        let not_before = message.not_before;
        let accepted = queue.enqueue(message).await;
        drop(held);
        let accepted = accepted.map_err(|refused| refusal(&refused, policy))?;
        let scheduled = not_before.is_some_and(|at| at > accepted.enqueued_at);
        Ok(accepted_as(&queue, &accepted, scheduled, answer).await)
    }

    /// The message, and the room its body takes.
    fn message(
        &self,
        policy: &Arc<AsyncPolicy>,
        ready: Ready,
        going: &Going,
    ) -> Result<(Enqueue, Held), Problem> {
        let idempotency = ready.asked.idempotency_key.as_ref().map(|key| ready.idempotency(key, going));
        let Ready { mut parts, body, asked, held } = ready;
        let header = |name: &String| {
            parts
                .headers
                .get(name.as_str())
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let rate_key = policy.rate.key_header.as_ref().and_then(header);
        let sealer = match policy.credentials {
            Credentials::Store => Some(self.queues.sealer()?),
            _ => None,
        };
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(http::header::EXPECT);
        let call = Call::of(&parts, &going.authority, is_grpc(&parts.headers), sealer.as_deref());
        let message = Enqueue {
            policy: policy.clone(),
            destination: going.destination.clone(),
            about: format!("{} {}", call.method, call.path.split('?').next().unwrap_or_default()),
            call: call.encode(),
            body,
            key: asked.key,
            rate_key,
            priority: asked.priority,
            not_before: asked.not_before.map(timestamp),
            expires: asked.expires.map(timestamp),
            idempotency,
            callback: asked.callback,
            owner: self.queues.owner().to_string(),
        };
        Ok((message, held))
    }

    /// Answers with a refusal, and counts it.
    fn refuse(&self, answer: &Answer, problem: Problem) -> Response<Body> {
        self.refused.get_or_create(&RefusedLabels { problem: problem.kind.name }).inc();
        answer.problem(problem)
    }

    fn is_running(&self, key: &[u8; 32]) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

/// The answer to a request that is stored: its own response, if the client waits and it comes in
/// time, or 202 and how it stands.
async fn accepted_as(queue: &Queue, accepted: &Accepted, scheduled: bool, answer: &Answer) -> Response<Body> {
    let outcome = match answer.wait() {
        Some(wait) => queue.wait(accepted.id, wait).await,
        None if accepted.duplicate => queue.result(accepted.id).await,
        None => return answer.accepted(accepted, &Stands::new(scheduled)),
    };
    let stands = match &outcome {
        Ok(Some(outcome)) => Stands::of(outcome.status()),
        Ok(None) if accepted.duplicate => Stands::unknown(),
        // It is there, however it stands: its status is to be asked for.
        Ok(None) | Err(_) => Stands::new(scheduled),
    };
    if answer.wait().is_some()
        && let Ok(Some(Outcome::Response(_, response))) = outcome
        && let Ok(response) = answer.replay(response)
    {
        return response;
    }
    answer.accepted(accepted, &stands)
}

/// What a head says of the length of its body.
fn length(parts: &Parts) -> Option<u64> {
    parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body of which so much was read.
fn begun(read: Bytes, rest: Incoming) -> Received {
    if read.is_empty() { Received::Incoming(rest) } else { Received::Begun(read, rest) }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Why no attempt at a request could be made: its head is too large for what a delivery adds to it.
fn unsendable(proxy: &impl Proxy, parts: &Parts) -> Result<Option<Problem>, Failure> {
    match proxy.check(&mut call::outline(parts)) {
        Err(failure) if failure.cause == Cause::HeadTooLarge => {
            let detail = format!("{}, with what a delivery adds to it", failure.details);
            Ok(Some(Problem::new(problem::HEAD_TOO_LARGE, detail)))
        }
        checked => checked.map(|()| None),
    }
}

/// What can be refused before the body is read.
fn check(policy: &AsyncPolicy, parts: &Parts) -> Result<Asked, Problem> {
    let now = SystemTime::now();
    let asked = Asked::of(&parts.headers, policy.ordering_header.as_deref(), now)
        .map_err(|bad| Problem::new(problem::BAD_HEADER, bad.to_string()))?;
    if policy.credentials == Credentials::Refuse
        && let Some(name) = CREDENTIALS.iter().find(|name| parts.headers.contains_key(*name))
    {
        let detail = format!(
            "the request carries {name}, and AsyncPolicy {} does not say what to do with it (credentials)",
            policy.name
        );
        return Err(Problem::new(problem::CREDENTIALS, detail));
    }
    if policy.idempotency_required && asked.idempotency_key.is_none() {
        let detail = format!("AsyncPolicy {} asks for an Idempotency-Key", policy.name);
        return Err(Problem::new(problem::KEY_MISSING, detail));
    }
    if let Some(callback) = &asked.callback {
        crate::callback::check(callback, policy)?;
    }
    let due = asked.not_before.unwrap_or(now).max(now);
    if asked.expires.is_some_and(|expires| expires <= due) {
        return Err(Problem::new(problem::EXPIRED, "Tidegate-Expires is not after it is due"));
    }
    Ok(asked)
}

/// What a refusal of the queue's is told as.
fn refusal(refused: &Refused, policy: &AsyncPolicy) -> Problem {
    let kind = match refused {
        Refused::QueueFull { .. } | Refused::SourceOverQuota { .. } | Refused::TooManyQueues => {
            problem::OVER_QUOTA
        }
        Refused::TooManyKeys { .. } => problem::TOO_MANY_KEYS,
        Refused::OtherFingerprint => problem::KEY_REUSED,
        Refused::Draining => problem::DRAINING,
        Refused::DiskFull(_) => problem::DISK_FULL,
        Refused::TooLarge { .. } => problem::BODY_TOO_LARGE,
        Refused::Poisoned(_) => problem::UNKNOWN_OUTCOME,
        Refused::Invalid(_) => problem::BAD_HEADER,
    };
    let problem = Problem::new(kind, format!("{refused} (AsyncPolicy {})", policy.name));
    match refused.retry_after() {
        Some(after) => problem.retry_after(after),
        None => problem,
    }
}
