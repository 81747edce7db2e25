//! control_plane: etcd, the API server, the controllers and the scheduler.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lab::{CLUSTER_NETWORK, Pod, Process};

use crate::node::POD_NETWORK;
use crate::pki::{API_PORT, Pki};
use crate::programs;

/// A cold start reads a large program from the disk.
const PATIENCE: Duration = Duration::from_secs(90);
const ETCD: &str = "http://127.0.0.1:2379";

/// Starts them; the last is started first.
pub(crate) fn start(control: &Pod, folder: &Path, pki: &Pki) -> Result<Vec<Process>> {
    let etcd = etcd(control, folder)?;
    let api_server = api_server(control, pki)?;
    let scheduler = component(control, "kube-scheduler", pki, "scheduler", &[])?;
    let signing = pki.file("ca.pem");
    let root = format!("--root-ca-file={}", signing.display());
    let cert = format!("--cluster-signing-cert-file={}", signing.display());
    let key = format!("--cluster-signing-key-file={}", pki.file("ca.key").display());
    let tokens = format!("--service-account-private-key-file={}", pki.file("tokens.key").display());
    let network = format!("--cluster-cidr={POD_NETWORK}");
    let flags = [&root, &cert, &key, &tokens, &network, "--use-service-account-credentials=true"];
    let controllers = component(control, "kube-controller-manager", pki, "controllers", &flags)?;
    Ok(vec![controllers, scheduler, api_server, etcd])
}

fn etcd(control: &Pod, folder: &Path) -> Result<Process> {
    let mut command = control.command("etcd");
    command.arg("--data-dir").arg(folder.join("etcd"));
    // What a test cluster holds is worth no flush.
    command.args(["--unsafe-no-fsync", "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    control.spawn("etcd", &mut command)
}

/// Starts the API server and waits until it is ready.
pub(crate) fn api_server(control: &Pod, pki: &Pki) -> Result<Process> {
    let mut command = control.command(programs::cluster()?);
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
    command.arg("kube-apiserver").args([
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={}", control.ip()),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={CLUSTER_NETWORK}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        file("client-ca-file", "ca.pem"),
        file("tls-cert-file", "apiserver.pem"),
        file("tls-private-key-file", "apiserver.key"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        file("service-account-key-file", "tokens.pub"),
        file("service-account-signing-key-file", "tokens.key"),
        file("kubelet-certificate-authority", "ca.pem"),
        file("kubelet-client-certificate", "apiserver-kubelet.pem"),
        file("kubelet-client-key", "apiserver-kubelet.key"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--allow-privileged=true".to_owned(),
    ]);
    let mut process = control.spawn("kube-apiserver", &mut command)?;
    process.until("the API server's readiness", PATIENCE, |_| {
        let mut ask = control.command(programs::cluster()?);
        ask.arg("kubectl").arg("--kubeconfig").arg(pki.kubeconfig("admin")).args(["get", "--raw", "/readyz"]);
        Ok(control.run(&mut ask).is_ok().then_some(()))
    })?;
    Ok(process)
}

/// A component that asks the API server and has one replica.
fn component(control: &Pod, name: &str, pki: &Pki, client: &str, flags: &[&str]) -> Result<Process> {
    let config = pki.kubeconfig(client);
    let mut command = control.command(programs::cluster()?);
    command.arg(name).args(flags).args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(format!("--{flag}={}", config.display()));
    }
    control.spawn(name, &mut command)
}
