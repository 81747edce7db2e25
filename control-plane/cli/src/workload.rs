//! workload: the application of a demo pod, which says who it is and counts what it was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The header that numbers a request of the demo.
pub(crate) const REQUEST_ID: &str = "x-demo-id";
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long connections are still answered after the listener is closed. Each is closed by its next
/// answer; what is idle after that is closed unasked.
const CLOSING: Duration = Duration::from_millis(300);
/// How long a request on its way may take before the program ends without it.
const DRAIN: Duration = Duration::from_secs(3);
/// How long an answer takes, like a small query: so that requests overlap, as they do in life.
const WORK: Duration = Duration::from_millis(5);
/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Answers every request in JSON with its name and the identity that the sidecar put in front.
///
/// Ends politely on SIGTERM or when its standard input closes, so that it never outlives the demo.
#[derive(Debug, Args)]
pub(crate) struct Workload {
    /// The name it answers with.
    #[arg(long)]
    name: String,
    /// Where it listens, plaintext HTTP/1 or HTTP/2.
    #[arg(long)]
    listen: SocketAddr,
    /// Where its counts are read from at the start and written to at the end.
    #[arg(long, value_name = "FILE")]
    counts: PathBuf,
}

/// What was received: how often each request id was, by method.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// POST, by id.
    pub(crate) posts: BTreeMap<u64, u32>,
    /// The ids of POSTs in the order in which each first arrived.
    pub(crate) order: Vec<u64>,
    /// Everything else, by id.
    pub(crate) others: BTreeMap<u64, u32>,
    /// By the `l5d-client-id` header; empty for none.
    pub(crate) clients: BTreeMap<String, u64>,
}

impl Counts {
    /// All requests.
    pub(crate) fn requests(&self) -> u64 {
        self.posts.values().chain(self.others.values()).map(|n| u64::from(*n)).sum()
    }
}

struct Application {
    name: String,
    counts: Mutex<Counts>,
    closing: AtomicBool,
    open: AtomicUsize,
}

impl Workload {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let counts = match tokio::fs::read(&self.counts).await {
            Ok(bytes) => serde_json::from_slice(&bytes).context("the counts of the run before")?,
            Err(_) => Counts::default(),
        };
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("{} cannot listen on {}", self.name, self.listen))?;
        let application = Arc::new(Application {
            name: self.name,
            counts: Mutex::new(counts),
            closing: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        });
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        tokio::select! {
            () = accept(&listener, &application) => {}
            _ = terminate.recv() => {}
            () = input_closed() => {}
        }
        drop(listener);
        application.closing.store(true, Ordering::Relaxed);
        tokio::time::sleep(CLOSING).await;
        let drained = async {
            while application.open.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, drained).await;
        tokio::fs::write(&self.counts, application.said()).await.context("cannot keep the counts")?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn input_closed() {
    let mut input = tokio::io::stdin();
    let mut byte = [0];
    while matches!(input.read(&mut byte).await, Ok(1)) {}
}

async fn accept(listener: &TcpListener, application: &Arc<Application>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let application = application.clone();
        // Ends with its client or with the process, which waits for requests and not connections.
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let application = application.clone();
                async move { Ok::<_, Infallible>(application.answer(request).await) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that goes away in the middle is its own matter.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Application {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut response = match request.uri().path() {
            "/counts" => respond(StatusCode::OK, self.said()),
            _ => self.ask(request).await,
        };
        if self.closing.load(Ordering::Relaxed) && response.version() < http::Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        response
    }

    async fn ask(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let client = text("l5d-client-id").unwrap_or_default().to_owned();
        let id: Option<u64> = text(REQUEST_ID).and_then(|id| id.parse().ok());
        let (version, method) = (request.version(), request.method().clone());
        let path = request.uri().path().to_owned();
        // Counted only when it arrived whole: a part of a request was not received.
        let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
            return respond(StatusCode::PAYLOAD_TOO_LARGE, Vec::new());
        };
        tokio::time::sleep(WORK).await;
        if let Some(id) = id {
            self.count(method == http::Method::POST, id, &client);
        }
        let status = if path == "/fail" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        let said = serde_json::json!({
            "answered_by": self.name, "asked_by": client, "method": method.as_str(), "path": path,
            "body_bytes": body.to_bytes().len(),
        });
        let mut response = respond(status, format!("{said}\n").into_bytes());
        *response.version_mut() = version;
        response
    }

    fn count(&self, post: bool, id: u64, client: &str) {
        let counts = &mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = if post { &mut counts.posts } else { &mut counts.others };
        let times = ids.entry(id).or_default();
        *times += 1;
        if post && *times == 1 {
            counts.order.push(id);
        }
        *counts.clients.entry(client.to_owned()).or_default() += 1;
    }

    fn said(&self) -> Vec<u8> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_vec(&*counts).unwrap_or_default()
    }
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
