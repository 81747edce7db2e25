//! feed: the mesh as manifests, and changes of it as files that take the place of others.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::plan::{NAMESPACES, Plan, account, namespace};

/// Pods in one file, which is far from the longest that is read.
const PODS_PER_FILE: usize = 2500;

/// Where the controller reads from.
pub(crate) struct Feed {
    directory: PathBuf,
}

impl Feed {
    /// Writes the whole mesh.
    pub(crate) fn write(plan: &Plan, directory: &Path) -> anyhow::Result<Self> {
        let feed = Self { directory: directory.join("manifests") };
        std::fs::create_dir_all(&feed.directory)?;
        let namespaces: Vec<Value> = (0..NAMESPACES).map(|n| namespace_object(&namespace(n))).collect();
        feed.put("namespaces", &list(namespaces))?;
        feed.put("services", &list((0..plan.services).map(service).collect()))?;
        feed.put("routes", &list((0..plan.services).map(route).collect()))?;
        let pods: Vec<Value> = (0..plan.endpoints()).map(|number| pod(plan, number)).collect();
        for (number, pods) in pods.chunks(PODS_PER_FILE).enumerate() {
            feed.put(&format!("pods-{number}"), &list(pods.to_vec()))?;
        }
        for service in 0..plan.services {
            feed.change(plan, service, 0)?;
        }
        Ok(feed)
    }

    /// Leaves `mark` on the endpoints of `service`; when it comes back the controller can see it.
    pub(crate) fn change(&self, plan: &Plan, service: usize, mark: u64) -> anyhow::Result<()> {
        self.put(&format!("slice-{service}"), &slice(plan, service, mark))
    }

    fn put(&self, name: &str, object: &Value) -> anyhow::Result<()> {
        let hidden = self.directory.join(format!(".{name}"));
        std::fs::write(&hidden, object.to_string())?;
        Ok(std::fs::rename(hidden, self.directory.join(format!("{name}.json")))?)
    }
}

fn list(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn namespace_object(name: &str) -> Value {
    let annotations = json!({ "tidegate.dev/inject": "enabled" });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "annotations": annotations } })
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("s{number}"), "namespace": namespace(number) },
        "spec": {
            "clusterIP": format!("10.96.{}.{}", number / 250, 1 + number % 250),
            "selector": { "app": format!("s{number}") },
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
        },
    })
}

fn route(number: usize) -> Value {
    let backend = json!([{ "name": format!("s{number}"), "port": 80 }]);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": format!("r{number}"), "namespace": namespace(number) },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": format!("s{number}") }],
            "rules": [
                { "name": "read", "matches": [{ "path": { "value": "/read" }, "method": "GET" }],
                  "backendRefs": backend, "timeouts": { "request": "5s" } },
                { "name": "all", "backendRefs": backend },
            ],
        },
    })
}

/// Pod `number` serves Service `number` / `each`.
fn pod(plan: &Plan, number: usize) -> Value {
    let service = number / plan.each;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("p{number}"), "namespace": namespace(service),
            "labels": { "app": format!("s{service}") },
        },
        "spec": {
            "serviceAccountName": format!("a{}", account(number)),
            "containers": [{ "name": "app", "ports": [{ "name": "http", "containerPort": 8080 }],
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } } }],
        },
        "status": { "podIP": address(number) },
    })
}

fn address(pod: usize) -> String {
    format!("10.{}.{}.{}", 128 + pod / 62_500, pod / 250 % 250, 1 + pod % 250)
}

/// The endpoints of a Service; the mark is the zone of the first, so a change is a few bytes.
fn slice(plan: &Plan, service: usize, mark: u64) -> Value {
    let endpoint = |nth: usize| {
        let number = service * plan.each + nth;
        let zone = if nth == 0 { format!("mark-{mark}") } else { "zone-a".to_owned() };
        json!({
            "addresses": [address(number)], "conditions": { "ready": true }, "zone": zone,
            "targetRef": { "kind": "Pod", "name": format!("p{number}") },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("s{service}"), "namespace": namespace(service),
            "labels": { "kubernetes.io/service-name": format!("s{service}") },
        },
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": (0..plan.each).map(endpoint).collect::<Vec<_>>(),
    })
}
