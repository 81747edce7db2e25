//! kubernetes: a real Kubernetes on this machine, in the namespaces of the lab.
//!
//! Its components are Kubernetes' own, built as libraries of one release into the program `cluster`
//! (`tests/kubernetes/cluster`, in Go), CoreDNS and Helm with them; etcd is Debian's. The control plane
//! runs in a pod of the lab, so that nothing listens on the host and two clusters do not meet.
//!
//! ```text
//!   tgP-net  bridge ─┬─ eth0 10.77.0.1  tgP-1-node-1: etcd, API server, controllers, scheduler, CoreDNS,
//!                    │                  and containerd, kubelet, kube-proxy; pods 10.244.1.0/24
//!                    └─ eth0 10.77.0.2  tgP-2-node-2: containerd, kubelet, kube-proxy; 10.244.2.0/24
//! ```
//!
//! Tests ask it through `kubectl` and `helm`, like its users: [`Cluster::kubectl`], [`Cluster::apply`].
//! A test of Tidegate itself takes a [`Ground`], which is such a cluster or one that is given.

mod api;
pub mod apps;
pub mod cases;
pub mod chart;
mod clear;
mod control_plane;
mod dns;
mod ground;
pub mod image;
mod node;
mod pki;
mod programs;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Lab, Pod, Process, until};
use serde_json::Value;

pub use crate::api::Api;
pub use crate::ground::Ground;
pub use crate::node::Node;
use crate::pki::Pki;

/// A running cluster. Its processes end when this is dropped.
pub struct Cluster {
    // Ended in this order: who asks, then who is asked.
    nodes: Vec<Node>,
    processes: Vec<Process>,
    control: Pod,
    lab: Lab,
    pki: Pki,
    api: Api,
}

impl Cluster {
    /// Starts etcd, the API server, the controllers and the scheduler, and waits until they are ready.
    ///
    /// # Errors
    /// Without root, without etcd or the program `cluster`, or when one of them does not get ready; with
    /// the end of its log.
    pub fn control_plane() -> Result<Self> {
        let lab = Lab::new()?;
        clear::sweep();
        let control = lab.pod("node-1", "kube-system", "node")?;
        let folder = lab.folder().join("kubernetes");
        std::fs::create_dir(&folder)?;
        let pki = Pki::make(&folder, control.ip())?;
        let processes = control_plane::start(&control, &folder, &pki)?;
        let api = Api::new(pki.kubeconfig("admin"), folder.join("helm"), Some(control.clone()));
        let cluster = Self { nodes: Vec::new(), processes, control, lab, pki, api };
        cluster.wait_for_account()?;
        Ok(cluster)
    }

