//! source: objects of a real API server are in force, and stay so when it is away.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kubernetes::Cluster;
use lab::{Pod, SidecarOptions, until};
use serde_json::{Value, json};

use crate::controller::{Controller, count, leads, says};
use crate::world::{AUDIENCE, PATIENCE, World};

const ROUTES: &str = "httproutes.gateway.networking.k8s.io";

/// A pod as a node reports it.
fn report(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let ip = pod.ip().to_string();
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}}).to_string();
    let (name, namespace) = (pod.name(), pod.namespace());
    let patch = ["patch", "pod", name, "--namespace", namespace, "--subresource=status", "--patch", &status];
    cluster.kubectl(&patch).map(drop)
}

/// A pod that runs where this one of the lab is.
fn pod(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let spec = json!({"containers": [{"name": "app", "image": "none"}]});
    let meta = json!({"name": pod.name(), "namespace": pod.namespace(), "labels": {"app": pod.name()}});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}).to_string())?;
    report(cluster, pod)
}

/// A Service before these pods. Without a selector its slices are ours to write.
fn service(cluster: &Cluster, name: &str, pods: &[&Pod]) -> Result<()> {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let target = json!({"kind": "Pod", "name": pod.name(), "namespace": pod.namespace()});
            json!({"addresses": [pod.ip().to_string()], "targetRef": target})
        })
        .collect();
    let labels = json!({"kubernetes.io/service-name": name});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": labels},
            "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints}]});
    cluster.apply(&list.to_string()).map(drop)
}

/// The definitions of the Gateway API, from Go's module cache.
pub(crate) fn gateway_api() -> Result<PathBuf> {
    let module = "sigs.k8s.io/gateway-api@v1.6.1";
    let out = Command::new("go").args(["mod", "download", "-json", module]).current_dir("/").output()?;
    ensure!(out.status.success(), "go mod download {module}: {}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout)?;
    let folder = said["Dir"].as_str().context("go names the module's folder")?;
    Ok(PathBuf::from(folder).join("config/crd/standard"))
}

fn access(default: &str) -> String {
    let spec = json!({"selector": {"matchLabels": {"app": "orders"}}, "default": default, "rules": []});
    let meta = json!({"name": "orders", "namespace": "shop"});
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "AccessPolicy", "metadata": meta, "spec": spec})
        .to_string()
}

pub(crate) fn objects_reach_proxies_and_so_do_those_of_the_gateway_api_installed_later(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-source")?;
    let controller = Controller::start(world, "source-1")?;
    let status = controller.until("its own kinds to be missed", |status| {
        says(status, "accesspolicies.tidegate.dev") && count(status, "Namespace") >= 4
    })?;
    ensure!(says(&status, "is not installed") && !says(&status, ROUTES), "{status:#}");
    controller.until("the Lease", leads)?;
    ensure!(controller.counts("tidegate_controller_leader 1")?);

    world.shop()?;
    let cluster = &world.cluster;
    let web = cluster.lab().pod("web-0", "shop", "web")?;
    let orders = cluster.lab().pod("orders", "shop", "default")?;
    let _app = orders.serve("http_echo.py", &["--listen", "0.0.0.0:8080"])?;
    report(cluster, &web)?;
    pod(cluster, &orders)?;
    service(cluster, "orders", &[&orders])?;
    let tokens = cluster.lab().folder().join("tokens");
    std::fs::create_dir_all(&tokens)?;
    std::fs::copy(world.token("web", "web-0", AUDIENCE)?, tokens.join("shop.web.token"))?;
    let options = SidecarOptions {
        controller: format!("{}:8086", controller.pod.ip()),
        anchors: world.anchors()?,
        tokens,
        ..SidecarOptions::default()
    };
    let _sidecar = web.sidecar(&options.arg("--controller-identity").arg(&world.identity()))?;
    let service = cluster.get(&["service", "orders", "--namespace", "shop"])?;
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap_or_default());
    let answers = |wanted: u16| {
        until(&format!("{url} to answer {wanted}"), PATIENCE, || {
            Ok(web.get(&url).ok().filter(|(status, _)| *status == wanted).map(drop))
        })
    };
    answers(200)?;

    let definitions = gateway_api()?.join("gateway.networking.k8s.io_httproutes.yaml");
    cluster.apply(&std::fs::read_to_string(definitions)?)?;
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "moved", "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "orders"}], "rules": [
            {"matches": [{"path": {"value": "/elsewhere"}}],
             "backendRefs": [{"name": "orders", "port": 80}]}]}});
    until("the route to be taken", PATIENCE, || Ok(cluster.apply(&route.to_string()).ok()))?;
    // No rule of it takes what is asked for.
    answers(404)?;
    cluster.kubectl(&["delete", "customresourcedefinition", ROUTES])?;
    answers(200)?;
    cluster.kubectl(&["delete", "service,endpointslice,pod", "--all", "-n", "shop", "--now"]).map(drop)
}

pub(crate) fn while_the_api_server_is_away_and_a_permission_is_taken_what_was_good_stays_in_force(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-away")?;
    world.define()?;
    world.shop()?;
    world.cluster.apply(&access("Deny"))?;
    let controller = Controller::start(world, "away-1")?;
    controller
        .until("the policy, and the Lease", |status| count(status, "AccessPolicy") == 1 && leads(status))?;

    world.cluster.kubectl(&["delete", "clusterrolebinding", "tidegate-controller"])?;
    world.cluster.kill("kube-apiserver")?;
    let status = controller.until("it is away", |status| says(status, "cannot be reached"))?;
    ensure!(count(&status, "AccessPolicy") == 1, "{status:#}");
    let lost = controller.until("the Lease is lost", |status| !leads(status))?;
    ensure!(lost["leader"]["problem"].is_string(), "{lost:#}");

    world.cluster.start_api_server()?;
    let status = controller.until("no permission", |status| says(status, "services may not be watched"))?;
    ensure!(says(&status, "ClusterRole tidegate-controller"), "{status:#}");
    ensure!(count(&status, "AccessPolicy") == 1 && count(&status, "Service") >= 1, "{status:#}");
    world.grant()?;
    controller.until("all to be well, and the Lease ours", |status| {
        let well = !says(status, "may not be watched") && !says(status, "cannot be reached");
        well && leads(status)
    })?;
    world.cluster.kubectl(&["delete", "accesspolicy", "orders", "--namespace", "shop"])?;
    controller.until("the end of the policy", |status| count(status, "AccessPolicy") == 0)?;
    let log = controller.process.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("cannot be reached")).collect();
    // Not one of each watch; a server that starts may answer, and once more not.
    ensure!((1..=2).contains(&lines.len()), "the API server's absence is told so: {lines:#?}");
    Ok(())
}
