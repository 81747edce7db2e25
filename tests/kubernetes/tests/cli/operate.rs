//! operate: queues and requests of a pod, reached through the API server and its node.
//!
//! The pod's sidecar is busybox's httpd with the documents of one: what is shown here is the way there.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kubernetes::{Cluster, image};
use serde_json::{Value, json};

use crate::{Tidegate, holds};

const QUEUES: &str = r#"{"pod":"web","identity":"","trouble":null,
"stores":[{"durability":"local","bytes":4096,"bytesMax":1048576}],
"queues":[{"name":"shop/orders/orders.shop:80","policy":"shop/orders","durability":"local","depth":7,"bytes":70,
"oldestAgeSeconds":900.0,"inFlight":0,"deadLetters":2,"paused":null,"blocked":"unavailable: connection_refused",
"arrivalsPerSecond":0.0,"completionsPerSecond":0.0,"drainEstimateSeconds":null}]}"#;
const MESSAGE: &str = r#"{"id":"x","state":"Retrying","reason":null,"queue":"shop/orders/orders.shop:80",
"durability":"local","enqueuedAt":"2026-01-31T12:00:00Z","attempts":[],"attemptsUsed":3,"nextAttemptAt":null,
"endedAt":null}"#;

/// A pod with a container of the sidecar's name, which runs this.
fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "tidegate-proxy", "image": image::PAUSE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", script],
            "ports": [{"name": "tidegate-admin", "containerPort": 4191}],
        }]},
    })
}

/// As a sidecar, on loopback alone.
fn serves() -> String {
    format!("echo '{QUEUES}' > /tmp/queues && exec httpd -f -p 127.0.0.1:4191 -h /tmp")
}

#[test]
fn queues_and_requests_of_a_pod_are_reached_through_the_api_server() -> Result<()> {
    let cluster = Cluster::with_nodes(1)?;
    cluster.apply(&pod("web", &serves()).to_string())?;
    cluster.apply(&pod("silent", "sleep 1000000").to_string())?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "web", "silent", "--timeout=90s"])?;
    let tidegate = Tidegate::new(&cluster)?;

    let began = Instant::now();
    let said = tidegate.says(0, &["queue", "ls", "--pod", "web"])?;
    println!("one pod took {:.1?}", began.elapsed());
    holds(&said, &["shop/orders/orders.shop:80", "unavailable: connection_refused", "4.0 KiB of 1.0 MiB"])?;

    let said = tidegate.says(1, &["queue", "ls", "--pod", "default/silent"])?;
    holds(&said, &["pod default/silent", "nobody answers on its port 4191: does its sidecar run?"])?;

    // What one pod does not say, others do.
    let all = tidegate.document(1, &["queue", "ls", "--all-pods", "-o", "json"])?;
    ensure!(all["pods"][0]["pod"] == "default/web", "{all}");
    ensure!(all["pods"][0]["said"]["queues"][0]["depth"] == 7, "{all}");
    ensure!(all["failed"][0]["pod"] == "default/silent", "{all}");
    let said = tidegate.says(1, &["dlq", "ls", "-A", "-n", "default"])?;
    holds(&said, &["default/web", "1 of 2 pods did not answer"])?;

    by_id(&cluster, &tidegate)
}

/// The id names the pod by its address.
fn by_id(cluster: &Cluster, tidegate: &Tidegate<'_>) -> Result<()> {
    let web = cluster.get(&["pod", "web"])?;
    let address = web["status"]["podIP"].as_str().context("a running pod has an address")?;
    let bits = u32::from(address.parse::<std::net::Ipv4Addr>()?);
    let id = format!("01900000-0001-7400-8000-0005{bits:08x}");
    let folder = "/tmp/.tidegate/requests";
    let script = format!("busybox mkdir -p {folder} && echo '{MESSAGE}' > {folder}/{id}");
    cluster.kubectl(&["exec", "web", "--", "sh", "-c", &script])?;
    let said = tidegate.says(0, &["request", "get", &id])?;
    holds(&said, &["Retrying", "shop/orders/orders.shop:80"])?;
    let nobody = "01900000-0001-7400-8000-00050a630001";
    let said = tidegate.says(1, &["request", "get", nobody])?;
    holds(&said, &["no pod with a sidecar has address 10.99.0.1 now"])
}
