//! outbound: the way of a connection that the workload opens.
//!
//! **accept → detect →** and then, for HTTP, request by request **route → balance → connect →
//! outcome** in [`request::forward`]; anything else is carried as bytes. A redirected connection
//! says by its original address where it wants to go; one that was opened to this proxy says it in
//! each request, by an absolute URI or `Host`.

mod passing;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use policy::limits;
use policy::name::{Domain, Label, ServicePort};
use policy::snapshot::{DestinationKey, Protocol};
use request::backend::{OpenStream, Shared};
use request::body::{Body, Received};
use request::deliver::authority_of;
use request::drain::Drain;
use request::metrics::Direction;
use request::outcome::{Cause, Failure, is_grpc};
use request::server::{HttpVersion, Reset, serve};
use transport::detect::Detected;
use transport::io::Io;
use transport::listen::Accepted;

use crate::admit::{Admit, Going, Proxy};
use crate::authority::{self, External, Meant};
use crate::carry::{Carrier, Held};
use crate::discovery::{Cell, Discovery, Reached, Unreachable};
use crate::first_word::{FirstWord, FirstWordError, first_word, first_word_after};
use crate::messages::{self, Messages};
use crate::observe::SharedObserver;

use passing::Passing;

/// What all outgoing connections of a worker share.
pub(crate) struct Outbound {
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) shared: Shared,
    pub(crate) drain: Drain,
    pub(crate) carrier: Carrier,
    pub(crate) observer: SharedObserver,
    pub(crate) namespace: Label,
    /// Until the controller has named the cluster's own.
    pub(crate) cluster_domain: Domain,
    /// Our own addresses: nothing is sent there.
    pub(crate) own: Vec<SocketAddr>,
    /// Takes in what a policy lets be asynchronous.
    pub(crate) admit: Arc<Admit>,
    /// Answers for what was taken in.
    pub(crate) messages: Arc<Messages>,
}

/// Closes what was dialled ahead: requests have connections of their own.
fn not_needed(ahead: Option<Io>, version: HttpVersion) -> HttpVersion {
    drop(ahead);
    version
}

/// Whether a port is said to speak HTTP and nothing else.
fn is_http_alone(cell: &Cell) -> bool {
    let now = cell.now();
    matches!(&*now, Ok(reached) if matches!(reached.protocol, Protocol::Http | Protocol::Http2))
}

/// One HTTP connection of the workload.
struct Session {
    outbound: Arc<Outbound>,
    /// Where it goes, when it was redirected.
    redirected: Option<(Authority, Arc<Cell>)>,
    /// Where its last request went, when it was not.
    last: Mutex<Option<(Authority, Arc<Cell>)>>,
}

impl Outbound {
    /// Serves one connection to its end.
    pub(crate) async fn connection(self: Arc<Self>, accepted: Accepted) {
        let _place = accepted.permit;
        match accepted.original_dst {
            Some(address) => self.redirected(accepted.io, address).await,
            None => self.proxied(accepted.io).await,
        }
    }

    async fn redirected(self: Arc<Self>, mut io: Io, address: SocketAddr) {
        let key = DestinationKey::Address(address);
        let since = Instant::now();
        let cell = match self.find(&key).await {
            Ok(cell) => cell,
            Err(unreachable) => return self.refuse(io, &unreachable).await,
        };
        let reached = match &*cell.now() {
            Ok(reached) => reached.clone(),
            Err(unreachable) => return self.refuse(io, unreachable).await,
        };
        let protocol = if cell.is_server_first() { Protocol::Opaque } else { reached.protocol };
        let is_first = match protocol {
            Protocol::Opaque | Protocol::Tls => return self.carry(io, &cell, None).await,
            // The client speaks first in HTTP: nobody needs to be dialled to know.
            Protocol::Http | Protocol::Http2 => {
                first_word(&mut io, std::future::pending::<Result<Io, Failure>>).await
            }
            Protocol::Detect => {
                let stream = Mutex::new(None);
                let dial = || async {
                    let (io, held) = reached.target.backend()?.open().await?;
                    *stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
                    Ok::<_, Failure>(io)
                };
                // While the controller was asked, the client could speak.
                let word = first_word_after(&mut io, since.elapsed(), dial).await;
                let held = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
                return self.heard(io, cell, address, word, held).await;
            }
        };
        self.heard(io, cell, address, is_first, None).await;
    }

