//! obstacle: why a pod cannot have a sidecar, and what of it will be noticed if it has.

use serde_json::Value;

use super::annotations::Wishes;
use super::containers::{ADMIN_PORT, EVENTS_PORT, OUTBOUND_PORT, PROXY_UID, VOLUMES};
use super::{Surroundings, containers_of};

/// Native sidecars are on by default from here on (KEP-753).
const NATIVE_SIDECARS: u32 = 29;
/// The `sleep` action of a hook is on by default from here on (KEP-3960).
const SLEEP_ACTION: u32 = 30;
/// Containers, and annotations with them, by which other meshes are known.
const OTHERS: [(&str, &str, &str); 4] = [
    ("Istio", "istio-proxy", "sidecar.istio.io/status"),
    ("Linkerd", "linkerd-proxy", "linkerd.io/proxy-version"),
    ("Kuma", "kuma-sidecar", "kuma.io/sidecar-injected"),
    ("Consul", "consul-dataplane", "consul.hashicorp.com/connect-inject-status"),
];

/// The first thing in the way; with what helps.
pub(super) fn find(pod: &Value, wishes: &Wishes, around: &Surroundings) -> Option<String> {
    let spec = &pod["spec"];
    if spec["hostNetwork"] == true {
        return Some(
            "hostNetwork is true, and rules for its traffic would redirect the whole node's: leave \
             hostNetwork out"
                .to_owned(),
        );
    }
    if spec["os"]["name"] == "windows" {
        return Some("it is a Windows pod, and the sidecar runs on Linux".to_owned());
    }
    if let Some(minor) = around.server_minor
        && minor < NATIVE_SIDECARS
    {
        return Some(format!(
            "the API server is 1.{minor}, and native sidecars need Kubernetes 1.{NATIVE_SIDECARS}: upgrade \
             the cluster"
        ));
    }
    if wishes.prestop_sleep.is_some() && around.server_minor.is_some_and(|minor| minor < SLEEP_ACTION) {
        return Some(format!(
            "tidegate.dev/prestop-sleep needs Kubernetes 1.{SLEEP_ACTION}: leave the annotation out"
        ));
    }
    other_mesh(pod).or_else(|| taken(pod, wishes)).or_else(|| misnamed_volume(pod, wishes))
}

fn other_mesh(pod: &Value) -> Option<String> {
    OTHERS.iter().find_map(|(mesh, container, annotation)| {
        let by_container = containers_of(pod).any(|it| it["name"] == *container);
        let by_annotation = pod["metadata"]["annotations"].get(annotation).is_some();
        let by = if by_container {
            format!("container {container}")
        } else if by_annotation {
            format!("annotation {annotation}")
        } else {
            return None;
        };
        Some(format!(
            "it belongs to {mesh} already ({by}), and two meshes cannot share a pod: take it out of one"
        ))
    })
}

/// The sidecar's ports, its uid and the names of its volumes are not to be used otherwise.
fn taken(pod: &Value, wishes: &Wishes) -> Option<String> {
    let own = [
        (wishes.inbound_port, "takes the pod's incoming connections on", "tidegate.dev/proxy-inbound-port"),
        (OUTBOUND_PORT, "takes the pod's outgoing connections on", ""),
        (EVENTS_PORT, "keeps for events", ""),
        (ADMIN_PORT, "answers probes and metrics on", ""),
    ];
    if own[1..].iter().any(|(port, ..)| *port == wishes.inbound_port) {
        let port = wishes.inbound_port;
        return Some(format!("tidegate.dev/proxy-inbound-port: {port} is another port of the sidecar"));
    }
    for container in containers_of(pod) {
        let name = container["name"].as_str().unwrap_or_default();
        let ports = container["ports"].as_array().into_iter().flatten();
        for port in ports.filter_map(|port| port["containerPort"].as_u64()) {
            let Some((_, what, annotation)) = own.iter().find(|(own, ..)| u64::from(*own) == port) else {
                continue;
            };
            let or = if annotation.is_empty() { String::new() } else { format!(", or set {annotation}") };
            return Some(format!(
                "container {name} has port {port}, which the sidecar {what}: choose another{or}"
            ));
        }
        let uid = container["securityContext"]["runAsUser"].as_u64();
        if uid.or(pod["spec"]["securityContext"]["runAsUser"].as_u64()) == Some(PROXY_UID) {
            return Some(format!(
                "container {name} runs as uid {PROXY_UID}, which is the sidecar's: its connections would pass \
                 by the sidecar; choose another runAsUser"
            ));
        }
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut names = volumes.filter_map(|volume| volume["name"].as_str());
    let name = names.find(|name| VOLUMES.contains(name))?;
    Some(format!("its volume {name} has the name of one of the sidecar's: rename it"))
}

fn misnamed_volume(pod: &Value, wishes: &Wishes) -> Option<String> {
    let wanted = wishes.queue_volume.as_deref()?;
    let volumes = pod["spec"]["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<&str> = volumes.iter().filter_map(|volume| volume["name"].as_str()).collect();
    // A StatefulSet's claims are volumes of its pods, but not yet of its template.
    if names.contains(&wanted) || pod["kind"] != "Pod" {
        return None;
    }
    let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Some(format!("tidegate.dev/proxy-queue-volume: the pod has no volume {wanted:?}; it has {has}"))
}

/// What works, but otherwise than one may think.
pub(super) fn warnings(pod: &Value, wishes: &Wishes) -> Vec<String> {
    let mut warnings = Vec::new();
    for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let port =
                container[probe]["tcpSocket"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            let passes_by = port.is_some_and(|port| wishes.skip_inbound.contains(&port));
            if container[probe]["tcpSocket"].is_object() && !passes_by {
                warnings.push(format!(
                    "{probe} of container {name}: a tcpSocket probe is answered by the sidecar; use httpGet, \
                     grpc or exec"
                ));
            }
        }
    }
    if wishes.queue_volume.is_some() && pod["spec"]["securityContext"]["fsGroup"].is_null() {
        warnings.push(format!(
            "the queue's volume must be writable for uid {PROXY_UID}: set spec.securityContext.fsGroup"
        ));
    }
    warnings
}
