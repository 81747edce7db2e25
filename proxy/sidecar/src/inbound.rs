//! inbound: the way of a connection to the workload beside the proxy.
//!
//! **accept → detect → authorise → deliver.** A connection comes redirected, to an address of the
//! application, or directly to this proxy's own port, from another sidecar. There it must be TLS
//! for this workload and begin with a header that names the application's port, so that the port is
//! no open relay. TLS that asks for anybody else is the application's own and passes as bytes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use policy::limits;
use policy::snapshot::{Inbound as InboundPolicy, Protocol, Snapshot};
use prometheus_client::metrics::counter::Counter;
use request::backend::Shared;
use request::body::Body;
use request::deliver::{LocalClient, NotDelivered, Sender, deliver};
use request::drain::Drain;
use request::metrics::Direction;
use request::outcome::{Cause, Failure, is_grpc};
use request::server::{HttpVersion, Reset, serve};
use tokio::sync::{OwnedSemaphorePermit, watch};
use transport::connect::dial;
use transport::detect::Detected;
use transport::header::{SessionProtocol, TransportHeader};
use transport::io::Io;
use transport::listen::Accepted;
use transport::tls::Tls;

use crate::authorize::{Defaults, Peer, authorize, is_probe};
use crate::carry::{Carrier, Held};
use crate::first_word::{FirstWord, first_word, first_word_after};
use crate::messages::{self, Asker, Messages};
use crate::observe::SharedObserver;
use crate::refused::Refused;
use crate::telemetry::{Metrics, PeerLabels};

/// What all incoming connections of a worker share.
pub(crate) struct Inbound {
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) tls: Tls,
    pub(crate) shared: Shared,
    pub(crate) drain: Drain,
    pub(crate) carrier: Carrier,
    pub(crate) metrics: Metrics,
    pub(crate) observer: SharedObserver,
    pub(crate) defaults: Defaults,
    /// Where the application is, when it is not where the client asked.
    pub(crate) application: Option<IpAddr>,
    /// Ports of this proxy, which nobody reaches through it.
    pub(crate) own_ports: Vec<u16>,
    pub(crate) locals: Mutex<HashMap<SocketAddr, Arc<LocalClient>>>,
    /// Answers replicas of the workload for messages kept here.
    pub(crate) messages: Arc<Messages>,
}

/// One connection whose sender is known.
struct Caller {
    peer: Peer,
    application: SocketAddr,
    client_id: Option<HeaderValue>,
    client: Option<String>,
    /// Counts its requests that were let in.
    requests: OnceLock<Counter>,
    /// Its place among the connections, kept also by what it is upgraded to.
    place: Arc<OwnedSemaphorePermit>,
}

impl Caller {
    fn labels(&self) -> PeerLabels {
        PeerLabels {
            client: self.client.clone().unwrap_or_default(),
            tls: if self.peer.tls { "true" } else { "false" },
            port: self.application.port(),
        }
    }
}

impl Inbound {
    /// Serves one connection to its end.
    pub(crate) async fn connection(self: Arc<Self>, accepted: Accepted) {
        let (address, place) = (accepted.peer, Arc::new(accepted.permit));
        let served = match accepted.original_dst {
            Some(dst) => self.clone().redirected(accepted.io, address, dst, place).await,
            None => self.clone().direct(accepted.io, address, accepted.local, place).await,
        };
        if let Err((io, refused)) = served {
            self.shared.metrics().error(Direction::inbound, refused.token());
            let source = std::error::Error::source(&refused).map(ToString::to_string);
            tracing::debug!(%address, reason = %refused, source, "an incoming connection is refused");
            if let Some(io) = io {
                io.abort();
            }
        }
    }

    /// To the proxy's own port, from another sidecar.
    async fn direct(
        self: Arc<Self>,
        mut io: Io,
        address: SocketAddr,
        local: SocketAddr,
        place: Arc<OwnedSemaphorePermit>,
    ) -> Result<(), (Option<Io>, Refused)> {
        let hello = match self.hear(&mut io).await? {
            FirstWord::Client(Detected::Tls(hello), _) => hello,
            FirstWord::Nobody => return Ok(()),
            _ => return Err((Some(io), Refused::NotForUs)),
        };
        if !self.tls.is_meant(&hello) {
            return Err((Some(io), Refused::NotForUs));
        }
        let tls = self.tls.accept(io).await.map_err(|error| (None, Refused::Tls(error)))?;
        let (mut io, peer) = (tls.io, tls.peer);
        if !tls.has_header {
            return Err((Some(io), Refused::NotForUs));
        }
        let read = tokio::time::timeout(limits::HEADER_TIMEOUT, TransportHeader::read(&mut io)).await;
        let header = match read {
            Ok(Ok(header)) => header,
            Ok(Err(error)) => return Err((Some(io), Refused::Header(error))),
            Err(_) => return Err((Some(io), Refused::Silent)),
        };
        if header.name.is_some() {
            return Err((Some(io), Refused::Gateway));
        }
        if self.own_ports.contains(&header.port) {
            return Err((Some(io), Refused::OwnPort(header.port)));
        }
        let peer = Peer { identity: peer, address: address.ip(), tls: true };
        let caller = self.caller(peer, SocketAddr::new(local.ip(), header.port), place);
        match header.session {
            Some(SessionProtocol::Http1) => self.http(io, HttpVersion::Http1, caller).await,
            Some(SessionProtocol::Http2) => self.http(io, HttpVersion::Http2, caller).await,
            None => self.unannounced(io, caller).await,
        }
    }

