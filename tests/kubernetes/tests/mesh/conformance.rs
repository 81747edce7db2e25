//! conformance: what Gateway API's mesh suite says of Services and their ports, by its names.

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::{Value, json};

use crate::objects::{self, with_spec};
use crate::routes::{self, CLIENT, ROUTES};
use crate::town::{PATIENCE, SHOP, Town};

/// A route of `parent` that marks every response and sends it to `backend`.
fn marked(name: &str, parent: &Value, backend: &str) -> Value {
    let mark = json!([{"type": "ResponseHeaderModifier",
                       "responseHeaderModifier": {"set": [{"name": "X-Header-Set", "value": name}]}}]);
    let rules = json!([{"filters": mark, "backendRefs": [{"name": backend, "port": 80}]}]);
    with_spec(ROUTES, "HTTPRoute", (SHOP, name), json!({"parentRefs": [parent], "rules": rules}))
}

/// A Service of one version with two ports.
fn two_ports(name: &str) -> Value {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"},
                       {"name": "again", "port": 8080, "targetPort": "http", "appProtocol": "http"}]);
    with_spec("v1", "Service", (SHOP, name), json!({"selector": {"app": name}, "ports": ports}))
}

/// MeshPorts: a route of one port leaves the others alone, and one that names none counts for all.
pub(crate) fn mesh_ports_a_route_counts_for_the_port_it_names_or_for_all(town: &mut Town) -> Result<()> {
    routes::open(town)?;
    let one = json!({"group": "", "kind": "Service", "name": "echo-v1", "port": 80});
    let all = json!({"group": "", "kind": "Service", "name": "echo-v2"});
    town.apply(&[
        two_ports("echo-v1"),
        two_ports("echo-v2"),
        marked("one-port", &one, "echo-v1"),
        marked("all-ports", &all, "echo-v2"),
    ])?;
    let cases = [
        ("http://echo-v1/", "echo-v1", "one-port"),
        ("http://echo-v1:8080/", "echo-v1", ""),
        ("http://echo-v2/", "echo-v2", "all-ports"),
        ("http://echo-v2:8080/", "echo-v2", "all-ports"),
    ];
    for (url, server, mark) in cases {
        town.expect(CLIENT, &[url], |reply| reply.is_of(server) && reply.header("x-header-set") == mark)?;
    }
    town.api().kubectl(&["delete", "httproute", "one-port", "all-ports", "-n", SHOP]).map(drop)
}

/// MeshFrontend, MeshFrontendHostname: a Service's route counts for its own address, not for the pods behind
/// it, whatever host a request names.
pub(crate) fn mesh_frontend_a_route_counts_for_its_service_and_not_for_a_pods_address(
    town: &mut Town,
) -> Result<()> {
    routes::open(town)?;
    let service = json!({"group": "", "kind": "Service", "name": "echo-v2"});
    town.apply(&[marked("frontend", &service, "echo-v2")])?;
    let is_marked = |mark: &'static str| {
        move |reply: &crate::asked::Reply| reply.is_of("echo-v2") && reply.header("x-header-set") == mark
    };
    town.expect(CLIENT, &["http://echo-v2/"], is_marked("frontend"))?;
    town.expect(CLIENT, &["-H", "Host: echo-v1", "http://echo-v2/"], is_marked("frontend"))?;
    town.expect(CLIENT, &["-H", "Host: echo-v2", "http://echo-v1/"], |reply| {
        reply.is_of("echo-v1") && reply.header("x-header-set").is_empty()
    })?;
    let pod = town.pod(SHOP, "echo-v2")?;
    let address = town.api().kubectl(&["get", "pod", &pod, "-n", SHOP, "-o", "jsonpath={.status.podIP}"])?;
    town.expect(CLIENT, &[&format!("http://{}:8080/", address.trim())], is_marked(""))?;
    town.api().kubectl(&["delete", "httproute", "frontend", "-n", SHOP]).map(drop)
}

