//! manifests: the Kubernetes objects a test needs, as text.
//!
//! They are written as JSON, which is YAML too and needs no quoting of ours. Several in one file
//! are joined by [`together`].

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use crate::pod::Pod;

/// One port of a service.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Where the service is asked.
    pub port: u16,
    /// Where the pods listen.
    pub target: u16,
    /// What is spoken, when said: `http`, `kubernetes.io/h2c`, …
    pub app_protocol: Option<String>,
}

impl Port {
    /// A port that pods listen on too.
    #[must_use]
    pub fn new(name: &str, port: u16, target: u16) -> Self {
        Self { name: name.to_owned(), port, target, app_protocol: None }
    }

    /// With its protocol said.
    #[must_use]
    pub fn speaking(mut self, protocol: &str) -> Self {
        self.app_protocol = Some(protocol.to_owned());
        self
    }
}

/// Joins documents into one file.
#[must_use]
pub fn together(documents: &[String]) -> String {
    documents.join("\n---\n")
}

/// A namespace whose pods have sidecars.
#[must_use]
pub fn namespace(name: &str) -> String {
    text(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "annotations": { "tidegate.dev/inject": "enabled" } },
    }))
}

/// A pod of the lab that listens on these ports.
#[must_use]
pub fn pod(pod: &Pod, labels: &[(&str, &str)], ports: &[(&str, u16)]) -> String {
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({ "name": name, "containerPort": port })).collect();
    text(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": pod.name(), "namespace": pod.namespace(), "labels": map(labels) },
        "spec": {
            "serviceAccountName": pod.account(),
            "containers": [{ "name": "app", "image": "app", "ports": ports }],
        },
        "status": {
            "phase": "Running",
            "podIP": pod.ip(),
            "podIPs": [{ "ip": pod.ip() }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    }))
}

/// A service with an address of the cluster network.
#[must_use]
pub fn service(
    name: &str,
    namespace: &str,
    ip: Ipv4Addr,
    selector: &[(&str, &str)],
    ports: &[Port],
) -> String {
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut value = json!({
                "name": port.name, "port": port.port, "targetPort": port.target, "protocol": "TCP",
            });
            if let Some(protocol) = &port.app_protocol {
                value["appProtocol"] = json!(protocol);
            }
            value
        })
        .collect();
    text(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "clusterIP": ip, "clusterIPs": [ip], "selector": map(selector), "ports": ports },
    }))
}

/// The endpoints of a service: pods of the lab, each with whether it is ready.
#[must_use]
pub fn endpoint_slice(service: &str, namespace: &str, ports: &[Port], pods: &[(&Pod, bool)]) -> String {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(pod, ready)| {
            json!({
                "addresses": [pod.ip()],
                "conditions": { "ready": ready, "serving": ready, "terminating": false },
                "targetRef": { "kind": "Pod", "name": pod.name(), "namespace": pod.namespace() },
            })
        })
        .collect();
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut value = json!({ "name": port.name, "port": port.target, "protocol": "TCP" });
            if let Some(protocol) = &port.app_protocol {
                value["appProtocol"] = json!(protocol);
            }
            value
        })
        .collect();
    text(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "name": format!("{service}-1"),
            "namespace": namespace,
            "labels": { "kubernetes.io/service-name": service },
        },
        "endpoints": endpoints,
        "ports": ports,
    }))
}

fn map(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}
