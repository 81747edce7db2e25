//! duplex: bytes carried between two connections, with half-close and reset as they come.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use policy::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::Io;

/// What passed so far; read by others while it goes on.
#[derive(Debug, Default)]
pub struct Carried {
    /// Bytes from the client to the server.
    pub to_server: AtomicU64,
    /// Bytes from the server to the client.
    pub to_client: AtomicU64,
    half_closed: AtomicBool,
}

/// How it ended early.
#[derive(Debug, thiserror::Error)]
pub enum DuplexError {
    /// One side broke; the other was reset.
    #[error("a side of the connection broke")]
    Broken(#[source] io::Error),
    /// One side had ended and the other said nothing for [`limits::DUPLEX_HALF_CLOSED_IDLE`].
    #[error("a half-closed connection said nothing for {:?}", limits::DUPLEX_HALF_CLOSED_IDLE)]
    Idle,
}

/// Carries bytes both ways until both sides have ended. A side that ends is shut down on the other
/// (half-close); a side that breaks resets the other.
///
/// # Errors
/// [`DuplexError`]; both connections are gone then.
///
/// # Cancel safety
/// Dropping the future closes both connections; bytes on their way are lost.
pub async fn duplex(client: Io, server: Io, carried: &Carried) -> Result<(), DuplexError> {
    let mut client = Counted { io: client, read: &carried.to_server, half_closed: &carried.half_closed };
    let mut server = Counted { io: server, read: &carried.to_client, half_closed: &carried.half_closed };
    let size = limits::DUPLEX_BUFFER_BYTES;
    let ended = tokio::select! {
        copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, size, size) => {
            copied.map(drop).map_err(DuplexError::Broken)
        }
        () = idle_half_closed(carried) => Err(DuplexError::Idle),
    };
    if ended.is_err() {
        client.io.abort();
        server.io.abort();
    }
    ended
}

/// Ends when one side has ended and nothing passed for a whole interval.
async fn idle_half_closed(carried: &Carried) {
    let passed = || (carried.to_server.load(Ordering::Relaxed), carried.to_client.load(Ordering::Relaxed));
    let mut before = None;
    loop {
        let half_closed = carried.half_closed.load(Ordering::Relaxed);
        let now = half_closed.then(passed);
        if now.is_some() && now == before {
            return;
        }
        before = now;
        tokio::time::sleep(limits::DUPLEX_HALF_CLOSED_IDLE).await;
    }
}

struct Counted<'a> {
    io: Io,
    read: &'a AtomicU64,
    half_closed: &'a AtomicBool,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = polled {
            let count = buffer.filled().len() - before;
            if count == 0 {
                self.half_closed.store(true, Ordering::Relaxed);
            }
            self.read.fetch_add(count as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
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
    async fn a_side_that_ends_still_hears_the_other() {
        let ((near, mut client), (far, mut server)) = (pair().await, pair().await);
        let carried = Carried::default();
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"question");
            server.write_all(b"the answer").await.unwrap();
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"the answer");
        };
        let (ended, ()) = tokio::join!(duplex(near, far, &carried), talk);
        ended.unwrap();
        assert_eq!((carried.to_server.into_inner(), carried.to_client.into_inner()), (8, 10));
    }

    #[tokio::test]
    async fn a_reset_of_one_side_resets_the_other() {
        let ((near, mut client), (far, server)) = (pair().await, pair().await);
        let carried = Carried::default();
        let talk = async {
            Io::tcp(server).abort();
            let error = client.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        };
        let (ended, ()) = tokio::join!(duplex(near, far, &carried), talk);
        assert!(matches!(ended, Err(DuplexError::Broken(_))));
    }
}
