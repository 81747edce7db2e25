//! settings: what an installation puts into every pod, read strictly from one YAML file.
//!
//! On a cluster it is the key `injection.yaml` of ConfigMap `tidegate-injection`; every field has a
//! default, so that an empty file is the built-in settings of this version.

use std::collections::BTreeSet;
use std::time::Duration;

use policy::identity::Identity;
use policy::limits;
use policy::name::Domain;
use serde_json::Value;

use super::annotations::{self, INBOUND_DEFAULTS, QUEUE_SIZE_LEAST, WORKERS_MAX};
use crate::node::{Node, Read};
use crate::problem::Fault;

/// The image of this version.
const IMAGE: &str = concat!("tidegate.dev/tidegate:", env!("CARGO_PKG_VERSION"));
/// A controller in namespace `tidegate`.
const CONTROLLER: &str = "tidegate-controller.tidegate.svc:8086";
/// At 38 µs for a request, what 250 of them in a second take.
const CPU_REQUEST: &str = "10m";
/// A sidecar takes 8 MiB when idle and 14 MiB under 128 connections; at the edge of every bound of
/// `policy::limits` (bodies replayed, messages on their way, messages of class Memory) it stays below the
/// limit.
const MEMORY_REQUEST: &str = "32Mi";
const MEMORY_LIMIT: &str = "256Mi";
/// The audience that the controller asks of tokens.
const TOKEN_AUDIENCE: &str = "identity.tidegate.dev";
/// The kubelet renews a token at 80 % of this, or after a day; the API server takes 10 minutes at least.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const TOKEN_LIFETIME_LEAST: Duration = Duration::from_secs(600);
const TOKEN_LIFETIME_MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The volume of a queue; the store takes a share of it.
const QUEUE_BYTES: u64 = 1 << 30;
const QUEUE_BYTES_MOST: u64 = 1 << 50;
/// The longest that a sidecar may be set to deliver after its pod was told to end.
const DRAIN_GRACE_MOST: Duration = Duration::from_secs(60 * 60);
/// Pull secrets, and ports of one list, that the settings may name.
const NAMES_MAX: usize = 64;

/// What an installation puts into every pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The image with `tidegate-proxy` and `nft`.
    pub image: String,
    /// Its `imagePullPolicy`; Kubernetes' own default where there is none.
    pub image_pull_policy: Option<String>,
    /// Secrets of the pod's namespace that the image is pulled with.
    pub image_pull_secrets: Vec<String>,
    /// What is written to `tidegate.dev/injected`.
    pub version: String,
    /// The controller's `HOST:PORT`.
    pub controller: String,
    /// Whom the controller's certificate must name.
    pub controller_identity: Identity,
    /// The trust domain of all identities.
    pub trust_domain: Domain,
    /// The audience of the projected token.
    pub token_audience: String,
    /// How long such a token holds.
    pub token_lifetime: Duration,
    /// The sidecar's CPU request.
    pub cpu_request: String,
    /// The sidecar's CPU limit. None by default: a throttled sidecar is a slow application.
    pub cpu_limit: Option<String>,
    /// The sidecar's memory request.
    pub memory_request: String,
    /// The sidecar's memory limit.
    pub memory_limit: Option<String>,
    /// The sidecar's log filter.
    pub log: String,
    /// Threads that carry traffic.
    pub workers: u32,
    /// Who is let in where no AccessPolicy says.
    pub inbound_default: String,
    /// Whether incoming plaintext is refused.
    pub strict: bool,
    /// How long after the pod was told to end the sidecar goes on delivering.
    pub drain_grace: Duration,
    /// Bytes of the queue's volume.
    pub queue_bytes: u64,
    /// Ports whose incoming connections pass by the sidecar.
    pub skip_inbound_ports: BTreeSet<u16>,
    /// Ports to which outgoing connections pass by the sidecar.
    pub skip_outbound_ports: BTreeSet<u16>,
    /// Whether every request is logged.
    pub access_log: bool,
    /// Where traces are sent.
    pub otlp_endpoint: Option<String>,
}

/// Why settings cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not YAML.
    #[error("this is not YAML: {0}")]
    Yaml(String),
    /// A field is wrong.
    #[error("{field}: {message}")]
    Field {
        /// Which.
        field: String,
        /// What is wrong, and what is allowed.
        message: String,
    },
}