    /// Goes on after the first word.
    async fn heard(
        self: Arc<Self>,
        io: Io,
        cell: Arc<Cell>,
        address: SocketAddr,
        word: Result<FirstWord, FirstWordError>,
        held: Option<OpenStream>,
    ) {
        let version = match word {
            Ok(FirstWord::Client(Detected::Http1, ahead)) => not_needed(ahead, HttpVersion::Http1),
            Ok(FirstWord::Client(Detected::Http2, ahead)) => not_needed(ahead, HttpVersion::Http2),
            Ok(FirstWord::Client(_, server)) => {
                if is_http_alone(&cell) {
                    self.shared.metrics().error(Direction::outbound, "http_protocol_error");
                    tracing::debug!(%address, "bytes that are not HTTP are refused on a port that is said to be");
                    return io.abort();
                }
                return self.carry(io, &cell, server.zip(held)).await;
            }
            Ok(FirstWord::Server(server)) => {
                cell.remember_server_first();
                return self.carry(io, &cell, Some(server).zip(held)).await;
            }
            Ok(FirstWord::Nobody) => return,
            Err(error) => {
                self.shared.metrics().error(Direction::outbound, "connection_read_timeout");
                return tracing::debug!(%address, %error, "a connection of the workload is given up");
            }
        };
        drop(held);
        let redirected = Some((authority_of(address), cell));
        self.http(io, version, redirected).await;
    }

    /// A connection to the proxy itself: HTTP that says where it goes.
    async fn proxied(self: Arc<Self>, mut io: Io) {
        let word = first_word(&mut io, std::future::pending::<Result<Io, Failure>>);
        match tokio::time::timeout(limits::HEADER_TIMEOUT, word).await {
            Ok(Ok(FirstWord::Client(Detected::Http1, _))) => self.http(io, HttpVersion::Http1, None).await,
            Ok(Ok(FirstWord::Client(Detected::Http2, _))) => self.http(io, HttpVersion::Http2, None).await,
            Ok(Ok(FirstWord::Nobody)) => {}
            word => {
                let is_late = matches!(word, Err(_) | Ok(Err(FirstWordError::Stalled)));
                let token = if is_late { "http_request_timeout" } else { "http_request_error" };
                self.shared.metrics().error(Direction::outbound, token);
                io.abort();
            }
        }
    }

    /// Says to a client of HTTP why its destination is not reached, and resets any other.
    async fn refuse(self: Arc<Self>, mut io: Io, unreachable: &Unreachable) {
        let failure = Failure::from(unreachable);
        tracing::debug!(cause = %unreachable, "a connection of the workload is refused");
        let word = first_word(&mut io, std::future::pending::<Result<Io, Failure>>);
        let version = match tokio::time::timeout(limits::DESTINATION_WAIT, word).await {
            Ok(Ok(FirstWord::Client(Detected::Http1, _))) => HttpVersion::Http1,
            Ok(Ok(FirstWord::Client(Detected::Http2, _))) => HttpVersion::Http2,
            _ => {
                self.shared.metrics().error(Direction::outbound, failure.cause.token());
                return io.abort();
            }
        };
        let outbound = self.clone();
        let handler = move |request: Request<Incoming>| {
            let failure = failure.clone();
            outbound.shared.metrics().error(Direction::outbound, failure.cause.token());
            async move {
                let mut response = failure.into_response(is_grpc(request.headers()));
                if request.version() != Version::HTTP_2 {
                    let close = http::HeaderValue::from_static("close");
                    response.headers_mut().insert(http::header::CONNECTION, close);
                }
                Ok::<_, Reset>(response)
            }
        };
        let _ = serve(io, version, &self.drain, handler).await;
    }

    async fn carry(&self, io: Io, cell: &Cell, server: Option<(Io, OpenStream)>) {
        let reached = match &*cell.now() {
            Ok(reached) => reached.clone(),
            Err(_) => return io.abort(),
        };
        let backend = match reached.target.backend() {
            Ok(backend) => backend.clone(),
            Err(_) => return io.abort(),
        };
        let opened = match server {
            Some(opened) => Ok(opened),
            None => backend.open().await,
        };
        match opened {
            Ok((server, held)) => {
                let label = reached.label(&backend);
                self.carrier.carry(io, server, Direction::outbound, label, Held::new(held)).await;
            }
            Err(failure) => {
                self.shared.metrics().error(Direction::outbound, failure.cause.token());
                tracing::info!(details = %failure.details, "a connection is not carried");
                io.abort();
            }
        }
    }

    async fn http(self: Arc<Self>, io: Io, version: HttpVersion, redirected: Option<(Authority, Arc<Cell>)>) {
        let session = Arc::new(Session { outbound: self.clone(), redirected, last: Mutex::new(None) });
        let handler = move |request: Request<Incoming>| {
            let session = session.clone();
            async move { Ok::<_, Reset>(session.request(request).await) }
        };
        if let Err(error) = serve(io, version, &self.drain, handler).await
            && let Some(token) = error.token()
        {
            self.shared.metrics().error(Direction::outbound, token);
            tracing::debug!(%error, "a connection of the workload ended");
        }
    }

    pub(crate) async fn find(&self, key: &DestinationKey) -> Result<Arc<Cell>, Unreachable> {
        if let DestinationKey::Address(address) = key
            && self.own.contains(address)
        {
            return Err(Unreachable::Unknown(format!("{address} is this proxy itself")));
        }
        let cell = self.discovery.find(key).await?;
        let name = match &*cell.now() {
            Err(Unreachable::ExternalName(name)) => Some(name.clone()),
            _ => None,
        };
        match name {
            Some(name) => self.discovery.find_name(&name).await,
            None => Ok(cell),
        }
    }

