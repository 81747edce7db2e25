//! config: the command line of the sidecar, each flag an environment variable too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use policy::identity::Identity;
use policy::limits;
use policy::name::{Domain, Label};
use policy::snapshot::Access;
use serde::Serialize;

use crate::queues::Place;

/// The sidecar of the Tidegate service mesh: takes the connections of the workload beside it, in
/// both directions, and gives each request discovery, load balancing, retries and mTLS.
#[derive(Debug, Parser)]
#[command(name = "tidegate-proxy", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) config: Option<Config>,
}

impl Cli {
    /// Reads a command line. Beside a subcommand the sidecar's own flags are not looked at: its environment,
    /// which gives them, is that of a preStop hook too.
    ///
    /// # Errors
    /// When something is wrong with it, or help was asked for.
    pub(crate) fn read<T: Into<std::ffi::OsString> + Clone>(
        line: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(line)?;
        if matches.subcommand_name().is_some() {
            return Ok(Self { command: Some(Command::from_arg_matches(&matches)?), config: None });
        }
        Self::from_arg_matches(&matches)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the nftables rules that bring this network namespace's traffic to the sidecar.
    Redirect(Redirect),
    /// Tell the sidecar beside that the pod is to end: the preStop hook.
    Drain(DrainNow),
}

/// Returns as soon as it has heard: not ready any more, asynchronous requests refused, what is queued
/// delivered at full speed; synchronous traffic goes on until SIGTERM.
#[derive(Debug, Args)]
pub(crate) struct DrainNow {
    /// The sidecar's admin address; it is asked on loopback.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:4191")]
    pub(crate) admin: SocketAddr,
}

/// Needs the capability NET_ADMIN as uid 0 and the program nft (Debian package nftables). IPv4.
#[derive(Debug, Args)]
pub(crate) struct Redirect {
    /// Take the rules away again.
    #[arg(long)]
    pub(crate) undo: bool,
    /// After writing them, prove with a connection that they work.
    #[arg(long, conflicts_with = "undo")]
    pub(crate) self_check: bool,
    /// Print the rules instead of writing them.
    #[arg(long, conflicts_with_all = ["undo", "self_check"])]
    pub(crate) dry_run: bool,
    /// The sidecar's outbound port.
    #[arg(long, default_value_t = 4140, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) outbound_port: u16,
    /// The sidecar's inbound port.
    #[arg(long, default_value_t = 4143, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) inbound_port: u16,
    /// The uid the sidecar runs as; its own connections are left alone.
    #[arg(long, default_value_t = 2102)]
    pub(crate) proxy_uid: u32,
    /// Ports whose incoming connections go straight to the application (comma-separated).
    #[arg(long, value_delimiter = ',', default_value = "4191", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) skip_inbound_ports: Vec<u16>,
    /// Ports to which outgoing connections go straight (comma-separated).
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) skip_outbound_ports: Vec<u16>,
}

/// Who is let in where no AccessPolicy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[value(rename_all = "PascalCase")]
pub(crate) enum InboundDefault {
    /// Everybody.
    Allow,
    /// Whoever has an identity of the mesh.
    AllowAuthenticated,
    /// Nobody.
    Deny,
}

impl From<InboundDefault> for Access {
    fn from(default: InboundDefault) -> Self {
        match default {
            InboundDefault::Allow => Self::Allow,
            InboundDefault::AllowAuthenticated => Self::AllowAuthenticated,
            InboundDefault::Deny => Self::Deny,
        }
    }
}

