//! connect: a connection to one endpoint, proven and announced.

use std::io;
use std::net::SocketAddr;

use policy::endpoint::Endpoint;
use policy::limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::header::{SessionProtocol, TransportHeader};
use crate::io::Io;
use crate::listen::configure;
use crate::tls::{Tls, TlsError};

/// Why there is no connection. All of them happen before anything of a request was sent.
#[derive(Debug, thiserror::Error)]
#[error("connecting to {address} failed")]
pub struct ConnectError {
    /// Whom.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub kind: ConnectErrorKind,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectErrorKind {
    /// TCP took longer than [`limits::CONNECT_TIMEOUT`].
    #[error("no answer within {:?}", limits::CONNECT_TIMEOUT)]
    Timeout,
    /// TCP failed.
    #[error("the connection was not made")]
    Tcp(#[source] io::Error),
    /// TLS failed.
    #[error("the peer was not proven")]
    Tls(#[source] TlsError),
}

impl ConnectError {
    /// The error's token in `Proxy-Status` (RFC 9209 §2.3) and metrics.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match &self.kind {
            ConnectErrorKind::Timeout => "connection_timeout",
            ConnectErrorKind::Tcp(error) => match error.kind() {
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    "destination_ip_unroutable"
                }
                io::ErrorKind::TimedOut => "connection_timeout",
                io::ErrorKind::ConnectionRefused => "connection_refused",
                _ => "connection_terminated",
            },
            ConnectErrorKind::Tls(TlsError::Timeout) => "connection_timeout",
            ConnectErrorKind::Tls(TlsError::Certificate(_)) => "tls_certificate_error",
            ConnectErrorKind::Tls(_) => "tls_protocol_error",
        }
    }
}

/// Opens a plain connection.
///
/// # Errors
/// [`ConnectError`].
pub async fn dial(address: SocketAddr) -> Result<Io, ConnectError> {
    let failed = |kind| ConnectError { address, kind };
    let tcp = timeout(limits::CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| failed(ConnectErrorKind::Timeout))?
        .map_err(|error| failed(ConnectErrorKind::Tcp(error)))?;
    configure(&tcp).map_err(|error| failed(ConnectErrorKind::Tcp(error)))?;
    Ok(Io::tcp(tcp))
}

/// Opens a connection to `endpoint` on which `session` (`None`: bytes) is spoken next: over TLS
/// where it has a sidecar, announced with a transport header where that sidecar's port is known.
///
/// # Errors
/// [`ConnectError`]; nothing of the session was sent.
pub async fn connect(
    endpoint: &Endpoint,
    session: Option<SessionProtocol>,
    tls: &Tls,
) -> Result<Io, ConnectError> {
    let Some(peer) = &endpoint.peer else { return dial(endpoint.address).await };
    let address = match peer.inbound_port {
        Some(port) => SocketAddr::new(endpoint.address.ip(), port),
        None => endpoint.address,
    };
    let io = dial(address).await?;
    let with_header = peer.inbound_port.is_some();
    let failed = |kind| ConnectError { address, kind };
    let mut io = tls
        .connect(io, &peer.identity, with_header)
        .await
        .map_err(|error| failed(ConnectErrorKind::Tls(error)))?;
    if with_header {
        let header = TransportHeader { port: endpoint.address.port(), name: None, session };
        let written = async {
            io.write_all(&header.encode()).await?;
            io.flush().await
        };
        written.await.map_err(|error| failed(ConnectErrorKind::Tcp(error)))?;
    }
    Ok(io)
}
