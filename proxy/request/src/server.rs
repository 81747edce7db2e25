//! server: requests from one connection, handed to a handler one by one or many at once.
//!
//! A connection has three clocks: a head that was begun must be whole within
//! [`limits::HEADER_TIMEOUT`] (and the first must come within it) or is answered 408, a connection without a request
//! is closed after [`limits::SERVER_IDLE`], and when a drain begins requests under way are finished
//! while new ones are sent elsewhere (GOAWAY, `connection: close`).

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use policy::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use transport::io::Io;

use crate::body::Body;
use crate::drain::Drain;

/// The version of HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A stream of HTTP/2 is reset instead of answered, so that the other sidecar decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request did not reach the application: it may go elsewhere (REFUSED_STREAM).
    #[error("the request was not processed")]
    Unprocessed,
    /// The application went away in the middle.
    #[error("the application ended the connection before it answered")]
    Unknown,
}

/// A refusal with the reset code where hyper looks for it.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct Reset {
    refusal: Refusal,
    #[source]
    code: h2::Error,
}

impl From<Refusal> for Reset {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Unprocessed => h2::Reason::REFUSED_STREAM,
            Refusal::Unknown => h2::Reason::INTERNAL_ERROR,
        };
        Self { refusal, code: code.into() }
    }
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A request's head was too large or had too many fields.
    #[error(
        "a request's head is larger than {} bytes or {} fields",
        limits::HEADER_BYTES_MAX,
        limits::HEADER_COUNT_MAX
    )]
    HeadTooLarge(#[source] hyper::Error),
    /// A request's head was not HTTP.
    #[error("a request is not HTTP")]
    Malformed(#[source] hyper::Error),
    /// A request's head took too long.
    #[error("a request's head was not whole within {:?}", limits::HEADER_TIMEOUT)]
    HeadTimeout,
    /// The peer broke HTTP/2's rules or asked too much of it.
    #[error("the connection was ended for what the peer did on it")]
    Protocol(#[source] hyper::Error),
    /// The peer went away.
    #[error("the connection ended")]
    Gone(#[source] hyper::Error),
}

impl ServeError {
    /// Its token in metrics; `None` for a peer that just went away.
    #[must_use]
    pub fn token(&self) -> Option<&'static str> {
        match self {
            Self::HeadTooLarge(_) => Some("http_request_header_size"),
            Self::Malformed(_) => Some("http_request_error"),
            Self::HeadTimeout => Some("http_request_timeout"),
            Self::Protocol(_) => Some("http_protocol_error"),
            Self::Gone(_) => None,
        }
    }

    fn of(error: hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Self::HeadTooLarge(error);
        }
        if error.is_parse() {
            return Self::Malformed(error);
        }
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            if let Some(h2) = inner.downcast_ref::<h2::Error>()
                && h2.is_library()
            {
                return Self::Protocol(error);
            }
            source = inner.source();
        }
        Self::Gone(error)
    }
}

/// What passes on a connection, for its clocks.
#[derive(Debug, Default)]
struct Activity {
    requests: AtomicU32,
    /// Bytes came while no request was under way: a head has begun.
    heard: AtomicBool,
    served: AtomicBool,
    /// A request came since the last look.
    asked: AtomicBool,
    /// A head took too long: the connection is to say so, and to end.
    late: AtomicBool,
}

/// A request under way, until the last of its response.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection to its end.
///
/// # Errors
/// [`ServeError`] when it ended otherwise than in order.
pub async fn serve<H, F>(io: Io, version: HttpVersion, drain: &Drain, handler: H) -> Result<(), ServeError>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Reset>> + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Heard { io, activity: activity.clone() });
    let counted = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        counted.requests.fetch_add(1, Ordering::Relaxed);
        counted.heard.store(false, Ordering::Relaxed);
        counted.served.store(true, Ordering::Relaxed);
        counted.asked.store(true, Ordering::Relaxed);
        let under_way = UnderWay(counted.clone());
        // Called inside: a future that is carried in and then awaited takes its room twice.
        let handler = handler.clone();
        async move {
            let mut response = handler(request).await?;
            response.body_mut().hold(under_way);
            Ok::<_, Reset>(response)
        }
    });
    match version {
        HttpVersion::Http1 => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .half_close(true)
                .max_headers(limits::HEADER_COUNT_MAX)
                .max_buf_size(limits::HTTP1_BUFFER_BYTES)
                // During a drain a connection serves what was on its way already.
                .keep_alive(!drain.is_draining());
            let late = drain.is_draining();
            let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
            drive(&mut connection, |c| c.graceful_shutdown(), &activity, drain, version, late).await
        }
        HttpVersion::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
                .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
                .max_concurrent_streams(limits::STREAMS_MAX)
                .max_pending_accept_reset_streams(limits::RESET_STREAMS_MAX)
                .max_local_error_reset_streams(limits::RESET_STREAMS_MAX)
                .max_header_list_size(u32::try_from(limits::HEADER_LIST_BYTES_READ).unwrap_or(u32::MAX))
                .max_send_buf_size(limits::STREAM_SEND_BUFFER_BYTES);
            let mut connection = pin!(builder.serve_connection(io, service));
            drive(&mut connection, |c| c.graceful_shutdown(), &activity, drain, version, false).await
        }
    }
}

