//! app: an application that tells what it saw.
//!
//! `/hold` answers when the test lets go, `/stall` reads no body until then, anything else echoes at
//! once, `/large-head` with a header of 160,000 bytes, `/503` with that status. `/pieces` answers in
//! 1000 pieces of a byte, `/half` with half a body, `/endless` with one that has no end, `/sidecar`
//! as a sidecar would. HTTP/2 is taken with prior knowledge.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// An application; ends when dropped.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    held: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl App {
    pub(crate) async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the application's address is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State { held: watch::Sender::new(true), arrived: watch::Sender::new(0) });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, state.clone()));
        Self { address, state, _serving: serving }
    }

    /// Lets every held request go.
    pub(crate) fn let_go(&self) {
        self.state.held.send_replace(false);
    }

    /// Requests that arrived so far.
    pub(crate) fn arrived(&self) -> usize {
        *self.state.arrived.borrow()
    }

    /// Waits until so many requests arrived.
    pub(crate) async fn has(&self, requests: usize) {
        let mut arrived = self.state.arrived.subscribe();
        crate::client::within(arrived.wait_for(|arrived| *arrived >= requests)).await.expect("it is ours");
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
        async move { Ok::<_, hyper::Error>(answer(request, &state).await) }
    });
    // Clients may go at any time.
    if &first == b"PRI" {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    } else {
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

/// A body of so many pieces.
struct Pieces {
    left: u32,
    piece: &'static [u8],
    /// After the last of them nothing comes, not even the end.
    stalls: bool,
}

const BYTES: Pieces = Pieces { left: 1000, piece: b"x", stalls: false };
const HALF: Pieces = Pieces { left: 1, piece: b"half", stalls: true };
const ENDLESS: Pieces = Pieces { left: u32::MAX, piece: &[0; 16 * 1024], stalls: true };

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.piece)))))
            }
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// A response as a sidecar of Linkerd makes it when it does not reach its application.
fn as_a_sidecar() -> Response<Either<Full<Bytes>, Pieces>> {
    let response = Response::builder().status(502).header("l5d-proxy-error", "it is not there");
    let response = response.header("l5d-proxy-connection", "close");
    response.body(Either::Left(Full::default())).expect("it is a response")
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<Either<Full<Bytes>, Pieces>> {
    state.arrived.send_modify(|arrived| *arrived += 1);
    if matches!(request.uri().path(), "/hold" | "/stall") {
        let _ = state.held.subscribe().wait_for(|held| !held).await;
    }
    match request.uri().path() {
        "/pieces" => return Response::new(Either::Right(BYTES)),
        "/half" => return Response::new(Either::Right(HALF)),
        "/endless" => return Response::new(Either::Right(ENDLESS)),
        "/sidecar" => return as_a_sidecar(),
        _ => {}
    }
    let mut headers = serde_json::Map::new();
    for name in request.headers().keys() {
        let values: Vec<_> =
            request.headers().get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    let (version, method) = (format!("{:?}", request.version()), request.method().to_string());
    let uri = request.uri().to_string();
    let body = request
        .into_body()
        .collect()
        .await
        .map_or(-1, |body| i64::try_from(body.to_bytes().len()).unwrap_or(i64::MAX));
    let seen = json!({"version": version, "method": method, "uri": uri, "headers": headers, "body": body});
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(seen.to_string()))));
    if uri == "/large-head" {
        let long = http::HeaderValue::try_from("x".repeat(160_000)).expect("visible ASCII");
        response.headers_mut().insert("x-long", long);
    }
    if uri.ends_with("/503") {
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
