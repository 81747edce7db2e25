//! manifests: objects beyond a pod and its Service, some of them while the mesh runs.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::mesh::{APPLICATION, Mesh, host, until};

/// A BackendPolicy for orders.
pub(crate) fn policy(rest: &Value) -> Value {
    let mut spec = json!({"targetRefs": [{"kind": "Service", "name": "orders"}]});
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "BackendPolicy",
        "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec})
}

/// An HTTPRoute `all` with one rule, which sends to orders all that is for orders.
pub(crate) fn route(rest: &Value) -> Value {
    let mut rule = json!({"backendRefs": [{"name": "orders", "port": APPLICATION}]});
    rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "all", "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "orders"}], "rules": [rule]}})
}

/// A Service without endpoints.
pub(crate) fn empty(service: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": service, "namespace": "shop"},
            "spec": {"clusterIP": "10.96.1.1",
                "ports": [{"name": "http", "port": APPLICATION, "protocol": "TCP"}]}}),
        slice(service, 1, &json!([])),
    ]
}

fn slice(service: &str, number: usize, endpoints: &Value) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-{number}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": APPLICATION, "protocol": "TCP"}],
        "endpoints": endpoints})
}

impl Mesh {
    /// One endpoint more for a Service: `pod` at its application's port.
    pub(crate) fn announce(&self, service: &str, pod: &str) -> SocketAddr {
        let address = self.at(pod, APPLICATION);
        let endpoint = json!([{"addresses": [address.ip()], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod, "namespace": "shop"}}]);
        let manifests = self.dir.path().join("manifests");
        let (new, whole) = (manifests.join("new"), manifests.join(format!("{service}-{pod}.yaml")));
        std::fs::write(&new, slice(service, 2, &endpoint).to_string()).expect("it is written");
        std::fs::rename(new, whole).expect("it is seen whole");
        address
    }

    /// The same, and the sidecar beside web knows it.
    pub(crate) async fn announced(&self, service: &str, pod: &str) {
        self.ask("web", &format!("OPTIONS / HTTP/1.1\r\nHost: {}\r\n", host(service))).await;
        let endpoint = format!("endpoint=\"{}\"", self.announce(service, pod));
        let metrics = || async { self.admin("web", "/metrics").await.text() };
        until(&endpoint, metrics, |text| text.contains(&endpoint)).await;
    }
}