    /// The destination that a request names.
    pub(crate) async fn find_named(
        &self,
        named: &Authority,
        default_port: u16,
    ) -> Result<Arc<Cell>, Failure> {
        let wrong = |error: authority::NotAnAuthority| Failure::new(Cause::BadRequest, error.to_string());
        let mesh = self.discovery.snapshot().mesh.clone();
        let domain = mesh.as_ref().map_or(&self.cluster_domain, |mesh| &mesh.cluster_domain);
        let meant = authority::read(named, default_port, &self.namespace, domain).map_err(wrong)?;
        let found = match meant {
            Meant::Destination(key) => self.find(&key).await,
            Meant::External(name) => self.discovery.find_name(&name).await,
            Meant::ServiceOr(service, name) => self.find_either(service, &name).await,
        };
        found.map_err(|unreachable| Failure::from(&unreachable))
    }
}

impl Outbound {
    /// A Service where there is one of that name, otherwise a name of the world.
    async fn find_either(&self, service: ServicePort, name: &External) -> Result<Arc<Cell>, Unreachable> {
        let cell = self.find(&DestinationKey::Service(service)).await?;
        let no_service = match &*cell.now() {
            Err(Unreachable::Unknown(cause)) => cause.clone(),
            _ => return Ok(cell),
        };
        match self.discovery.find_name(name).await {
            Err(Unreachable::NoAddress(no_name)) => {
                Err(Unreachable::Unknown(format!("{no_service}, and as a host name {no_name}")))
            }
            found => found,
        }
    }
}

impl Session {
    async fn request(&self, mut request: Request<Incoming>) -> Response<Body> {
        let observation = self.outbound.observer.begin(Direction::outbound, None, &mut request);
        let is_grpc = is_grpc(request.headers());
        let mut response = match self.answer(request).await {
            Ok(response) => response,
            Err(failure) => {
                self.outbound.shared.metrics().error(Direction::outbound, failure.cause.token());
                tracing::debug!(token = failure.cause.token(), details = %failure.details, "a request failed");
                failure.into_response(is_grpc)
            }
        };
        if let Some(observation) = observation {
            observation.end(&mut response);
        }
        response
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        if messages::is_reserved(request.uri().path()) {
            return Box::pin(self.outbound.reserved(request)).await;
        }
        let (authority, cell) = self.destination(&request).await?;
        let now = cell.now();
        let reached = now.as_ref().as_ref().map_err(Failure::from)?;
        if request.method() == Method::CONNECT && self.redirected.is_none() {
            return self.tunnel(request, reached).await;
        }
        let passing = Passing {
            outbound: &self.outbound,
            authority: &authority,
            reached,
            redirected: self.redirected.is_some(),
        };
        let (parts, body) = request.into_parts();
        match reached.target.asynchronous(&parts) {
            None => passing.forward(Request::from_parts(parts, Received::from(body))).await,
            Some(policy) => {
                let destination = reached.named.to_string().into();
                let going = Going::to(destination, &parts, &authority);
                let request = Request::from_parts(parts, body);
                Box::pin(self.outbound.admit.request(policy, request, &going, &passing)).await
            }
        }
    }

    async fn destination(&self, request: &Request<Incoming>) -> Result<(Authority, Arc<Cell>), Failure> {
        if let Some((authority, cell)) = &self.redirected {
            return Ok((authority.clone(), cell.clone()));
        }
        let host = || {
            let host = request.headers().get(http::header::HOST)?;
            Authority::try_from(host.as_bytes()).ok()
        };
        let named = request.uri().authority().cloned().or_else(host).ok_or_else(|| {
            let details = "a request to the proxy itself must say where it goes: a Host or an absolute URI";
            Failure::new(Cause::BadRequest, details)
        })?;
        if let Some((last, cell)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && *last == named
        {
            return Ok((named, cell.clone()));
        }
        let default_port = if request.method() == Method::CONNECT { 443 } else { 80 };
        let cell = self.outbound.find_named(&named, default_port).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((named.clone(), cell.clone()));
        Ok((named, cell))
    }

    /// CONNECT to the proxy: bytes from here on (RFC 9110 §9.3.6).
    async fn tunnel(
        &self,
        mut request: Request<Incoming>,
        reached: &Reached,
    ) -> Result<Response<Body>, Failure> {
        let backend = reached.target.backend()?.clone();
        let (server, held) = backend.open().await?;
        let near = hyper::upgrade::on(&mut request);
        let (carrier, label) = (self.outbound.carrier.clone(), reached.label(&backend));
        self.outbound.drain.spawn(async move {
            if let Ok(near) = near.await {
                carrier.carry_upgraded(near, server, label, Held::new(held)).await;
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::OK;
        Ok(response)
    }
}
