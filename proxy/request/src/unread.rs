//! unread: whether a request that broke ever reached the application.
//!
//! An application that stops closes its idle connections, and a request may be written to one in
//! that very moment. Nothing in HTTP/1 says whether such a request was processed, so one that is
//! not idempotent could not be sent again. The kernel knows more: if the application's kernel has
//! acknowledged no byte of it, the application cannot have read it (TCP delivers only what it
//! acknowledges), and sending it elsewhere executes it once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use transport::acked::bytes_acked;
use transport::io::Io;

/// While a connection lives, and where its kernel does not tell.
const UNKNOWN: u64 = u64::MAX;

/// What passed on one plain connection.
#[derive(Debug)]
pub(crate) struct Wire {
    written: AtomicU64,
    /// Acknowledged when it ended, the SYN counted as one.
    acked_at_end: AtomicU64,
}

/// A connection that notes what passes.
pub(crate) struct Watched {
    io: Io,
    wire: Arc<Wire>,
}

impl Wire {
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether the connection has ended and nothing written after `before` was ever acknowledged.
    pub(crate) fn is_unread_since(&self, before: u64) -> bool {
        let acked = self.acked_at_end.load(Ordering::Relaxed);
        acked != UNKNOWN && acked <= before + 1
    }
}

impl Watched {
    pub(crate) fn new(io: Io) -> (TokioIo<Self>, Arc<Wire>) {
        let wire = Arc::new(Wire { written: AtomicU64::new(0), acked_at_end: AtomicU64::new(UNKNOWN) });
        (TokioIo::new(Self { io, wire: wire.clone() }), wire)
    }

    fn note_end(&self) {
        // Through TLS the two counts have nothing to do with each other.
        if self.io.is_tls() || self.wire.acked_at_end.load(Ordering::Relaxed) != UNKNOWN {
            return;
        }
        let acked = bytes_acked(self.io.tcp_ref()).unwrap_or(UNKNOWN);
        self.wire.acked_at_end.store(acked, Ordering::Relaxed);
    }

    fn note_written(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(count)) => {
                self.wire.written.fetch_add(*count as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => self.note_end(),
            Poll::Pending => {}
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.note_end();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining() > 0);
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        match &polled {
            Poll::Ready(Ok(())) if room && buffer.filled().len() == before => self.note_end(),
            Poll::Ready(Err(_)) => self.note_end(),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note_written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.note_written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
