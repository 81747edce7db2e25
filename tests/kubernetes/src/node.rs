//! node: containerd, a kubelet and kube-proxy in a pod of the lab.
//!
//! They are started by `nsenter`, which takes the network alone: `ip netns exec` would lay another `/sys`
//! over the machine's, and kubelet would find no cgroups.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Pod, Process, until};

use crate::pki::Pki;
use crate::{clear, dns, image, programs};

/// The network of the pods' addresses.
pub(crate) const POD_NETWORK: &str = "10.244.0.0/16";
const PATIENCE: Duration = Duration::from_secs(60);
/// What containerd keeps Kubernetes' containers under.
const CONTAINERD_NAMESPACE: &str = "k8s.io";

/// A machine of the cluster. Its containers, mounts and cgroups go with it.
pub struct Node {
    name: String,
    pod: Pod,
    /// In the order of their end: kubelet first, containerd last.
    processes: Vec<Process>,
    folder: PathBuf,
}

impl Node {
    /// Starts the node with this number, counted from 1, and waits until its containerd answers.
    pub(crate) fn start(number: u8, pod: Pod, folder: &Path, pki: &Pki) -> Result<Self> {
        let name = format!("node-{number}");
        let folder = folder.join(&name);
        std::fs::create_dir(&folder)?;
        let mut node = Self { name, pod, processes: Vec::new(), folder };
        node.make_cgroups()?;
        node.containerd(number)?;
        node.load(&image::pause(&node.folder)?)?;
        node.kube_proxy(pki)?;
        node.kubelet(pki)?;
        Ok(node)
    }

    /// Its name in the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod of the lab it runs in.
    #[must_use]
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Makes an image known to it.
    ///
    /// # Errors
    /// When containerd does not take it; with what it said.
    pub fn load(&self, archive: &Path) -> Result<()> {
        self.pod.run(self.ctr(&["images", "import"]).arg(archive)).map(drop)
    }

    /// Kills the process of a container, by the `containerID` that its status names, as a crash does.
    ///
    /// # Errors
    /// When containerd knows none of that name that runs; with what it said.
    pub fn kill_container(&self, id: &str) -> Result<()> {
        let id = id.trim_start_matches("containerd://");
        self.pod.run(&mut self.ctr(&["tasks", "kill", "--signal", "KILL", id])).map(drop)
    }

    /// A name no other lab has, for what is not in its namespace.
    fn unique(&self) -> &str {
        self.pod.ns()
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.pod.ns())).arg(program);
        command
    }

    fn socket(&self) -> PathBuf {
        // A Unix socket's path has at most 107 bytes.
        Path::new(clear::RUN).join(self.unique()).join("containerd.sock")
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", CONTAINERD_NAMESPACE]).args(args);
        command
    }

    fn make_cgroups(&self) -> Result<()> {
        for controller in clear::cgroups(self.unique())? {
            std::fs::create_dir_all(&controller)?;
            // A cpuset without CPUs takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = controller.with_file_name(file);
                if controller.join(file).exists() && above.exists() {
                    std::fs::write(controller.join(file), std::fs::read(above)?)?;
                }
            }
        }
        Ok(())
    }

    fn containerd(&mut self, number: u8) -> Result<()> {
        let network = format!("10.244.{number}.0/24");
        let cni = self.folder.join("cni");
        std::fs::create_dir(&cni)?;
        let leases = self.folder.join("leases");
        let plugins = serde_json::json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": "pods0", "isGateway": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": network}]],
                      "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}}]});
        std::fs::write(cni.join("10-pods.conflist"), plugins.to_string())?;
        let socket = self.socket();
        let run = socket.parent().context("it lies in a folder")?.to_owned();
        std::fs::create_dir_all(&run)?;
        std::fs::write(run.join(clear::FOLDER), self.folder.display().to_string())?;
        let config = format!(
            r#"version = 2
root = "{folder}/containerd"
state = "{run}/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
            folder = self.folder.display(),
            run = run.display(),
            socket = socket.display(),
            pause = image::PAUSE,
        );
        let file = self.folder.join("containerd.toml");
        std::fs::write(&file, config)?;
        let mut containerd =
            self.pod.spawn("containerd", self.enter("containerd").arg("--config").arg(&file))?;
        containerd.until("containerd to answer", PATIENCE, |_| {
            Ok(self.pod.run(&mut self.ctr(&["version"])).is_ok().then_some(()))
        })?;
        self.processes.insert(0, containerd);
        Ok(())
    }

    fn kube_proxy(&mut self, pki: &Pki) -> Result<()> {
        let config = serde_json::json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables", "clusterCIDR": POD_NETWORK, "hostnameOverride": self.name,
            "clientConnection": {"kubeconfig": pki.kubeconfig("proxy")},
            // These belong to the machine.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}});
        self.component("kube-proxy", &config, &[])
    }

    fn kubelet(&mut self, pki: &Pki) -> Result<()> {
        let resolv = self.folder.join("resolv.conf");
        std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        let config = serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                               "x509": {"clientCAFile": pki.file("ca.pem")}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.file(&format!("{}-server.pem", self.name)),
            "tlsPrivateKeyFile": pki.file(&format!("{}-server.key", self.name)),
            "clusterDomain": "cluster.local", "clusterDNS": [dns::ADDRESS],
            "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", self.unique()), "failCgroupV1": false,
            "failSwapOn": false, "enforceNodeAllocatable": [], "oomScoreAdj": 0,
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "resolvConf": resolv, "podLogsDir": self.folder.join("pod-logs"),
            "volumePluginDir": self.folder.join("volume-plugins"),
            // The machine's disk is not the cluster's to clear.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                             "nodefs.inodesFree": "1%"},
            "featureGates": {"KubeletInUserNamespace": true}});
        let flags = [
            format!("--kubeconfig={}", pki.kubeconfig(&self.name).display()),
            format!("--root-dir={}", self.folder.join("kubelet").display()),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.pod.ip()),
        ];
        self.component("kubelet", &config, &flags)
    }

    fn component(&mut self, name: &str, config: &serde_json::Value, flags: &[String]) -> Result<()> {
        let file = self.folder.join(format!("{name}.json"));
        std::fs::write(&file, config.to_string())?;
        let mut command = self.enter(programs::cluster()?);
        command.arg(name).arg(format!("--config={}", file.display())).args(flags);
        self.processes.insert(0, self.pod.spawn(name, &mut command)?);
        Ok(())
    }

    /// Ends every container; what it was told once is not asked twice.
    fn end_containers(&self) {
        let list = |what: &str| {
            let said = self.pod.run(&mut self.ctr(&[what, "ls", "--quiet"])).unwrap_or_default();
            said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        for task in list("tasks") {
            let _ = self.pod.run(&mut self.ctr(&["tasks", "kill", "--all", "--signal", "KILL", &task]));
        }
        let _ = until("the ends of all containers", Duration::from_secs(10), || {
            for task in list("tasks") {
                let _ = self.pod.run(&mut self.ctr(&["tasks", "rm", "--force", &task]));
            }
            Ok(list("tasks").is_empty().then_some(()))
        });
        for container in list("containers") {
            let _ = self.pod.run(&mut self.ctr(&["containers", "rm", &container]));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // All but containerd, which the ends of the containers are asked of.
        while self.processes.len() > 1 {
            self.processes.remove(0);
        }
        self.end_containers();
        self.processes.clear();
        clear::node(self.unique());
    }
}
