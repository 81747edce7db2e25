//! api: a Kubernetes API of one's own, as much of it as the controller asks.
//!
//! Objects are listed in pages and watched from any version on; what is created, replaced or patched is
//! kept whole. A token is `namespace:account`, and a review says so. Nothing is checked: a real API
//! server and its etcd would take the cores that are measured here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Events that a watch may be behind; one that is further is ended, and begins where it was.
const EVENTS_MAX: usize = 65_536;

/// The API; clones are the same one.
#[derive(Clone)]
pub(crate) struct Api {
    kinds: Arc<Mutex<Kinds>>,
    pub(crate) address: SocketAddr,
}

#[derive(Default)]
struct Kinds {
    revision: u64,
    /// Statuses that were written.
    statuses: u64,
    /// By path, `/api/v1/pods`.
    all: BTreeMap<String, Kind>,
}

#[derive(Default)]
struct Kind {
    /// By namespace and name.
    objects: BTreeMap<(String, String), Value>,
    /// All that happened, as it is told.
    events: Vec<(u64, Bytes)>,
    watches: Vec<Sender<Bytes>>,
}

/// Where a path leads: `/api/v1/namespaces/shop/pods/orders-0/status` is all of it.
struct Place {
    kind: String,
    namespace: String,
    name: String,
    is_status: bool,
}

type Body = Either<Full<Bytes>, Events>;

/// The body of a watch.
struct Events(Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

impl Api {
    /// Answers on an address of its own for as long as the runtime lives.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let api = Self { kinds: Arc::default(), address: listener.local_addr()? };
        let serving = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        Ok(api)
    }

    /// How the controller finds it.
    pub(crate) fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "scale",
            "clusters": [{ "name": "scale", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "scale", "user": {} }],
            "contexts": [{ "name": "scale", "context": { "cluster": "scale", "user": "scale" } }],
        })
    }

    /// Puts an object of the kind at `path`, such as `/api/v1/pods`, and tells whoever watches.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.lock().store(path, object);
    }

    /// What somebody else put.
    pub(crate) fn get(&self, path: &str, namespace: &str, name: &str) -> Option<Value> {
        let kinds = self.lock();
        kinds.all.get(path)?.objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// How many statuses were written so far.
    pub(crate) fn statuses(&self) -> u64 {
        self.lock().statuses
    }

    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| {
            let api = self.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        // A connection that breaks off is the controller's affair.
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let asked: BTreeMap<&str, &str> =
            head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let number = |name: &str| asked.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let place = Place::of(head.uri.path());
        let mut kinds = self.lock();
        let (code, answer) = match head.method {
            Method::GET if asked.get("watch").is_some_and(|watch| matches!(*watch, "true" | "1" | "")) => {
                let events = kinds.watch(&place.kind, number("resourceVersion"));
                return Response::new(Either::Right(Events(events)));
            }
            Method::GET if place.name.is_empty() => {
                (200, kinds.list(&place.kind, number("continue"), number("limit")))
            }
            Method::GET => kinds.get(&place),
            Method::POST if place.kind.ends_with("/tokenreviews") => (201, review(body)),
            Method::DELETE => (200, json!({ "kind": "Status", "status": "Success" })),
            _ => kinds.write(&place, body),
        };
        let mut response = Response::new(Either::Left(Full::from(answer.to_string())));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        response
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kinds {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.revision += 1;
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(self.revision.to_string());
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}", self.revision));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = (text(&meta["namespace"]), text(&meta["name"]));
        let kind = self.all.entry(path.to_owned()).or_default();
        let change = if kind.objects.contains_key(&named) { "MODIFIED" } else { "ADDED" };
        let event = Bytes::from(format!("{}\n", json!({ "type": change, "object": object })));
        kind.watches.retain(|watch| watch.try_send(event.clone()).is_ok());
        kind.events.push((self.revision, event));
        kind.objects.insert(named, object.clone());
        object
    }

    fn watch(&mut self, path: &str, since: u64) -> Receiver<Bytes> {
        let kind = self.all.entry(path.to_owned()).or_default();
        let (tell, events) = channel(EVENTS_MAX);
        let begin = kind.events.partition_point(|(revision, _)| *revision <= since);
        let told = kind.events[begin..].iter().all(|(_, event)| tell.try_send(event.clone()).is_ok());
        if told {
            kind.watches.push(tell);
        }
        events
    }

    /// A page; the next begins where as many objects lie behind as `continue` says.
    fn list(&self, path: &str, begin: u64, limit: u64) -> Value {
        let none = BTreeMap::new();
        let objects = self.all.get(path).map_or(&none, |kind| &kind.objects);
        let (begin, limit) = (usize::try_from(begin).unwrap_or(0), usize::try_from(limit).unwrap_or(0));
        let end = if limit == 0 { objects.len() } else { objects.len().min(begin + limit) };
        let more = if end < objects.len() { end.to_string() } else { String::new() };
        let items: Vec<&Value> = objects.values().skip(begin).take(end.saturating_sub(begin)).collect();
        let meta = json!({ "resourceVersion": self.revision.to_string(), "continue": more });
        json!({ "apiVersion": "v1", "kind": "List", "metadata": meta, "items": items })
    }

    fn get(&self, place: &Place) -> (u16, Value) {
        let named = (place.namespace.clone(), place.name.clone());
        let found = self.all.get(&place.kind).and_then(|kind| kind.objects.get(&named));
        found.map_or_else(missing, |object| (200, object.clone()))
    }

    /// What is created, replaced or applied is there as a whole; of a status nothing else counts.
    fn write(&mut self, place: &Place, mut object: Value) -> (u16, Value) {
        if place.is_status {
            let (code, before) = self.get(place);
            if code != 200 {
                return missing();
            }
            self.statuses += 1;
            let status = object["status"].take();
            object = before;
            object["status"] = status;
        }
        if !place.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(place.namespace);
        }
        (200, self.store(&place.kind, object))
    }
}

impl Place {
    fn of(path: &str) -> Self {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is_status = parts.last() == Some(&"status");
        if is_status {
            parts.pop();
        }
        let rest = parts.split_off(if parts.first() == Some(&"api") { 2 } else { 3 }.min(parts.len()));
        let at = |kind: &str| format!("/{}/{kind}", parts.join("/"));
        let (namespace, kind, name) = match *rest.as_slice() {
            ["namespaces", namespace, kind, name] => (namespace, kind, name),
            ["namespaces", namespace, kind] => (namespace, kind, ""),
            [kind, name] => ("", kind, name),
            [kind] => ("", kind, ""),
            _ => ("", "", ""),
        };
        Self { kind: at(kind), namespace: namespace.to_owned(), name: name.to_owned(), is_status }
    }
}

fn missing() -> (u16, Value) {
    (404, json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "" }))
}

/// Whose token it is, which the token says itself.
fn review(mut review: Value) -> Value {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let user = json!({ "username": format!("system:serviceaccount:{token}") });
    let audiences = review["spec"]["audiences"].clone();
    review["status"] = json!({ "authenticated": true, "user": user, "audiences": audiences });
    review
}
