//! answer: what the sender of an asynchronous request is told.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use policy::queue::AsyncPolicy;
use queue::{Accepted, MessageState, Status};
use request::body::Body;
use request::outcome::is_grpc;
use serde::Serialize;
use store::message::Timestamp;

use super::asked::Preference;
use super::call::{Answered, NotACall};
use super::problem::{Problem, seconds};

pub(crate) const DUPLICATE: HeaderName = HeaderName::from_static("tidegate-duplicate");
pub(crate) const DURABILITY: HeaderName = HeaderName::from_static("tidegate-durability");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const REQUEST_ID: HeaderName = HeaderName::from_static("tidegate-request-id");

/// A gRPC message of no bytes, uncompressed: the default value of any proto3 type.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// How one sender is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    grpc: bool,
    preference: Preference,
}

/// How a message stands when its sender is answered.
pub(crate) struct Stands {
    /// `None`: it was taken in once, and nothing else is known of it any more.
    state: Option<&'static str>,
    /// Why, in the dead letter.
    reason: Option<&'static str>,
    /// Nothing more happens to it: there is nothing to ask again for.
    has_ended: bool,
}

impl Stands {
    /// One that was taken in just now.
    pub(crate) fn new(scheduled: bool) -> Self {
        let state = if scheduled { MessageState::Scheduled } else { MessageState::Queued };
        Self { state: Some(state.as_str()), reason: None, has_ended: false }
    }

    pub(crate) fn of(status: &Status) -> Self {
        let reason = status.reason.map(|reason| reason.as_str());
        Self { state: Some(status.state.as_str()), reason, has_ended: status.state.is_end() }
    }

    pub(crate) fn unknown() -> Self {
        Self { state: None, reason: None, has_ended: true }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    id: String,
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    durability: &'static str,
    enqueued_at: String,
}

impl Answer {
    pub(crate) fn to(parts: &Parts, preference: Preference) -> Self {
        Self { grpc: is_grpc(&parts.headers), preference }
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// How long the sender waits for the response itself.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.preference.wait.filter(|wait| self.preference.respond_async && !wait.is_zero())
    }

    /// 202, or for gRPC an empty message: it is stored.
    pub(crate) fn accepted(&self, accepted: &Accepted, stands: &Stands) -> Response<Body> {
        let id = accepted.id.to_string();
        let class = accepted.id.class().as_str();
        let mut response = if self.grpc { empty_message(&id) } else { Response::new(Body::empty()) };
        if !self.grpc {
            let document = Document {
                state: stands.state,
                reason: stands.reason,
                durability: class,
                enqueued_at: rfc3339(accepted.enqueued_at),
                id: id.clone(),
            };
            *response.status_mut() = StatusCode::ACCEPTED;
            *response.body_mut() = Body::full(serde_json::to_vec(&document).unwrap_or_default());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let headers = response.headers_mut();
        if let Ok(location) = HeaderValue::try_from(format!("/.tidegate/requests/{id}")) {
            headers.insert(LOCATION, location);
        }
        headers.insert(DURABILITY, HeaderValue::from_static(class));
        if !stands.has_ended {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(accepted.retry_after)));
        }
        if accepted.duplicate {
            headers.insert(DUPLICATE, HeaderValue::from_static("?1"));
        }
        if self.preference.respond_async {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
        }
        response
    }

    /// The receiver's own response, in time.
    pub(crate) fn replay(&self, response: queue::Response) -> Result<Response<Body>, NotACall> {
        let mut replayed = replay(response)?;
        if let Some(wait) = self.wait()
            && let Ok(applied) = HeaderValue::try_from(format!("wait={}", wait.as_secs()))
        {
            replayed.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        Ok(replayed)
    }

    /// A refusal.
    pub(crate) fn problem(&self, problem: Problem) -> Response<Body> {
        if self.grpc { grpc_problem(&problem) } else { problem.into_response() }
    }
}

/// A kept response again.
pub(crate) fn replay(response: queue::Response) -> Result<Response<Body>, NotACall> {
    let (status, headers, trailers) = Answered::decode(response.head)?;
    let mut replayed = Response::new(Body::with_trailers(response.body, trailers));
    *replayed.status_mut() = status;
    *replayed.headers_mut() = headers;
    Ok(replayed)
}

/// A time as documents and headers tell it, with three digits of a second: so they sort as text.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX))
}

fn empty_message(id: &str) -> Response<Body> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    if let Ok(id) = HeaderValue::try_from(id) {
        trailers.insert(REQUEST_ID, id);
    }
    let mut response = Response::new(Body::with_trailers(Bytes::from_static(EMPTY_MESSAGE), trailers));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A refusal as gRPC tells it (`statuscodes.md`).
fn grpc_problem(problem: &Problem) -> Response<Body> {
    let status = match problem.kind.status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => 3,
        StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::CONFLICT => 10,
        StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 8,
        StatusCode::FORBIDDEN => 7,
        _ => 14,
    };
    let mut response = trailers_only(status, &format!("{}: {}", problem.kind.title, problem.detail));
    if let Some(after) = problem.retry_after {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        response.headers_mut().insert("grpc-retry-pushback-ms", HeaderValue::from(ms));
    }
    response
}

/// A policy without `grpc.ack` takes no calls in.
pub(super) fn unimplemented(policy: &AsyncPolicy) -> Response<Body> {
    let text = format!("AsyncPolicy {} does not say how a gRPC call is acknowledged (grpc.ack)", policy.name);
    trailers_only(12, &text)
}

fn trailers_only(status: u8, message: &str) -> Response<Body> {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let message: String = message.chars().map(plain).collect::<String>().replace('%', "%25");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}
