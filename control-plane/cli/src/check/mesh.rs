//! mesh: the whole of an installation in a cluster, part after part.

use std::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use indicatif::ProgressBar;
use kube::Client;

use super::finding::{Finding, Report};
use super::workloads::Workloads;
use super::{before, certificates, conditions, controller, definitions, meshes, proxies, stuck, webhooks};
use crate::operate::Output;

/// How often the sign of work turns.
const TICK: Duration = Duration::from_millis(100);

/// An installation.
pub(super) struct Mesh {
    client: Client,
    /// The controller's.
    namespace: String,
    stuck_after: Duration,
    now: SystemTime,
}

impl Mesh {
    pub(super) fn new(client: Client, namespace: String, stuck_after: Duration) -> Self {
        Self { client, namespace, stuck_after, now: SystemTime::now() }
    }

    /// Looks at every part, from the ground up: what is wrong above is often told by what is wrong below.
    ///
    /// # Errors
    /// When the API server does not answer at all.
    pub(super) async fn check(&self, output: Output) -> anyhow::Result<ExitCode> {
        let (client, namespace) = (&self.client, self.namespace.as_str());
        let mut report = Report::new(output);
        let server = working(output, "API server", before::server(client)).await?;
        report.tell("Cluster", vec![server, meshes::look(client).await]);
        let mut kinds = working(output, "kinds", definitions::ours(client)).await;
        kinds.push(definitions::gateway(client).await);
        report.tell("Kinds", kinds);
        let (findings, replicas) =
            working(output, "controller", controller::look(client, namespace, self.now)).await;
        report.tell("Controller", findings);
        let looked = certificates::look(client, namespace, &replicas, self.now);
        report.tell("Certificates", working(output, "certificates", looked).await);
        report.tell("Webhooks", working(output, "webhooks", webhooks::look(client, namespace)).await);
        let (findings, sidecars) = match working(output, "pods", Workloads::read(client)).await {
            Ok(workloads) => (working(output, "sidecars", workloads.look(client)).await, workloads.sidecars),
            Err(error) => (vec![Finding::unknown("pods", error.to_string())], Vec::new()),
        };
        report.tell("Workloads", findings);
        report.tell("Proxies", working(output, "proxies", proxies::look(client, &replicas, &sidecars)).await);
        let looked = stuck::look(client, &sidecars, self.stuck_after);
        report.tell("Queues", working(output, "queues", looked).await);
        report.tell("Objects", working(output, "objects", conditions::look(client)).await);
        report.end()
    }
}

/// Shows a person that something is being looked at.
pub(super) async fn working<T>(output: Output, what: &'static str, looked: impl Future<Output = T>) -> T {
    let shown = output == Output::Table && std::io::stderr().is_terminal();
    let sign = if shown { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    sign.set_message(what);
    sign.enable_steady_tick(TICK);
    let said = looked.await;
    sign.finish_and_clear();
    said
}
