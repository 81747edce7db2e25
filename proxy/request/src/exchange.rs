//! exchange: one request and all attempts at it.
//!
//! A failed connect, or a stream that was refused unprocessed, goes to another endpoint at nobody's
//! cost. What may have been processed is tried again only when its method is idempotent, and within
//! the retry budget.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use policy::limits;
use tokio::time::{Instant, timeout_at};
use transport::errors::chain;
use transport::header::SessionProtocol;

use crate::backend::{BackendClient, EndpointClient, InFlight};
use crate::body::{Body, Received};
use crate::client::{Answered, Lease, SendError};
use crate::forward::Passage;
use crate::headers::{say_chunked, to_http1, to_http2, untag_response};
use crate::metrics::{AttemptResult, RetryReason};
use crate::outcome::{Cause, Failure, Fate, is_grpc};
use crate::replay::{Kept, Replay};
use crate::retry::{backoff, grpc_timeout, is_idempotent, retry_after};
use crate::route::{CompiledForward, CompiledRule};

/// One request and all attempts at it.
pub(crate) struct Exchange<'a> {
    rule: &'a CompiledRule,
    plan: &'a CompiledForward,
    backend: &'a Arc<BackendClient>,
    parts: Parts,
    body: Source,
    passage: &'a Passage<'a>,
    pub(crate) is_grpc: bool,
}

/// Where attempts take the body from.
enum Source {
    Empty,
    Whole(Bytes),
    Replay(Replay),
}

impl Source {
    fn of(body: Received, backend: &BackendClient, kept: &Kept) -> Self {
        match body {
            Received::Whole(bytes) if bytes.is_empty() => Self::Empty,
            Received::Whole(bytes) => Self::Whole(bytes),
            Received::Incoming(body) if http_body::Body::is_end_stream(&body) => Self::Empty,
            Received::Incoming(body) => Self::Replay(Replay::new(body, backend.retry_body_bytes_max(), kept)),
            Received::Begun(read, body) => {
                Self::Replay(Replay::begun(&read, body, backend.retry_body_bytes_max(), kept))
            }
        }
    }
}

/// A response to hand on, and what it holds.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
    pub(crate) in_flight: InFlight,
    pub(crate) endpoint: std::net::SocketAddr,
    pub(crate) attempts: u32,
}

/// Why an attempt has no response to hand on.
enum Missed {
    NotConnected {
        token: &'static str,
        reason: String,
    },
    Broken {
        fate: Fate,
        reason: String,
    },
    TimedOut(Duration),
    /// The client broke its own body off, or wrote it wrongly.
    Client {
        reason: String,
    },
}

