//! dns: CoreDNS beside the control plane, and the Service by which pods ask it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lab::{Pod, Process};

use crate::pki::Pki;
use crate::programs;

/// The address of the Service, which every pod's `resolv.conf` names.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Where it says that it is ready, in its own namespace.
const READY: &str = "http://127.0.0.1:8181/ready";

/// Starts it and waits until it knows the cluster's names. It answers for nothing else: no test needs to
/// leave the cluster.
pub(crate) fn start(control: &Pod, folder: &Path, pki: &Pki) -> Result<Process> {
    let file = folder.join("Corefile");
    // A short life of answers: tests move names.
    let config = format!(
        ".:53 {{
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {}
        pods insecure
        ttl 1
    }}
    cache 1
}}
",
        pki.kubeconfig("admin").display()
    );
    std::fs::write(&file, config)?;
    let mut command = control.command(programs::cluster()?);
    command.arg("coredns").arg("-conf").arg(&file);
    let mut process = control.spawn("coredns", &mut command)?;
    process.until("CoreDNS to know the cluster's names", Duration::from_secs(60), |_| {
        let mut ask = control.command("curl");
        ask.args(["--silent", "--fail", "--max-time", "2", READY]);
        Ok(control.run(&mut ask).is_ok().then_some(()))
    })?;
    Ok(process)
}

/// The Service, and its one endpoint: the pod of the control plane, which is none of Kubernetes'.
pub(crate) fn service(control: &Pod) -> String {
    let ports = serde_json::json!([{"name": "dns", "port": 53, "protocol": "UDP"},
                                   {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service",
         "metadata": {"name": "kube-dns", "namespace": "kube-system"},
         "spec": {"clusterIP": ADDRESS, "ports": ports}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": "kube-dns-1", "namespace": "kube-system",
                      "labels": {"kubernetes.io/service-name": "kube-dns"}},
         "addressType": "IPv4", "ports": ports,
         "endpoints": [{"addresses": [control.ip()], "conditions": {"ready": true}}]}]})
    .to_string()
}