    /// A session that the other sidecar does not name: bytes of a protocol that the port is said to
    /// speak, or whatever either side begins with. HTTP among it is HTTP here too.
    async fn unannounced(self: Arc<Self>, mut io: Io, caller: Caller) -> Result<(), (Option<Io>, Refused)> {
        if let Err(refused) = self.authorize(&caller) {
            return Err((Some(io), refused));
        }
        if self.is_opaque(&caller) {
            return self.bytes(io, &caller, None).await;
        }
        // The other sidecar has waited for its client already.
        match first_word_after(&mut io, limits::DETECT_SILENCE, || dial(caller.application)).await {
            Ok(word) => self.heard(io, word, caller).await,
            Err(error) => Err((Some(io), Refused::FirstWord(error))),
        }
    }

    /// To an address of the application.
    async fn redirected(
        self: Arc<Self>,
        mut io: Io,
        address: SocketAddr,
        dst: SocketAddr,
        place: Arc<OwnedSemaphorePermit>,
    ) -> Result<(), (Option<Io>, Refused)> {
        if self.own_ports.contains(&dst.port()) {
            return Err((Some(io), Refused::OwnPort(dst.port())));
        }
        let plain =
            self.caller(Peer { identity: None, address: address.ip(), tls: false }, dst, place.clone());
        let word = match self.word(&mut io, &plain).await {
            Ok(word) => word,
            Err(refused) => return Err((Some(io), refused)),
        };
        match word {
            FirstWord::Client(Detected::Tls(hello), ahead) if self.tls.is_meant(&hello) => {
                drop(ahead);
                let tls = self.tls.accept(io).await.map_err(|error| (None, Refused::Tls(error)))?;
                let mut io = tls.io;
                let peer = Peer { identity: tls.peer, address: address.ip(), tls: true };
                let caller = self.caller(peer, dst, place);
                if self.is_carried(&caller) {
                    return self.bytes(io, &caller, None).await;
                }
                match self.word(&mut io, &caller).await {
                    Ok(word) => self.heard(io, word, caller).await,
                    Err(refused) => Err((Some(io), refused)),
                }
            }
            // It had to be told only whether it is TLS for us.
            FirstWord::Client(_, server) if self.is_carried(&plain) => self.bytes(io, &plain, server).await,
            word => self.heard(io, word, plain).await,
        }
    }

    /// The first word of a connection to the application. Whoever may not speak as it is may still
    /// begin TLS, or be told why in HTTP; the application hears nothing of it until then.
    async fn word(&self, io: &mut Io, caller: &Caller) -> Result<FirstWord, Refused> {
        if self.authorize(caller).is_err() {
            return self.hear(io).await.map_err(|(_, refused)| refused);
        }
        first_word(io, || dial(caller.application)).await.map_err(Refused::FirstWord)
    }

    async fn heard(
        self: Arc<Self>,
        io: Io,
        word: FirstWord,
        caller: Caller,
    ) -> Result<(), (Option<Io>, Refused)> {
        match word {
            // What was dialled ahead is not needed: requests have connections of their own.
            FirstWord::Client(Detected::Http1, ahead) => {
                drop(ahead);
                self.http(io, HttpVersion::Http1, caller).await
            }
            FirstWord::Client(Detected::Http2, ahead) => {
                drop(ahead);
                self.http(io, HttpVersion::Http2, caller).await
            }
            FirstWord::Client(_, server) => self.bytes(io, &caller, server).await,
            FirstWord::Server(server) => self.bytes(io, &caller, Some(server)).await,
            FirstWord::Nobody => Ok(()),
        }
    }

    /// The client's first word; the application is not dialled for it.
    async fn hear(&self, io: &mut Io) -> Result<FirstWord, (Option<Io>, Refused)> {
        let word = first_word(io, std::future::pending::<Result<Io, Failure>>);
        match tokio::time::timeout(limits::DETECT_TIMEOUT, word).await {
            Ok(Ok(word)) => Ok(word),
            Ok(Err(error)) => Err((None, Refused::FirstWord(error))),
            Err(_) => Err((None, Refused::Silent)),
        }
    }

    fn caller(&self, peer: Peer, dst: SocketAddr, place: Arc<OwnedSemaphorePermit>) -> Caller {
        let application = SocketAddr::new(self.application.unwrap_or(dst.ip()), dst.port());
        let client = peer.identity.as_ref().map(ToString::to_string);
        let client_id = peer.identity.as_ref().and_then(|id| HeaderValue::try_from(id.dns_name()).ok());
        Caller { peer, application, client_id, client, requests: OnceLock::new(), place }
    }

