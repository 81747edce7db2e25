//! forward: the way of a request from the workload to an endpoint.
//!
//! **route → balance → connect → outcome**, and round again for a retry. Read [`forward`] top to
//! bottom.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use policy::limits;
use policy::queue::AsyncPolicy;
use policy::route::RuleName;
use policy::snapshot::{BackendKey, ServicePolicy};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backend::{BackendClient, Shared};
use crate::body::{Body, Received};
use crate::drain::Drain;
use crate::exchange::{Exchange, deadline};
use crate::headers::{
    has_two_hosts, is_loop, is_too_large, pass_via, strip_for_us, strip_forged, strip_hop_by_hop,
    wants_upgrade,
};
use crate::outcome::{Cause, Failure, grpc_status, is_grpc};
use crate::rewrite::CompiledRedirect;
use crate::route::{CompiledAction, CompiledBackend, CompiledForward, CompiledRule, Router};
use crate::track::Track;
use crate::upgrade;

/// One destination, ready to take requests.
pub struct Target {
    router: Router,
    backend: Option<Arc<BackendClient>>,
}

impl Target {
    /// Compiles `policy`; `backend` gives the client of each backend it names.
    pub fn new(
        policy: &ServicePolicy,
        shared: &Shared,
        mut backend: impl FnMut(&BackendKey) -> Option<Arc<BackendClient>>,
    ) -> Self {
        let router = Router::new(policy, &shared.metrics, &mut backend);
        Self { router, backend: backend(&policy.backend) }
    }

    /// The policy under which a request may be taken in as a message.
    #[must_use]
    pub fn asynchronous(&self, parts: &Parts) -> Option<&Arc<AsyncPolicy>> {
        if !self.router.takes_messages() {
            return None;
        }
        match &self.router.select(parts)?.action {
            CompiledAction::Forward(plan) => plan.asynchronous.as_ref(),
            CompiledAction::Redirect(_) | CompiledAction::Fail(_) => None,
        }
    }

    /// The policies of all its rules.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<AsyncPolicy>> {
        self.router.policies()
    }

    fn draw(&self, parts: &Parts) -> Result<Drawn<'_>, Failure> {
        let rule = self.router.select(parts).ok_or_else(no_route)?;
        match &rule.action {
            CompiledAction::Forward(plan) => {
                Ok(Drawn::Forward(rule, plan, plan.draw().ok_or_else(no_share)?))
            }
            CompiledAction::Redirect(redirect) => Ok(Drawn::Redirect(redirect)),
            CompiledAction::Fail(cause) => Err(Failure::new(Cause::Configuration, cause.clone())),
        }
    }

    /// Where bytes that are not HTTP go.
    ///
    /// # Errors
    /// [`Failure`] when the snapshot has no such backend.
    pub fn backend(&self) -> Result<&Arc<BackendClient>, Failure> {
        self.backend
            .as_ref()
            .ok_or_else(|| Failure::new(Cause::NoEndpoint, "the destination has no backend in this snapshot"))
    }
}

/// What is to be done with a request.
enum Drawn<'a> {
    Forward(&'a CompiledRule, &'a CompiledForward, &'a CompiledBackend),
    Redirect(&'a CompiledRedirect),
}

/// What is known of a request from its connection.
pub struct Passage<'a> {
    /// What all requests share.
    pub shared: &'a Shared,
    /// Where the application meant to go; stands in for a missing `Host`.
    pub authority: &'a Authority,
    /// The request's absolute URI is for the receiver to see: the application did not take this
    /// proxy for one.
    pub absolute_form: bool,
    /// What upgraded connections belong to.
    pub drain: &'a Drain,
    /// Put [`Way`] into the response's extensions.
    pub tell_way: bool,
    /// What may have been processed may be sent again: after a response that the rule names, or
    /// after none. Off for messages, whose retries are the queue's. A failed connect or a refused
    /// stream goes to another endpoint either way.
    pub retries: bool,
}

/// The way a request took, for the access log and traces.
#[derive(Debug, Clone)]
pub struct Way {
    /// The rule that matched.
    pub rule: Arc<RuleName>,
    /// The backend drawn.
    pub backend: String,
    /// The endpoint that answered.
    pub endpoint: std::net::SocketAddr,
    /// Attempts made.
    pub attempts: u32,
}

