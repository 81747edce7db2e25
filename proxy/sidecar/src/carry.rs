//! carry: connections that are not HTTP, carried as bytes and counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use policy::limits;
use request::drain::Drain;
use request::metrics::Direction;
use transport::duplex::{Carried, duplex};
use transport::io::Io;

use crate::telemetry::{Metrics, TcpLabels};

/// Carries bytes between two connections.
#[derive(Clone)]
pub(crate) struct Carrier {
    metrics: Metrics,
    drain: Drain,
}

/// What is held while bytes are carried.
pub(crate) struct Held(Option<Box<dyn Send>>);

impl Held {
    pub(crate) fn new(held: impl Send + 'static) -> Self {
        Self(Some(Box::new(held)))
    }

    pub(crate) fn nothing() -> Self {
        Self(None)
    }
}

/// Counted as open until dropped, its bytes added at the end.
struct Open {
    metrics: Metrics,
    labels: TcpLabels,
    carried: Arc<Carried>,
}

impl Open {
    fn new(metrics: &Metrics, direction: Direction, backend: String) -> Self {
        let labels = metrics.tcp_labels(direction, backend);
        metrics.tcp_connections.get_or_create(&labels).inc();
        metrics.tcp_open.get_or_create(&labels).inc();
        Self { metrics: metrics.clone(), labels, carried: Arc::default() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (to_server, to_client) = (&self.carried.to_server, &self.carried.to_client);
        self.metrics.tcp_received.get_or_create(&self.labels).inc_by(to_server.load(Ordering::Relaxed));
        self.metrics.tcp_sent.get_or_create(&self.labels).inc_by(to_client.load(Ordering::Relaxed));
        self.metrics.tcp_open.get_or_create(&self.labels).dec();
    }
}

impl Carrier {
    pub(crate) fn new(metrics: Metrics, drain: Drain) -> Self {
        Self { metrics, drain }
    }

    /// Carries until both sides have ended. A drain leaves it alone until its grace is over: bytes
    /// of a protocol nobody knows cannot be finished politely.
    pub(crate) async fn carry(
        &self,
        client: Io,
        server: Io,
        direction: Direction,
        backend: String,
        held: Held,
    ) {
        let open = Open::new(&self.metrics, direction, backend);
        if let Err(error) = duplex(client, server, &open.carried).await {
            tracing::debug!(%error, draining = self.drain.is_draining(), "a carried connection broke");
        }
        drop(held);
    }

    /// The same for a connection that was HTTP before.
    pub(crate) async fn carry_upgraded(&self, client: Upgraded, mut server: Io, backend: String, held: Held) {
        let open = Open::new(&self.metrics, Direction::outbound, backend);
        let mut client = TokioIo::new(client);
        let size = limits::DUPLEX_BUFFER_BYTES;
        let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, size, size).await;
        if let Ok((to_server, to_client)) = copied {
            open.carried.to_server.store(to_server, Ordering::Relaxed);
            open.carried.to_client.store(to_client, Ordering::Relaxed);
        }
        drop(held.0);
    }
}
