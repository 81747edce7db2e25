//! admin: is it alive, is it ready, what does it count, what does it know.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

use crate::cluster::Watched;
use crate::documents::Need;
use crate::issue::Troubles;
use crate::lease::Leader;
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
    watched: Vec<Watched>,
    leader: Option<Leader>,
    troubles: Option<Arc<Troubles>>,
}

#[derive(Serialize)]
struct Status<'a> {
    trust_domain: &'a str,
    objects: &'a BTreeMap<&'static str, usize>,
    problems: &'a [Problem],
    /// Kinds of the cluster; none where the objects are in files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    watched: Vec<Watching<'a>>,
    /// Who writes in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<&'a Leader>,
    /// What of identity does not work, by object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    troubles: BTreeMap<String, String>,
    proxies: Vec<Proxy>,
}

#[derive(Serialize)]
struct Watching<'a> {
    kind: &'static str,
    version: Option<&'a str>,
    state: &'a str,
    objects: usize,
    /// How long ago something was last heard.
    last_event_seconds: Option<u64>,
}

impl<'a> Watching<'a> {
    fn of(watched: &'a Watched) -> Self {
        Self {
            kind: watched.kind,
            version: watched.version.as_deref(),
            state: &watched.state,
            objects: watched.objects,
            last_event_seconds: watched.heard.map(|at| at.elapsed().map_or(0, |age| age.as_secs())),
        }
    }
}

impl Admin {
    pub(crate) fn new(trust_domain: String, metrics: Arc<Metrics>, proxies: Arc<Proxies>) -> Self {
        let not_ready = Some("the objects were not read yet".to_owned());
        Self { trust_domain, metrics, proxies, known: Mutex::new(Known { not_ready, ..Known::default() }) }
    }

    /// Takes what is in force now; from the first time on it is ready.
    pub(crate) fn set(&self, objects: BTreeMap<&'static str, usize>, problems: Vec<Problem>) {
        self.metrics.problems.set(i64::try_from(problems.len()).unwrap_or(i64::MAX));
        let mut known = self.known();
        (known.not_ready, known.objects, known.problems) = (None, objects, problems);
    }

    /// Takes how the kinds of the cluster are watched.
    pub(crate) fn set_watched(&self, watched: Vec<Watched>) {
        self.metrics.watched(&watched);
        self.known().watched = watched;
    }

    /// Takes who writes in the cluster.
    pub(crate) fn set_leader(&self, leader: Leader) {
        self.known().leader = Some(leader);
    }

    /// Takes where what does not work of identity is written down.
    pub(crate) fn set_troubles(&self, troubles: Arc<Troubles>) {
        self.known().troubles = Some(troubles);
    }

    #[cfg(test)]
    pub(crate) fn not_ready(&self) -> Option<String> {
        self.known().not_ready.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is not ready yet.
    pub(crate) fn set_not_ready(&self, reason: String) {
        let mut known = self.known();
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
            "/ready" => match &self.known().not_ready {
                None => text(StatusCode::OK, "ready\n".to_owned()),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            },
            "/metrics" => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                typed(StatusCode::OK, kind, self.metrics.text())
            }
            "/status" => self.status(),
            path => match need(path) {
                Some(need) => self.progress(&need),
                None => text(StatusCode::NOT_FOUND, PATHS.to_owned()),
            },
        }
    }

    /// How far the proxies are through what is in force now.
    fn progress(&self, need: &Need) -> Response<Full<Bytes>> {
        json(&self.proxies.progress(std::slice::from_ref(need), self.proxies.generation()))
    }

    fn status(&self) -> Response<Full<Bytes>> {
        let proxies = self.proxies.list();
        let known = self.known();
        json(&Status {
            trust_domain: &self.trust_domain,
            objects: &known.objects,
            problems: &known.problems,
            watched: known.watched.iter().map(Watching::of).collect(),
            leader: known.leader.as_ref(),
            troubles: known.troubles.as_ref().map(|troubles| troubles.list()).unwrap_or_default(),
            proxies,
        })
    }
}

const PATHS: &str = "there are /live, /ready, /metrics, /status, /progress, /progress/service/NAMESPACE/NAME and \
     /progress/pod/NAMESPACE/NAME\n";

/// Of whom `path` asks the progress.
fn need(path: &str) -> Option<Need> {
    let named = |rest: &str| {
        let (namespace, name) = rest.split_once('/')?;
        Some((namespace.to_owned(), name.to_owned()))
    };
    let rest = path.strip_prefix("/progress")?;
    match (rest, rest.strip_prefix("/service/"), rest.strip_prefix("/pod/")) {
        ("", ..) => Some(Need::All),
        (_, Some(service), _) => named(service).map(Need::Service),
        (_, _, Some(pod)) => named(pod).map(Need::Pod),
        _ => None,
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => typed(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
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
