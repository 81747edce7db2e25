//! kubeconfig: which cluster is meant, and how it is reached.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kube::config::{self, KubeConfigOptions};
use kube::{Client, Config};

/// How long the API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which cluster is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Kubeconfig {
    /// The context of the kubeconfig; default: the current one.
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,
    /// The kubeconfig; default: KUBECONFIG, else ~/.kube/config, else that of the pod.
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
}

impl Kubeconfig {
    /// Whether a cluster was named.
    pub(crate) fn is_given(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some()
    }

    /// Whether a cluster was named, or the user has one.
    pub(crate) fn is_there(&self) -> bool {
        let of_user = || std::env::home_dir().is_some_and(|home| home.join(".kube/config").is_file());
        let of_environment = std::env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty());
        self.is_given() || of_environment || of_user()
    }

    /// A client of that cluster; it has not asked anything yet.
    ///
    /// # Errors
    /// Without a kubeconfig and outside of a pod, when it cannot be read, or when the context is not there.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let mut config = if self.is_given() {
            self.named().await?
        } else {
            Config::infer()
                .await
                .context("no cluster is known: set KUBECONFIG, or name a file with --kubeconfig")?
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        Client::try_from(config).context("the kubeconfig cannot be used")
    }

    async fn named(&self) -> anyhow::Result<Config> {
        let files = match &self.kubeconfig {
            Some(file) => config::Kubeconfig::read_from(file),
            None => config::Kubeconfig::read(),
        };
        let files = files.context("cannot read the kubeconfig")?;
        let names: Vec<String> = files.contexts.iter().map(|context| context.name.clone()).collect();
        if let Some(context) = self.context.as_ref().filter(|context| !names.contains(context)) {
            bail!("the kubeconfig has no context {context:?}; it has: {}", listed(&names));
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        Config::from_custom_kubeconfig(files, &options).await.context("the kubeconfig cannot be used")
    }
}

/// `a, b`, or that there is none.
pub(crate) fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
