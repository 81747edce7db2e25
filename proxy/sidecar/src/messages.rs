//! messages: what became of requests that were taken in, under `/.tidegate/requests/`.
//!
//! The path is reserved at every authority the workload asks, and on the admin port. Only the
//! workload that enqueued a request may read or cancel it; the sidecar stands beside one workload,
//! so whoever asks from beside is that one, and a peer must have its identity.
//!
//! An id names its holder. What is not here and another pod of the workload keeps is asked of that pod's sidecar, which
//! must prove by mTLS that it is of the same workload: so any replica may be asked for any request of
//! its workload, and nobody else is asked.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use policy::identity::Identity;
use queue::{CancelError, MessageId, MessageState, Outcome, Queue, RedriveError, Status};
use request::body::Body;
use serde_json::json;

use crate::admit::answer::{replay, rfc3339};
use crate::admit::asked::Preference;
use crate::admit::problem::{self, Problem};
use crate::queues::Queues;

const PREFIX: &str = "/.tidegate/";
/// The port at which a sidecar's peers ask it for messages: that of events (no application is asked).
pub(crate) const PORT: u16 = 4180;
/// When to ask again about a request that has not ended and has no time of its own.
const POLL: Duration = Duration::from_secs(2);

/// Answers for messages.
pub(crate) struct Messages {
    pub(crate) queues: Arc<Queues>,
    holder: Ipv4Addr,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The workload beside us, or an operator on loopback.
    Ourselves,
    /// Whoever a certificate names; `None` without one.
    Peer(Option<String>),
}

/// What is asked of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Status,
    Result,
    Cancel,
    Redrive,
}

/// Whether a path is ours.
pub(crate) fn is_reserved(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Reads what is asked: the id and what to do with it.
fn read(method: &Method, path: &str) -> Result<(MessageId, Verb), Problem> {
    let unknown = || Problem::new(problem::UNKNOWN, format!("{path} is not /.tidegate/requests/ID"));
    let rest =
        path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix("requests/")).ok_or_else(unknown)?;
    let (id, part) = match rest.split_once('/') {
        Some((id, "result")) => (id, "result"),
        Some(_) => return Err(unknown()),
        None => rest.strip_suffix(":redrive").map_or((rest, ""), |id| (id, "redrive")),
    };
    let id: MessageId =
        id.parse().map_err(|_| Problem::new(problem::UNKNOWN, format!("{id:?} is not an id")))?;
    match (part, method) {
        ("", &Method::GET | &Method::HEAD) => Ok((id, Verb::Status)),
        ("", &Method::DELETE) => Ok((id, Verb::Cancel)),
        ("result", &Method::GET | &Method::HEAD) => Ok((id, Verb::Result)),
        ("redrive", &Method::POST) => Ok((id, Verb::Redrive)),
        _ => Err(Problem::new(problem::METHOD, format!("{method} is not for this resource"))),
    }
}

impl Messages {
    pub(crate) fn new(queues: Arc<Queues>, holder: Ipv4Addr) -> Self {
        Self { queues, holder }
    }

    /// Who else keeps the message that a request asks for. What was taken in here stays here when this pod comes
    /// back at another address than its id names.
    pub(crate) async fn kept_elsewhere(&self, method: &Method, path: &str) -> Option<Ipv4Addr> {
        let (id, _) = read(method, path).ok()?;
        let holder = id.holder();
        if holder == self.holder || holder.is_unspecified() || self.knows(id).await {
            return None;
        }
        Some(holder)
    }

    async fn knows(&self, id: MessageId) -> bool {
        match self.queues.keeping(id) {
            Ok(Some(queue)) => queue.status(id).await.is_ok_and(|status| status.is_some()),
            // Whoever the id names may know more.
            Ok(None) | Err(_) => false,
        }
    }

    /// Whether an identity is that of the workload beside us: replicas share it.
    pub(crate) fn is_ours(&self, identity: &Identity) -> bool {
        *identity.to_string() == **self.queues.owner()
    }

