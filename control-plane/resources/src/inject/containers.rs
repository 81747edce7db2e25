//! containers: the two that go in, and what of the pod they need.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::annotations::Wishes;
use super::settings::Settings;
use super::{
    ANCHORS_CONFIG_MAP, INJECTED, NOT_INJECTED, PROXY_CONTAINER, REDIRECT_CONTAINER, annotate, map_in,
};

/// The uid of the sidecar, whose own connections the rules leave alone.
pub(super) const PROXY_UID: u64 = 2102;
/// Where outgoing connections are taken.
pub(super) const OUTBOUND_PORT: u16 = 4140;
/// Where incoming connections are taken, if the pod does not say otherwise.
pub(super) const INBOUND_PORT: u16 = 4143;
/// Where events will be published and pulled.
pub(super) const EVENTS_PORT: u16 = 4180;
/// Where the kubelet and Prometheus ask.
pub(super) const ADMIN_PORT: u16 = 4191;

const ANCHORS_VOLUME: &str = "tidegate-anchors";
const TOKEN_VOLUME: &str = "tidegate-token";
const QUEUE_VOLUME: &str = "tidegate-queue";
/// The names of the volumes that go in.
pub(super) const VOLUMES: [&str; 3] = [ANCHORS_VOLUME, TOKEN_VOLUME, QUEUE_VOLUME];

const ANCHORS_PATH: &str = "/var/run/tidegate/anchors";
const TOKEN_PATH: &str = "/var/run/tidegate/token";
const QUEUE_PATH: &str = "/var/lib/tidegate/queue";

/// What of a queue's volume the store may take, in percent: the kubelet evicts a pod whose `emptyDir`
/// passes its limit, and it looks only now and then.
const QUEUE_SHARE: u64 = 80;

/// How often the startup probe asks, and how often it may hear no: two minutes, in which a controller
/// that is just being installed or a node that pulls many images gets ready. Then the kubelet starts
/// the sidecar anew and says so in the pod's events.
const STARTUP_PERIOD_SECONDS: u32 = 1;
const STARTUP_FAILURES: u32 = 120;

/// The pod with its sidecar.
pub(super) fn put(pod: &Value, wishes: &Wishes, settings: &Settings) -> Value {
    let mut pod = pod.clone();
    let spec = map_in(&mut pod, "spec");
    prepend(spec, "initContainers", vec![redirect(wishes, settings), sidecar(wishes, settings)]);
    append(spec, "volumes", volumes(wishes, settings));
    let present: BTreeSet<String> = names(&spec["imagePullSecrets"]);
    let missing = settings.image_pull_secrets.iter().filter(|name| !present.contains(*name));
    append(spec, "imagePullSecrets", missing.map(|name| json!({"name": name})).collect());
    if let Some(seconds) = wishes.prestop_sleep {
        hold_back(spec, seconds);
    }
    annotate(&mut pod, INJECTED, &settings.version);
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove(NOT_INJECTED);
    }
    pod
}

fn names(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|item| item["name"].as_str()).map(str::to_owned).collect()
}

/// Ours first, the pod's own behind.
fn prepend(spec: &mut Value, key: &str, mut items: Vec<Value>) {
    items.extend(spec[key].as_array().into_iter().flatten().cloned());
    spec[key] = Value::Array(items);
}

fn append(spec: &mut Value, key: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    let own = spec[key].as_array().cloned().unwrap_or_default();
    spec[key] = Value::Array(own.into_iter().chain(items).collect());
}

/// Containers that have no hook of their own hear SIGTERM a little later: until then the endpoints
/// that name this pod are gone from those who would still send here.
fn hold_back(spec: &mut Value, seconds: u64) {
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        if container.is_object() && container["lifecycle"]["preStop"].is_null() {
            map_in(container, "lifecycle")["preStop"] = json!({"sleep": {"seconds": seconds}});
        }
    }
}

/// Runs to its end before anything else of the pod. Capabilities added for another user than uid 0
/// have no effect, so it is uid 0 and has NET_ADMIN alone.
fn redirect(wishes: &Wishes, settings: &Settings) -> Value {
    let mut skip_inbound = wishes.skip_inbound.clone();
    skip_inbound.insert(ADMIN_PORT);
    let mut command = vec![
        "tidegate-proxy".to_owned(),
        "redirect".to_owned(),
        "--self-check".to_owned(),
        format!("--outbound-port={OUTBOUND_PORT}"),
        format!("--inbound-port={}", wishes.inbound_port),
        format!("--proxy-uid={PROXY_UID}"),
        format!("--skip-inbound-ports={}", list(&skip_inbound)),
    ];
    if !wishes.skip_outbound.is_empty() {
        command.push(format!("--skip-outbound-ports={}", list(&wishes.skip_outbound)));
    }
    let mut container = container(REDIRECT_CONTAINER, wishes, settings);
    container["command"] = json!(command);
    container["resources"] = json!({
        "requests": {"cpu": "10m", "memory": "16Mi"},
        "limits": {"memory": "64Mi"},
    });
    if let Some(limit) = &settings.cpu_limit {
        // Where limits are asked for, a quota may ask them of every container.
        container["resources"]["limits"]["cpu"] = json!(limit);
    }
    container["securityContext"] = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    container
}

