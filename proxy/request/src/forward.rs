//! forward: the way of a request from the workload to an endpoint.
//!
//! **route → balance → connect → outcome**, and round again for a retry. Read [`forward`] top to
//! bottom.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use policy::limits;
use policy::route::RuleName;
use policy::snapshot::{BackendKey, ServicePolicy};
use tokio::time::{Instant, sleep_until, timeout_at};

pub use crate::backend::{BackendClient, OpenStream, Shared};
use crate::body::Body;
use crate::drain::Drain;
use crate::exchange::{Exchange, deadline};
use crate::headers::{
    has_two_hosts, is_loop, is_too_large, pass_via, strip_forged, strip_hop_by_hop, wants_upgrade,
};
use crate::outcome::{Cause, Failure, grpc_status};
use crate::route::{CompiledAction, Router};
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
    mut request: Request<Incoming>,
    passage: &Passage<'_>,
) -> Result<Response<Body>, Failure> {
    let started = Instant::now();
    if has_two_hosts(request.headers()) {
        return Err(Failure::two_hosts());
    }
    if is_too_large(&request) {
        return Err(Failure::head_too_large());
    }
    strip_forged(request.headers_mut());
    if is_loop(pass_via(request.headers_mut(), &passage.shared.via)) {
        let details = format!("the request has passed this proxy {} times", limits::HOPS_MAX);
        return Err(Failure::new(Cause::Loop, details));
    }
    let upgrade = wants_upgrade(&request);
    let (mut parts, body) = request.into_parts();
    let rule = target.router.select(&parts).ok_or_else(no_route)?;
    let plan = match &rule.action {
        CompiledAction::Forward(plan) => plan,
        CompiledAction::Fail(cause) => return Err(Failure::new(Cause::Configuration, cause.clone())),
    };
    let drawn = plan.draw().ok_or_else(no_share)?;
    let backend = match &drawn.client {
        Ok(client) => client,
        Err(cause) => return Err(Failure::new(Cause::Configuration, cause.clone())),
    };
    for change in plan.request_headers.iter().chain(&drawn.request_headers) {
        change.apply(&mut parts.headers);
    }
    let deadline = deadline(plan, &parts, started);
    let permit = by(deadline, started, backend.admit()).await?;
    if upgrade {
        let request = Request::from_parts(parts, body);
        let upgraded = by(deadline, started, upgrade::forward(backend, request, passage, permit)).await;
        let status = upgraded.as_ref().map_or_else(|failure| failure.cause.status(), Response::status);
        drawn.series.record(status.as_u16(), None, started.elapsed());
        return upgraded.map(|mut response| {
            for change in drawn.response_headers.iter().chain(&plan.response_headers) {
                change.apply(response.headers_mut());
            }
            response
        });
    }
    strip_hop_by_hop(&mut parts.headers);
    let exchange = Exchange::new(rule, plan, backend, parts, body, passage);
    let (mut answer, exchange) = by(deadline, started, exchange.run()).await?;
    for change in drawn.response_headers.iter().chain(&plan.response_headers) {
        change.apply(answer.response.headers_mut());
    }
    let mut track = Track::new(started, answer.response.status().as_u16(), exchange.is_grpc);
    track.grpc_status = grpc_status(answer.response.headers());
    track.series = Some(drawn.series.clone());
    track.in_flight = Some(answer.in_flight);
    track.lease = Some(answer.lease);
    track.permit = Some(permit);
    if passage.tell_way {
        answer.response.extensions_mut().insert(Way {
            rule: rule.name.clone(),
            backend: backend.label().to_owned(),
            endpoint: answer.endpoint,
            attempts: answer.attempts,
        });
    }
    let deadline = deadline.map(|at| Box::pin(sleep_until(at)));
    Ok(answer.response.map(|body| Body::tracked(body, track, deadline)))
}

/// What `step` gives, unless the deadline passes first.
async fn by<T>(
    deadline: Option<Instant>,
    started: Instant,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match deadline {
        None => step.await,
        Some(at) => timeout_at(at, step).await.unwrap_or_else(|_| Err(too_late(at - started))),
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

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
