//! spill: tried synchronously first; stored when the receiver cannot take it now.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRAILER};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use policy::queue::AsyncPolicy;
use queue::{Accepted, Queue, Refused};
use request::body::{Body, BodyError, Received};
use request::outcome::{Cause, Failure};

use super::answer::Answer;
use super::asked::Asked;
use super::call;
use super::problem::{self, Problem};
use super::room::{Bounds, Unread};
use super::{Admit, Going, Proxy, Ready, accepted_as, begun, check, length, refusal};

/// Bytes of a 429's or 503's body that are read to see that it is complete.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// How long that may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A synchronous attempt under way, known by its key.
struct Running<'a> {
    admit: &'a Admit,
    key: [u8; 32],
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.admit.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.key);
    }
}

/// What the synchronous attempt says of the request.
enum Tried {
    /// Answered: this is it.
    Answered(Result<Response<Body>, Failure>),
    /// The receiver did not process it; this would be the answer.
    Unprocessed(Result<Response<Body>, Failure>),
    /// Nobody knows; this would be the answer.
    Unknown(Result<Response<Body>, Failure>),
}

impl Admit {
    /// Tries a request synchronously and stores it when that cannot be done now.
    pub(super) async fn try_first(
        &self,
        policy: &Arc<AsyncPolicy>,
        parts: Parts,
        mut body: Incoming,
        going: &Going,
        answer: &Answer,
        proxy: &impl Proxy,
    ) -> Result<Response<Body>, Failure> {
        let alone = |parts, body| proxy.forward(Request::from_parts(parts, body));
        let asked = match check(policy, &parts) {
            Ok(asked) if proxy.check(&mut call::outline(&parts)).is_ok() => asked,
            Err(problem) if problem.kind != problem::KEY_MISSING && problem.kind != problem::CREDENTIALS => {
                return Ok(self.refuse(answer, problem));
            }
            // What could not be stored is not held up by that: it takes the synchronous way alone.
            _ => return alone(parts, body.into()).await,
        };
        let bounds = Bounds::to_try(policy);
        let read = match answer.is_grpc() {
            true => self.room.read_unary(&mut body, &bounds).await,
            false => self.room.read(&mut body, length(&parts), &bounds).await,
        };
        match read {
            Ok((body, held)) => {
                let ready = Ready { parts, body, asked, held };
                let answered = self.try_ready(policy, ready, going, answer, proxy).await;
                answered.unwrap_or_else(|problem| Ok(self.refuse(answer, problem)))
            }
            Err(Unread::Begun(read, _) | Unread::Stream(read)) => alone(parts, begun(read, body)).await,
            Err(Unread::Broken(problem)) => Ok(self.refuse(answer, problem)),
        }
    }

    /// Tries a request that can be stored.
    pub(super) async fn try_ready(
        &self,
        policy: &Arc<AsyncPolicy>,
        ready: Ready,
        going: &Going,
        answer: &Answer,
        proxy: &impl Proxy,
    ) -> Result<Result<Response<Body>, Failure>, Problem> {
        if let Some(key) = &ready.asked.key
            && self.waits_already(policy, going, key).await
        {
            return self.store(policy, ready, going, answer).await.map(Ok);
        }
        let _running = self.begin(going, &ready.asked)?;
        if let Some((queue, accepted)) = self.stored_already(policy, &ready, going).await? {
            return Ok(Ok(accepted_as(&queue, &accepted, false, answer).await));
        }
        let safe_twice = is_idempotent(&ready.parts.method) || ready.asked.idempotency_key.is_some();
        match attempt(proxy, &ready.parts, &ready.body).await {
            Tried::Answered(answered) => Ok(answered),
            Tried::Unknown(answered) if !safe_twice => Ok(answered),
            Tried::Unprocessed(instead) | Tried::Unknown(instead) => {
                self.keep_or(policy, ready, going, answer, instead).await
            }
        }
    }

    /// Stores a request; one that cannot be stored is answered as if it had no policy. Not so where a write
    /// may have stored it all the same, nor where its key belongs to another.
    async fn keep_or(
        &self,
        policy: &Arc<AsyncPolicy>,
        ready: Ready,
        going: &Going,
        answer: &Answer,
        instead: Result<Response<Body>, Failure>,
    ) -> Result<Result<Response<Body>, Failure>, Problem> {
        let opened = self.queues.opened(policy.durability);
        if opened.is_some_and(|queue| queue.condition().poisoned.is_some()) {
            return Ok(instead);
        }
        match self.keep(policy, ready, going, answer).await {
            Ok(accepted) => Ok(Ok(accepted)),
            Err(problem) if problem.kind == problem::UNKNOWN_OUTCOME => Err(problem),
            Err(problem) if problem.kind == problem::KEY_REUSED => Err(problem),
            Err(problem) => {
                tracing::debug!(policy = %policy.name, reason = problem.detail, "not spilled");
                Ok(instead)
            }
        }
    }

