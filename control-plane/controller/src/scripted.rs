//! scripted: an API server in memory, as much of one as the tests of this program ask.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tonic::codegen::Service;

/// The server; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    revision: u64,
    asked: Vec<String>,
    refused: BTreeMap<String, (u16, String)>,
    status: Value,
    silent: bool,
    missed: Option<String>,
    between: Option<Value>,
}

impl Scripted {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// The object at this path, such as `/api/v1/namespaces/shop/configmaps/tidegate-anchors`.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Puts one there behind everybody's back.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.lock().store(path, object);
    }

    /// Takes one away likewise.
    pub(crate) fn remove(&self, path: &str) {
        self.lock().objects.remove(path);
    }

    /// From now on what begins so, such as `PATCH /api/v1/namespaces/shop`, is refused.
    pub(crate) fn refuse(&self, what: &str, code: u16, message: &str) {
        self.lock().refused.insert(what.to_owned(), (code, message.to_owned()));
    }

    /// Everything is allowed again.
    pub(crate) fn allow(&self) {
        self.lock().refused.clear();
    }

    /// The next who asks for the object at this path is told that there is none.
    pub(crate) fn miss_once(&self, path: &str) {
        self.lock().missed = Some(path.to_owned());
    }

    /// The next who writes a status is told that somebody was faster, who wrote this.
    pub(crate) fn write_between(&self, object: Value) {
        self.lock().between = Some(object);
    }

    /// What every object that is created has as its status: the answer of a review.
    pub(crate) fn answer(&self, status: Value) {
        self.lock().status = status;
    }

    /// From now on nothing is answered.
    pub(crate) fn fall_silent(&self) {
        self.lock().silent = true;
    }

    /// All that was asked since the last time, as `METHOD path`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().asked)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Service<Request<Body>> for Scripted {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if server.lock().silent {
                std::future::pending::<()>().await;
            }
            let (code, answer) = server.lock().answer(&head.method, head.uri.path(), body);
            let mut response = Response::new(Body::from(serde_json::to_vec(&answer).unwrap()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok(response)
        })
    }
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let asked = format!("{method} {path}");
        let refused = self.refused.iter().find(|(what, _)| asked.starts_with(*what));
        let refused = refused.map(|(_, (code, message))| refusal(*code, message));
        self.asked.push(asked);
        if let Some(refused) = refused {
            return refused;
        }
        if self.missed.take_if(|missed| missed == path).is_some() {
            return refusal(404, "there is none");
        }
        if let (&Method::PUT, Some(path)) = (method, path.strip_suffix("/status")) {
            return self.put_status(path, body);
        }
        match (method, self.objects.get(path).cloned()) {
            (&Method::POST, _) => self.create(path, body),
            (&Method::PATCH, before) => {
                let merged = merge(before.unwrap_or_default(), body);
                (200, self.store(path, merged))
            }
            (_, None) => refusal(404, "there is none"),
            (&Method::PUT, Some(before)) => {
                if before["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return refusal(409, "the object has been modified");
                }
                (200, self.store(path, body))
            }
            (&Method::DELETE, Some(_)) => (200, self.objects.remove(path).unwrap()),
            (_, Some(object)) => (200, object),
        }
    }

    /// Of an object that is written there nothing else counts.
    fn put_status(&mut self, path: &str, body: Value) -> (u16, Value) {
        let Some(before) = self.objects.get(path).cloned() else { return refusal(404, "there is none") };
        if let Some(between) = self.between.take() {
            self.store(path, between);
            return refusal(409, "the object has been modified");
        }
        if before["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
            return refusal(409, "the object has been modified");
        }
        let mut object = before;
        object["status"] = body["status"].clone();
        (200, self.store(path, object))
    }

    fn create(&mut self, path: &str, mut body: Value) -> (u16, Value) {
        if !self.status.is_null() {
            body["status"] = self.status.clone();
            return (201, body);
        }
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&path) {
            return refusal(409, "there is one already");
        }
        (201, self.store(&path, body))
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

/// What both kinds of patches have in common: named members of a list are found by their name.
fn merge(before: Value, patch: Value) -> Value {
    match (before, patch) {
        (Value::Object(mut before), Value::Object(patch)) => {
            for (key, value) in patch {
                let merged = merge(before.remove(&key).unwrap_or_default(), value);
                before.insert(key, merged);
            }
            Value::Object(before)
        }
        (Value::Array(before), Value::Array(patch)) if patch.iter().all(|one| one["name"].is_string()) => {
            let with = |one: Value| {
                let change = patch.iter().find(|change| change["name"] == one["name"]).cloned();
                change.map_or(one.clone(), |change| merge(one, change))
            };
            Value::Array(before.into_iter().map(with).collect())
        }
        (_, patch) => patch,
    }
}

fn refusal(code: u16, message: &str) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "ServiceUnavailable",
    };
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message, "reason": reason}))
}
