//! outcome: what became of a request, and how a failure of our own is told.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use policy::limits;

use crate::body::Body;

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why a request is answered here and not by its receiver. Each has a token (RFC 9209 §2.3 where
/// one is registered), an HTTP status and a gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Connecting failed, with the token of how.
    Connect(&'static str),
    /// The receiver ended the connection or stream before it answered.
    Terminated,
    /// The receiver, or its sidecar, refused the request unprocessed.
    Refused,
    /// There is no endpoint to send to.
    NoEndpoint,
    /// Too many requests are under way to this backend, and too many wait.
    Overloaded,
    /// The deadline passed.
    Timeout,
    /// No rule of the Service's routes matches.
    NoRoute,
    /// The rule, or a backend it names, cannot be carried out.
    Configuration,
    /// Nothing is known to be there.
    UnknownDestination,
    /// The peer may not do this.
    Denied,
    /// The request passed here too often.
    Loop,
    /// The request is not one that can be passed on.
    BadRequest,
    /// Its head has too many fields or bytes.
    HeadTooLarge,
    /// The proxy cannot serve yet.
    NotReady,
}

impl Cause {
    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Connect(token) => token,
            Self::Terminated => "connection_terminated",
            Self::Refused => "http_request_refused",
            Self::NoEndpoint | Self::NotReady => "destination_unavailable",
            Self::Overloaded => "connection_limit_reached",
            Self::Timeout => "http_response_timeout",
            Self::NoRoute => "destination_not_found",
            Self::Configuration => "proxy_configuration_error",
            Self::UnknownDestination => "destination_not_found",
            Self::Denied => "http_request_denied",
            Self::Loop => "proxy_loop_detected",
            Self::BadRequest => "http_request_error",
            Self::HeadTooLarge => "http_request_header_size",
        }
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Connect(_) | Self::Terminated | Self::Refused => StatusCode::BAD_GATEWAY,
            Self::NoEndpoint | Self::Overloaded | Self::UnknownDestination | Self::NotReady => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Configuration => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// Its gRPC status (gRPC's `statuscodes.md`).
    #[must_use]
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::Timeout => 4,
            Self::Denied => 7,
            Self::Overloaded | Self::HeadTooLarge => 8,
            Self::NoRoute => 12,
            Self::Configuration | Self::Loop | Self::BadRequest => 13,
            _ => 14,
        }
    }
}

impl Failure {
    pub(crate) fn two_hosts() -> Self {
        Self::new(Cause::BadRequest, "the request has more than one Host")
    }

    pub(crate) fn head_too_large() -> Self {
        Self::new(
            Cause::HeadTooLarge,
            format!(
                "the head has more than {} fields or {} bytes",
                limits::HEADER_COUNT_MAX,
                limits::HEADER_BYTES_MAX
            ),
        )
    }
}

/// A request that is answered here.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// In words, with what matters: `total=3 tried=3`.
    pub details: Cow<'static, str>,
}

impl Failure {
    /// A failure for `cause`, told as `details`.
    #[must_use]
    pub fn new(cause: Cause, details: impl Into<Cow<'static, str>>) -> Self {
        Self { cause, details: details.into() }
    }

    /// The HTTP status it is told with, and, for gRPC, the gRPC status.
    pub(crate) fn statuses(&self, is_grpc: bool) -> (u16, Option<Option<u8>>) {
        if is_grpc {
            (200, Some(Some(self.cause.grpc_status())))
        } else {
            (self.cause.status().as_u16(), None)
        }
    }

    /// The response that tells it: trailers alone for gRPC (gRPC over HTTP/2, "Responses"), a status
    /// and a line of text otherwise; `Proxy-Status` on both.
    #[must_use]
    pub fn into_response(self, is_grpc: bool) -> Response<Body> {
        let token = self.cause.token();
        let details: String = self.details.chars().map(plain).collect();
        let mut response = if is_grpc {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(self.cause.grpc_status())));
            let message = format!("tidegate: {token}: {}", details.replace('%', "%25"));
            headers.insert(GRPC_MESSAGE, value(&message));
            response
        } else {
            let mut response = Response::new(Body::full(format!("tidegate: {token}: {details}\n")));
            *response.status_mut() = self.cause.status();
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        };
        // RFC 8941 §3.3.3: a quoted string of visible ASCII.
        let quoted = details.replace('\\', "\\\\").replace('"', "\\\"");
        let status = format!("tidegate; error={token}; details=\"{quoted}\"");
        response.headers_mut().insert(PROXY_STATUS, value(&status));
        response
    }
}

fn plain(c: char) -> char {
    if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("tidegate"))
}

/// Whether a message is gRPC by its content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().starts_with(b"application/grpc") && !is_grpc_web(value.as_bytes())
    })
}

fn is_grpc_web(content_type: &[u8]) -> bool {
    content_type.starts_with(b"application/grpc-web")
}

/// The gRPC status in headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// What an error on a connection says about the request on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was not processed: sending it again is safe, whatever its method.
    Unprocessed,
    /// It may have been.
    Unknown,
}

/// Reads the fate off an error: a refused stream (RFC 9113 §8.7), or a GOAWAY of the peer that does
/// not cover the stream (§6.8), was not processed.
pub(crate) fn fate(error: &hyper::Error) -> Fate {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            let gone = h2.is_go_away() && h2.is_remote();
            return if refused || gone { Fate::Unprocessed } else { Fate::Unknown };
        }
        source = error.source();
    }
    Fate::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_its_token_and_details_to_http_and_to_grpc() {
        let failure = Failure::new(Cause::NoEndpoint, "total=3 \"tried\"=3\n");
        let response = failure.clone().into_response(false);
        assert_eq!(response.status(), 503);
        let status = response.headers()["proxy-status"].to_str().unwrap();
        assert_eq!(status, r#"tidegate; error=destination_unavailable; details="total=3 \"tried\"=3?""#);
        let response = failure.into_response(true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert!(response.headers().contains_key("proxy-status"));
    }
}
