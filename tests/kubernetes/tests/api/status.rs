//! status: objects on a real API server are told what became of them.

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::{Value, json};

use crate::controller::{Controller, leads};
use crate::source::gateway_api;
use crate::world::{AUDIENCE, PATIENCE, World};

const ROUTES: &str = "httproutes.gateway.networking.k8s.io";
/// Kinds of the Gateway API that are read.
const GATEWAY: [&str; 3] = ["httproutes", "grpcroutes", "referencegrants"];

/// What is told: a Service, and one of each kind that speaks of it.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: told, namespace: shop}
spec:
  parentRefs:
  - {group: '', kind: Service, name: orders, sectionName: http}
  - {group: '', kind: Service, name: orders, sectionName: none}
  - {name: a-gateway}
  rules: [{backendRefs: [{name: orders, port: 80}]}, {backendRefs: [{name: nowhere, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: told, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: orders}]
  rules: [{backendRefs: [{name: orders, port: 80}]}]
---
apiVersion: tidegate.dev/v1alpha1
kind: BackendPolicy
metadata: {name: told, namespace: shop}
spec: {targetRefs: [{group: '', kind: Service, name: orders}]}
---
apiVersion: tidegate.dev/v1alpha1
kind: AsyncPolicy
metadata: {name: told, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: nowhere}]
  delivery: {deadLetterSink: {ref: {kind: Service, name: orders}}}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: told, namespace: shop}
spec: {selector: {}, default: Allow}
---
apiVersion: tidegate.dev/v1alpha1
kind: MeshTrust
metadata: {name: told}
spec: {anchors: []}
";

/// Our kinds and those of the Gateway API, and no policy of another case.
fn ready(world: &mut World) -> Result<()> {
    world.enter("mesh-told")?;
    world.define()?;
    world.shop()?;
    world.cluster.kubectl(&["delete", "backendpolicy,asyncpolicy,accesspolicy", "--all", "-n", "shop"])?;
    for kind in GATEWAY {
        let file = gateway_api()?.join(format!("gateway.networking.k8s.io_{kind}.yaml"));
        world.cluster.apply(&std::fs::read_to_string(file)?)?;
    }
    let mut why = String::new();
    let taken = until("all objects to be taken", PATIENCE, || {
        let taken = world.cluster.apply(OBJECTS);
        why = taken.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
        Ok(taken.ok().map(drop))
    });
    taken.context(why)
}

/// Each condition as `Type=Status/Reason`.
fn words(conditions: &Value) -> Vec<String> {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let one = |condition: &Value| {
        format!("{}={}/{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"))
    };
    conditions.as_array().into_iter().flatten().map(one).collect()
}

/// Waits until the list of conditions at `path` of an object's status reads so.
fn reads(world: &World, object: &str, path: &str, wanted: &[&str]) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(&format!("{object} to say {wanted:?}"), PATIENCE, || {
        last = world.cluster.get(&[object, "-n", "shop"])?["status"].clone();
        Ok((words(&last.pointer(path).cloned().unwrap_or_default()) == wanted).then(|| last.clone()))
    });
    found.with_context(|| format!("{last:#}"))
}

const RESOLVED: &str = "ResolvedRefs=True/ResolvedRefs";
const NOBODY: &str = "Programmed=True/NoSubscribers";
const ACCEPTED: &str = "Accepted=True/Accepted";

/// Each kind before any proxy is there, and what another controller wrote is left alone.
fn before_any_proxy(world: &World) -> Result<()> {
    let route = format!("{ROUTES}/told");
    let of_route = [ACCEPTED, "ResolvedRefs=False/BackendNotFound", NOBODY];
    let status = reads(world, &route, "/parents/1/conditions", &of_route)?;
    let parents = &status["parents"];
    ensure!(parents[0]["controllerName"] == "example.com/gateway", "{status:#}");
    let first = json!({"group": "", "kind": "Service", "name": "orders", "sectionName": "http"});
    ensure!(parents[1]["parentRef"] == first, "{status:#}");
    let no_port = "Service shop/orders has no port named \"none\" that is meant";
    ensure!(parents[2]["conditions"][0]["message"] == no_port, "{status:#}");
    ensure!(parents.as_array().is_some_and(|all| all.len() == 3), "{status:#}");
    reads(world, "grpcroute/told", "/parents/0/conditions", &[ACCEPTED, RESOLVED, NOBODY])?;
    reads(world, "backendpolicy/told", "/ancestors/0/conditions", &[ACCEPTED, NOBODY])?;
    reads(world, "accesspolicy/told", "/conditions", &[ACCEPTED, NOBODY])?;
    reads(world, "asyncpolicy/told", "/conditions", &["Accepted=False/TargetNotFound", RESOLVED])?;
    reads(world, "meshtrust/told", "/conditions", &[ACCEPTED, NOBODY])?;

    // A policy for a Service that is not there yet, and then is.
    let nowhere = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]},
                         "metadata": {"name": "nowhere", "namespace": "shop"}});
    world.cluster.apply(&nowhere.to_string())?;
    reads(world, "asyncpolicy/told", "/conditions", &[ACCEPTED, RESOLVED, NOBODY])?;
    reads(world, &route, "/parents/1/conditions", &[ACCEPTED, RESOLVED, NOBODY]).map(drop)
}

