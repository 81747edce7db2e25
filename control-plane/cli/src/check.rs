//! check: is every part there, ready, of one version, and in step with the others.

mod addresses;
pub(crate) mod before;
mod certificates;
mod conditions;
mod controller;
mod definitions;
pub(crate) mod finding;
mod held;
mod mesh;
pub(crate) mod meshes;
mod proxies;
pub(crate) mod rights;
mod stuck;
mod webhooks;
mod workloads;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::ask::address;
use crate::kubeconfig::Kubeconfig;
use crate::operate::Output;
pub(crate) use held::status;

/// Looks at the controller and at every proxy, and says what to do about what is wrong.
///
/// With a kubeconfig it looks at the cluster, else at the controller on this machine. Exits 0 when nothing
/// is wrong, 1 when something is or the controller is not there, 2 when nothing is wrong of what could be
/// looked at, but something could not. A warning is no failure.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate check --pre                                can Tidegate be installed in this cluster?
  tidegate check                                      the cluster of the kubeconfig
  tidegate check --context prod -o json | jq '.sections[].findings[] | select(.level == \"failed\")'
  tidegate check --controller-admin 127.0.0.1:8087 --proxy 127.0.0.1:4191     without Kubernetes")]
pub(crate) struct Check {
    /// The admin address of a controller without Kubernetes; default without a kubeconfig: 127.0.0.1:8087.
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    controller_admin: Option<SocketAddr>,
    /// Admin addresses of proxies without Kubernetes.
    #[arg(long, value_name = "IP:PORT", num_args = 1.., value_parser = address)]
    proxy: Vec<SocketAddr>,
    /// Before an installation: whether the cluster takes it, and you may.
    #[arg(long, conflicts_with_all = ["controller_admin", "proxy"])]
    pre: bool,
    /// The namespace of the controller.
    #[arg(short, long, value_name = "NAME", default_value = "tidegate")]
    namespace: String,
    /// How long the oldest message of a queue that does not drain may wait.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = resources::parse_iso_or_go)]
    stuck_after: Duration,
    #[command(flatten)]
    cluster: Kubeconfig,
    /// A table for people, or JSON for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Check {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let by_address = self.controller_admin.is_some() || !self.proxy.is_empty();
        if by_address || !(self.pre || self.cluster.is_there()) {
            return addresses::check(self.controller_admin, &self.proxy, self.stuck_after, self.output).await;
        }
        let client = self.cluster.client().await?;
        if self.pre {
            return before::check(&client, &self.namespace, self.output).await;
        }
        let mesh = mesh::Mesh::new(client, self.namespace, self.stuck_after);
        mesh.check(self.output).await
    }
}
