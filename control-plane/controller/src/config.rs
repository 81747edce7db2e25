//! config: what the program is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgGroup, Args, Parser};
use ipnet::IpNet;
use policy::identity::Identity;
use policy::name::{Domain, Label};
use policy::snapshot::Mesh;

use crate::index::Sidecars;

/// Tells every proxy of the mesh what to do: reads objects, serves policy and certificates.
///
/// The objects come from a directory of manifests or from Kubernetes. Beside a directory stands a
/// state directory: the issuer's key, anchors.pem for the proxies to trust, and one token for each
/// service account under tokens/. Every option can be given as an environment variable.
#[derive(Debug, Clone, Parser)]
#[command(name = "tidegate-controller", version, max_term_width = 100)]
#[command(group(ArgGroup::new("source").required(true).args(["manifests", "kubernetes"])))]
pub(crate) struct Config {
    /// Directory of manifests: *.yaml, *.yml and *.json, read again when they change.
    #[arg(long, env = "TIDEGATE_MANIFESTS", value_name = "DIR", requires = "state")]
    manifests: Option<PathBuf>,
    /// Directory of the issuer's key, the anchors and the tokens; made when it is not there.
    #[arg(long, env = "TIDEGATE_STATE", value_name = "DIR", conflicts_with = "kubernetes")]
    state: Option<PathBuf>,
    /// Objects from the Kubernetes API: the pod's own access, else that of KUBECONFIG.
    #[arg(long, env = "TIDEGATE_KUBERNETES")]
    kubernetes: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// Where proxies connect (TLS).
    #[arg(
        long,
        env = "TIDEGATE_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8086",
        default_value_if("kubernetes", "true", "0.0.0.0:8086")
    )]
    pub(crate) listen: SocketAddr,
    /// Where /live, /ready, /metrics and /status are served (plaintext).
    #[arg(
        long,
        env = "TIDEGATE_ADMIN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8087",
        default_value_if("kubernetes", "true", "0.0.0.0:8087")
    )]
    pub(crate) admin: SocketAddr,
    /// The trust domain of every identity.
    #[arg(long, env = "TIDEGATE_TRUST_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) trust_domain: Domain,
    /// The DNS suffix of Services.
    #[arg(long, env = "TIDEGATE_CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: Domain,
    /// Networks of the mesh: an unknown address among them is refused, others pass.
    #[arg(
        long,
        env = "TIDEGATE_NETWORKS",
        value_name = "CIDR,...",
        value_delimiter = ',',
        default_value = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16"
    )]
    pub(crate) networks: Vec<IpNet>,
    /// How long a workload's certificate lives: 1m to 10000h.
    #[arg(long, env = "TIDEGATE_LEAF_LIFETIME", value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    pub(crate) leaf_lifetime: Duration,
    /// What is logged: error, warn, info, debug, trace, or a filter such as "info,h2=debug".
    #[arg(long, env = "TIDEGATE_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
}

/// What is of use with --kubernetes alone.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --kubernetes")]
pub(crate) struct Cluster {
    /// The namespace the controller stands in, where its Lease and Secrets are.
    #[arg(long, env = "TIDEGATE_NAMESPACE", value_name = "NAME", default_value = "tidegate")]
    pub(crate) namespace: Label,
    /// The name of its own pod, which sets replicas apart; without, the host's name.
    #[arg(long, env = "TIDEGATE_POD", value_name = "NAME", default_value_t = host_name())]
    pub(crate) pod: String,
    /// Where the API server asks the injector (TLS).
    #[arg(long, env = "TIDEGATE_WEBHOOK", value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    pub(crate) webhook: SocketAddr,
    /// The injector's settings, read again when they change.
    #[arg(long, env = "TIDEGATE_INJECTION", value_name = "FILE")]
    pub(crate) injection: Option<PathBuf>,
    /// Whom the tokens of workloads are made out to.
    #[arg(
        long,
        env = "TIDEGATE_TOKEN_AUDIENCE",
        value_name = "NAME",
        default_value = "identity.tidegate.dev"
    )]
    pub(crate) token_audience: String,
}

/// Where the objects are, and with them the rest of what the controller keeps.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In files.
    Standalone {
        /// The manifests.
        manifests: PathBuf,
        /// Keys, anchors and tokens.
        state: PathBuf,
    },
    /// In a cluster.
    Kubernetes(Cluster),
}

impl Config {
    /// Where the objects are.
    ///
    /// # Errors
    /// When the directory of manifests is none. Neither or both its parser refuses before.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        match (&self.manifests, &self.state, self.kubernetes) {
            (None, _, true) => Ok(Place::Kubernetes(self.cluster.clone())),
            (Some(manifests), Some(state), false) => {
                let found = std::fs::metadata(manifests).with_context(|| {
                    format!("cannot read the directory of manifests {}", manifests.display())
                })?;
                anyhow::ensure!(found.is_dir(), "--manifests {} is not a directory", manifests.display());
                Ok(Place::Standalone { manifests: manifests.clone(), state: state.clone() })
            }
            _ => anyhow::bail!("give either --manifests DIR with --state DIR, or --kubernetes"),
        }
    }

    /// Where the mesh ends.
    pub(crate) fn mesh(&self) -> Mesh {
        Mesh {
            trust_domain: self.trust_domain.clone(),
            cluster_domain: self.cluster_domain.clone(),
            networks: self.networks.clone(),
        }
    }

    /// What says that a sidecar stands beside a pod: in a cluster the injector leaves its mark.
    pub(crate) fn sidecars(&self) -> Sidecars {
        if self.kubernetes { Sidecars::Marked } else { Sidecars::Asked }
    }

    /// Whom our own certificate names.
    ///
    /// # Errors
    /// Never: the names are names.
    pub(crate) fn identity(&self) -> anyhow::Result<Identity> {
        Ok(Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: self.cluster.namespace.clone(),
            service_account: Domain::new("tidegate-controller")?,
        })
    }
}

/// In a pod the host's name is the pod's.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Below a minute proxies would do little else than renew; above a year nobody notices that it
/// ended.
fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = resources::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(60)..=Duration::from_secs(10_000 * 3600)).contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err("out of range: 1m to 10000h is allowed".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &str) -> Result<Config, String> {
        let args = std::iter::once("tidegate-controller").chain(args.split_whitespace());
        Config::try_parse_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn objects_come_from_exactly_one_place() {
        let standalone = read("--manifests . --state s").unwrap();
        assert!(matches!(standalone.place(), Ok(Place::Standalone { .. })));
        assert_eq!(standalone.listen.to_string(), "127.0.0.1:8086");
        let cluster = read("--kubernetes").unwrap();
        assert!(matches!(cluster.place(), Ok(Place::Kubernetes(_))));
        assert_eq!(cluster.listen.to_string(), "0.0.0.0:8086");
        for (args, said) in [
            ("", "<--manifests <DIR>|--kubernetes>"),
            ("--manifests m --state s --kubernetes", "cannot be used with"),
            ("--manifests m", "--state <DIR>"),
            ("--kubernetes --state s", "cannot be used with"),
        ] {
            let error = read(args).unwrap_err();
            assert!(error.contains(said), "{args}: {error}");
        }
    }

    #[test]
    fn our_own_certificate_names_the_namespace_we_stand_in() {
        let identity = read("--kubernetes --namespace mesh").unwrap().identity().unwrap();
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/mesh/sa/tidegate-controller");
    }
}
