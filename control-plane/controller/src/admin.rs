//! admin: is it alive, is it ready, what does it count, what does it know.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::limits;
use resources::Problem;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::manifests::Loaded;
use crate::metrics::Metrics;
use crate::proxies::{Proxies, Proxy};

/// What the admin port shows.
pub(crate) struct Admin {
    trust_domain: String,
    metrics: Arc<Metrics>,
    proxies: Arc<Proxies>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    not_ready: Option<String>,
    objects: BTreeMap<&'static str, usize>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Status<'a> {
    trust_domain: &'a str,
    objects: &'a BTreeMap<&'static str, usize>,
    problems: &'a [Problem],
    proxies: Vec<Proxy>,
}

impl Admin {
    pub(crate) fn new(trust_domain: String, metrics: Arc<Metrics>, proxies: Arc<Proxies>) -> Self {
        let not_ready = Some("the manifests were not read yet".to_owned());
        Self { trust_domain, metrics, proxies, known: Mutex::new(Known { not_ready, ..Known::default() }) }
    }

    /// Takes what is in force now; from the first time on it is ready.
    pub(crate) fn set(&self, loaded: &Loaded) {
        let mut objects = BTreeMap::new();
        for object in &loaded.objects {
            *objects.entry(object.value.kind()).or_default() += 1;
        }
        self.metrics.manifest_problems.set(i64::try_from(loaded.problems.len()).unwrap_or(i64::MAX));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Known { not_ready: None, objects, problems: loaded.problems.clone() };
    }

    /// Why it is not ready yet.
    pub(crate) fn set_not_ready(&self, reason: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.not_ready.is_some() {
            known.not_ready = Some(reason);
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n".to_owned());
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "live\n".to_owned()),
            "/ready" => match &self.known.lock().unwrap_or_else(PoisonError::into_inner).not_ready {
                None => text(StatusCode::OK, "ready\n".to_owned()),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            },
            "/metrics" => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                typed(StatusCode::OK, kind, self.metrics.text())
            }
            "/status" => self.status(),
            _ => text(StatusCode::NOT_FOUND, "there are /live, /ready, /metrics, /status\n".to_owned()),
        }
    }

    fn status(&self) -> Response<Full<Bytes>> {
        let proxies = self.proxies.list();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (objects, problems) = (&known.objects, known.problems.as_slice());
        let status = Status { trust_domain: &self.trust_domain, objects, problems, proxies };
        match serde_json::to_string_pretty(&status) {
            Ok(json) => typed(StatusCode::OK, "application/json", json + "\n"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    let tracker = TaskTracker::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin port");
                tokio::time::sleep(limits::ACCEPT_BACKOFF_MAX).await;
                continue;
            }
        };
        let admin = admin.clone();
        tracker.spawn(async move {
            let service = service_fn(|request| {
                let answer = admin.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away in the middle is its own matter.
            let _ = served.await;
            drop(place);
        });
    }
}