/// A program stands or falls with these.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    /// Where the controller is: HOST:PORT. The host may be a name.
    #[arg(long, env = "TIDEGATE_CONTROLLER", default_value = "127.0.0.1:8086")]
    pub(crate) controller: String,
    /// Whom the controller's certificate must name. Default: the service account
    /// tidegate-controller in namespace tidegate of the trust domain.
    #[arg(long, env = "TIDEGATE_CONTROLLER_IDENTITY")]
    pub(crate) controller_identity: Option<Identity>,
    /// PEM file of the trust anchors; read again when it changes.
    #[arg(long, env = "TIDEGATE_ANCHORS")]
    pub(crate) anchors: PathBuf,
    /// File with the token that proves this workload to the controller; read for every certificate.
    #[arg(long, env = "TIDEGATE_TOKEN_FILE")]
    pub(crate) token_file: PathBuf,
    /// The workload's namespace.
    #[arg(long, env = "TIDEGATE_NAMESPACE")]
    pub(crate) namespace: Label,
    /// The workload's service account.
    #[arg(long, env = "TIDEGATE_SERVICE_ACCOUNT")]
    pub(crate) service_account: Domain,
    /// The pod's name.
    #[arg(long, env = "TIDEGATE_POD")]
    pub(crate) pod: String,
    /// The trust domain of all identities.
    #[arg(long, env = "TIDEGATE_TRUST_DOMAIN", default_value = "cluster.local")]
    pub(crate) trust_domain: Domain,
    /// Takes the workload's outgoing connections. Keep it on loopback: whoever reaches it speaks as
    /// this workload.
    #[arg(long, env = "TIDEGATE_OUTBOUND", default_value = "127.0.0.1:4140")]
    pub(crate) outbound: SocketAddr,
    /// Takes incoming connections.
    #[arg(long, env = "TIDEGATE_INBOUND", default_value = "0.0.0.0:4143")]
    pub(crate) inbound: SocketAddr,
    /// Answers /live, /ready and /metrics to all; to loopback /config, /log-level, /drain, /shutdown, a
    /// page at / and /queues.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:4191")]
    pub(crate) admin: SocketAddr,
    /// Threads that carry traffic.
    #[arg(long, env = "TIDEGATE_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// Who is let in where no AccessPolicy says.
    #[arg(long, env = "TIDEGATE_INBOUND_DEFAULT", value_enum, default_value_t = InboundDefault::AllowAuthenticated)]
    pub(crate) inbound_default: InboundDefault,
    /// Refuse incoming plaintext, but for the pod's probes.
    #[arg(long, env = "TIDEGATE_STRICT")]
    pub(crate) strict: bool,
    /// The application's address. Default: the address the client asked for, that is the pod's.
    #[arg(long, env = "TIDEGATE_APPLICATION")]
    pub(crate) application: Option<IpAddr>,
    /// How long, from POST /drain or else from SIGTERM, queued messages are delivered and requests
    /// under way may take to finish (25s, 1m).
    #[arg(long, env = "TIDEGATE_DRAIN_GRACE", default_value_t = limits::DRAIN_GRACE.into())]
    #[serde(serialize_with = "as_text")]
    pub(crate) drain_grace: humantime::Duration,
    /// Connections open at once, per direction; more are closed at once.
    #[arg(long, env = "TIDEGATE_CONNECTIONS_MAX", default_value_t = limits::CONNECTIONS_MAX)]
    pub(crate) connections_max: usize,
    /// Where asynchronous requests of durability Local are kept: a directory of this pod's own, on a
    /// file system that keeps what is flushed. Without it they are refused.
    #[arg(long, env = "TIDEGATE_QUEUE_DIRECTORY")]
    pub(crate) queue_directory: Option<PathBuf>,
    /// Bytes the directory may take, everything included (512Mi, 2Gi). Stay well below the volume's
    /// size limit: passing that evicts the pod.
    #[arg(long, env = "TIDEGATE_QUEUE_BYTES_MAX", default_value = "1Gi", value_parser = bytes)]
    pub(crate) queue_bytes_max: u64,
    /// Bytes that messages of durability Memory may take.
    #[arg(long, env = "TIDEGATE_QUEUE_MEMORY_BYTES_MAX", default_value = "64Mi", value_parser = bytes)]
    pub(crate) queue_memory_bytes_max: u64,
    /// Messages that may wait at once, in all queues of a durability: 28 to 40 bytes of memory each. More
    /// are answered 429.
    #[arg(long, env = "TIDEGATE_QUEUE_MESSAGES_MAX", default_value_t = limits::MESSAGES_TOTAL, value_parser = clap::value_parser!(u64).range(1..=limits::MESSAGES_TOTAL))]
    pub(crate) queue_messages_max: u64,
    /// Idempotency keys that may be remembered at once, by a durability: 6 bytes of memory each. Further
    /// ones are answered 429.
    #[arg(long, env = "TIDEGATE_QUEUE_KEYS_MAX", default_value_t = store::limits::DEDUPE_ROWS_MAX, value_parser = clap::value_parser!(u64).range(1..=store::limits::DEDUPE_ROWS_MAX))]
    pub(crate) queue_keys_max: u64,
    /// Open a damaged directory: keep what can be read, report the rest, leave the damaged files
    /// beside.
    #[arg(long, env = "TIDEGATE_QUEUE_SALVAGE")]
    pub(crate) queue_salvage: bool,
    /// Let the directory be on tmpfs or a network file system, where a crash of the machine loses
    /// what was answered 202.
    #[arg(long, env = "TIDEGATE_QUEUE_ALLOW_VOLATILE")]
    pub(crate) queue_allow_volatile: bool,
    /// File with the 32 bytes that encrypt stored credentials; made where it is missing. Default:
    /// credentials.key in the queue's directory.
    #[arg(long, env = "TIDEGATE_QUEUE_KEY_FILE")]
    pub(crate) queue_key_file: Option<PathBuf>,
    /// The pod's address, which a message's id names as its holder. Default: that of --inbound.
    #[arg(long, env = "TIDEGATE_POD_IP")]
    pub(crate) pod_ip: Option<IpAddr>,
    /// Write a line of JSON to standard output for every request.
    #[arg(long, env = "TIDEGATE_ACCESS_LOG")]
    pub(crate) access_log: bool,
    /// Send traces to this OTLP collector (gRPC), such as http://127.0.0.1:4317. Off without.
    #[arg(long, env = "TIDEGATE_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Option<String>,
    /// The log's level, or a filter of tracing-subscriber (info, debug, sidecar=debug); can be
    /// changed at /log-level.
    #[arg(long, env = "TIDEGATE_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// A quantity of bytes as Kubernetes writes it: 1024, 64Ki, 256Mi, 1Gi, 5M.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a number of bytes such as 256Mi or 1Gi");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