/// Sends a request where its destination's rules say, and brings the response.
///
/// # Errors
/// [`Failure`]: the request is to be answered with it.
///
/// # Cancel safety
/// Dropping the future gives the request up: its stream is reset, its HTTP/1 connection closed.
pub async fn forward(
    target: &Target,
    mut request: Request<Received>,
    passage: &Passage<'_>,
) -> Result<Response<Body>, Failure> {
    let started = Instant::now();
    check_head(&mut request, passage.shared)?;
    strip_forged(request.headers_mut());
    strip_for_us(&mut request, passage.absolute_form);
    let upgrade = wants_upgrade(&request);
    let (mut parts, body) = request.into_parts();
    let (rule, plan, drawn) = match target.draw(&parts)? {
        Drawn::Forward(rule, plan, drawn) => (rule, plan, drawn),
        Drawn::Redirect(redirect) => {
            let response = redirect.response(&parts, passage.authority)?;
            redirect.series.record(response.status().as_u16(), None, started.elapsed());
            return Ok(response);
        }
    };
    let backend = match &drawn.client {
        Ok(client) => client,
        Err(cause) => return Err(Failure::new(Cause::Configuration, cause.clone())),
    };
    for change in plan.request_headers.iter().chain(&drawn.request_headers) {
        change.apply(&mut parts.headers);
    }
    let rewritten = plan.rewrite.as_ref().map_or(Ok(()), |rewrite| rewrite.apply(&mut parts));
    let deadline = deadline(plan, &parts, started);
    let is_grpc = is_grpc(&parts.headers);
    let leg = Leg { rule, plan, drawn, backend, passage, deadline, started };
    let sent = match (rewritten, body) {
        (Err(failure), _) => Err(failure),
        (Ok(()), Received::Incoming(body)) if upgrade => leg.upgrade(Request::from_parts(parts, body)).await,
        (Ok(()), body) => leg.exchange(parts, body).await,
    };
    match sent {
        Ok(mut response) => {
            for change in drawn.response_headers.iter().chain(&plan.response_headers) {
                change.apply(response.headers_mut());
            }
            Ok(response)
        }
        Err(failure) => {
            let (status, grpc_status) = failure.statuses(is_grpc);
            drawn.series.record(status, grpc_status, started.elapsed());
            Err(failure)
        }
    }
}

/// Refuses what no receiver should see, and marks what passes.
///
/// # Errors
/// [`Failure`]: the request is to be answered with it.
pub fn check_head<B>(request: &mut Request<B>, shared: &Shared) -> Result<(), Failure> {
    if has_two_hosts(request.headers()) {
        return Err(Failure::two_hosts());
    }
    if is_too_large(request) {
        return Err(Failure::head_too_large());
    }
    if is_loop(pass_via(request.headers_mut(), &shared.via)) {
        let details = format!("the request has passed this proxy {} times", limits::HOPS_MAX);
        return Err(Failure::new(Cause::Loop, details));
    }
    Ok(())
}

/// As [`check_head`], and whether the next sidecar, which makes the same check, lets it pass with our mark.
///
/// # Errors
/// As [`check_head`].
pub fn check_both_ways<B>(request: &mut Request<B>, shared: &Shared) -> Result<(), Failure> {
    check_head(request, shared)?;
    if is_too_large(request) { Err(Failure::head_too_large()) } else { Ok(()) }
}

/// A request's way once its backend is known.
struct Leg<'a> {
    rule: &'a CompiledRule,
    plan: &'a CompiledForward,
    drawn: &'a CompiledBackend,
    backend: &'a Arc<BackendClient>,
    passage: &'a Passage<'a>,
    deadline: Option<Instant>,
    started: Instant,
}

impl Leg<'_> {
    async fn upgrade(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let permit = self.by_deadline(self.backend.admit()).await?;
        let upgraded =
            self.by_deadline(upgrade::forward(self.backend, request, self.passage, permit)).await?;
        self.drawn.series.record(upgraded.status().as_u16(), None, self.started.elapsed());
        Ok(upgraded)
    }

    async fn exchange(&self, mut parts: Parts, body: Received) -> Result<Response<Body>, Failure> {
        let permit = self.by_deadline(self.backend.admit()).await?;
        strip_hop_by_hop(&mut parts.headers);
        let exchange = Exchange::new(self.rule, self.plan, self.backend, parts, body, self.passage);
        let (mut answer, exchange) = self.by_deadline(exchange.run()).await?;
        let mut track = Track::new(self.started, answer.response.status().as_u16(), exchange.is_grpc);
        track.grpc_status = grpc_status(answer.response.headers());
        track.series = Some(self.drawn.series.clone());
        track.in_flight = Some(answer.in_flight);
        track.lease = Some(answer.lease);
        track.permit = Some(permit);
        if self.passage.tell_way {
            answer.response.extensions_mut().insert(Way {
                rule: self.rule.name.clone(),
                backend: self.backend.label().to_owned(),
                endpoint: answer.endpoint,
                attempts: answer.attempts,
            });
        }
        let deadline = self.deadline.map(|at| Box::pin(sleep_until(at)));
        Ok(answer.response.map(|body| Body::tracked(body, track, deadline)))
    }

    /// What `step` gives, unless the deadline passes first.
    async fn by_deadline<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match self.deadline {
            None => step.await,
            Some(at) => timeout_at(at, step).await.unwrap_or_else(|_| Err(too_late(at - self.started))),
        }
    }
}

fn no_route() -> Failure {
    Failure::new(Cause::NoRoute, "no rule of the routes of this Service matches the request")
}

fn no_share() -> Failure {
    Failure::new(Cause::Configuration, "the rule has no backend with a weight above 0")
}

fn too_late(after: Duration) -> Failure {
    Failure::new(Cause::Timeout, format!("no response within {after:?}, all attempts together"))
}
