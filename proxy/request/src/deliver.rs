//! deliver: the way of a request from a peer to the application beside the proxy.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::uri::Authority;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use policy::endpoint::Endpoint;
use policy::limits;
use policy::route::RuleName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use transport::errors::chain;
use transport::header::SessionProtocol;

use crate::backend::Shared;
use crate::body::Body;
use crate::client::{Answered, Pool, SendError};
use crate::drain::Drain;
use crate::forward::check_head;
use crate::headers::{
    CLIENT_ID, restore_http1, say_chunked, strip_forged, strip_hop_by_hop, tag_response, to_http1,
    untag_response, wants_upgrade,
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
        let port = format!("port {}", address.port());
        let labels = RouteLabels::new(Direction::inbound, &RuleName::none(), &port);
        Self {
            pool: Arc::new(Pool::new(Endpoint::plain(address), shared.tls.clone())),
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

    fn series(&self, shared: &Shared) -> Arc<Series> {
        self.series.get_or_init(|| shared.metrics.series(self.labels.clone())).clone()
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            let details =
                format!("{} requests are under way to the application", limits::BACKEND_IN_FLIGHT_MAX);
            Failure::new(Cause::Overloaded, details)
        })
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
    check_head(&mut request, shared).map_err(NotDelivered::Failed)?;
    let came_as = request.version();
    let may_tag = sender.meshed && came_as == Version::HTTP_2;
    let restored = may_tag && restore_http1(&mut request).is_some();
    strip_forged(request.headers_mut());
    if let Some(id) = sender.client_id {
        request.headers_mut().insert(CLIENT_ID, id.clone());
    }
    let (is_grpc, series) = (is_grpc(request.headers()), local.series(shared));
    let leg = Leg { local, sender, series, started, came_as, restored, is_grpc };
    let delivered = leg.run(request).await;
    if let Err(NotDelivered::Failed(failure)) = &delivered {
        let (status, grpc_status) = failure.statuses(is_grpc);
        leg.series.record(status, grpc_status, started.elapsed());
    }
    delivered
}

/// A request that was let in, on its way to the application.
struct Leg<'a> {
    local: &'a LocalClient,
    sender: &'a Sender<'a>,
    series: Arc<Series>,
    started: Instant,
    came_as: Version,
    /// It was HTTP/1 until the other sidecar made HTTP/2 of it.
    restored: bool,
    is_grpc: bool,
}

impl Leg<'_> {
    async fn run(&self, request: Request<Incoming>) -> Result<Response<Body>, NotDelivered> {
        let place = self.local.place().map_err(NotDelivered::Failed)?;
        if wants_upgrade(&request) && self.came_as != Version::HTTP_2 {
            self.upgrade(request, place).await.map_err(NotDelivered::Failed)
        } else {
            self.exchange(request, place).await
        }
    }

    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, Failure> {
        let absolute_form = request.uri().authority().is_some();
        to_http1(&mut request, &self.local.authority, absolute_form);
        let held = (place, self.sender.place.clone());
        let upgraded = upgrade::deliver(&self.local.pool, request, self.sender.drain, held).await?;
        self.series.record(upgraded.status().as_u16(), None, self.started.elapsed());
        Ok(upgraded)
    }

    async fn exchange(
        &self,
        request: Request<Incoming>,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, NotDelivered> {
        let (request, session) = self.for_application(request);
        let sent = self.local.pool.send(request, session).await;
        let Answered { mut response, lease, .. } =
            sent.map_err(|error| not_delivered(error, self.sender, self.came_as))?;
        self.for_sender(&mut response);
        let mut track = Track::new(self.started, response.status().as_u16(), self.is_grpc);
        track.grpc_status = grpc_status(response.headers());
        track.series = Some(self.series.clone());
        track.permit = Some(place);
        track.lease = Some(lease);
        Ok(response.map(|body| Body::tracked(body, track, None)))
    }

    /// The request as the application takes it: as its client wrote it.
    fn for_application(&self, mut request: Request<Incoming>) -> (Request<Body>, SessionProtocol) {
        strip_hop_by_hop(request.headers_mut());
        if request.version() == Version::HTTP_2 {
            return (request.map(Body::incoming), SessionProtocol::Http2);
        }
        let absolute_form = request.uri().authority().is_some();
        to_http1(&mut request, &self.local.authority, absolute_form);
        say_chunked(&mut request);
        (request.map(Body::incoming), SessionProtocol::Http1)
    }

    /// The response as the sender takes it. The application cannot speak as a sidecar.
    fn for_sender(&self, response: &mut Response<Incoming>) {
        let to = if self.restored { response.version() } else { self.came_as };
        untag_response(response, to);
        if self.restored {
            tag_response(response);
        }
    }
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