fn as_text<S: serde::Serializer>(duration: &humantime::Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(duration)
}

impl Config {
    /// The address that messages' ids name.
    pub(crate) fn holder(&self) -> Ipv4Addr {
        match self.pod_ip.unwrap_or(self.inbound.ip()) {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// Where the queues are.
    pub(crate) fn queues(&self) -> Place {
        Place {
            directory: self.queue_directory.clone(),
            bytes_max: self.queue_bytes_max,
            memory_bytes_max: self.queue_memory_bytes_max,
            messages_max: self.queue_messages_max,
            keys_max: self.queue_keys_max,
            salvage: self.queue_salvage,
            allow_volatile: self.queue_allow_volatile,
            key_file: self.queue_key_file.clone(),
        }
    }

    /// Who this workload is.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// Who the controller must be.
    pub(crate) fn controller_identity(&self) -> anyhow::Result<Identity> {
        if let Some(identity) = &self.controller_identity {
            return Ok(identity.clone());
        }
        Ok(Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: Label::new("tidegate")?,
            service_account: Domain::new("tidegate-controller")?,
        })
    }

    /// What clap cannot check alone; every problem in one message.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        if self.connections_max == 0 {
            wrong.push("--connections-max must be at least 1".to_owned());
        }
        match self.controller.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {}
            _ => wrong.push(format!("--controller {:?} is not HOST:PORT", self.controller)),
        }
        for (flag, a, b) in [
            ("--outbound and --inbound", self.outbound, self.inbound),
            ("--outbound and --admin", self.outbound, self.admin),
            ("--inbound and --admin", self.inbound, self.admin),
        ] {
            if a == b && a.port() != 0 {
                wrong.push(format!("{flag} are both {a}"));
            }
        }
        if let Some(endpoint) = &self.otlp_endpoint
            && !endpoint.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http"))
        {
            wrong.push(format!("--otlp-endpoint {endpoint:?} is not http://HOST:PORT"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_mistake_is_named_at_once() {
        Cli::command().debug_assert();
        let arguments = "tidegate-proxy --anchors a --token-file t --namespace n --service-account s --pod p \
                         --controller nowhere --outbound 127.0.0.1:1 --admin 127.0.0.1:1 --connections-max 0";
        let cli = Cli::read(arguments.split_whitespace()).unwrap();
        let wrong = cli.config.unwrap().check().unwrap_err();
        for part in ["--connections-max", "\"nowhere\"", "--outbound and --admin are both 127.0.0.1:1"] {
            assert!(wrong.contains(part), "{part} is missing in {wrong}");
        }
    }
}
