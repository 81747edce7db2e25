//! client: the connections to one endpoint, made when needed, kept while useful.
//!
//! HTTP/2 connections are shared by many requests; another one opens when all streams of those that
//! are open are taken. HTTP/1 connections carry one request at a time; the one used last is used
//! next, so that what is not needed falls idle and is closed ([`limits::POOL_IDLE`]). One connect
//! at a time is on its way for HTTP/2: whoever needs the same waits for it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use policy::endpoint::Endpoint;
use policy::limits;
use tokio::time::Instant;
use transport::connect::{ConnectError, connect};
use transport::errors::chain;
use transport::header::SessionProtocol;
use transport::io::Io;
use transport::tls::Tls;

use crate::body::Body;
use crate::outcome::{Fate, fate};
use crate::unread::{Watched, Wire};

/// The connections to one endpoint.
pub(crate) struct Pool {
    pub(crate) endpoint: Endpoint,
    tls: Tls,
    http1: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<Shared>>,
    connecting: Arc<tokio::sync::Mutex<LastFailure>>,
}

/// When connecting last failed, and how: whoever waited for that very connect shares its end.
#[derive(Default)]
struct LastFailure(Option<(Instant, &'static str, String)>);

struct Idle {
    connection: Http1,
    since: Instant,
}

/// An HTTP/1 connection between two requests.
pub(crate) struct Http1 {
    sender: http1::SendRequest<Body>,
    wire: Arc<Wire>,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Body>,
    streams: Arc<AtomicU32>,
    used_at: Arc<Mutex<Instant>>,
}

/// A connection in use by one request.
pub(crate) enum Lease {
    Http1(Arc<Pool>, Http1),
    Http2(Stream),
}

/// One stream of a shared connection.
pub(crate) struct Stream(Arc<AtomicU32>, Arc<Mutex<Instant>>);

/// A response that has begun.
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
    /// When its request had a connection: what came before says nothing of the endpoint's load.
    pub(crate) sent_at: Instant,
}

/// Why a request has no response.
pub(crate) enum SendError {
    /// There was no connection.
    NotConnected { token: &'static str, reason: String },
    /// It went out, and its connection or stream ended.
    Broken { fate: Fate, error: hyper::Error },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint, tls: Tls) -> Self {
        Self { endpoint, tls, http1: Mutex::default(), http2: Mutex::default(), connecting: Arc::default() }
    }

    /// Sends a request that is fit for `session`.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<Body>,
        session: SessionProtocol,
    ) -> Result<Answered, SendError> {
        match session {
            SessionProtocol::Http1 => self.send_http1(request).await,
            SessionProtocol::Http2 => self.send_http2(request).await,
        }
    }

    async fn send_http1(self: &Arc<Self>, mut request: Request<Body>) -> Result<Answered, SendError> {
        loop {
            let (mut connection, reused) = match self.take_idle() {
                Some(connection) => (connection, true),
                None => match self.connect_http1().await {
                    Ok(connection) => (connection, false),
                    Err(error) => return Err(not_connected(&error)),
                },
            };
            let (before, sent_at) = (connection.wire.written(), Instant::now());
            let mut failed = match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(Answered { response, lease: Lease::Http1(self.clone(), connection), sent_at });
                }
                Err(failed) => failed,
            };
            match failed.take_message() {
                // The connection had ended before anything was written.
                Some(unsent) if reused => request = unsent,
                Some(_) => {
                    return Err(SendError::Broken { fate: Fate::Unprocessed, error: failed.into_error() });
                }
                None => {
                    let unread = connection.wire.is_unread_since(before);
                    let fate = if unread { Fate::Unprocessed } else { Fate::Unknown };
                    return Err(SendError::Broken { fate, error: failed.into_error() });
                }
            }
        }
    }

    /// The connection used last, if it is free.
    fn take_idle(&self) -> Option<Http1> {
        let mut idle = lock(&self.http1);
        let usable = |idle: &Idle| idle.connection.sender.is_ready() || idle.connection.sender.is_closed();
        while let Some(at) = idle.iter().rposition(usable) {
            let taken = idle.remove(at).connection;
            if !taken.sender.is_closed() {
                return Some(taken);
            }
        }
        None
    }

    fn give_back(&self, connection: Http1) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = lock(&self.http1);
        if idle.len() >= limits::POOL_IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { connection, since: Instant::now() });
    }

    async fn connect_http1(&self) -> Result<Http1, ConnectFailure> {
        let (io, wire) = Watched::new(self.open(Some(SessionProtocol::Http1)).await?);
        let handshake = http1::Builder::new()
            .max_headers(limits::HEADER_COUNT_MAX)
            .max_buf_size(limits::HTTP1_BUFFER_BYTES)
            .handshake(io);
        let (sender, connection) = handshake.await.map_err(ConnectFailure::Handshake)?;
        tokio::spawn(connection.with_upgrades());
        Ok(Http1 { sender, wire })
    }

    async fn send_http2(self: &Arc<Self>, mut request: Request<Body>) -> Result<Answered, SendError> {
        let mut tries = 0;
        loop {
            let mut shared = match self.shared().await {
                Ok(shared) => shared,
                Err(error) => return Err(not_connected(&error)),
            };
            let (stream, sent_at) = (Stream::new(&shared), Instant::now());
            let mut failed = match shared.sender.try_send_request(request).await {
                Ok(response) => return Ok(Answered { response, lease: Lease::Http2(stream), sent_at }),
                Err(failed) => failed,
            };
            tries += 1;
            match failed.take_message() {
                Some(unsent) if tries <= limits::POOL_HTTP2_CONNECTIONS_MAX => {
                    lock(&self.http2).retain(|open| !Arc::ptr_eq(&open.streams, &shared.streams));
                    request = unsent;
                }
                Some(_) => {
                    return Err(SendError::Broken { fate: Fate::Unprocessed, error: failed.into_error() });
                }
                None => {
                    let fate = fate(failed.error());
                    return Err(SendError::Broken { fate, error: failed.into_error() });
                }
            }
        }
    }

    /// An open connection with a free stream, or the least used one when there may be no more.
    fn find_shared(&self) -> Option<Shared> {
        let mut open = lock(&self.http2);
        if open.iter().any(|shared| shared.sender.is_closed()) {
            open.retain(|shared| !shared.sender.is_closed());
        }
        let least = open.iter().min_by_key(|shared| shared.streams.load(Ordering::Relaxed))?;
        let full = least.streams.load(Ordering::Relaxed) >= limits::POOL_HTTP2_STREAMS;
        if full && open.len() < limits::POOL_HTTP2_CONNECTIONS_MAX { None } else { Some(least.clone()) }
    }

    async fn shared(self: &Arc<Self>) -> Result<Shared, ConnectFailure> {
        if let Some(shared) = self.find_shared() {
            return Ok(shared);
        }
        let asked = Instant::now();
        let mut last = self.connecting.clone().lock_owned().await;
        if let Some(shared) = self.find_shared() {
            return Ok(shared);
        }
        if let Some((at, token, reason)) = &last.0
            && *at >= asked
        {
            return Err(ConnectFailure::Shared(token, reason.clone()));
        }
        // A task of its own: whoever waits may be given up, others need the connection all the same.
        let pool = self.clone();
        let connecting = tokio::spawn(async move {
            let connected = pool.connect_http2().await;
            match &connected {
                Ok(shared) => {
                    last.0 = None;
                    lock(&pool.http2).push(shared.clone());
                }
                Err(error) => last.0 = Some((Instant::now(), error.token(), error.reason())),
            }
            connected
        });
        let ended = |_| ConnectFailure::Shared("connection_terminated", "the worker is ending".to_owned());
        connecting.await.map_err(ended)?
    }

    async fn connect_http2(&self) -> Result<Shared, ConnectFailure> {
        let io = self.open(Some(SessionProtocol::Http2)).await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .max_header_list_size(u32::try_from(limits::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
            .max_send_buf_size(limits::STREAM_SEND_BUFFER_BYTES)
            .handshake(TokioIo::new(io));
        let (sender, connection) = handshake.await.map_err(ConnectFailure::Handshake)?;
        tokio::spawn(connection);
        let used_at = Arc::new(Mutex::new(Instant::now()));
        Ok(Shared { sender, streams: Arc::new(AtomicU32::new(0)), used_at })
    }

    /// A connection of its own, for `session` or for bytes.
    pub(crate) async fn open(&self, session: Option<SessionProtocol>) -> Result<Io, ConnectFailure> {
        connect(&self.endpoint, session, &self.tls).await.map_err(ConnectFailure::Connect)
    }

    /// Closes connections that nobody has used for [`limits::POOL_IDLE`]; says whether any is left.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut idle = lock(&self.http1);
        idle.retain(|idle| {
            !idle.connection.sender.is_closed()
                && now.saturating_duration_since(idle.since) < limits::POOL_IDLE
        });
        let mut open = lock(&self.http2);
        open.retain(|shared| {
            let quiet = now.saturating_duration_since(*lock(&shared.used_at)) >= limits::POOL_IDLE;
            let unused = quiet && shared.streams.load(Ordering::Relaxed) == 0;
            !shared.sender.is_closed() && !unused
        });
        !idle.is_empty() || !open.is_empty()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the peer did not begin an HTTP session")]
    Handshake(#[source] hyper::Error),
    #[error("{1}")]
    Shared(&'static str, String),
}

impl ConnectFailure {
    pub(crate) fn token(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.token(),
            Self::Handshake(_) => "http_protocol_error",
            Self::Shared(token, _) => token,
        }
    }

    /// The whole chain in one line.
    pub(crate) fn reason(&self) -> String {
        chain(self)
    }
}

fn not_connected(error: &ConnectFailure) -> SendError {
    SendError::NotConnected { token: error.token(), reason: error.reason() }
}

impl Stream {
    fn new(shared: &Shared) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        Self(shared.streams.clone(), shared.used_at.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.1) = Instant::now();
    }
}

impl Lease {
    /// The response ended as it should: the connection can be used again.
    pub(crate) fn give_back(self) {
        match self {
            Self::Http1(pool, connection) => pool.give_back(connection),
            Self::Http2(stream) => drop(stream),
        }
    }
}