/// MeshTrafficSplit: paths of one Service are answered by others.
pub(crate) fn mesh_traffic_split_paths_go_to_the_services_they_name(town: &mut Town) -> Result<()> {
    routes::open(town)?;
    let rule = |path: &str, backend: &str| {
        json!({"matches": [{"path": {"type": "Exact", "value": path}}],
               "backendRefs": [{"name": backend, "port": 80}]})
    };
    let parent = json!([{"group": "", "kind": "Service", "name": "echo"}]);
    let spec = json!({"parentRefs": parent, "rules": [rule("/v1", "echo-v1"), rule("/v2", "echo-v2")]});
    town.apply(&[with_spec(ROUTES, "HTTPRoute", (SHOP, "split"), spec)])?;
    town.expect(CLIENT, &["http://echo/v1"], |reply| reply.is_of("echo-v1"))?;
    town.expect(CLIENT, &["http://echo/v2"], |reply| reply.is_of("echo-v2"))?;
    // Whatever no rule is for goes nowhere.
    town.expect(CLIENT, &["http://echo/v3"], |reply| reply.status == 404)?;
    town.api().kubectl(&["delete", "httproute", "split", "-n", SHOP]).map(drop)
}

/// MeshGRPCRouteWeight, at its two ends: all calls go to the backend that has all the weight.
pub(crate) fn mesh_grpc_route_weight_calls_go_to_the_backend_that_has_it(town: &mut Town) -> Result<()> {
    let mut list = vec![service_of_calls("calls", &json!({"town": "calls"}))];
    for name in CALLED {
        let mut server = objects::running(&["load", "serve", "--http", ":8080", "--grpc", ":9090"]);
        server["ports"] =
            json!([{"name": "http", "containerPort": 8080}, {"name": "grpc", "containerPort": 9090}]);
        server["readinessProbe"] = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1});
        let mut deployment = objects::deployment(SHOP, name, &server);
        deployment["spec"]["template"]["metadata"]["labels"]["town"] = json!("calls");
        list.extend([deployment, service_of_calls(name, &json!({"app": name}))]);
    }
    town.apply(&list)?;
    for name in CALLED {
        town.rolled_out(SHOP, name)?;
    }
    for (weights, chosen) in [([0, 1], 1), ([1, 0], 0)] {
        let backends: Vec<Value> = std::iter::zip(CALLED, weights)
            .map(|(name, weight)| json!({"name": name, "port": 90, "weight": weight}))
            .collect();
        let parent = json!([{"group": "", "kind": "Service", "name": "calls", "port": 90}]);
        let spec = json!({"parentRefs": parent, "rules": [{"backendRefs": backends}]});
        town.apply(&[with_spec(ROUTES, "GRPCRoute", (SHOP, "calls"), spec)])?;
        until(&format!("all calls to reach {}", CALLED[chosen]), PATIENCE, || {
            let before = calls_taken_in(town)?;
            let sent = call(town)?;
            let after = calls_taken_in(town)?;
            let came = [after[0] - before[0], after[1] - before[1]];
            Ok((came[chosen] >= sent && came[1 - chosen] == 0.0).then_some(()))
        })?;
    }
    let all = ["grpcroute/calls", "service/calls", "service/calls-v1", "service/calls-v2"];
    town.api().kubectl(&[&["delete", "-n", SHOP], &all[..]].concat())?;
    let pods = ["delete", "-n", SHOP, "--wait=false", "deployment/calls-v1", "deployment/calls-v2"];
    town.api().kubectl(&pods).map(drop)
}

/// The two backends of calls.
const CALLED: [&str; 2] = ["calls-v1", "calls-v2"];

fn service_of_calls(name: &str, selector: &Value) -> Value {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"},
                       {"name": "grpc", "port": 90, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}]);
    with_spec("v1", "Service", (SHOP, name), json!({"selector": selector, "ports": ports}))
}

/// Calls for a second; how many calls there were, none of which failed.
fn call(town: &Town) -> Result<f64> {
    let command =
        ["load", "client", "--http", "calls:80", "--grpc", "calls:90", "--rate", "90", "--for", "1s"];
    let said = town.exec(CLIENT.0, CLIENT.1, &command)?;
    let at = said.find("\n{").with_context(|| format!("no figures: {said}"))?;
    let figures: Value = serde_json::from_str(&said[at..])?;
    let of = &figures["grpc"];
    let sent = of["sent"].as_f64().unwrap_or_default();
    ensure!(of["failed"] == 0 && sent >= 10.0, "{of:#}");
    Ok(sent)
}

/// How many calls the sidecars of both let in.
fn calls_taken_in(town: &Town) -> Result<[f64; 2]> {
    let of = |name| {
        let pod = town.pod(SHOP, name)?;
        town.counted(SHOP, &pod, "tidegate_sidecar_peer_requests_total", &["port=\"9090\""])
    };
    Ok([of(CALLED[0])?, of(CALLED[1])?])
}
