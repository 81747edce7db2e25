//! receiver: an application that does to each request what a script says, and remembers what it saw.
//!
//! HTTP/1 and HTTP/2 with prior knowledge. It is away as soon as it is dropped, its connections too.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::within;

/// A request that came whole.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    /// The how manieth on this path, from 1.
    pub(crate) nth: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The message it is, if it is one.
    pub(crate) fn id(&self) -> Option<&str> {
        self.header("tidegate-request-id")
    }

    pub(crate) fn attempt(&self) -> Option<u32> {
        self.header("tidegate-attempt")?.parse().ok()
    }
}

/// What is done to a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answered with a status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// Answered so after this time.
    After(Duration, Box<Act>),
    /// Answered so when the test lets go.
    Held(Box<Act>),
    /// The connection ends without an answer.
    Break,
    /// The connection ends in the middle of an answer with this status.
    Torn(u16),
    /// A gRPC status, with `grpc-retry-pushback-ms`.
    Grpc(u8, Option<u64>),
}

impl Act {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), "said")
    }

    /// With one header.
    pub(crate) fn with(status: u16, name: &'static str, value: impl Into<String>) -> Self {
        Self::Answer(status, vec![(name, value.into())], "said")
    }

    pub(crate) fn ok() -> Self {
        Self::status(200)
    }

    pub(crate) fn held() -> Self {
        Self::Held(Box::new(Self::ok()))
    }

    pub(crate) fn after(ms: u64) -> Self {
        Self::After(Duration::from_millis(ms), Box::new(Self::ok()))
    }
}

pub(crate) type Script = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

struct State {
    script: Script,
    held: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    seen: Vec<Seen>,
    by_path: HashMap<String, usize>,
    under_way: usize,
    under_way_max: usize,
}

/// An application; away when dropped.
pub(crate) struct Receiver {
    state: Arc<State>,
    _serving: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.expect("the receiver's address is free");
        let state = Arc::new(State {
            script,
            held: watch::Sender::new(true),
            arrived: watch::Sender::new(0),
            memory: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, state.clone()));
        Self { state, _serving: serving }
    }

    /// Lets every held request go, also later ones.
    pub(crate) fn let_go(&self) {
        self.state.held.send_replace(false);
    }

    /// All it saw, in order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.memory().seen.clone()
    }

    /// Those whose path, without its query, is this one.
    pub(crate) fn seen_at(&self, path: &str) -> Vec<Seen> {
        let meant = |seen: &Seen| seen.path.split('?').next() == Some(path);
        self.seen().into_iter().filter(meant).collect()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }

    /// Waits until so many requests arrived.
    pub(crate) async fn has(&self, requests: usize) -> Vec<Seen> {
        let mut arrived = self.state.arrived.subscribe();
        within(arrived.wait_for(|arrived| *arrived >= requests)).await.expect("it is ours");
        self.seen()
    }

    /// The most requests that were under way at once.
    pub(crate) fn under_way_max(&self) -> usize {
        self.state.memory().under_way_max
    }
}

impl State {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request as under way, also when its connection ends first.
struct UnderWay<'a>(&'a State);

impl<'a> UnderWay<'a> {
    fn new(state: &'a State) -> Self {
        let mut memory = state.memory();
        memory.under_way += 1;
        memory.under_way_max = memory.under_way_max.max(memory.under_way);
        Self(state)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.memory().under_way -= 1;
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let mut first = [0; 3];
    if stream.peek(&mut first).await.is_err() {
        return;
    }
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { answer(request, &state).await }
    });
    let io = TokioIo::new(stream);
    // Clients may go at any time, and an act may be to break off.
    if &first == b"PRI" {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        // More than any sidecar lets through.
        let mut builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.max_headers(200).serve_connection(io, service).await;
    }
}

async fn answer(request: Request<Incoming>, state: &State) -> io::Result<Response<Frames>> {
    let _under_way = UnderWay::new(state);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut headers = BTreeMap::new();
    for name in parts.headers.keys() {
        let values =
            parts.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        headers.insert(name.to_string(), values.collect::<Vec<_>>().join(", "));
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let seen = {
        let mut memory = state.memory();
        let nth = memory.by_path.entry(path.clone()).or_default();
        *nth += 1;
        let (nth, method) = (*nth, parts.method.to_string());
        let seen = Seen { at: Instant::now(), method, path, headers, body, nth };
        memory.seen.push(seen.clone());
        seen
    };
    let mut act = (state.script)(&seen);
    state.arrived.send_modify(|arrived| *arrived += 1);
    loop {
        act = match act {
            Act::After(time, then) => {
                tokio::time::sleep(time).await;
                *then
            }
            Act::Held(then) => {
                let _ = state.held.subscribe().wait_for(|held| !held).await;
                *then
            }
            act => return respond(act),
        }
    }
}

fn respond(act: Act) -> io::Result<Response<Frames>> {
    let (status, headers, frames) = match act {
        Act::Answer(status, headers, body) => {
            (status, headers, Frames::of([Ok(Frame::data(Bytes::from_static(body.as_bytes())))]))
        }
        Act::Torn(status) => {
            let half = Ok(Frame::data(Bytes::from_static(b"half")));
            let torn = Frames::of([half, Err(io::ErrorKind::BrokenPipe.into())]);
            (status, vec![("content-length", "8".to_owned())], torn)
        }
        Act::Grpc(code, pushback) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
            if let Some(ms) = pushback {
                trailers.insert("grpc-retry-pushback-ms", HeaderValue::from(ms));
            }
            let message = Ok(Frame::data(Bytes::from_static(&[0; 5])));
            let kind = vec![("content-type", "application/grpc".to_owned())];
            (200, kind, Frames::of([message, Ok(Frame::trailers(trailers))]))
        }
        _ => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let mut response = Response::new(frames);
    *response.status_mut() = StatusCode::from_u16(status).expect("the script names statuses");
    for (name, value) in headers {
        response.headers_mut().append(name, HeaderValue::try_from(value).expect("and values"));
    }
    Ok(response)
}

/// A body in frames, flushed one by one.
pub(crate) struct Frames {
    left: VecDeque<io::Result<Frame<Bytes>>>,
    exact: Option<u64>,
    flushed: bool,
}

impl Frames {
    fn of<const N: usize>(frames: [io::Result<Frame<Bytes>>; N]) -> Self {
        let exact = match &frames[..] {
            [Ok(frame)] => frame.data_ref().map(|data| data.len() as u64),
            _ => None,
        };
        Self { left: frames.into(), exact, flushed: true }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !std::mem::replace(&mut self.flushed, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.flushed = false;
        Poll::Ready(self.left.pop_front())
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
