//! io: one byte stream, plain or TLS, whose first bytes may have been looked at.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP stream with bytes to be read before it.
#[derive(Debug)]
pub(crate) struct Rewound {
    prefix: Bytes,
    tcp: TcpStream,
}

/// One connection. Bytes read to tell its protocol are put back by [`Io::rewind`].
#[derive(Debug)]
pub struct Io {
    prefix: Bytes,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Client(Box<tokio_rustls::client::TlsStream<Rewound>>),
    Server(Box<tokio_rustls::server::TlsStream<Rewound>>),
}

impl Io {
    /// A plain connection.
    #[must_use]
    pub fn tcp(tcp: TcpStream) -> Self {
        Self { prefix: Bytes::new(), stream: Stream::Tcp(tcp) }
    }

    pub(crate) fn client(tls: tokio_rustls::client::TlsStream<Rewound>) -> Self {
        Self { prefix: Bytes::new(), stream: Stream::Client(Box::new(tls)) }
    }

    pub(crate) fn server(tls: tokio_rustls::server::TlsStream<Rewound>) -> Self {
        Self { prefix: Bytes::new(), stream: Stream::Server(Box::new(tls)) }
    }

    /// The plain stream below, or this again when it is TLS already.
    pub(crate) fn into_plain(self) -> Result<Rewound, Self> {
        match self.stream {
            Stream::Tcp(tcp) => Ok(Rewound { prefix: self.prefix, tcp }),
            stream => Err(Self { prefix: self.prefix, stream }),
        }
    }

    /// Puts `bytes` back: they are read again, before everything else.
    pub fn rewind(&mut self, bytes: Bytes) {
        self.prefix = match (self.prefix.is_empty(), bytes.is_empty()) {
            (true, _) => bytes,
            (_, true) => std::mem::take(&mut self.prefix),
            _ => [bytes.as_ref(), self.prefix.as_ref()].concat().into(),
        };
    }

    /// Whether it is encrypted by the mesh.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        !matches!(self.stream, Stream::Tcp(_))
    }

    /// The TCP socket below.
    #[must_use]
    pub fn tcp_ref(&self) -> &TcpStream {
        match &self.stream {
            Stream::Tcp(tcp) => tcp,
            Stream::Client(tls) => &tls.get_ref().0.tcp,
            Stream::Server(tls) => &tls.get_ref().0.tcp,
        }
    }

    /// Ends the connection with a reset instead of an orderly close, so that the far side does not
    /// take a broken stream for a finished one.
    pub fn abort(self) {
        // A socket that is gone already needs no reset.
        let _ = socket2::SockRef::from(self.tcp_ref()).set_linger(Some(Duration::ZERO));
    }
}

fn take_prefix(prefix: &mut Bytes, buffer: &mut ReadBuf<'_>) -> bool {
    if prefix.is_empty() {
        return false;
    }
    let count = prefix.len().min(buffer.remaining());
    buffer.put_slice(&prefix[..count]);
    prefix.advance(count);
    if prefix.is_empty() {
        // Lets go of what may be a large buffer.
        *prefix = Bytes::new();
    }
    true
}

macro_rules! on_stream {
    ($io:expr, $method:ident $(, $argument:expr)*) => {
        match &mut $io.get_mut().stream {
            Stream::Tcp(tcp) => Pin::new(tcp).$method($($argument),*),
            Stream::Client(tls) => Pin::new(tls.as_mut()).$method($($argument),*),
            Stream::Server(tls) => Pin::new(tls.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if take_prefix(&mut self.prefix, buffer) {
            return Poll::Ready(Ok(()));
        }
        on_stream!(self, poll_read, cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write_vectored, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_shutdown, cx)
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if take_prefix(&mut self.prefix, buffer) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (Io, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Io::tcp(listener.accept().await.unwrap().0), far)
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first_and_once() {
        let (mut io, mut far) = pair().await;
        far.write_all(b"ef").await.unwrap();
        io.rewind(Bytes::from_static(b"cd"));
        io.rewind(Bytes::from_static(b"ab"));
        let mut read = [0; 6];
        io.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abcdef");
    }

    #[tokio::test]
    async fn an_aborted_connection_is_reset_not_closed() {
        let (io, mut far) = pair().await;
        io.abort();
        let error = far.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