    /// Answers a request to a reserved path; its body is not read.
    pub(crate) async fn answer<B>(&self, request: Request<B>, asker: &Asker) -> Response<Body> {
        let wait = Preference::of(request.headers()).wait;
        let asked = read(request.method(), request.uri().path());
        let head = request.method() == Method::HEAD;
        drop(request);
        let answered = match asked {
            Ok((id, verb)) => self.act(id, verb, wait, asker).await,
            Err(problem) => Err(problem),
        };
        let mut response = answered.unwrap_or_else(|problem| match problem.kind == problem::METHOD {
            true => problem.allowing("GET, HEAD, DELETE, POST"),
            false => problem.into_response(),
        });
        if head {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn act(
        &self,
        id: MessageId,
        verb: Verb,
        wait: Option<Duration>,
        asker: &Asker,
    ) -> Result<Response<Body>, Problem> {
        let unknown = || Problem::new(problem::UNKNOWN, format!("no request {id} is known here"));
        let queue = self.queues.keeping(id)?.ok_or_else(unknown)?;
        let status = queue.status(id).await.map_err(failed)?.ok_or_else(unknown)?;
        self.may(&status, asker)?;
        match verb {
            Verb::Status => Ok(document(StatusCode::OK, &described(&status))),
            Verb::Result => result(&queue, id, wait).await,
            Verb::Cancel => cancel(&queue, id).await,
            Verb::Redrive => redrive(&queue, id).await,
        }
    }

    fn may(&self, status: &Status, asker: &Asker) -> Result<(), Problem> {
        match asker {
            Asker::Ourselves if *status.owner == **self.queues.owner() => Ok(()),
            Asker::Peer(Some(identity)) if *status.owner == **identity => Ok(()),
            _ => Err(Problem::new(problem::FORBIDDEN, "only the workload that sent it may ask")),
        }
    }
}

/// What the disk refuses.
pub(crate) fn failed(failed: queue::Failed) -> Problem {
    Problem::new(problem::NO_QUEUE, transport::errors::chain(&failed)).retry_after(POLL)
}

async fn result(queue: &Queue, id: MessageId, wait: Option<Duration>) -> Result<Response<Body>, Problem> {
    let unknown = || Problem::new(problem::UNKNOWN, format!("no request {id} is known here"));
    let outcome = match wait {
        Some(wait) => queue.wait(id, wait).await,
        None => queue.result(id).await,
    };
    match outcome.map_err(failed)?.ok_or_else(unknown)? {
        Outcome::Pending(status) => {
            let mut response = document(StatusCode::ACCEPTED, &described(&status));
            let after = HeaderValue::from(problem::seconds(until_next(&status)));
            response.headers_mut().insert(http::header::RETRY_AFTER, after);
            if let Ok(location) = HeaderValue::try_from(format!("/.tidegate/requests/{id}")) {
                response.headers_mut().insert(LOCATION, location);
            }
            Ok(response)
        }
        Outcome::Response(_, response) => {
            replay(response).map_err(|error| Problem::new(problem::NO_QUEUE, error.to_string()))
        }
        Outcome::Without(status) => Err(without(&status)),
        Outcome::TooLarge(status) => Err(Problem::new(problem::RESULT_TOO_LARGE, ended(&status))),
        Outcome::Gone(_) => Err(Problem::new(problem::GONE, "the response's time is over (result.ttl)")),
    }
}

/// Why there is no response. Its status is no success: a client that looks at nothing else must not take
/// a request that died for one that was answered.
fn without(status: &Status) -> Problem {
    let kind = match status.state {
        MessageState::Cancelled => problem::CANCELLED,
        MessageState::Succeeded => problem::RESULT_NOT_KEPT,
        _ => problem::NO_RESULT,
    };
    Problem::new(kind, ended(status))
}

/// How it ended: `DeadLettered: Exhausted, after 12 attempts, the last: timeout`.
fn ended(status: &Status) -> String {
    let reason = status.reason.map(|reason| format!(": {}", reason.as_str())).unwrap_or_default();
    let attempts = if status.attempts_used == 1 { "attempt" } else { "attempts" };
    let last = status.attempts.last().and_then(|last| last.error.as_ref());
    let last = last.map(|error| format!(", the last: {error}")).unwrap_or_default();
    format!("{}{reason}, after {} {attempts}{last}", status.state.as_str(), status.attempts_used)
}

fn until_next(status: &Status) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    status.next_attempt_at.map_or(POLL, |at| Duration::from_millis(at.0).saturating_sub(now).max(POLL))
}

async fn cancel(queue: &Queue, id: MessageId) -> Result<Response<Body>, Problem> {
    queue.cancel(id).await.map_err(|error| match error {
        CancelError::Unknown => Problem::new(problem::UNKNOWN, format!("no request {id} is known here")),
        CancelError::Running | CancelError::Ended(_) => {
            Problem::new(problem::NOT_CANCELLED, error.to_string())
        }
        CancelError::Failed(error) => failed(error),
    })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn redrive(queue: &Queue, id: MessageId) -> Result<Response<Body>, Problem> {
    queue.redrive(id).await.map_err(|error| match error {
        RedriveError::Failed(error) => failed(error),
        RedriveError::Unknown => Problem::new(problem::UNKNOWN, format!("no request {id} is known here")),
        RedriveError::QueueFull => Problem::new(problem::OVER_QUOTA, error.to_string()).retry_after(POLL),
        // Of a whole queue alone is it said that one is under way.
        error @ (RedriveError::NotDead(_) | RedriveError::Sunk | RedriveError::UnderWay(_)) => {
            Problem::new(problem::NOT_REDRIVEN, error.to_string())
        }
    })?;
    let status = queue.status(id).await.map_err(failed)?;
    let described = status.map_or_else(|| json!({ "id": id.to_string() }), |status| described(&status));
    Ok(document(StatusCode::ACCEPTED, &described))
}

/// A message as its status document shows it.
pub(crate) fn described(status: &Status) -> serde_json::Value {
    let attempts = status.attempts.iter().map(|attempt| {
        json!({
            "at": rfc3339(attempt.at),
            "status": attempt.status,
            "error": attempt.error,
            "durationMs": u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        })
    });
    json!({
        "id": status.id.to_string(),
        "state": status.state.as_str(),
        "reason": status.reason.map(|reason| reason.as_str()),
        "queue": status.queue,
        "durability": status.durability.as_str(),
        "enqueuedAt": rfc3339(status.enqueued_at),
        "attempts": attempts.collect::<Vec<_>>(),
        "attemptsUsed": status.attempts_used,
        "nextAttemptAt": status.next_attempt_at.map(rfc3339),
        "endedAt": status.ended_at.map(rfc3339),
        "resultUrl": format!("/.tidegate/requests/{}/result", status.id),
    })
}

pub(crate) fn document(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::full(serde_json::to_vec(value).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_response_is_answered_with_no_success() {
        let id: MessageId = "01900000-0001-7400-8000-00050a000007".parse().unwrap();
        let mut status = Status {
            id,
            queue: "shop/orders/orders.shop:80".to_owned(),
            owner: String::new(),
            state: MessageState::DeadLettered,
            reason: Some(queue::Reason::Exhausted),
            durability: queue::Class::Local,
            enqueued_at: queue::Timestamp(0),
            attempts: Vec::new(),
            attempts_used: 1,
            next_attempt_at: None,
            ended_at: None,
            has_result: false,
        };
        let dead = without(&status);
        assert_eq!((dead.kind.name, dead.kind.status.as_u16()), ("no-result", 502));
        assert_eq!(dead.detail, "DeadLettered: Exhausted, after 1 attempt");
        (status.state, status.reason) = (MessageState::Cancelled, None);
        assert_eq!((without(&status).kind.name, without(&status).kind.status.as_u16()), ("cancelled", 410));
        status.state = MessageState::Succeeded;
        assert_eq!(without(&status).kind.status.as_u16(), 410);
        assert!(without(&status).kind.title.contains("keeps none"));
    }

    #[test]
    fn a_path_says_which_message_and_what_to_do_with_it() {
        let id = "01900000-0001-7400-8000-00050a000007";
        let read = |method: Method, rest: &str| {
            read(&method, &format!("/.tidegate/requests/{rest}"))
                .map(|(_, verb)| verb)
                .map_err(|p| p.kind.name)
        };
        assert_eq!(read(Method::GET, id), Ok(Verb::Status));
        assert_eq!(read(Method::DELETE, id), Ok(Verb::Cancel));
        assert_eq!(read(Method::GET, &format!("{id}/result")), Ok(Verb::Result));
        assert_eq!(read(Method::POST, &format!("{id}:redrive")), Ok(Verb::Redrive));
        assert_eq!(read(Method::PUT, id), Err("method"));
        assert_eq!(read(Method::GET, &format!("{id}:redrive")), Err("method"));
        assert_eq!(read(Method::GET, &format!("{id}/results")), Err("unknown-request"));
        assert_eq!(read(Method::GET, "7"), Err("unknown-request"));
    }
}