    /// Starts a control plane, CoreDNS and so many nodes, the first of them beside it, and waits until all
    /// are ready for pods.
    ///
    /// # Errors
    /// As [`Cluster::control_plane`]; also without containerd, runc, Debian's CNI plugins or busybox.
    pub fn with_nodes(count: u8) -> Result<Self> {
        let mut cluster = Self::control_plane()?;
        let folder = cluster.lab.folder().join("kubernetes");
        cluster.processes.insert(0, dns::start(&cluster.control, &folder, &cluster.pki)?);
        cluster.apply(&dns::service(&cluster.control))?;
        let mut pods = vec![cluster.control.clone()];
        for number in 2..=count {
            pods.push(cluster.lab.pod(&format!("node-{number}"), "kube-system", "node")?);
        }
        for (number, pod) in (1..).zip(&pods) {
            pod.run(pod.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]))?;
            lead_to_others(pod, &pods)?;
            cluster.pki.node(&format!("node-{number}"), pod.ip())?;
            cluster.nodes.push(Node::start(number, pod.clone(), &folder, &cluster.pki)?);
        }
        cluster.wait_for_nodes()?;
        Ok(cluster)
    }

    /// Pulls the cable of the node with this place in [`Cluster::nodes`].
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn cut_off(&self, node: usize) -> Result<()> {
        self.nodes.get(node).context("there are not so many nodes")?.pod().link_down()
    }

    /// Plugs it in again, and waits until all nodes are ready. What a kernel forgets with the link, the
    /// ways to the other nodes' pods, is written anew, as a node's network agent would.
    ///
    /// # Errors
    /// As [`Cluster::cut_off`]; or the node does not get ready.
    pub fn join_again(&self, node: usize) -> Result<()> {
        let pod = self.nodes.get(node).context("there are not so many nodes")?.pod();
        pod.link_up()?;
        let pods: Vec<Pod> = self.nodes.iter().map(|node| node.pod().clone()).collect();
        lead_to_others(pod, &pods)?;
        self.wait_for_nodes()
    }

    fn wait_for_nodes(&self) -> Result<()> {
        until("all nodes to be ready", Duration::from_secs(90), || {
            let nodes = self.get(&["nodes"])?;
            let ready = |node: &Value| {
                let conditions = node["status"]["conditions"].as_array();
                conditions
                    .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
            };
            let items = nodes["items"].as_array().map_or(0, |all| all.iter().filter(|n| ready(n)).count());
            Ok((items == self.nodes.len()).then_some(()))
        })
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A namespace takes pods once its service account is there, which a controller makes.
    fn wait_for_account(&self) -> Result<()> {
        until("the default service account", Duration::from_secs(30), || {
            Ok(self.kubectl(&["get", "serviceaccount", "default", "-o", "name"]).ok().map(drop))
        })
    }

    /// The lab it stands in, for pods that are none of Kubernetes'.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The pod of the control plane.
    #[must_use]
    pub fn control(&self) -> &Pod {
        &self.control
    }

    /// What an administrator's client reads; its address is reached from the pods of the lab.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.kubeconfig("admin")
    }

    /// The API server, asked as the administrator.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Runs `kubectl` as the administrator and gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.api.kubectl(args)
    }

    /// Runs `helm` as the administrator and gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.api.helm(args)
    }

    /// An object, or a list of them, as the API server has it now.
    ///
    /// # Errors
    /// When there is none; with what `kubectl` said.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        self.api.get(args)
    }

    /// Applies objects, in YAML or JSON, on the server.
    ///
    /// # Errors
    /// When one is refused; with what the server said of it.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.api.apply(manifest)
    }

    /// Runs `kubectl` as the administrator with this input; how it ended is the caller's to judge.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn tell(&self, args: &[&str], input: &str) -> Result<Output> {
        self.api.tell(args, input)
    }

    /// Ends one component at once, as a crash does; `kube-apiserver` and the like.
    ///
    /// # Errors
    /// When none of that name runs.
    pub fn kill(&mut self, component: &str) -> Result<()> {
        let file = format!("-{component}.log");
        let at = self.processes.iter().position(|p| p.log_path().to_string_lossy().ends_with(&file));
        let at = at.with_context(|| format!("no {component} runs"))?;
        self.processes.remove(at).kill()
    }

    /// Starts the API server anew after it was killed, and waits until it is ready. What is in etcd is
    /// still there.
    ///
    /// # Errors
    /// When it does not get ready; with the end of its log.
    pub fn start_api_server(&mut self) -> Result<()> {
        let server = control_plane::api_server(&self.control, &self.pki)?;
        // Before etcd, which is to end last.
        let at = self.processes.len().saturating_sub(1);
        self.processes.insert(at, server);
        Ok(())
    }
}

/// The ways from a node to the pods of all others.
fn lead_to_others(node: &Pod, all: &[Pod]) -> Result<()> {
    for (number, other) in (1u8..).zip(all).filter(|(_, other)| other.ip() != node.ip()) {
        let (network, gateway) = (format!("10.244.{number}.0/24"), other.ip().to_string());
        node.run(node.command("ip").args(["route", "replace", &network, "via", &gateway]))?;
    }
    Ok(())
}
