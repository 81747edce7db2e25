//! deliver: the way of a request from a peer to the application beside the proxy.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::uri::Authority;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use policy::endpoint::Endpoint;
use policy::limits;
use policy::route::{RouteKind, RuleName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use transport::header::SessionProtocol;

use crate::backend::Shared;
use crate::body::Body;
use crate::client::{Answered, Pool, SendError};
use crate::drain::Drain;
use crate::forward::chain;
use crate::headers::{
    CLIENT_ID, has_two_hosts, is_loop, is_too_large, pass_via, restore_http1, say_chunked, strip_forged,
    strip_hop_by_hop, tag_response, to_http1, untag_response, wants_upgrade,
};
use crate::metrics::{Direction, RouteLabels, Series};
use crate::outcome::{Cause, Failure, Fate, grpc_status, is_grpc};
use crate::server::Refusal;
use crate::track::Track;
use crate::upgrade;

/// The application beside the proxy, on one of its ports.
pub struct LocalClient {
    pool: Arc<Pool>,
    labels: RouteLabels,
    /// Looked up when a request is first let in: whoever knocks at every port makes no series.
    series: OnceLock<Arc<Series>>,
    /// Requests under way, so that nobody makes more connections than the application can bear.
    places: Arc<Semaphore>,
    authority: Authority,
}

/// Why the application did not answer.
pub enum NotDelivered {
    /// To be answered with this.
    Failed(Failure),
    /// To be told on the stream itself, so that the client's sidecar decides what to do: it was
    /// not processed, or nobody knows.
    Refused(Refusal),
}

impl LocalClient {
    /// The application at `address`.
    #[must_use]
    pub fn new(address: SocketAddr, shared: &Shared) -> Self {
        let name = RuleName {
            kind: RouteKind::Default,
            namespace: "".into(),
            route: "default".into(),
            rule: "default".into(),
        };
        let labels = RouteLabels::new(Direction::inbound, &name, &format!("port {}", address.port()));
        let endpoint = Endpoint { address, pod: "".into(), zone: None, peer: None, terminating: false };
        Self {
            pool: Arc::new(Pool::new(endpoint, shared.tls.clone())),
            labels,
            series: OnceLock::new(),
            places: Arc::new(Semaphore::new(limits::BACKEND_IN_FLIGHT_MAX as usize)),
            authority: authority_of(address),
        }
    }

    /// Closes idle connections; says whether any is left.
    #[must_use]
    pub fn sweep(&self) -> bool {
        self.pool.sweep(Instant::now())
    }
}

/// An address as an authority.
#[must_use]
pub fn authority_of(address: SocketAddr) -> Authority {
    Authority::try_from(address.to_string()).unwrap_or(Authority::from_static("localhost"))
}

/// Who sent a request, from its connection.
pub struct Sender<'a> {
    /// The identity its certificate names, as a header's value; `None` without one.
    pub client_id: Option<&'a HeaderValue>,
    /// It came from a sidecar: over TLS of the mesh.
    pub meshed: bool,
    /// What upgraded connections belong to.
    pub drain: &'a Drain,
    /// The connection's place among all, held by what it is upgraded to.
    pub place: &'a Arc<OwnedSemaphorePermit>,
}

/// Hands a request to the application and brings its response.
///
/// # Errors
/// [`NotDelivered`].
///
/// # Cancel safety
/// Dropping the future gives the request up: the connection to the application is closed.
pub async fn deliver(
    local: &LocalClient,
    mut request: Request<Incoming>,
    sender: &Sender<'_>,
    shared: &Shared,
) -> Result<Response<Body>, NotDelivered> {
    let started = Instant::now();
    let came_as = request.version();
    if has_two_hosts(request.headers()) {
        return Err(NotDelivered::Failed(Failure::two_hosts()));
    }
    if is_too_large(&request) {
        return Err(NotDelivered::Failed(Failure::head_too_large()));
    }
    if is_loop(pass_via(request.headers_mut(), &shared.via)) {
        let failure = Failure::new(Cause::Loop, "the request goes round between proxies");
        return Err(NotDelivered::Failed(failure));
    }
    let may_tag = sender.meshed && came_as == Version::HTTP_2;
    let restored = if may_tag { restore_http1(&mut request) } else { None };
    strip_forged(request.headers_mut());
    if let Some(id) = sender.client_id {
        request.headers_mut().insert(CLIENT_ID, id.clone());
    }
    let place = local.places.clone().try_acquire_owned().map_err(|_| {
        let details = format!("{} requests are under way to the application", limits::BACKEND_IN_FLIGHT_MAX);
        NotDelivered::Failed(Failure::new(Cause::Overloaded, details))
    })?;
    let is_grpc = is_grpc(request.headers());
    let absolute_form = request.uri().authority().is_some();
    if wants_upgrade(&request) && came_as != Version::HTTP_2 {
        to_http1(&mut request, &local.authority, absolute_form);
        let held = (place, sender.place.clone());
        return upgrade::deliver(&local.pool, request, sender.drain, held)
            .await
            .map_err(NotDelivered::Failed);
    }
    strip_hop_by_hop(request.headers_mut());
    let session = if request.version() == Version::HTTP_2 {
        SessionProtocol::Http2
    } else {
        to_http1(&mut request, &local.authority, absolute_form);
        say_chunked(&mut request);
        SessionProtocol::Http1
    };
    let sent = local.pool.send(request.map(Body::incoming), session).await;
    let Answered { mut response, lease, .. } = sent.map_err(|error| not_delivered(error, sender, came_as))?;
    if restored.is_some() {
        strip_hop_by_hop(response.headers_mut());
        tag_response(&mut response);
    } else {
        untag_response(&mut response, came_as);
    }
    let mut track = Track::new(started, response.status().as_u16(), is_grpc);
    track.grpc_status = grpc_status(response.headers());
    track.series = Some(local.series.get_or_init(|| shared.metrics.series(local.labels.clone())).clone());
    track.permit = Some(place);
    track.lease = Some(lease);
    Ok(response.map(|body| Body::tracked(body, track, None)))
}

fn not_delivered(error: SendError, sender: &Sender<'_>, came_as: Version) -> NotDelivered {
    let on_the_stream = sender.meshed && came_as == Version::HTTP_2;
    match error {
        SendError::NotConnected { .. } if on_the_stream => NotDelivered::Refused(Refusal::Unprocessed),
        SendError::NotConnected { token, reason } => {
            NotDelivered::Failed(Failure::new(Cause::Connect(token), reason))
        }
        SendError::Broken { fate: Fate::Unprocessed, .. } if on_the_stream => {
            NotDelivered::Refused(Refusal::Unprocessed)
        }
        SendError::Broken { .. } if on_the_stream => NotDelivered::Refused(Refusal::Unknown),
        SendError::Broken { error, .. } => {
            NotDelivered::Failed(Failure::new(Cause::Terminated, chain(&error)))
        }
    }
}
