//! api: an API server of a few maps, which fails as it is told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::BoxError;

type Answer = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;
type Line = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

/// The server; clones are the same one.
#[derive(Clone)]
pub(crate) struct Api(Arc<Mutex<State>>);

struct State {
    version: u64,
    /// By the path of their list, then by `namespace/name`, or the name alone.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// What happened: version, list, line.
    log: Vec<(u64, String, String)>,
    watches: Vec<(String, Line)>,
    requests: Vec<String>,
    refused: BTreeMap<String, u16>,
    forgotten: u64,
    away: bool,
    page: usize,
}

impl Api {
    /// With nothing in it.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            version: 1,
            objects: BTreeMap::new(),
            log: Vec::new(),
            watches: Vec::new(),
            requests: Vec::new(),
            refused: BTreeMap::new(),
            forgotten: 0,
            away: false,
            page: 500,
        })))
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        Client::new(service, "default")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes or changes an object of the list `path`.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().put(path, object);
    }

    /// Removes one, by `namespace/name` or name.
    pub(crate) fn remove(&self, path: &str, key: &str) {
        let mut state = self.state();
        let mut object = state.objects.get_mut(path).unwrap().remove(key).unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.tell(path, "DELETED", &object);
    }

    /// The object as it is.
    pub(crate) fn get(&self, path: &str, key: &str) -> Option<Value> {
        self.state().objects.get(path)?.get(key).cloned()
    }

    /// Answers what begins with `path` with `code`, or rightly again.
    pub(crate) fn refuse(&self, path: &str, code: Option<u16>) {
        let mut state = self.state();
        match code {
            Some(code) => drop(state.refused.insert(path.to_owned(), code)),
            None => drop(state.refused.remove(path)),
        }
        state.watches.retain(|(list, _)| !list.starts_with(path));
    }

    /// Breaks every connection off, and takes none while it is away.
    pub(crate) fn away(&self, away: bool) {
        let mut state = self.state();
        state.away = away;
        state.watches.clear();
    }

    /// Ends every watch as a server does from time to time.
    pub(crate) fn end_watches(&self) {
        self.state().watches.clear();
    }

    /// Forgets what happened before now: who asks for it gets 410.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.version += 1;
        state.forgotten = state.version;
        state.log.clear();
    }

    /// How many objects a page of a list has.
    pub(crate) fn page(&self, size: usize) {
        self.state().page = size;
    }

    /// Everything that was asked for: method, path, and `watch` or `list`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut state = self.state();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let watch = query.contains("watch=true");
        state.requests.push(format!("{} {path}{}", head.method, if watch { " watch" } else { "" }));
        if state.away {
            return Err("connection refused".into());
        }
        let code = state.refused.iter().find(|(prefix, _)| path.starts_with(*prefix)).map(|(_, code)| *code);
        if let Some(code) = code {
            return Ok(failure(code, &format!("{path} is refused")));
        }
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(match head.method {
            Method::GET if watch => state.watch(&path, &query),
            Method::GET => state.read(&path, &query),
            method => state.write(&method, &path, body),
        })
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap();
        let key = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        let old = self.objects.entry(path.to_owned()).or_default().insert(key, object.clone());
        self.tell(path, if old.is_some() { "MODIFIED" } else { "ADDED" }, &object);
        object
    }

    fn tell(&mut self, path: &str, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        self.log.push((self.version, path.to_owned(), line.clone()));
        self.watches.retain(|(list, to)| list != path || send(to, &line));
    }

    fn watch(&mut self, path: &str, query: &str) -> Response<Answer> {
        let (to, answer) = stream(200);
        let since: u64 = parameter(query, "resourceVersion").parse().unwrap();
        if since < self.forgotten {
            let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
            send(&to, &(json!({"type": "ERROR", "object": status}).to_string() + "\n"));
            return answer;
        }
        for (_, _, line) in self.log.iter().filter(|(at, list, _)| *at > since && list == path) {
            send(&to, line);
        }
        self.watches.push((path.to_owned(), to));
        answer
    }

    fn read(&mut self, path: &str, query: &str) -> Response<Answer> {
        if let Some((list, key)) = single(path)
            && let Some(object) = self.objects.get(&list).and_then(|objects| objects.get(&key))
        {
            return whole(200, object);
        } else if single(path).is_some() {
            return failure(404, &format!("{path} not found"));
        }
        let from: usize = parameter(query, "continue").parse().unwrap_or(0);
        let all: Vec<&Value> = self.objects.get(path).into_iter().flat_map(BTreeMap::values).collect();
        let items: Vec<&Value> = all.iter().skip(from).take(self.page).copied().collect();
        let next = from + items.len();
        let more = if next < all.len() { next.to_string() } else { String::new() };
        let meta = json!({"resourceVersion": self.version.to_string(), "continue": more});
        whole(200, &json!({"kind": "List", "metadata": meta, "items": items}))
    }

    fn write(&mut self, method: &Method, path: &str, object: Value) -> Response<Answer> {
        let old = match method {
            &Method::POST => {
                let name = object["metadata"]["name"].as_str().unwrap();
                if self.read(&format!("{path}/{name}"), "").status() == 200 {
                    return failure(409, "already exists");
                }
                None
            }
            _ => single(path).and_then(|(list, key)| self.objects.get(&list)?.get(&key).cloned()),
        };
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        if old.is_some_and(|old| version(&old) != version(&object)) {
            return failure(409, "the object has been modified");
        }
        let mut object = object;
        let segments: Vec<&str> = path.split('/').collect();
        let at = segments.iter().position(|segment| *segment == "namespaces").unwrap();
        object["metadata"]["namespace"] = segments[at + 1].into();
        let list = [&segments[..at], &segments[at + 2..at + 3]].concat().join("/");
        whole(201, &self.put(&list, object))
    }
}

/// The list and the key of a path that names one object.
fn single(path: &str) -> Option<(String, String)> {
    let segments: Vec<&str> = path.split('/').collect();
    if let Some(at) = segments.iter().position(|segment| *segment == "namespaces")
        && let [namespace, plural, name] = segments[at + 1..]
    {
        let list = [&segments[..at], &[plural]].concat().join("/");
        return Some((list, format!("{namespace}/{name}")));
    }
    let (list, name) = path.rsplit_once('/')?;
    let of_the_cluster = ["/customresourcedefinitions", "/clusterroles"];
    of_the_cluster.iter().any(|kind| list.ends_with(kind)).then(|| (list.to_owned(), name.to_owned()))
}

fn parameter(query: &str, name: &str) -> String {
    let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_default().to_owned()
}

fn stream(code: u16) -> (Line, Response<Answer>) {
    let (to, lines) = mpsc::channel(1000);
    let answer = Response::builder().status(code).body(StreamBody::new(ReceiverStream::new(lines)));
    (to, answer.unwrap())
}

fn send(to: &Line, line: &str) -> bool {
    to.try_send(Ok(Frame::data(Bytes::copy_from_slice(line.as_bytes())))).is_ok()
}

fn whole(code: u16, body: &Value) -> Response<Answer> {
    let (to, answer) = stream(code);
    send(&to, &body.to_string());
    answer
}

fn failure(code: u16, message: &str) -> Response<Answer> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "",
    };
    let status = json!({
        "kind": "Status", "status": "Failure", "code": code, "message": message, "reason": reason});
    whole(code, &status)
}