    fn policy(&self) -> Option<Arc<InboundPolicy>> {
        self.snapshot.borrow().inbound.clone()
    }

    /// Whether the port is said to speak what is carried as bytes, whatever it looks like.
    fn is_opaque(&self, caller: &Caller) -> bool {
        let port = caller.application.port();
        self.policy()
            .is_some_and(|policy| matches!(policy.port(port).protocol, Protocol::Opaque | Protocol::Tls))
    }

    /// Bytes from the first on: nothing can be told there, so only who may come in is carried.
    fn is_carried(&self, caller: &Caller) -> bool {
        self.is_opaque(caller) && self.authorize(caller).is_ok()
    }

    /// Whether the connection, as it is, may reach its port.
    fn authorize(&self, caller: &Caller) -> Result<(), Refused> {
        let policy = self.policy().ok_or(Refused::NoPolicy)?;
        authorize(policy.port(caller.application.port()), self.defaults, &caller.peer)
            .map_err(Refused::Denied)
    }

    async fn bytes(&self, io: Io, caller: &Caller, server: Option<Io>) -> Result<(), (Option<Io>, Refused)> {
        let port = caller.application.port();
        if let Err(refused) = self.authorize(caller) {
            return Err((Some(io), refused));
        }
        let is_http = self
            .policy()
            .is_some_and(|policy| matches!(policy.port(port).protocol, Protocol::Http | Protocol::Http2));
        if is_http {
            return Err((Some(io), Refused::NotHttp(port)));
        }
        let server = match server {
            Some(server) => server,
            None => match dial(caller.application).await {
                Ok(server) => server,
                Err(error) => return Err((Some(io), Refused::Application(error))),
            },
        };
        let label = format!("port {port}");
        self.carrier.carry(io, server, Direction::inbound, label, Held::nothing()).await;
        Ok(())
    }

    async fn http(
        self: Arc<Self>,
        io: Io,
        version: HttpVersion,
        caller: Caller,
    ) -> Result<(), (Option<Io>, Refused)> {
        let (inbound, caller) = (self.clone(), Arc::new(caller));
        let local = self.local(caller.application);
        let handler = move |request: Request<Incoming>| {
            let (inbound, caller, local) = (inbound.clone(), caller.clone(), local.clone());
            async move { inbound.request(request, &caller, &local).await }
        };
        if let Err(error) = serve(io, version, &self.drain, handler).await
            && let Some(token) = error.token()
        {
            self.shared.metrics().error(Direction::inbound, token);
            tracing::debug!(%error, "an incoming connection ended");
        }
        Ok(())
    }

    async fn request(
        &self,
        mut request: Request<Incoming>,
        caller: &Caller,
        local: &LocalClient,
    ) -> Result<Response<Body>, Reset> {
        let observation = self.observer.begin(Direction::inbound, caller.client.as_deref(), &mut request);
        let is_grpc = is_grpc(request.headers());
        let mut response = match self.answer(request, caller, local).await {
            Ok(response) => response,
            Err(NotDelivered::Refused(refusal)) => {
                self.shared.metrics().error(Direction::inbound, "http_request_refused");
                return Err(refusal.into());
            }
            Err(NotDelivered::Failed(failure)) => {
                self.shared.metrics().error(Direction::inbound, failure.cause.token());
                tracing::debug!(token = failure.cause.token(), details = %failure.details, "a request failed");
                failure.into_response(is_grpc)
            }
        };
        if let Some(observation) = observation {
            observation.end(&mut response);
        }
        Ok(response)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        local: &LocalClient,
    ) -> Result<Response<Body>, NotDelivered> {
        if messages::is_reserved(request.uri().path()) && caller.peer.tls {
            let asker = Asker::Peer(caller.client.clone());
            return Ok(self.messages.answer(request, &asker).await);
        }
        let failed = |cause, details: String| NotDelivered::Failed(Failure::new(cause, details));
        let policy = self.policy().ok_or_else(|| failed(Cause::NotReady, Refused::NoPolicy.to_string()))?;
        let port = policy.port(caller.application.port());
        if !is_probe(port, &request) {
            authorize(port, self.defaults, &caller.peer)
                .map_err(|denied| failed(Cause::Denied, denied.to_string()))?;
        }
        caller.requests.get_or_init(|| self.metrics.peer(caller.labels())).inc();
        let sender = Sender {
            client_id: caller.client_id.as_ref(),
            meshed: caller.peer.tls,
            drain: &self.drain,
            place: &caller.place,
        };
        deliver(local, request, &sender, &self.shared).await
    }

    /// The application at an address; made when it is first asked for.
    fn local(&self, address: SocketAddr) -> Arc<LocalClient> {
        let mut locals = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        locals.entry(address).or_insert_with(|| Arc::new(LocalClient::new(address, &self.shared))).clone()
    }

    /// Closes idle connections to the application, and forgets ports nobody uses.
    pub(crate) fn sweep(&self) {
        let mut locals = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        locals.retain(|_, local| local.sweep() || Arc::strong_count(local) > 1);
    }
}
