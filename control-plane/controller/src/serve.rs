//! serve: TLS, HTTP/2 and gRPC for proxies.

#[cfg(test)]
mod tests;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use policy::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service as _;
use tonic::service::Routes;

pub(crate) use tls::Tls;

use crate::metrics::Metrics;
use crate::watch::PeerIdentity;

/// Connections at once: one for each `Watch`, and some for those that only want a certificate.
const CONNECTIONS_MAX: usize = limits::WATCHES_MAX + 1000;

/// HTTP/2 streams at once on one connection: a proxy needs one `Watch` and now and then a `Certify`.
const STREAMS_MAX: u32 = 16;

/// Takes connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, tls: Arc<Tls>, routes: Routes, metrics: Arc<Metrics>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tracker = TaskTracker::new();
    let mut pause = limits::ACCEPT_BACKOFF_MIN;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::ACCEPT_BACKOFF_MAX);
                continue;
            }
        };
        pause = limits::ACCEPT_BACKOFF_MIN;
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "as many connections as this controller takes are open: closed");
            continue;
        };
        let connection = Connection { tls: tls.clone(), routes: routes.clone(), metrics: metrics.clone() };
        tracker.spawn(async move {
            connection.run(stream, address).await;
            drop(place);
        });
    }
}

struct Connection {
    tls: Arc<Tls>,
    routes: Routes,
    metrics: Arc<Metrics>,
}

impl Connection {
    async fn run(self, stream: TcpStream, address: SocketAddr) {
        // Answers are small and somebody waits for each.
        let _ = stream.set_nodelay(true);
        let handshake = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, self.tls.acceptor().accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
        };
        let peer = PeerIdentity(tls::peer_identity(stream.get_ref().1));
        let is_anonymous = peer.0.is_none();
        tracing::debug!(%address, identity = ?peer.0, "connected");
        self.metrics.connections.inc();
        let routes = self.routes;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut routes = routes.clone();
            request.extensions_mut().insert(peer.clone());
            async move { Ok::<_, Infallible>(answer(routes.call(request.map(tonic::body::Body::new)).await)) }
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(limits::RESET_STREAMS_MAX)
            .keep_alive_interval(limits::CONTROL_KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let patience = if is_anonymous { ANONYMOUS_LIFETIME } else { Duration::MAX };
        match tokio::time::timeout(patience, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%address, %error, "connection ended"),
            Err(_) => tracing::debug!(%address, "a connection without a certificate has had its time"),
        }
        self.metrics.connections.dec();
    }
}

/// Whoever has no certificate comes for one, and takes no place for longer.
const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(30);

/// A proxy that does not answer a ping this long is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

fn answer<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}
