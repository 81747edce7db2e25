//! spill: tried synchronously first; stored when the receiver cannot take it now.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use policy::queue::AsyncPolicy;
use request::body::{Body, Received};
use request::outcome::{Cause, Failure};

use super::answer::Answer;
use super::asked::Asked;
use super::problem::{self, Problem};
use super::{Admit, Going, Proxy, Ready, check};

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
    /// The receiver did not process it.
    Unprocessed,
    /// Nobody knows; this would be the answer.
    Unknown(Result<Response<Body>, Failure>),
}

impl Admit {
    /// Tries a request synchronously and stores it when that cannot be done now.
    pub(super) async fn try_first(
        &self,
        policy: &Arc<AsyncPolicy>,
        mut parts: Parts,
        body: Incoming,
        going: &Going,
        answer: &Answer,
        proxy: &impl Proxy,
    ) -> Result<Response<Body>, Failure> {
        // What could not be stored is not held up by that: it takes the synchronous way alone.
        let asked = match check(policy, &mut parts) {
            Ok(asked) => asked,
            Err(problem) if problem.kind == problem::KEY_MISSING || problem.kind == problem::CREDENTIALS => {
                return proxy.forward(Request::from_parts(parts, body.into())).await;
            }
            Err(problem) => return Ok(self.refuse(answer, problem)),
        };
        let (body, room) = match self.read(policy, &parts, body).await {
            Ok(read) => read,
            Err(problem) => return Ok(self.refuse(answer, problem)),
        };
        let ready = |parts, body, asked| Ready { parts, body, asked, _room: room };
        let told = |stored: Result<Response<Body>, Problem>| {
            Ok(stored.unwrap_or_else(|problem| self.refuse(answer, problem)))
        };
        if let Some(key) = &asked.key
            && self.waits_already(policy, going, key).await
        {
            return told(self.store(policy, ready(parts, body, asked), going, answer).await);
        }
        let running = match self.begin(going, &asked) {
            Ok(running) => running,
            Err(problem) => return Ok(self.refuse(answer, problem)),
        };
        let tried = attempt(proxy, &parts, &body).await;
        drop(running);
        let safe_twice = is_idempotent(&parts.method) || asked.idempotency_key.is_some();
        match tried {
            Tried::Answered(answered) => answered,
            Tried::Unknown(answered) if !safe_twice => answered,
            Tried::Unprocessed | Tried::Unknown(_) => {
                told(self.store(policy, ready(parts, body, asked), going, answer).await)
            }
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
    let request = Request::from_parts(parts.clone(), Received::Whole(body.clone()));
    match proxy.forward(request).await {
        Ok(response) if is_refusal(response.status(), response.headers()) => complete(response).await,
        Ok(response) if matches!(response.status().as_u16(), 502 | 504) => Tried::Unknown(Ok(response)),
        Ok(response) => Tried::Answered(Ok(response)),
        Err(failure) => match failure.cause {
            Cause::NoEndpoint | Cause::Connect(_) | Cause::Refused | Cause::Overloaded | Cause::NotReady => {
                Tried::Unprocessed
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

/// Reads a refusal to its end: only a whole one says that the request was not processed.
async fn complete(response: Response<Body>) -> Tried {
    let (parts, body) = response.into_parts();
    let read = Limited::new(body, REFUSAL_BYTES_MAX).collect();
    match tokio::time::timeout(REFUSAL_TIMEOUT, read).await {
        Ok(Ok(_)) => Tried::Unprocessed,
        _ => Tried::Unknown(Ok(Response::from_parts(parts, Body::empty()))),
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS)
}
