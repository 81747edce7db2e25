//! config: what the program is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;
use policy::name::Domain;
use policy::snapshot::Mesh;

/// Tells every proxy of the mesh what to do: reads manifests, serves policy and certificates.
///
/// The state directory holds the issuer's key, anchors.pem for the proxies to trust, and one token
/// for each service account under tokens/. Every option can be given as an environment variable.
#[derive(Debug, Clone, Parser)]
#[command(name = "tidegate-controller", version, max_term_width = 100)]
pub(crate) struct Config {
    /// Directory of manifests: *.yaml, *.yml and *.json, read again when they change.
    #[arg(long, env = "TIDEGATE_MANIFESTS", value_name = "DIR")]
    pub(crate) manifests: PathBuf,
    /// Directory of the issuer's key, the anchors and the tokens; made when it is not there.
    #[arg(long, env = "TIDEGATE_STATE", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Where proxies connect (TLS).
    #[arg(long, env = "TIDEGATE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8086")]
    pub(crate) listen: SocketAddr,
    /// Where /live, /ready, /metrics and /status are served (plaintext).
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:8087")]
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

impl Config {
    /// Where the mesh ends.
    pub(crate) fn mesh(&self) -> Mesh {
        Mesh {
            trust_domain: self.trust_domain.clone(),
            cluster_domain: self.cluster_domain.clone(),
            networks: self.networks.clone(),
        }
    }
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
