//! install: puts Tidegate into a cluster, without Helm.

mod manifest;
mod preflight;
mod rollout;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use crate::cluster::{Kind, told};
use crate::kubeconfig::Kubeconfig;
use crate::print::{GOOD, paint};

pub(crate) use manifest::{Choices, objects};

/// Who owns the fields that are set here, as `kubectl get --show-managed-fields` shows it; also what
/// `app.kubernetes.io/managed-by` says.
pub(crate) const MANAGER: &str = "tidegate";
/// The Deployment, the Service, the Lease and the roles are all called so.
pub(crate) const CONTROLLER: &str = "tidegate-controller";

/// Installs Tidegate in a cluster, or brings an installation to this version.
///
/// The same objects as `helm install` with the chart's defaults. What has been installed by Helm is left to
/// Helm. Exits 1 when something is in the way, before anything was changed, or when the controller does not
/// get ready.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate install                                    the default, in namespace tidegate
  tidegate install --image registry.example/tidegate:0.1.0 --replicas 3
  tidegate install --dry-run | kubectl diff -f -      what it would change
  tidegate install --dry-run > tidegate.yaml          for a repository of manifests")]
pub(crate) struct Install {
    #[command(flatten)]
    kubeconfig: Kubeconfig,
    #[command(flatten)]
    choices: Choices,
    /// Prints the objects and asks no cluster.
    #[arg(long)]
    dry_run: bool,
    /// Takes over fields that somebody else has set, such as by kubectl.
    #[arg(long)]
    force: bool,
    /// How long the controller may take to get ready; 0s does not wait.
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = duration)]
    wait: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0s" {
        return Ok(Duration::ZERO);
    }
    resources::parse_duration(text).map_err(|error| error.to_string())
}

impl Install {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let objects = objects(&self.choices)?;
        if self.dry_run {
            return print_all(&manifest::yaml(&objects)?);
        }
        let client = self.kubeconfig.client().await?;
        let found = preflight::look(&client, &self.choices.namespace, &objects).await?;
        for warning in &found.warnings {
            println!("note: {warning}");
        }
        if !found.obstacles.is_empty() {
            bail!("nothing was changed:\n  {}", found.obstacles.join("\n  "));
        }
        for object in &objects {
            self.apply(&client, object).await?;
        }
        if !self.wait.is_zero() {
            rollout::wait(&client, &self.choices.namespace, self.wait).await?;
        }
        println!("{}", paint(GOOD, "Tidegate is installed"));
        println!("give a namespace sidecars: kubectl label namespace NAMESPACE tidegate.dev/inject=enabled");
        Ok(ExitCode::SUCCESS)
    }

    async fn apply(&self, client: &Client, object: &Value) -> anyhow::Result<()> {
        let kind = Kind::of(object);
        let name = object["metadata"]["name"].as_str().context("every object of the manifest has a name")?;
        // A namespace of somebody else's is used as it is, and so is not removed by `uninstall`.
        if kind.resource.kind == "Namespace" && !is_ours(kind.get(client, name).await?.as_ref()) {
            println!("kept     {}, which was there", kind.named(name));
            return Ok(());
        }
        let mut how = PatchParams::apply(MANAGER);
        how.force = self.force;
        match kind.api(client).patch(name, &how, &Patch::Apply(object)).await {
            Ok(_) => println!("applied  {}", kind.named(name)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let why = anyhow!("{}", status.message);
                let what =
                    format!("{} has fields that somebody else set; --force takes them", kind.named(name));
                return Err(why.context(what));
            }
            Err(error) => return Err(told(error).context(format!("cannot apply {}", kind.named(name)))),
        }
        Ok(())
    }
}

/// The objects of an installation into a namespace, all else by default.
///
/// # Errors
/// As [`manifest::objects`].
pub(crate) fn in_namespace(namespace: &str) -> anyhow::Result<Vec<Value>> {
    objects(&Choices { namespace: namespace.to_owned(), image: None, replicas: 1 })
}

/// Prints a long text; whoever reads only its beginning, such as `head`, has got what they wanted.
fn print_all(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Whether a namespace may be labelled as ours: it is not there yet, or was made by us.
fn is_ours(namespace: Option<&kube::api::DynamicObject>) -> bool {
    namespace.is_none_or(|found| {
        let labels = found.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("app.kubernetes.io/managed-by")).is_some_and(|by| by == MANAGER)
    })
}

#[cfg(test)]
mod tests;
