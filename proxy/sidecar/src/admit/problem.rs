//! problem: a refusal of the queue's, as `application/problem+json` (RFC 9457).

use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use request::body::Body;
use serde::Serialize;

/// What kind of refusal. The type's URI is made of it, and a metric counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// The last part of the type.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) status: StatusCode,
}

macro_rules! kinds {
    ($($constant:ident $name:literal $status:ident $title:literal;)*) => {$(
        pub(crate) const $constant: Kind =
            Kind { name: $name, title: $title, status: StatusCode::$status };
    )*};
}

kinds! {
    BAD_CALLBACK "bad-callback" BAD_REQUEST "The callback is no address that can be called";
    BAD_HEADER "bad-header" BAD_REQUEST "A header cannot be understood";
    BODY_BROKEN "body-broken" BAD_REQUEST "The body ended early";
    BODY_LATE "body-late" REQUEST_TIMEOUT "The body did not come in time";
    BODY_TOO_LARGE "body-too-large" PAYLOAD_TOO_LARGE "The body is larger than the policy allows";
    CALLBACK_NOT_ALLOWED "callback-not-allowed" BAD_REQUEST "The policy does not allow this callback";
    CANCELLED "cancelled" GONE "The request was cancelled";
    CREDENTIALS "credentials" BAD_REQUEST "Credentials are not stored";
    DISK_FULL "disk-full" SERVICE_UNAVAILABLE "The store is full";
    DRAINING "draining" SERVICE_UNAVAILABLE "The sidecar is about to stop";
    EXPIRED "expired" BAD_REQUEST "The message would be expired when it is due";
    FORBIDDEN "forbidden" FORBIDDEN "The request belongs to another workload";
    GONE "result-gone" GONE "The result is no longer kept";
    HEAD_TOO_LARGE "head-too-large" REQUEST_HEADER_FIELDS_TOO_LARGE "The head is too large to be delivered";
    IN_PROGRESS "in-progress" CONFLICT "A request with this key is under way";
    KEY_MISSING "idempotency-key-missing" BAD_REQUEST "The policy asks for an Idempotency-Key";
    KEY_REUSED "idempotency-key-reused" UNPROCESSABLE_ENTITY "The key was used for another request";
    METHOD "method" METHOD_NOT_ALLOWED "The resource does not know this method";
    NO_RESULT "no-result" BAD_GATEWAY "The request is in the dead letter, without a response";
    RESULT_NOT_KEPT "result-not-kept" GONE "The response was not kept: the policy keeps none (result.ttl)";
    NOT_CANCELLED "not-cancelled" CONFLICT "The request can no longer be cancelled";
    NOT_REDRIVEN "not-redriven" CONFLICT "The request is not in the dead letter";
    NO_QUEUE "no-queue" SERVICE_UNAVAILABLE "The queue cannot be opened";
    NO_ROOM "no-room" SERVICE_UNAVAILABLE "Too many bodies are on their way in";
    OVER_QUOTA "over-quota" TOO_MANY_REQUESTS "The queue is full";
    RESULT_TOO_LARGE "result-too-large" GONE "The response was not kept: it is larger than the policy's result.maxBytes";
    TOO_MANY_KEYS "too-many-keys" TOO_MANY_REQUESTS "Too many idempotency keys are remembered";
    UNKNOWN "unknown-request" NOT_FOUND "No request has this id";
    UNKNOWN_OUTCOME "outcome-unknown" SERVICE_UNAVAILABLE "The outcome is unknown: retry with the same key";
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// A refusal: its kind, what it is about, and when to try again.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The same, with the methods that are allowed.
    pub(crate) fn allowing(self, methods: &'static str) -> Response<Body> {
        let mut response = self.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        response
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let document = Document {
            r#type: format!("https://tidegate.dev/problems/{}", self.kind.name),
            title: self.kind.title,
            status: self.kind.status.as_u16(),
            detail: &self.detail,
        };
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::full(text));
        *response.status_mut() = self.kind.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after)));
        }
        response
    }
}

/// Whole seconds, at least one: `Retry-After: 0` asks for a storm.
pub(crate) fn seconds(after: Duration) -> u64 {
    let begun = u64::from(after.subsec_nanos() > 0);
    after.as_secs().saturating_add(begun).max(1)
}