/// Polls a connection and its clocks. `shut` finishes it politely; `shutting`: that is not needed.
async fn drive<C>(
    connection: &mut Pin<&mut C>,
    shut: impl Fn(Pin<&mut C>),
    activity: &Activity,
    drain: &Drain,
    version: HttpVersion,
    mut shutting: bool,
) -> Result<(), ServeError>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    const TICK: Duration = limits::HEADER_TIMEOUT;
    let mut clock = Clock { quiet_since: Instant::now(), head_since: Some(Instant::now()) };
    let mut tick = pin!(tokio::time::sleep(TICK));
    let mut draining = pin!(drain.draining());
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(ServeError::of),
            () = &mut draining, if !shutting => {
                shutting = true;
                shut(connection.as_mut());
            }
            () = &mut tick => {
                match clock.tick(activity, version) {
                    Tick::Fine => {}
                    Tick::HeadTimeout => {
                        if version == HttpVersion::Http1 && activity.heard.load(Ordering::Relaxed) {
                            activity.late.store(true, Ordering::Relaxed);
                            // It reads once more, and so comes upon its answer.
                            let _ = std::future::poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx))).await;
                        }
                        return Err(ServeError::HeadTimeout);
                    }
                    Tick::Idle => shut(connection.as_mut()),
                }
                tick.as_mut().reset(Instant::now() + TICK);
            }
        }
    }
}

struct Clock {
    quiet_since: Instant,
    head_since: Option<Instant>,
}

enum Tick {
    Fine,
    HeadTimeout,
    Idle,
}

impl Clock {
    fn tick(&mut self, activity: &Activity, version: HttpVersion) -> Tick {
        let now = Instant::now();
        let asked = activity.asked.swap(false, Ordering::Relaxed);
        if asked || activity.requests.load(Ordering::Relaxed) > 0 {
            (self.quiet_since, self.head_since) = (now, None);
            if !activity.heard.load(Ordering::Relaxed) || activity.requests.load(Ordering::Relaxed) > 0 {
                return Tick::Fine;
            }
        }
        let served = activity.served.load(Ordering::Relaxed);
        let head_begun = match version {
            HttpVersion::Http1 => !served || activity.heard.load(Ordering::Relaxed),
            // Frames come without a request too; only the first request is waited for.
            HttpVersion::Http2 => !served,
        };
        if !head_begun {
            self.head_since = None;
        } else if now - *self.head_since.get_or_insert(now) >= limits::HEADER_TIMEOUT {
            return Tick::HeadTimeout;
        }
        if now - self.quiet_since >= limits::SERVER_IDLE { Tick::Idle } else { Tick::Fine }
    }
}

/// The answer to a head that took too long (RFC 9110 §15.5.9); hyper itself only ends.
fn late_answer() -> String {
    let (error, token) = (ServeError::HeadTimeout, "http_request_timeout");
    let body = format!("tidegate: {token}: {error}\n");
    format!(
        "HTTP/1.1 408 Request Timeout\r\nproxy-status: tidegate; error={token}; details=\"{error}\"\r\n\
         content-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Notes bytes that come while no request is under way, and answers those that come too slowly.
struct Heard {
    io: Io,
    activity: Arc<Activity>,
}

impl Heard {
    /// Between two responses nothing waits to be written: the kernel takes these few bytes at once, or
    /// the client reads nothing anyway.
    fn say_late(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> std::io::Error {
        let _ = Pin::new(&mut self.io).poll_write(cx, late_answer().as_bytes());
        let _ = Pin::new(&mut self.io).poll_flush(cx);
        let _ = Pin::new(&mut self.io).poll_shutdown(cx);
        std::io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.activity.late.swap(false, Ordering::Relaxed) {
            return Poll::Ready(Err(self.say_late(cx)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before && self.activity.requests.load(Ordering::Relaxed) == 0 {
            self.activity.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