/// By when all must be over: the rule's timeout or the client's own, whichever is sooner.
pub(crate) fn deadline(plan: &CompiledForward, parts: &Parts, started: Instant) -> Option<Instant> {
    let own = if is_grpc(&parts.headers) { grpc_timeout(&parts.headers) } else { None };
    let sooner = match (own, plan.request_timeout) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    sooner.map(|timeout| started + timeout)
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        rule: &'a CompiledRule,
        plan: &'a CompiledForward,
        backend: &'a Arc<BackendClient>,
        parts: Parts,
        body: Received,
        passage: &'a Passage<'a>,
    ) -> Self {
        let body = Source::of(body, backend, &passage.shared.kept);
        let is_grpc = is_grpc(&parts.headers);
        Self { rule, plan, backend, parts, body, passage, is_grpc }
    }

    pub(crate) async fn run(self) -> Result<(Answer, Self), Failure> {
        let budget = self.backend.budget();
        budget.deposit();
        let mut tried: Vec<Arc<EndpointClient>> = Vec::new();
        let (mut passed_by, mut retries) = (0, 0);
        loop {
            let endpoint = self.backend.choose(&tried).await?;
            let missed = match self.attempt(&endpoint).await {
                Ok(mut answer) => {
                    answer.attempts = 1 + passed_by + retries;
                    let Some(wait) = self.wait_before_retry(&answer.response, retries) else {
                        return Ok((answer, self.finished()));
                    };
                    if !budget.withdraw() {
                        self.passage.shared.metrics.retry(RetryReason::BudgetExhausted);
                        return Ok((answer, self.finished()));
                    }
                    drop(answer);
                    self.passage.shared.metrics.retry(RetryReason::Response);
                    retries += 1;
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Err(missed) => missed,
            };
            tried.push(endpoint);
            let last = |cause| {
                let total = self.backend.endpoints_total();
                missed.failure(self.backend.label(), cause, total, tried.len())
            };
            if !self.can_send_again() {
                return Err(last(missed.cause()));
            }
            if let Some(reason) = missed.is_harmless() {
                passed_by += 1;
                if passed_by >= limits::CONNECT_ATTEMPTS_MAX || tried.len() >= self.backend.endpoints_total()
                {
                    return Err(last(missed.cause()));
                }
                self.passage.shared.metrics.retry(reason);
                continue;
            }
            let again =
                self.passage.retries && is_idempotent(&self.parts.method) && retries < self.retries_max();
            if !again {
                return Err(last(missed.cause()));
            }
            if !budget.withdraw() {
                self.passage.shared.metrics.retry(RetryReason::BudgetExhausted);
                return Err(last(missed.cause()));
            }
            self.passage.shared.metrics.retry(RetryReason::Broken);
            retries += 1;
            if tried.len() >= self.backend.endpoints_total() {
                tried.clear();
            }
            tokio::time::sleep(backoff(retries, self.shortest_wait())).await;
        }
    }

    /// The response is handed on: nothing of the body needs to be kept any longer.
    fn finished(mut self) -> Self {
        if let Source::Replay(replay) = std::mem::replace(&mut self.body, Source::Empty) {
            replay.release();
        }
        self
    }

    fn retries_max(&self) -> u32 {
        self.plan.retry.as_ref().map_or(1, |retry| retry.attempts.min(limits::RETRY_ATTEMPTS_MAX))
    }

    fn shortest_wait(&self) -> Duration {
        self.plan.retry.as_ref().and_then(|retry| retry.backoff).unwrap_or(limits::RETRY_BACKOFF_MIN)
    }

    fn client_broke(&self) -> bool {
        matches!(&self.body, Source::Replay(replay) if replay.source_failed())
    }

    fn can_send_again(&self) -> bool {
        match &self.body {
            Source::Empty | Source::Whole(_) => true,
            Source::Replay(replay) => replay.can_replay(),
        }
    }

    /// Whether the rule asks for another try after this response, and how long to wait. A method
    /// that is not idempotent is tried again only when the rule's match names it.
    fn wait_before_retry(&self, response: &Response<Incoming>, retries: u32) -> Option<Duration> {
        let retry = self.plan.retry.as_ref().filter(|_| self.passage.retries)?;
        let method_fits = is_idempotent(&self.parts.method) || self.rule.names_method();
        if retries >= self.retries_max()
            || !method_fits
            || !retry.codes.contains(&response.status().as_u16())
            || !self.can_send_again()
        {
            return None;
        }
        match retry_after(response.headers()) {
            Some(asked) if asked > limits::RETRY_BACKOFF_MAX => None,
            Some(asked) => Some(asked),
            None => Some(backoff(retries + 1, self.shortest_wait())),
        }
    }

    /// One attempt at one endpoint.
    async fn attempt(&self, endpoint: &Arc<EndpointClient>) -> Result<Answer, Missed> {
        let (request, session) = self.request_for(endpoint);
        let in_flight = InFlight::new(endpoint);
        let began = Instant::now();
        let mut silence = Silence::begin(endpoint, began);
        let sending = endpoint.pool.send(request, session);
        let sent = match self.plan.attempt_timeout {
            None => sending.await,
            Some(bound) => match timeout_at(began + bound, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    endpoint.series.record(AttemptResult::Failure);
                    return Err(Missed::TimedOut(bound));
                }
            },
        };
        match sent {
            Ok(Answered { mut response, lease, sent_at }) => {
                let now = Instant::now();
                silence.answered(now - sent_at, now);
                endpoint.load.connected();
                let words = untag_response(&mut response, self.parts.version);
                endpoint.answered(&mut response, words);
                Ok(Answer {
                    response,
                    lease,
                    in_flight,
                    endpoint: endpoint.pool.endpoint.address,
                    attempts: 1,
                })
            }
            Err(SendError::NotConnected { token, reason, .. }) => {
                endpoint.not_connected();
                Err(Missed::NotConnected { token, reason })
            }
            Err(SendError::Broken { error, .. }) if self.client_broke() => {
                Err(Missed::Client { reason: chain(&error) })
            }
            Err(SendError::Broken { fate, error }) => {
                let refused = fate == Fate::Unprocessed;
                endpoint.series.record(if refused { AttemptResult::Refused } else { AttemptResult::Broken });
                if refused {
                    // Its application is on its way out or not there: others first for a moment.
                    endpoint.load.connect_failed(Instant::now());
                }
                Err(Missed::Broken { fate, reason: chain(&error) })
            }
        }
    }

    /// The request as `endpoint` takes it: HTTP/2 to sidecars, as it came to others.
    fn request_for(&self, endpoint: &EndpointClient) -> (Request<Body>, SessionProtocol) {
        let body = match &self.body {
            Source::Empty => Body::empty(),
            Source::Whole(bytes) => Body::full(bytes.clone()),
            Source::Replay(replay) => Body::attempt(replay.attempt()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.parts.uri.clone();
        *request.version_mut() = self.parts.version;
        *request.headers_mut() = self.parts.headers.clone();
        let (authority, absolute_form) = (self.passage.authority, self.absolute_form());
        if self.parts.version == Version::HTTP_2 {
            (request, SessionProtocol::Http2)
        } else if endpoint.pool.endpoint.peer.is_some() {
            to_http2(&mut request, authority, absolute_form);
            (request, SessionProtocol::Http2)
        } else {
            to_http1(&mut request, authority, absolute_form);
            say_chunked(&mut request);
            (request, SessionProtocol::Http1)
        }
    }

    fn absolute_form(&self) -> bool {
        self.passage.absolute_form
            && self.parts.method != Method::CONNECT
            && self.parts.version != Version::HTTP_2
            && self.parts.uri.authority().is_some()
    }
}

/// A request without a response, until it has one or is given up: also when its future is dropped.
struct Silence<'a> {
    endpoint: &'a EndpointClient,
    began: Instant,
    is_answered: bool,
}