impl From<Fault> for SettingsError {
    fn from(fault: Fault) -> Self {
        let field = if fault.field.is_empty() { "the settings".to_owned() } else { fault.field };
        Self::Field { field, message: fault.message }
    }
}

impl Settings {
    /// The built-in settings, for a controller in namespace `tidegate`.
    ///
    /// # Errors
    /// Never: an empty file has no faults.
    pub fn built_in() -> Result<Self, SettingsError> {
        Self::parse("")
    }

    /// Reads a file of settings.
    ///
    /// # Errors
    /// [`SettingsError`]: the first field that is wrong.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let value: Value = serde_saphyr::from_str(text)
            .map_err(|error| SettingsError::Yaml(error.without_snippet().to_string()))?;
        let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
        Ok(Self::read(&Node::root(&value))?)
    }

    fn read(root: &Node<'_>) -> Read<Self> {
        root.only(&FIELDS, &[])?;
        let trust_domain: Domain = match root.get("trustDomain")? {
            Some(node) => node.parsed()?,
            None => Domain::new("cluster.local").map_err(|error| root.fault(error.to_string()))?,
        };
        let controller = match root.get("controller")? {
            Some(node) => host_and_port(&node)?,
            None => CONTROLLER.to_owned(),
        };
        let settings = Self {
            controller_identity: controller_identity(root, &controller, &trust_domain)?,
            image: filled_or(root, "image", IMAGE)?,
            image_pull_policy: pull_policy(root)?,
            image_pull_secrets: pull_secrets(root)?,
            version: filled_or(root, "version", env!("CARGO_PKG_VERSION"))?,
            controller,
            trust_domain,
            token_audience: filled_or(root, "tokenAudience", TOKEN_AUDIENCE)?,
            token_lifetime: match root.get("tokenLifetime")? {
                Some(node) => node.duration_in(TOKEN_LIFETIME_LEAST..=TOKEN_LIFETIME_MOST)?,
                None => TOKEN_LIFETIME,
            },
            cpu_request: quantity(root, "cpuRequest", annotations::cpu)?.unwrap_or(CPU_REQUEST.to_owned()),
            cpu_limit: limit(root, "cpuLimit", annotations::cpu, None)?,
            memory_request: quantity(root, "memoryRequest", annotations::memory)?
                .unwrap_or(MEMORY_REQUEST.to_owned()),
            memory_limit: limit(root, "memoryLimit", annotations::memory, Some(MEMORY_LIMIT))?,
            log: filled_or(root, "log", "info")?,
            workers: root.get("workers")?.map_or(Ok(1), |node| node.number_in(1..=WORKERS_MAX.into()))?,
            inbound_default: inbound_default(root)?,
            strict: flag(root, "strict")?,
            drain_grace: match root.get("drainGrace")? {
                Some(node) => node.duration_in(Duration::from_secs(1)..=DRAIN_GRACE_MOST)?,
                None => limits::DRAIN_GRACE,
            },
            queue_bytes: match root.get("queueSize")? {
                Some(node) => node.bytes_in(QUEUE_SIZE_LEAST..=QUEUE_BYTES_MOST)?,
                None => QUEUE_BYTES,
            },
            skip_inbound_ports: ports(root, "skipInboundPorts")?,
            skip_outbound_ports: ports(root, "skipOutboundPorts")?,
            access_log: flag(root, "accessLog")?,
            otlp_endpoint: otlp_endpoint(root)?,
        };
        settings.fits(root)?;
        Ok(settings)
    }

    /// A request above its limit is refused by the API server, pod by pod.
    fn fits(&self, root: &Node<'_>) -> Read<()> {
        let bytes = |text: &str| crate::quantity::parse_bytes(text).unwrap_or_default();
        match &self.memory_limit {
            Some(limit) if bytes(&self.memory_request) > bytes(limit) => {
                let request = &self.memory_request;
                Err(root.fault(format!("memoryRequest {request} is more than memoryLimit {limit}")))
            }
            _ => Ok(()),
        }
    }
}

const FIELDS: [&str; 23] = [
    "image",
    "imagePullPolicy",
    "imagePullSecrets",
    "version",
    "controller",
    "controllerIdentity",
    "trustDomain",
    "tokenAudience",
    "tokenLifetime",
    "cpuRequest",
    "cpuLimit",
    "memoryRequest",
    "memoryLimit",
    "log",
    "workers",
    "inboundDefault",
    "strict",
    "drainGrace",
    "queueSize",
    "skipInboundPorts",
    "skipOutboundPorts",
    "accessLog",
    "otlpEndpoint",
];

