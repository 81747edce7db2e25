//! listen: HTTPS for the API server, bounded in every way: whoever reaches the pod can connect.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use policy::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::{Webhook, review};

/// Gives the acceptor with the certificate that holds now.
pub(crate) type Acceptor = Arc<dyn Fn() -> TlsAcceptor + Send + Sync>;

/// Connections at once: an API server holds a few, and there are three of them or five.
const CONNECTIONS_MAX: usize = 128;
/// HTTP/2 streams at once on one connection.
const STREAMS_MAX: u32 = 64;
/// Objects read and looked at together; more wait. Each holds [`limits::ADMISSION_BYTES_MAX`] at most.
const REVIEWS_MAX: usize = 16;
/// The whole of one answer: the API server gives up after ten seconds by default.
const ANSWER_MAX: Duration = Duration::from_secs(9);
/// How long a connection is used: the API server opens another then, which sees a renewed certificate.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// How long an HTTP/1.1 connection may wait for a request. An API server drops what it has not used for 90
/// s (`IdleConnTimeout` of Go's transport as client-go sets it up); it must be the one that does: a POST that
/// it sends just when we close is not sent again, and a pod is not made.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Takes connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, acceptor: Acceptor, webhook: Arc<Webhook>) {
    let door = Arc::new(Door {
        acceptor,
        webhook,
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        reviews: Semaphore::new(REVIEWS_MAX),
    });
    let tracker = TaskTracker::new();
    let mut pause = limits::ACCEPT_BACKOFF_MIN;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the webhook's port");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::ACCEPT_BACKOFF_MAX);
                continue;
            }
        };
        pause = limits::ACCEPT_BACKOFF_MIN;
        let Ok(place) = door.places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "as many connections as the webhook takes are open: closed");
            continue;
        };
        let door = door.clone();
        tracker.spawn(async move {
            door.connection(stream, address).await;
            drop(place);
        });
    }
}

struct Door {
    acceptor: Acceptor,
    webhook: Arc<Webhook>,
    places: Arc<Semaphore>,
    reviews: Semaphore,
}

type Answer = Response<Full<Bytes>>;

impl Door {
    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let handshake = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, (self.acceptor)().accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            // An API server that does not trust the certificate says so in its own log too.
            Ok(Err(error)) => {
                return tracing::info!(%address, %error, "TLS handshake with the webhook failed");
            }
            Err(_) => return tracing::debug!(%address, "TLS handshake with the webhook took too long"),
        };
        let began = Instant::now();
        let service = service_fn(move |request: Request<Incoming>| {
            let door = self.clone();
            async move {
                let is_http1 = request.version() < Version::HTTP_2;
                let mut response = door.answer(request).await;
                if is_http1 && began.elapsed() >= CONNECTION_LIFETIME {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(limits::RESET_STREAMS_MAX)
            .keep_alive_interval(limits::CONTROL_KEEPALIVE);
        let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // An HTTP/1.1 connection was told to close with a response, or was idle for too long, by then.
        let ended = match tokio::time::timeout(CONNECTION_LIFETIME + IDLE_MAX, served.as_mut()).await {
            Ok(ended) => ended,
            Err(_) => {
                served.as_mut().graceful_shutdown();
                tokio::time::timeout(ANSWER_MAX, served).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "a connection to the webhook ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let answered = tokio::time::timeout(ANSWER_MAX, self.within_bounds(request)).await;
        answered.unwrap_or_else(|_| text(StatusCode::GATEWAY_TIMEOUT, "this took too long"))
    }

    async fn within_bounds(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if !matches!(path, "/inject" | "/validate") {
            return text(StatusCode::NOT_FOUND, "there are /inject and /validate");
        }
        if parts.method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
        }
        let Ok(_place) = self.reviews.acquire().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "stopping");
        };
        let body = match Limited::new(body, limits::ADMISSION_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let allowed = format!("at most {} bytes are read", limits::ADMISSION_BYTES_MAX);
                return text(StatusCode::PAYLOAD_TOO_LARGE, &allowed);
            }
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let request = match review::read(&body) {
            Ok(request) => request,
            Err(why) => return text(StatusCode::BAD_REQUEST, &why),
        };
        let decided = match path {
            "/inject" => self.webhook.inject(&request).await,
            _ => Ok(self.webhook.validate(&request).await),
        };
        match decided.and_then(review::print) {
            Ok(json) => typed(StatusCode::OK, "application/json", json.into()),
            Err(why) => {
                tracing::warn!(why, uid = request.uid, "an admission is not decided");
                text(StatusCode::INTERNAL_SERVER_ERROR, &why)
            }
        }
    }
}

fn text(status: StatusCode, body: &str) -> Answer {
    typed(status, "text/plain; charset=utf-8", format!("{body}\n").into())
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
