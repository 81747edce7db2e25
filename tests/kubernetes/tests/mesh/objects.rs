//! objects: what is applied, short.

use kubernetes::apps::APPS;
use serde_json::{Value, json};

/// A namespace that asks for sidecars, or not.
pub(crate) fn namespace(name: &str, inject: bool) -> String {
    let labels = if inject { json!({"tidegate.dev/inject": "enabled"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}).to_string()
}

/// A service account.
pub(crate) fn account(namespace: &str, name: &str) -> Value {
    object("v1", "ServiceAccount", namespace, name)
}

/// An object without a spec.
pub(crate) fn object(version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}})
}

/// As [`object`], with one.
pub(crate) fn with_spec(version: &str, kind: &str, at: (&str, &str), spec: Value) -> Value {
    let mut object = object(version, kind, at.0, at.1);
    object["spec"] = spec;
    object
}

/// A container that waits to be told what to do, and ends when it is told to.
pub(crate) fn client() -> Value {
    running(&["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1; done"])
}

/// A container that runs this.
pub(crate) fn running(command: &[&str]) -> Value {
    json!({"name": "app", "image": APPS, "imagePullPolicy": "IfNotPresent", "command": command,
           "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": false}})
}

/// Debian's nginx, which says what it was asked, with probes.
pub(crate) fn nginx() -> Value {
    let mut container = running(&["nginx", "-e", "stderr", "-c", "/etc/nginx/nginx.conf"]);
    let probe = json!({"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1});
    container["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    container["readinessProbe"] = probe.clone();
    container["livenessProbe"] = probe;
    container
}

/// The labels and the spec of pods with one container, of the service account named as their `app` if it is
/// `web` or `orders`, else of the default one.
pub(crate) fn template(name: &str, container: &Value) -> Value {
    let account = if ["web", "orders"].contains(&name) { name } else { "default" };
    json!({"metadata": {"labels": {"app": name}},
           "spec": {"serviceAccountName": account, "containers": [container]}})
}

/// A Deployment of one pod.
pub(crate) fn deployment(namespace: &str, name: &str, container: &Value) -> Value {
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": name}},
                      "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                      "template": template(name, container)});
    with_spec("apps/v1", "Deployment", (namespace, name), spec)
}

/// A pod of the default service account, of nobody.
pub(crate) fn pod(namespace: &str, name: &str, container: &Value) -> Value {
    let mut pod = with_spec("v1", "Pod", (namespace, name), json!({"containers": [container]}));
    pod["metadata"]["labels"] = json!({"app": name});
    pod
}

/// A Service whose port 80 leads to the port `http` of this `app`.
pub(crate) fn service(namespace: &str, name: &str, app: &str) -> Value {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}]);
    with_spec("v1", "Service", (namespace, name), json!({"selector": {"app": app}, "ports": ports}))
}