    /// The message that was stored under the same idempotency key, which is not executed again.
    async fn stored_already(
        &self,
        policy: &AsyncPolicy,
        ready: &Ready,
        going: &Going,
    ) -> Result<Option<(Queue, Accepted)>, Problem> {
        let (Some(key), Some(queue)) = (&ready.asked.idempotency_key, self.queues.opened(policy.durability))
        else {
            return Ok(None);
        };
        let idempotency = ready.idempotency(key, going);
        match queue.known(policy, &going.destination, self.queues.owner(), &idempotency).await {
            Ok(known) => Ok(known.map(|known| (queue, known))),
            Err(refused @ Refused::OtherFingerprint) => Err(refusal(&refused, policy)),
            // A broken disk holds up no synchronous request.
            Err(_) => Ok(None),
        }
    }

    /// Whether messages of the same ordering key wait: then this one waits behind them.
    async fn waits_already(&self, policy: &AsyncPolicy, going: &Going, key: &str) -> bool {
        match self.queues.opened(policy.durability) {
            Some(queue) => matches!(queue.lane_is_empty(policy, &going.destination, key).await, Ok(false)),
            None => false,
        }
    }

    fn begin(&self, going: &Going, asked: &Asked) -> Result<Option<Running<'_>>, Problem> {
        let Some(key) = &asked.idempotency_key else { return Ok(None) };
        let key = scope(&going.destination, key);
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !running.insert(key) {
            let detail = "a request with the same Idempotency-Key is under way";
            return Err(Problem::new(problem::IN_PROGRESS, detail));
        }
        Ok(Some(Running { admit: self, key }))
    }
}

/// A key, for its destination.
pub(super) fn scope(destination: &str, key: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, format!("{destination}\n{key}").as_bytes()).as_ref());
    hash
}

async fn attempt(proxy: &impl Proxy, parts: &Parts, body: &Bytes) -> Tried {
    let mut request = Request::from_parts(parts.clone(), Received::Whole(body.clone()));
    // None follow.
    request.headers_mut().remove(TRAILER);
    match proxy.forward(request).await {
        Ok(response) if is_refusal(response.status(), response.headers()) => complete(response).await,
        Ok(response) if matches!(response.status().as_u16(), 502 | 504) => Tried::Unknown(Ok(response)),
        Ok(response) => Tried::Answered(Ok(response)),
        Err(failure) => match failure.cause {
            Cause::NoEndpoint | Cause::Connect(_) | Cause::Refused | Cause::Overloaded | Cause::NotReady => {
                Tried::Unprocessed(Err(failure))
            }
            Cause::Terminated | Cause::Timeout => Tried::Unknown(Err(failure)),
            _ => Tried::Answered(Err(failure)),
        },
    }
}

/// A 429 or 503, or what gRPC says instead (RESOURCE_EXHAUSTED, UNAVAILABLE).
fn is_refusal(status: StatusCode, headers: &HeaderMap) -> bool {
    let grpc = headers.get("grpc-status").and_then(|value| value.to_str().ok());
    matches!(status.as_u16(), 429 | 503) || matches!(grpc, Some("8" | "14"))
}

/// Reads a refusal to its end: only a whole one says that the request was not processed. One that is long or
/// slow is passed on as it comes.
async fn complete(response: Response<Body>) -> Tried {
    let (mut parts, mut body) = response.into_parts();
    let (mut read, mut trailers) = (BytesMut::new(), HeaderMap::new());
    let whole = async {
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
            if read.len() > REFUSAL_BYTES_MAX {
                return Ok(false);
            }
        }
        Ok::<_, BodyError>(true)
    };
    match tokio::time::timeout(REFUSAL_TIMEOUT, whole).await {
        Ok(Ok(true)) => {
            let body = Body::with_trailers(read.freeze(), trailers);
            Tried::Unprocessed(Ok(Response::from_parts(parts, body)))
        }
        Ok(Ok(false)) | Err(_) => {
            let body = match trailers.is_empty() {
                true => body.begun(read.freeze()),
                // They are the last of it.
                false => Body::with_trailers(read.freeze(), trailers),
            };
            Tried::Unknown(Ok(Response::from_parts(parts, body)))
        }
        Ok(Err(_)) => {
            // They are of the body that is not passed on.
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.remove(CONTENT_ENCODING);
            Tried::Unknown(Ok(Response::from_parts(parts, Body::empty())))
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS)
}
