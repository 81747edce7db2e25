//! feed: the mesh as objects of the API, and changes of it.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::api::Api;
use crate::plan::{NAMESPACES, Plan, account, namespace};

const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// Puts the whole mesh there.
pub(crate) fn fill(api: &Api, plan: &Plan) {
    (0..NAMESPACES).for_each(|number| api.put("/api/v1/namespaces", namespace_object(&namespace(number))));
    api.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition());
    for number in 0..plan.services {
        api.put("/api/v1/services", service(number));
        api.put(&format!("/apis/{GATEWAY}/v1/httproutes"), route(number));
        change(api, plan, number, 0);
    }
    (0..plan.endpoints()).for_each(|number| api.put("/api/v1/pods", pod(plan, number)));
}

/// Leaves `mark` on the endpoints of `service`; when it comes back the controller can see it.
pub(crate) fn change(api: &Api, plan: &Plan, service: usize, mark: u64) {
    api.put(SLICES, slice(plan, service, mark));
}

/// What everybody trusts, once the controller has written it.
pub(crate) fn anchors(api: &Api) -> anyhow::Result<String> {
    let map = api.get("/api/v1/configmaps", &namespace(0), "tidegate-anchors").context("not there yet")?;
    Ok(map["data"]["anchors.pem"].as_str().context("no anchors in it")?.to_owned())
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("httproutes.{GATEWAY}") },
        "spec": { "group": GATEWAY, "versions": [{ "name": "v1", "served": true, "storage": true }] },
    })
}

fn namespace_object(name: &str) -> Value {
    let labels = json!({ "tidegate.dev/inject": "enabled" });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
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
        "metadata": { "name": format!("r{number}"), "namespace": namespace(number), "generation": 1 },
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
            "annotations": { "tidegate.dev/injected": "0.1.0" },
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
