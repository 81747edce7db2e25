//! admin: what operators and the kubelet ask the sidecar.
//!
//! `/live`, `/ready` and `/metrics` answer everybody who reaches the address; `/config`,
//! `/log-level`, `/drain`, `/shutdown` and all about queues ([`operate`](crate::operate)) answer loopback alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use policy::limits;
use policy::snapshot::Snapshot;
use request::body::Body;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::service_fn;

use crate::config::Config;
use crate::drain::Told;
use crate::health::Health;
use crate::operate::{self, Operate};
use crate::telemetry::{LogLevel, Metrics};

/// Bytes of a request's body; a log filter is the longest.
const BODY_BYTES_MAX: usize = 1024;

/// What the admin address knows.
pub(crate) struct Admin {
    pub(crate) config: Config,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Metrics,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) log_level: LogLevel,
    /// What the program is told to do; it only ever rises.
    pub(crate) told: watch::Sender<Told>,
    pub(crate) operate: Operate,
}

type Answer = Response<Body>;

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// A refusal that says what is allowed (RFC 9110 §15.5.6).
fn not_allowed(methods: &'static str) -> Answer {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("{methods}\n"));
    response.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static(methods));
    response
}

impl Admin {
    /// Takes connections until it is dropped.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
        let mut pause = limits::ACCEPT_BACKOFF_MIN;
        loop {
            let (tcp, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the admin address cannot accept");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::ACCEPT_BACKOFF_MAX);
                    continue;
                }
            };
            pause = limits::ACCEPT_BACKOFF_MIN;
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let admin = admin.clone();
                    async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIMEOUT);
                builder.max_headers(limits::HEADER_COUNT_MAX).max_buf_size(limits::HTTP1_BUFFER_BYTES);
                let service = TowerToHyperService::new(service);
                // A client that goes away in the middle is nobody's loss.
                let _ = builder.serve_connection(TokioIo::new(tcp), service).await;
                drop(place);
            });
        }
    }

    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Answer {
        // As GET (RFC 9110 §9.3.2); the server leaves the body out, and says how long it would be.
        if request.method() == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        let path = request.uri().path().to_owned();
        let is_local = peer.ip().to_canonical().is_loopback();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/live") => self.live(),
            (&Method::GET, "/ready") => self.ready(),
            (&Method::GET, "/metrics") => self.metrics(),
            (_, "/live" | "/ready" | "/metrics") => not_allowed("GET, HEAD"),
            _ if !is_local => text(StatusCode::FORBIDDEN, "this is answered on loopback alone\n"),
            // Before a page of elsewhere makes a browser ask under a name of its own (DNS rebinding).
            _ if let Some(why) = operate::guard::misnamed(request.headers()) => {
                text(StatusCode::FORBIDDEN, format!("{why}\n"))
            }
            (_, ours) if operate::is_ours(ours) => self.operate.answer(request).await,
            (&Method::PUT | &Method::POST, _) if operate::guard::foreign(request.headers()).is_some() => {
                text(StatusCode::FORBIDDEN, "a page of another origin may not ask this\n")
            }
            (&Method::GET, "/config") => self.config(),
            (&Method::GET, "/log-level") => text(StatusCode::OK, self.log_level.current() + "\n"),
            (&Method::PUT | &Method::POST, "/log-level") => self.set_log_level(request).await,
            (&Method::POST, "/drain") => self.tell(Told::Drain),
            (&Method::POST, "/shutdown") => self.tell(Told::Stop),
            (_, "/config") => not_allowed("GET, HEAD"),
            (_, "/log-level") => not_allowed("GET, HEAD, PUT, POST"),
            (_, "/drain" | "/shutdown") => not_allowed("POST"),
            _ => text(
                StatusCode::NOT_FOUND,
                "there is /live, /ready, /metrics; on loopback /, /queues, /config, /log-level, /drain, /shutdown\n",
            ),
        }
    }

    fn tell(&self, what: Told) -> Answer {
        self.told.send_if_modified(|told| {
            let is_more = what > *told;
            *told = what.max(*told);
            is_more
        });
        text(StatusCode::ACCEPTED, "draining\n")
    }

    /// Only a restart helps a store that cannot be trusted: whoever probes this makes one.
    fn live(&self) -> Answer {
        match self.operate.poisoned() {
            None => text(StatusCode::OK, "live\n"),
            Some(why) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the queue's store cannot be trusted, a restart opens it anew: {why}\n"),
            ),
        }
    }

    fn ready(&self) -> Answer {
        let missing = self.health.missing();
        if missing.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
    }

    fn metrics(&self) -> Answer {
        let until = self.health.certificate_until();
        let seconds = until.and_then(|until| until.duration_since(std::time::UNIX_EPOCH).ok());
        let seconds = seconds.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        self.metrics.certificate_expiry.set(seconds);
        self.metrics.controller_connected.set(self.health.is_informed().into());
        let mut response = text(StatusCode::OK, self.metrics.text());
        let open_metrics =
            http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, open_metrics);
        response
    }

    fn config(&self) -> Answer {
        let snapshot = self.snapshot.borrow().clone();
        let shown = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "flags": self.config,
            "digest": snapshot.digest().to_string(),
            "snapshot": &*snapshot,
        });
        match serde_json::to_vec_pretty(&shown) {
            Ok(json) => {
                let mut response = text(StatusCode::OK, json);
                let json = http::HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    async fn set_log_level(&self, request: Request<Incoming>) -> Answer {
        let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
            return text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a filter of at most {BODY_BYTES_MAX} bytes\n"),
            );
        };
        let bytes = body.to_bytes();
        let filter = String::from_utf8_lossy(&bytes);
        match self.log_level.set(filter.trim()) {
            Ok(()) => text(StatusCode::OK, self.log_level.current() + "\n"),
            Err(error) => {
                text(StatusCode::BAD_REQUEST, format!("{error}: try info, debug or sidecar=debug\n"))
            }
        }
    }
}