pub(crate) fn every_kind_is_told_and_programmed_once_a_proxy_has_acknowledged_it(
    world: &mut World,
) -> Result<()> {
    ready(world)?;
    let accepted = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                          "lastTransitionTime": "2026-01-31T12:00:00Z"});
    let theirs = json!({"parentRef": {"name": "a-gateway"}, "controllerName": "example.com/gateway",
                        "conditions": [accepted]});
    let patch = json!({"status": {"parents": [theirs]}}).to_string();
    let status = ["--subresource=status", "--type=merge", "--patch", &patch];
    world.cluster.kubectl(&[&["patch", ROUTES, "told", "-n", "shop"], &status[..]].concat())?;

    let controller = Controller::start(world, "told-1")?;
    controller.until("the Lease", leads)?;
    before_any_proxy(world).with_context(|| controller.process.log_tail())?;

    let version = || -> Result<Value> {
        Ok(world.cluster.get(&["backendpolicy/told", "-n", "shop"])?["metadata"]["resourceVersion"].clone())
    };
    let before = version()?;
    let web = world.cluster.lab().pod("told-web", "shop", "web")?;
    let token = world.token("web", "web-0", AUDIENCE)?;
    let mut proxy = world.proxy((&web, &controller.pod), "web", &token, &world.anchors()?)?;
    proxy.wait_for("certified", PATIENCE)?;
    let programmed = [ACCEPTED, "Programmed=True/Programmed"];
    reads(world, "accesspolicy/told", "/conditions", &programmed)?;
    let status = reads(world, "meshtrust/told", "/conditions", &programmed)?;
    ensure!(status["conditions"][1]["observedGeneration"] == 1, "{status:#}");
    // What stands is not written again: no proxy needs that Service.
    ensure!(version()? == before, "nothing about it changed");

    // A new spec is acknowledged too.
    let deny = r#"{"spec": {"default": "Deny"}}"#;
    world.cluster.kubectl(&["patch", "accesspolicy", "told", "-n", "shop", "--type=merge", "-p", deny])?;
    until("the new spec to be acknowledged", PATIENCE, || {
        let status = world.cluster.get(&["accesspolicy/told", "-n", "shop"])?["status"].clone();
        let is_new = status["observedGeneration"] == 2 || status["conditions"][1]["observedGeneration"] == 2;
        Ok((is_new && words(&status["conditions"]) == programmed).then_some(()))
    })?;
    forget(world)
}

/// The controller's Service before these, as an EndpointSlice of kubelets' pods would have it.
fn endpoints(world: &World, controllers: &[&Controller]) -> Result<()> {
    world.cluster.apply(&world.render(&["templates/service.yaml"])?)?;
    let endpoint = |controller: &&Controller| {
        let target = json!({"kind": "Pod", "name": controller.pod.name(), "namespace": world.namespace});
        json!({"addresses": [controller.pod.ip().to_string()], "targetRef": target})
    };
    let endpoints: Vec<Value> = controllers.iter().map(endpoint).collect();
    let labels = json!({"kubernetes.io/service-name": "tidegate-controller"});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "tidegate-controller-ours", "namespace": world.namespace, "labels": labels},
        "ports": [{"name": "grpc", "port": 8086}], "endpoints": endpoints});
    world.cluster.apply(&slice.to_string()).map(drop)
}

pub(crate) fn proxies_of_every_replica_count_before_a_policy_is_programmed(world: &mut World) -> Result<()> {
    world.enter("mesh-replicas")?;
    world.define()?;
    world.shop()?;
    let policy = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "AccessPolicy",
        "metadata": {"name": "told", "namespace": "shop"}, "spec": {"selector": {}, "default": "Allow"}});
    world.cluster.apply(&policy.to_string())?;
    let writes = Controller::start(world, "replicas-1")?;
    writes.until("the Lease", leads)?;
    let other = Controller::start(world, "replicas-2")?;
    endpoints(world, &[&writes, &other])?;
    reads(world, "accesspolicy/told", "/conditions", &[ACCEPTED, NOBODY])?;

    let web = world.cluster.lab().pod("replicas-web", "shop", "web")?;
    let token = world.token("web", "web-0", AUDIENCE)?;
    let mut proxy = world.proxy((&web, &other.pod), "web", &token, &world.anchors()?)?;
    proxy.wait_for("certified", PATIENCE)?;
    let programmed = [ACCEPTED, "Programmed=True/Programmed"];
    let told = reads(world, "accesspolicy/told", "/conditions", &programmed);
    told.with_context(|| format!("{}\n{}", writes.process.log_tail(), other.process.log_tail()))?;
    ensure!(!leads(&other.status()?), "the other one is to have the proxy and not the Lease");
    world.cluster.kubectl(&["delete", "accesspolicy", "told", "-n", "shop"]).map(drop)
}

/// Other cases begin without the Gateway API, and without these.
fn forget(world: &World) -> Result<()> {
    world.cluster.kubectl(&["delete", "backendpolicy,asyncpolicy,accesspolicy", "told", "-n", "shop"])?;
    world.cluster.kubectl(&["delete", "meshtrust", "told"])?;
    world.cluster.kubectl(&["delete", "service", "orders", "nowhere", "-n", "shop"])?;
    let definitions = GATEWAY.map(|kind| format!("{kind}.gateway.networking.k8s.io"));
    let names: Vec<&str> = definitions.iter().map(String::as_str).collect();
    world.cluster.kubectl(&[&["delete", "customresourcedefinition"], &names[..]].concat()).map(drop)
}
