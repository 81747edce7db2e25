//! listen: accept, bound, back off.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::limits;
use prometheus_client::metrics::counter::Counter;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::io::Io;
use crate::original_dst::original_dst;

/// What a listener counts; the counters are shared with whoever shows them.
#[derive(Debug, Clone, Default)]
pub struct ListenMetrics {
    /// Connections taken in.
    pub accepted: Counter,
    /// Connections closed at once because [`limits::CONNECTIONS_MAX`] were open.
    pub refused: Counter,
    /// Failed accepts, such as when the process ran out of descriptors.
    pub errors: Counter,
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// Where.
    pub address: SocketAddr,
    /// Connections open at once.
    pub connections_max: usize,
    /// Whether other sockets of this process listen there too (SO_REUSEPORT).
    pub reuse_port: bool,
}

/// Takes connections in.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    places: Arc<Semaphore>,
    metrics: ListenMetrics,
}

/// A connection taken in.
#[derive(Debug)]
pub struct Accepted {
    /// Its bytes.
    pub io: Io,
    /// Who dialled.
    pub peer: SocketAddr,
    /// Our own address.
    pub local: SocketAddr,
    /// Where it was meant to go before the kernel redirected it.
    pub original_dst: Option<SocketAddr>,
    /// Its place among [`ListenConfig::connections_max`]; freed when dropped.
    pub permit: OwnedSemaphorePermit,
}

impl Listener {
    /// Binds and listens.
    ///
    /// # Errors
    /// The address is in use, not ours, or privileged.
    pub fn bind(config: &ListenConfig, metrics: ListenMetrics) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(config.address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted proxy binds while connections of its predecessor linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(config.reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&config.address.into())?;
        socket.listen(i32::try_from(limits::LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
        let tcp = TcpListener::from_std(socket.into())?;
        Ok(Self { tcp, places: Arc::new(Semaphore::new(config.connections_max)), metrics })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection. Failed accepts are counted and waited out with a backoff; a connection
    /// beyond the bound is closed and counted.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection: it stays in the kernel's queue.
    pub async fn accept(&self) -> Accepted {
        let mut pause = limits::ACCEPT_BACKOFF_MIN;
        loop {
            let (tcp, peer) = match self.tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.metrics.errors.inc();
                    if is_of_that_connection_alone(&error) {
                        continue;
                    }
                    tracing::warn!(%error, ?pause, "accepting failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::ACCEPT_BACKOFF_MAX);
                    continue;
                }
            };
            let Ok(permit) = self.places.clone().try_acquire_owned() else {
                self.metrics.refused.inc();
                continue;
            };
            self.metrics.accepted.inc();
            // A socket option fails only on a connection that is gone; reading from it tells.
            let _ = configure(&tcp);
            let Ok(local) = tcp.local_addr() else { continue };
            let original_dst = original_dst(&tcp);
            return Accepted { io: Io::tcp(tcp), peer, local, original_dst, permit };
        }
    }
}

fn is_of_that_connection_alone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// No delay, keepalive, and an end for peers that vanished.
pub(crate) fn configure(tcp: &TcpStream) -> io::Result<()> {
    const INTERVAL: Duration = Duration::from_secs(10);
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(limits::TCP_KEEPALIVE).with_interval(INTERVAL))?;
    socket.set_tcp_user_timeout(Some(limits::TCP_USER_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn listen(connections_max: usize) -> Listener {
        let config = ListenConfig { address: ([127, 0, 0, 1], 0).into(), connections_max, reuse_port: false };
        Listener::bind(&config, ListenMetrics::default()).unwrap()
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_is_closed_and_counted_and_a_freed_place_is_taken() {
        let listener = listen(1);
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let accepted = listener.accept().await;
        assert_eq!(accepted.original_dst, None);
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut end = [0];
        tokio::select! {
            _ = listener.accept() => panic!("a second connection had a place"),
            read = second.read(&mut end) => assert_eq!(read.unwrap(), 0),
        }
        assert_eq!((listener.metrics.accepted.get(), listener.metrics.refused.get()), (1, 1));
        drop(accepted);
        let _third = TcpStream::connect(address).await.unwrap();
        listener.accept().await;
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error() {
        let listener = listen(1);
        let config =
            ListenConfig { address: listener.local_addr().unwrap(), connections_max: 1, reuse_port: false };
        let error = Listener::bind(&config, ListenMetrics::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
