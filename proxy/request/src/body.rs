//! body: the frames of a message, passed on as they come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use policy::limits;
use tokio::time::Sleep;

use crate::outcome::{GRPC_MESSAGE, GRPC_STATUS};
use crate::replay::Attempt;
use crate::server::UnderWay;
use crate::track::Track;

/// The body of a request or a response on its way through.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    /// When the whole exchange must be over.
    deadline: Option<Pin<Box<Sleep>>>,
    /// A response's account, closed when the body ends.
    track: Option<Track>,
    /// Its request, for the connection it came on.
    under_way: Option<UnderWay>,
    /// What was looked at already: it comes first, and was counted.
    begun: Option<Bytes>,
    /// What was read behind frames that were put together.
    next: Option<Result<Frame<Bytes>, BodyError>>,
    ended: bool,
    /// Its deadline cut it off.
    cut: bool,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    /// Data, if any is left, then trailers.
    Ending(Bytes, HeaderMap),
    Incoming(Incoming),
    Attempt(Attempt),
}

/// A request's body as it comes to be sent on.
pub enum Received {
    /// A connection brings it.
    Incoming(Incoming),
    /// It is all there; it may be sent as often as need be.
    Whole(Bytes),
    /// So much of it was read already; a connection brings the rest.
    Begun(Bytes, Incoming),
}

impl From<Incoming> for Received {
    fn from(incoming: Incoming) -> Self {
        Self::Incoming(incoming)
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The side it comes from broke.
    #[error("the body broke off where it comes from")]
    Source(#[source] hyper::Error),
    /// The deadline of the exchange passed.
    #[error("the request's deadline passed in the middle of its body")]
    Deadline,
    /// Another attempt has taken over.
    #[error("another attempt has taken the body over")]
    Superseded,
}

impl Body {
    fn of(kind: Kind) -> Self {
        let mut body = Self::default();
        body.kind = kind;
        body
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Kind::Full(bytes.into()))
    }

    /// These bytes, then these trailers.
    #[must_use]
    pub fn with_trailers(bytes: impl Into<Bytes>, trailers: HeaderMap) -> Self {
        if trailers.is_empty() { Self::full(bytes) } else { Self::of(Kind::Ending(bytes.into(), trailers)) }
    }

    /// What a connection brings.
    #[must_use]
    pub fn incoming(incoming: Incoming) -> Self {
        let kind =
            if http_body::Body::is_end_stream(&incoming) { Kind::Empty } else { Kind::Incoming(incoming) };
        Self::of(kind)
    }

    pub(crate) fn attempt(attempt: Attempt) -> Self {
        Self::of(Kind::Attempt(attempt))
    }

    pub(crate) fn tracked(incoming: Incoming, track: Track, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        let mut body = Self::incoming(incoming);
        (body.deadline, body.track) = (deadline, Some(track));
        body
    }

    /// The same again, of which `read` was read.
    #[must_use]
    pub fn begun(mut self, read: Bytes) -> Self {
        self.begun = Some(read).filter(|read| !read.is_empty());
        self
    }

    /// Hands `end` what became of the exchange when this body has ended or was dropped.
    pub fn on_end(&mut self, end: OnEnd) {
        match &mut self.track {
            Some(track) => track.on_end(end),
            None => self.track = Some(Track::bare(end)),
        }
    }

    pub(crate) fn hold(&mut self, under_way: UnderWay) {
        self.under_way = Some(under_way);
    }

    /// The next frame, with small ones that are there already put together.
    fn poll_joined(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(next));
        }
        let first = match ready!(self.poll_kind(cx)) {
            Some(Ok(frame)) if is_small(&frame) => frame,
            other => return Poll::Ready(other),
        };
        let Ok(mut data) = first.into_data() else { return Poll::Ready(None) };
        let mut joined = BytesMut::new();
        while let Poll::Ready(more) = self.poll_kind(cx) {
            match more {
                None => {
                    self.kind = Kind::Empty;
                    break;
                }
                Some(Ok(frame)) if is_small(&frame) => {
                    let Ok(more) = frame.into_data() else { break };
                    if joined.is_empty() {
                        joined.reserve(limits::SMALL_FRAME_BYTES);
                        joined.extend_from_slice(&std::mem::take(&mut data));
                    }
                    joined.extend_from_slice(&more);
                    if joined.len() >= limits::JOINED_FRAME_BYTES_MAX - limits::SMALL_FRAME_BYTES {
                        break;
                    }
                }
                Some(other) => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        let data = if joined.is_empty() { data } else { joined.freeze() };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Ending(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Kind::Ending(_, trailers) => {
                let trailers = std::mem::take(trailers);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Kind::Incoming(incoming) => {
                http_body::Body::poll_frame(Pin::new(incoming), cx).map_err(BodyError::Source)
            }
            Kind::Attempt(attempt) => attempt.poll_frame(cx),
        }
    }

    fn deadline_passed(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let is_grpc = self.track.as_ref().is_some_and(Track::is_grpc);
        if let Some(track) = &self.track {
            track.is_late();
        }
        self.kind = Kind::Empty;
        self.deadline = None;
        self.cut = true;
        let last = if is_grpc {
            let mut trailers = HeaderMap::new();
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("4"));
            trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(CUT));
            Ok(Frame::trailers(trailers))
        } else {
            Err(BodyError::Deadline)
        };
        Some(last)
    }
}

/// Told to a gRPC client whose response is cut.
const CUT: &str = "tidegate: http_response_timeout: the deadline passed in the middle of the response";

fn is_small(frame: &Frame<Bytes>) -> bool {
    frame.data_ref().is_some_and(|data| data.len() < limits::SMALL_FRAME_BYTES)
}

/// Told once what became of an exchange.
pub type OnEnd = Box<dyn FnOnce(&End) + Send>;

/// What became of an exchange.
#[derive(Debug, Clone)]
pub struct End {
    /// The response's HTTP status.
    pub status: u16,
    /// Its gRPC status, where it has one.
    pub grpc_status: Option<u8>,
    /// Bytes of the response's body that passed.
    pub bytes: u64,
    /// From the request's head to the end of the response.
    pub duration: std::time::Duration,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(begun) = this.begun.take() {
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
        // First, so that a body whose frames never run out ends in time too.
        let late = this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        let frame = if late { this.deadline_passed() } else { ready!(this.poll_joined(cx)) };
        if let Some(track) = &mut this.track {
            match &frame {
                Some(Ok(frame)) => track.frame(frame),
                Some(Err(_)) => {}
                None => this.ended = true,
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none()
            && self.next.is_none()
            && match &self.kind {
                Kind::Empty => true,
                Kind::Full(bytes) => bytes.is_empty(),
                Kind::Ending(..) => false,
                Kind::Incoming(incoming) => http_body::Body::is_end_stream(incoming),
                Kind::Attempt(attempt) => attempt.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let next = self.next.as_ref().and_then(|next| next.as_ref().ok()?.data_ref());
        let begun = self.begun.as_ref().map_or(0, Bytes::len) as u64;
        let next = begun + next.map_or(0, |data| data.len() as u64);
        let rest = match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) | Kind::Ending(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming) => http_body::Body::size_hint(incoming),
            Kind::Attempt(attempt) => attempt.size_hint(),
        };
        rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + next))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(track) = self.track.take() {
            let ended = self.ended || http_body::Body::is_end_stream(self);
            track.finish(ended && !self.cut);
        }
    }
}
