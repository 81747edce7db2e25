//! scripted: an API server that answers as a test says.

use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// A client of it. It is given the path with its query, and answers with a status and a body.
pub(crate) fn client(answer: impl Fn(&str) -> (u16, Value) + Clone + Send + 'static) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let (status, mut body) = answer(path);
        if status >= 400 && body["code"].is_null() {
            let said = body["message"].as_str().unwrap_or("no").to_owned();
            body = json!({"kind": "Status", "apiVersion": "v1", "code": status, "message": said});
        }
        let response =
            http::Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
        async move { response }
    });
    Client::new(service, "default")
}

/// A list as the server answers it.
pub(crate) fn list(items: &[Value]) -> (u16, Value) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// A pod with a sidecar that runs and is ready.
pub(crate) fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace, "name": name,
            "annotations": {"tidegate.dev/injected": env!("CARGO_PKG_VERSION")},
        },
        "spec": {
            "containers": [{"name": "application"}],
            "initContainers": [{
                "name": "tidegate-proxy", "restartPolicy": "Always",
                "ports": [{"name": "tidegate-admin", "containerPort": 4191}],
            }],
        },
        "status": {
            "phase": "Running",
            "initContainerStatuses": [{
                "name": "tidegate-proxy", "ready": true, "image": "", "imageID": "", "restartCount": 0,
                "state": {"running": {}},
            }],
        },
    })
}
