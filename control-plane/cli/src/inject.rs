//! inject: manifests with their sidecars, before they go to a cluster.

use std::io::Read as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use policy::limits;
use resources::inject::{Settings, Surroundings, Verdict, inject_file};

use crate::kubeconfig::Kubeconfig;
use crate::print::{count, plain};

/// The ConfigMap that the injector on a cluster reads, and the key in it.
const CONFIG_MAP: &str = "tidegate-injection";
const KEY: &str = "injection.yaml";
/// How long a cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Gives every pod of a file its sidecar, as the webhook of a cluster would, and prints the file.
///
/// Pods, and the templates of Deployment, StatefulSet, DaemonSet, ReplicaSet, Job and CronJob, also in
/// a List. A pod that says `tidegate.dev/inject: disabled`, or that has a sidecar, stays as it is, and
/// so does every other document. What became of each is told on standard error.
///
/// Exits 1, printing nothing, when a pod asks for what cannot be.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate inject orders.yaml | kubectl apply -f -
  helm template shop ./chart | tidegate inject - | kubectl apply -f -
  tidegate inject --from-cluster orders.yaml       with the settings that the cluster's webhook has
  kubectl -n shop get deploy -o yaml | tidegate inject - | kubectl apply -f -

Annotations of the pod that change its sidecar, all under tidegate.dev/:
  skip-inbound-ports, skip-outbound-ports, opaque-ports: \"25,3306\"
  proxy-image, proxy-log, proxy-workers, proxy-inbound-port
  proxy-cpu-request, proxy-memory-request, proxy-memory-limit
  proxy-inbound-default: Allow, AllowAuthenticated or Deny; proxy-strict: \"true\"
  proxy-drain-grace: 25s      how long messages are delivered once the pod is to end
  proxy-queue-size: 1Gi       of the volume for messages; proxy-queue-volume: a volume of the pod
  prestop-sleep: 5s           holds the application's SIGTERM back until clients have heard")]
pub(crate) struct Inject {
    /// A file, or - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The injector's settings, a file as in ConfigMap tidegate-injection. Default: built in.
    #[arg(long, value_name = "FILE", conflicts_with = "from_cluster")]
    settings: Option<PathBuf>,
    /// Take the settings from the cluster.
    #[arg(long)]
    from_cluster: bool,
    /// The namespace Tidegate stands in, with --from-cluster.
    #[arg(long, value_name = "NAME", default_value = "tidegate", env = "TIDEGATE_NAMESPACE")]
    control_namespace: String,
    #[command(flatten)]
    cluster: Kubeconfig,
}

impl Inject {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let (settings, server_minor) = self.settings().await?;
        let text = read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        // Whoever runs this asks for all of it.
        let around = Surroundings { namespace_says: Some("enabled".to_owned()), server_minor };
        let done = inject_file(&text, &around, &settings)
            .with_context(|| format!("cannot inject {}", self.file.display()))?;
        let mut refused = 0;
        for (name, verdict) in &done.verdicts {
            refused += usize::from(matches!(verdict, Verdict::Refused(_)));
            tell(name, verdict);
        }
        if done.verdicts.is_empty() {
            eprintln!("tidegate: nothing in {} makes pods", self.file.display());
        }
        if refused > 0 {
            eprintln!("tidegate: {} refused: nothing is printed", count(refused, "object"));
            return Ok(ExitCode::FAILURE);
        }
        std::io::stdout().write_all(done.text.as_bytes()).context("cannot write to standard output")?;
        Ok(ExitCode::SUCCESS)
    }

    async fn settings(&self) -> anyhow::Result<(Settings, Option<u32>)> {
        if self.from_cluster {
            let asked = tokio::time::timeout(ANSWER_MAX, self.of_cluster()).await;
            return asked.context("the cluster does not answer")?;
        }
        let Some(file) = &self.settings else { return Ok((Settings::built_in()?, None)) };
        let name = file.display();
        let text = read(file).with_context(|| format!("cannot read {name}"))?;
        Ok((Settings::parse(&text).with_context(|| format!("--settings {name} is wrong"))?, None))
    }

    async fn of_cluster(&self) -> anyhow::Result<(Settings, Option<u32>)> {
        let client = self.cluster.client().await?;
        let namespace = &self.control_namespace;
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let place = format!("ConfigMap {namespace}/{CONFIG_MAP}");
        let found = api.get_opt(CONFIG_MAP).await.with_context(|| format!("cannot read {place}"))?;
        let map = found.with_context(|| format!("there is no {place}: is Tidegate installed there?"))?;
        let text = map.data.as_ref().and_then(|data| data.get(KEY));
        let text = text.with_context(|| format!("{place} has no key {KEY}"))?;
        let settings = Settings::parse(text).with_context(|| format!("{KEY} of {place} is wrong"))?;
        let version = client.apiserver_version().await.context("cannot ask for the server's version")?;
        Ok((settings, version.minor.trim_end_matches('+').parse().ok()))
    }
}

/// One byte more than allowed, so that the reader sees that it is too long.
fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let bound = limits::MANIFEST_BYTES_MAX + 1;
    if file == Path::new("-") {
        std::io::stdin().take(bound).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(bound).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn tell(name: &str, verdict: &Verdict) {
    let name = plain(name);
    match verdict {
        Verdict::Injected { warnings, .. } => {
            eprintln!("{name}: injected");
            for warning in warnings {
                eprintln!("  warning: {}", plain(warning));
            }
        }
        Verdict::LeftOut { why, .. } => eprintln!("{name}: left without a sidecar: {}", plain(why)),
        Verdict::Unchanged(why) => eprintln!("{name}: stays as it is: {why}"),
        Verdict::Refused(why) => eprintln!("{name}: refused: {}", plain(why)),
    }
}