impl<'a> Silence<'a> {
    fn begin(endpoint: &'a EndpointClient, began: Instant) -> Self {
        endpoint.load.asked(began);
        Self { endpoint, began, is_answered: false }
    }

    fn answered(&mut self, rtt: Duration, now: Instant) {
        self.is_answered = true;
        self.endpoint.load.answered(rtt, now);
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let now = Instant::now();
            self.endpoint.load.given_up(now - self.began, now);
        }
    }
}

impl Missed {
    /// Nothing was processed: another endpoint may take it at nobody's cost.
    fn is_harmless(&self) -> Option<RetryReason> {
        match self {
            Self::NotConnected { .. } => Some(RetryReason::Connect),
            Self::Broken { fate: Fate::Unprocessed, .. } => Some(RetryReason::Refused),
            _ => None,
        }
    }

    fn cause(&self) -> Cause {
        match self {
            Self::NotConnected { token, .. } => Cause::Connect(token),
            Self::Broken { fate: Fate::Unprocessed, .. } => Cause::Refused,
            Self::Broken { .. } => Cause::Terminated,
            Self::TimedOut(_) => Cause::Timeout,
            Self::Client { .. } => Cause::BadRequest,
        }
    }

    fn failure(&self, backend: &str, cause: Cause, total: usize, tried: usize) -> Failure {
        let reason = match self {
            Self::NotConnected { reason, .. } | Self::Broken { reason, .. } => reason.clone(),
            Self::Client { reason } => format!("the request's body is broken: {reason}"),
            Self::TimedOut(after) => format!("an attempt had no response within {after:?}"),
        };
        Failure::new(cause, format!("{backend}: {reason}; total={total} tried={tried}"))
    }
}