/// Passes the Pod Security Standard `restricted`.
fn sidecar(wishes: &Wishes, settings: &Settings) -> Value {
    let mut container = container(PROXY_CONTAINER, wishes, settings);
    let mut limits = json!({});
    if let Some(memory) = &wishes.memory_limit {
        limits["memory"] = json!(memory);
    }
    if let Some(cpu) = &settings.cpu_limit {
        limits["cpu"] = json!(cpu);
    }
    let more = json!({
        "command": ["tidegate-proxy"],
        "restartPolicy": "Always",
        "env": environment(wishes, settings),
        "ports": [
            {"name": "tidegate-in", "containerPort": wishes.inbound_port, "protocol": "TCP"},
            {"name": "tidegate-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        "startupProbe": probe("/ready", STARTUP_PERIOD_SECONDS, STARTUP_FAILURES),
        "readinessProbe": probe("/ready", 5, 3),
        // A store that cannot be trusted is opened anew by a restart, and by nothing else.
        "livenessProbe": probe("/live", 10, 3),
        // The kubelet runs the hooks of all containers as soon as the pod is to end, and sends a
        // native sidecar its SIGTERM only after the application has gone: killContainer in
        // kubernetes v1.36.3, pkg/kubelet/kuberuntime/kuberuntime_container.go, runs executePreStopHook
        // before ordering.waitForTurn. So this begins the drain and returns at once; what time it took
        // would be taken from the grace.
        "lifecycle": {"preStop": {"exec": {"command": ["tidegate-proxy", "drain"]}}},
        "resources": {
            "requests": {"cpu": wishes.cpu_request, "memory": wishes.memory_request},
            "limits": limits,
        },
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": ANCHORS_VOLUME, "mountPath": ANCHORS_PATH, "readOnly": true},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_PATH, "readOnly": true},
            {"name": queue_volume(wishes), "mountPath": QUEUE_PATH},
        ],
    });
    merge(&mut container, more);
    container
}

fn container(name: &str, wishes: &Wishes, settings: &Settings) -> Value {
    let mut container = json!({
        "name": name,
        "image": wishes.image,
        // Why it failed is then in `kubectl describe pod`.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": ADMIN_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 3,
    })
}

fn environment(wishes: &Wishes, settings: &Settings) -> Vec<Value> {
    let of_pod =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut environment = vec![
        of_pod("TIDEGATE_NAMESPACE", "metadata.namespace"),
        of_pod("TIDEGATE_POD", "metadata.name"),
        of_pod("TIDEGATE_POD_IP", "status.podIP"),
        of_pod("TIDEGATE_SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ];
    let mut set = |name: &str, value: String| environment.push(json!({"name": name, "value": value}));
    set("TIDEGATE_CONTROLLER", settings.controller.clone());
    set("TIDEGATE_CONTROLLER_IDENTITY", settings.controller_identity.to_string());
    set("TIDEGATE_TRUST_DOMAIN", settings.trust_domain.to_string());
    set("TIDEGATE_ANCHORS", format!("{ANCHORS_PATH}/anchors.pem"));
    set("TIDEGATE_TOKEN_FILE", format!("{TOKEN_PATH}/token"));
    set("TIDEGATE_OUTBOUND", format!("127.0.0.1:{OUTBOUND_PORT}"));
    set("TIDEGATE_INBOUND", format!("0.0.0.0:{}", wishes.inbound_port));
    set("TIDEGATE_ADMIN", format!("0.0.0.0:{ADMIN_PORT}"));
    set("TIDEGATE_WORKERS", wishes.workers.to_string());
    set("TIDEGATE_INBOUND_DEFAULT", wishes.inbound_default.clone());
    set("TIDEGATE_STRICT", wishes.strict.to_string());
    set("TIDEGATE_DRAIN_GRACE", format!("{}s", wishes.drain_grace.as_secs().max(1)));
    set("TIDEGATE_QUEUE_DIRECTORY", QUEUE_PATH.to_owned());
    set("TIDEGATE_QUEUE_BYTES_MAX", quota(wishes).to_string());
    set("TIDEGATE_LOG", wishes.log.clone());
    set("TIDEGATE_ACCESS_LOG", settings.access_log.to_string());
    if let Some(endpoint) = &settings.otlp_endpoint {
        set("TIDEGATE_OTLP_ENDPOINT", endpoint.clone());
    }
    environment
}

fn quota(wishes: &Wishes) -> u64 {
    wishes.queue_bytes / 100 * QUEUE_SHARE
}

fn queue_volume(wishes: &Wishes) -> &str {
    wishes.queue_volume.as_deref().unwrap_or(QUEUE_VOLUME)
}

fn volumes(wishes: &Wishes, settings: &Settings) -> Vec<Value> {
    let token = json!({"serviceAccountToken": {
        "audience": settings.token_audience,
        "expirationSeconds": settings.token_lifetime.as_secs(),
        "path": "token",
    }});
    let mut volumes = vec![
        json!({"name": ANCHORS_VOLUME, "configMap": {"name": ANCHORS_CONFIG_MAP}}),
        json!({"name": TOKEN_VOLUME, "projected": {"sources": [token]}}),
    ];
    if wishes.queue_volume.is_none() {
        let size = crate::quantity::print_bytes(wishes.queue_bytes);
        volumes.push(json!({"name": QUEUE_VOLUME, "emptyDir": {"sizeLimit": size}}));
    }
    volumes
}

fn list(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}