/// Where it is not written: the service account `tidegate-controller` of the namespace that the
/// controller's address names.
fn controller_identity(root: &Node<'_>, address: &str, trust_domain: &Domain) -> Read<Identity> {
    if let Some(node) = root.get("controllerIdentity")? {
        return node.parsed();
    }
    let mut labels = address.split(['.', ':']).skip(1);
    let namespace = match (labels.next(), labels.next()) {
        (Some(namespace), Some("svc")) => namespace,
        _ => "tidegate",
    };
    let identity = format!("spiffe://{trust_domain}/ns/{namespace}/sa/tidegate-controller");
    identity.parse().map_err(|error| root.fault(format!("controller: {error}")))
}

/// A limit, or `none`.
fn limit(
    root: &Node<'_>,
    key: &str,
    read: impl Fn(&str) -> Result<String, String>,
    default: Option<&str>,
) -> Read<Option<String>> {
    match root.get(key)? {
        None => Ok(default.map(str::to_owned)),
        Some(node) if node.value == "none" => Ok(None),
        Some(_) => quantity(root, key, read),
    }
}

/// A quantity, which YAML may give as a number: `cpu: 1`.
fn quantity(
    root: &Node<'_>,
    key: &str,
    read: impl Fn(&str) -> Result<String, String>,
) -> Read<Option<String>> {
    let Some(node) = root.get(key)? else { return Ok(None) };
    let text = if node.value.is_number() { node.value.to_string() } else { node.text()?.to_owned() };
    read(&text).map(Some).map_err(|why| node.fault(format!("{text:?} {why}")))
}

fn filled_or(node: &Node<'_>, key: &str, default: &str) -> Read<String> {
    let Some(node) = node.get(key)? else { return Ok(default.to_owned()) };
    match node.text()? {
        "" => Err(node.fault("is empty")),
        text => Ok(text.to_owned()),
    }
}

fn flag(root: &Node<'_>, key: &str) -> Read<bool> {
    root.get(key)?.map_or(Ok(false), |node| node.flag())
}

fn pull_policy(root: &Node<'_>) -> Read<Option<String>> {
    let known = ["Always", "IfNotPresent", "Never"].map(|name| (name, name));
    let Some(node) = root.get("imagePullPolicy")? else { return Ok(None) };
    node.one_of(&known, &[]).map(|name| Some(name.to_owned()))
}

fn pull_secrets(root: &Node<'_>) -> Read<Vec<String>> {
    let names = root.each("imagePullSecrets", |node| node.parsed::<Domain>().map(|name| name.to_string()))?;
    bounded(root, "imagePullSecrets", names.len())?;
    Ok(names)
}

fn inbound_default(root: &Node<'_>) -> Read<String> {
    let known = INBOUND_DEFAULTS.map(|name| (name, name));
    let Some(node) = root.get("inboundDefault")? else { return Ok("AllowAuthenticated".to_owned()) };
    node.one_of(&known, &[]).map(str::to_owned)
}

fn ports(root: &Node<'_>, key: &str) -> Read<BTreeSet<u16>> {
    let ports = root.each(key, |node| node.port())?;
    bounded(root, key, ports.len())?;
    Ok(ports.into_iter().collect())
}

fn bounded(root: &Node<'_>, key: &str, count: usize) -> Read<()> {
    if count <= NAMES_MAX {
        return Ok(());
    }
    Err(root.need(key)?.fault(format!("has {count} entries: at most {NAMES_MAX} are allowed")))
}

fn host_and_port(node: &Node<'_>) -> Read<String> {
    let text = node.text()?;
    let right = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && policy::name::parse_port(port).is_ok());
    if right { Ok(text.to_owned()) } else { Err(node.fault(format!("{text:?} is not HOST:PORT"))) }
}

fn otlp_endpoint(root: &Node<'_>) -> Read<Option<String>> {
    let Some(node) = root.get("otlpEndpoint")? else { return Ok(None) };
    let text = node.text()?;
    match text.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() => Ok(Some(text.to_owned())),
        _ => Err(node.fault(format!("{text:?} is not http://HOST:PORT"))),
    }
}
