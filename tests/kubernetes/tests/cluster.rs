//! cluster: that it is a Kubernetes: pods run on its nodes, reach each other, and leave nothing behind.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kubernetes::{Cluster, image};

fn server(name: &str, node: &str) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "server", "image": image::PAUSE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", format!("echo {name} > /tmp/index.html; httpd -f -p 8080 -h /tmp")]}]}})
    .to_string()
}

#[test]
fn pods_on_two_nodes_reach_each_other_and_nothing_is_left_of_them() -> Result<()> {
    let began = std::time::Instant::now();
    let cluster = Cluster::with_nodes(2)?;
    println!("two nodes ready after {:.1?}", began.elapsed());
    cluster.apply(&server("one", "node-1"))?;
    cluster.apply(&server("two", "node-2"))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "one", "two", "--timeout=60s"])?;
    println!("and pods on them after {:.1?}", began.elapsed());
    let two = cluster.get(&["pod", "two"])?;
    let address = two["status"]["podIP"].as_str().context("a running pod has an address")?;
    let url = format!("http://{address}:8080/");
    let said = cluster.kubectl(&["exec", "one", "--", "wget", "-qO-", &url])?;
    ensure!(said.trim() == "two", "{url} said {said:?}");

    let namespaces: Vec<String> = cluster.nodes().iter().map(|node| node.pod().ns().to_owned()).collect();
    drop(cluster);
    let said = Command::new("ip").args(["netns", "list"]).output()?.stdout;
    let networks = String::from_utf8_lossy(&said);
    ensure!(!networks.contains("cni-"), "networks of pods are left: {networks}");
    for ns in namespaces {
        ensure!(!networks.contains(&ns), "{ns} is left");
        ensure!(!Path::new("/run/tidegate").join(&ns).exists(), "the state of {ns}'s containerd is left");
        ensure!(!Path::new("/sys/fs/cgroup/memory").join(&ns).exists(), "a cgroup of {ns} is left");
    }
    Ok(())
}
