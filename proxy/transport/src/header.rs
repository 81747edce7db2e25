//! header: the words with which a sidecar says which port of the application it wants.
//!
//! On a sidecar's own inbound port a connection begins, inside TLS with ALPN
//! [`crate::tls::TRANSPORT_ALPN`], with the preface `transport.l5d.io/v1\r\n\r\n`, the length of a
//! protobuf message (32 bits, big endian) and the message. The format is that of linkerd2-proxy
//! (`linkerd/transport-header`, `transport.proto`), tag `release/v2.366.0`.

use std::io;

use policy::limits;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What stands before the message.
pub const PREFACE: &[u8] = b"transport.l5d.io/v1\r\n\r\n";

/// How the session after the header is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionProtocol {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// One header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportHeader {
    /// The application's port.
    pub port: u16,
    /// Only for gateways: the name the client wants. Not spoken here.
    pub name: Option<String>,
    /// `None`: bytes, to be carried as they are.
    pub session: Option<SessionProtocol>,
}

/// Why a header was not read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The connection ended or failed in the middle.
    #[error("the connection ended inside its transport header")]
    Io(#[from] io::Error),
    /// It begins otherwise.
    #[error("the connection does not begin with a transport header")]
    Preface,
    /// Longer than [`limits::TRANSPORT_HEADER_BYTES_MAX`].
    #[error("the transport header has {0} bytes, more than {max}", max = limits::TRANSPORT_HEADER_BYTES_MAX)]
    Length(u32),
    /// Not protobuf.
    #[error("the transport header is not the message it should be")]
    Message(#[from] prost::DecodeError),
    /// Not a port.
    #[error("the transport header names port {0}, which is none")]
    Port(i32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(int32, tag = "1")]
    port: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    session: Option<WireSession>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSession {
    #[prost(oneof = "WireKind", tags = "1, 2")]
    kind: Option<WireKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireKind {
    #[prost(message, tag = "1")]
    Http1(Nothing),
    #[prost(message, tag = "2")]
    Http2(Nothing),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

impl TransportHeader {
    /// Its bytes, the preface included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let session = self.session.map(|session| WireSession {
            kind: Some(match session {
                SessionProtocol::Http1 => WireKind::Http1(Nothing {}),
                SessionProtocol::Http2 => WireKind::Http2(Nothing {}),
            }),
        });
        let wire = Wire { port: self.port.into(), name: self.name.clone().unwrap_or_default(), session };
        let message = wire.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        [PREFACE, &length.to_be_bytes(), &message].concat()
    }

    /// Reads a header, and nothing after it.
    ///
    /// # Errors
    /// [`HeaderError`]: nothing of the connection can be used then.
    pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Self, HeaderError> {
        let mut preface = [0; PREFACE.len()];
        io.read_exact(&mut preface).await?;
        if preface != PREFACE {
            return Err(HeaderError::Preface);
        }
        let length = io.read_u32().await?;
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes > limits::TRANSPORT_HEADER_BYTES_MAX {
            return Err(HeaderError::Length(length));
        }
        let mut message = vec![0; bytes];
        io.read_exact(&mut message).await?;
        let wire = Wire::decode(message.as_slice())?;
        let port = u16::try_from(wire.port).ok().filter(|port| *port != 0);
        let session = wire.session.and_then(|session| session.kind).map(|kind| match kind {
            WireKind::Http1(_) => SessionProtocol::Http1,
            WireKind::Http2(_) => SessionProtocol::Http2,
        });
        Ok(Self {
            port: port.ok_or(HeaderError::Port(wire.port))?,
            name: Some(wire.name).filter(|name| !name.is_empty()),
            session,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages as linkerd2-proxy writes them (`linkerd/transport-header/src/lib.rs`, tag
    /// `release/v2.366.0`), in hexadecimal, length first. The last one is that of its own test.
    const VECTORS: [(&str, u16, Option<&str>, Option<SessionProtocol>); 4] = [
        ("0000000708903f1a021200", 8080, None, Some(SessionProtocol::Http2)),
        ("0000000708903f1a020a00", 8080, None, Some(SessionProtocol::Http1)),
        ("0000000308ea20", 4202, None, None),
        (
            "0000001c08c81f1213666f6f2e6261722e6578616d706c652e636f6d1a021200",
            4040,
            Some("foo.bar.example.com"),
            Some(SessionProtocol::Http2),
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
        PREFACE.iter().copied().chain(digits).collect()
    }

    #[tokio::test]
    async fn the_bytes_of_a_stock_proxy_are_read_and_written_alike() {
        for (hex, port, name, session) in &VECTORS {
            let header = TransportHeader { port: *port, name: name.map(str::to_owned), session: *session };
            assert_eq!(header.encode(), bytes(hex), "{header:?}");
            assert_eq!(TransportHeader::read(&mut bytes(hex).as_slice()).await.unwrap(), header);
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_and_a_long_one_is_not_read() {
        let read = async |bytes: Vec<u8>| TransportHeader::read(&mut bytes.as_slice()).await.unwrap_err();
        assert!(matches!(read(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()).await, HeaderError::Preface));
        assert!(matches!(read(bytes("00000401")).await, HeaderError::Length(1025)));
        assert!(matches!(read(bytes("000000020800")).await, HeaderError::Port(0)));
        assert!(matches!(read(bytes("0000000408808004")).await, HeaderError::Port(65536)));
        assert!(matches!(read(bytes("00000002ffff")).await, HeaderError::Message(_)));
        assert!(matches!(read(PREFACE.to_vec()).await, HeaderError::Io(_)));
    }
}
