//! annotations: what a pod asks of its sidecar, read strictly.
//!
//! Every value that cannot be honoured refuses the pod by the annotation's name, all of them at once:
//! a sidecar that silently runs with something else is found out at three in the morning.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::settings::Settings;
use super::{INJECT, INJECTED, NOT_INJECTED};
use crate::duration::parse_duration;
use crate::quantity::{parse_bytes, print_bytes};

/// Ours all begin so.
const PREFIX: &str = "tidegate.dev/";
/// Ports that one annotation may name: each is a number in a rule of the kernel.
const PORTS_MAX: usize = 64;
/// Kubernetes' own default of `terminationGracePeriodSeconds`.
const GRACE_DEFAULT: u64 = 30;
/// What of the pod's grace is kept back for closing the queue's store and the last connections: the
/// kubelet kills when the grace ends.
const GRACE_KEPT_BACK: Duration = Duration::from_secs(2);
/// A queue's volume below this holds hardly more than the store's own files.
pub(super) const QUEUE_SIZE_LEAST: u64 = 64 << 20;
/// Threads that the sidecar takes.
pub(super) const WORKERS_MAX: u32 = 64;
/// What `--inbound-default` knows.
pub(super) const INBOUND_DEFAULTS: [&str; 3] = ["Allow", "AllowAuthenticated", "Deny"];

/// The annotations there are, without the prefix.
const KNOWN: [&str; 17] = [
    "skip-inbound-ports",
    "skip-outbound-ports",
    "opaque-ports",
    "proxy-image",
    "proxy-log",
    "proxy-cpu-request",
    "proxy-memory-request",
    "proxy-memory-limit",
    "proxy-workers",
    "proxy-inbound-port",
    "proxy-drain-grace",
    "proxy-inbound-default",
    "proxy-strict",
    "proxy-queue-size",
    "proxy-queue-volume",
    "prestop-sleep",
    "inject",
];

/// What a pod's sidecar is to be: the settings, and over them what its annotations say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wishes {
    pub(super) image: String,
    pub(super) log: String,
    pub(super) cpu_request: String,
    pub(super) memory_request: String,
    pub(super) memory_limit: Option<String>,
    pub(super) workers: u32,
    pub(super) inbound_port: u16,
    pub(super) inbound_default: String,
    pub(super) strict: bool,
    pub(super) drain_grace: Duration,
    pub(super) queue_bytes: u64,
    pub(super) queue_volume: Option<String>,
    pub(super) skip_inbound: BTreeSet<u16>,
    pub(super) skip_outbound: BTreeSet<u16>,
    /// How long the application's containers are held before their SIGTERM.
    pub(super) prestop_sleep: Option<u64>,
    pub(super) warnings: Vec<String>,
}

impl Wishes {
    /// # Errors
    /// Every annotation that cannot be honoured, with what is allowed.
    pub(super) fn read(pod: &Value, settings: &Settings) -> Result<Self, Vec<String>> {
        let mut reader = Reader { pod, wrong: Vec::new() };
        let grace = Duration::from_secs(
            pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(GRACE_DEFAULT),
        );
        let mut wishes = Self {
            image: reader.image().unwrap_or_else(|| settings.image.clone()),
            log: reader.get("proxy-log", filled).unwrap_or_else(|| settings.log.clone()),
            cpu_request: reader.get("proxy-cpu-request", cpu).unwrap_or_else(|| settings.cpu_request.clone()),
            memory_request: reader
                .get("proxy-memory-request", memory)
                .unwrap_or_else(|| settings.memory_request.clone()),
            memory_limit: reader.get("proxy-memory-limit", memory).or_else(|| settings.memory_limit.clone()),
            workers: reader.get("proxy-workers", workers).unwrap_or(settings.workers),
            inbound_port: reader.get("proxy-inbound-port", port).unwrap_or(super::containers::INBOUND_PORT),
            inbound_default: reader
                .get("proxy-inbound-default", inbound_default)
                .unwrap_or_else(|| settings.inbound_default.clone()),
            strict: reader.get("proxy-strict", flag).unwrap_or(settings.strict),
            drain_grace: settings.drain_grace,
            queue_bytes: reader.get("proxy-queue-size", queue_size).unwrap_or(settings.queue_bytes),
            queue_volume: reader.get("proxy-queue-volume", filled),
            skip_inbound: reader
                .get("skip-inbound-ports", ports)
                .unwrap_or_else(|| settings.skip_inbound_ports.clone()),
            skip_outbound: reader
                .get("skip-outbound-ports", ports)
                .unwrap_or_else(|| settings.skip_outbound_ports.clone()),
            prestop_sleep: reader.get("prestop-sleep", |text| seconds_within(text, grace)),
            warnings: reader.unknown(),
        };
        // Checked here and read by the controller, which tells proxies and clients.
        let _ = reader.get("opaque-ports", ports);
        wishes.fit_grace(&mut reader, grace);
        wishes.fit_memory(&mut reader);
        if reader.wrong.is_empty() { Ok(wishes) } else { Err(reader.wrong) }
    }

    /// The pod's grace is never changed, so the sidecar's has to fit in. One that was asked for and
    /// does not is an error; the settings' is shortened.
    fn fit_grace(&mut self, reader: &mut Reader<'_>, grace: Duration) {
        let most = grace.saturating_sub(GRACE_KEPT_BACK).max(Duration::from_secs(1));
        let fits = |text: &str| {
            let asked = parse_duration(text).map_err(|error| error.to_string())?;
            if asked <= most && !asked.is_zero() {
                return Ok(asked);
            }
            let needed = (asked + GRACE_KEPT_BACK).as_secs();
            Err(format!(
                "does not fit in the pod's grace: 1s to {}s is allowed, or set terminationGracePeriodSeconds \
                 (now {}) to {needed} or more",
                most.as_secs(),
                grace.as_secs()
            ))
        };
        if let Some(asked) = reader.get("proxy-drain-grace", fits) {
            self.drain_grace = asked;
        } else if self.drain_grace > most {
            self.warnings.push(format!(
                "the sidecar has {}s instead of {}s to deliver what is queued when the pod ends: \
                 terminationGracePeriodSeconds is {}",
                most.as_secs(),
                self.drain_grace.as_secs(),
                grace.as_secs()
            ));
            self.drain_grace = most;
        }
    }

    /// A request above the limit is refused by the API server without a word about annotations.
    fn fit_memory(&self, reader: &mut Reader<'_>) {
        let (request, limit) =
            (parse_bytes(&self.memory_request), self.memory_limit.as_deref().map(parse_bytes));
        if let (Ok(request), Some(Ok(limit))) = (request, limit)
            && request > limit
        {
            let (request, limit) = (print_bytes(request), print_bytes(limit));
            reader.wrong.push(format!(
                "{PREFIX}proxy-memory-request: {request} is more than the limit of {limit}: set \
                 {PREFIX}proxy-memory-limit too"
            ));
        }
    }
}

struct Reader<'a> {
    pod: &'a Value,
    wrong: Vec<String>,
}

impl Reader<'_> {
    /// The annotation `name` as `read` understands it; what it does not is kept as wrong.
    fn get<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.pod["metadata"]["annotations"][format!("{PREFIX}{name}")].as_str()?;
        match read(text.trim()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong.push(format!("{PREFIX}{name}: {text:?} {why}"));
                None
            }
        }
    }

    fn image(&mut self) -> Option<String> {
        self.get("proxy-image", |text| {
            let right = !text.is_empty() && !text.contains(char::is_whitespace);
            if right { Ok(text.to_owned()) } else { Err("is no image: write REGISTRY/NAME:TAG".to_owned()) }
        })
    }

    /// A word of warning for what looks like ours and is not: others may write such annotations too.
    fn unknown(&self) -> Vec<String> {
        let given = self.pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let ours = given.filter_map(|(key, _)| key.strip_prefix(PREFIX));
        let marks = [INJECT, INJECTED, NOT_INJECTED];
        let is_known =
            |name: &str| KNOWN.contains(&name) || marks.contains(&format!("{PREFIX}{name}").as_str());
        let unknown = ours.filter(|name| !is_known(name));
        unknown.map(|name| format!("annotation {PREFIX}{name} is not known and does nothing")).collect()
    }
}

fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// A quantity of processor time: `100m`, `0.5`, `2`.
pub(super) fn cpu(text: &str) -> Result<String, String> {
    let number = text.strip_suffix('m').unwrap_or(text);
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let right = digits(whole) && digits(part) && !(number.contains('.') && text.ends_with('m'));
    if right { Ok(text.to_owned()) } else { Err("is no amount of CPU: write 100m or 0.5".to_owned()) }
}

/// A number of bytes, kept as it was written.
pub(super) fn memory(text: &str) -> Result<String, String> {
    match parse_bytes(text) {
        Ok(0) => Err("is nothing: write 64Mi or the like".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("is no amount of memory: write 64Mi or the like".to_owned()),
    }
}

fn queue_size(text: &str) -> Result<u64, String> {
    let least = print_bytes(QUEUE_SIZE_LEAST);
    match parse_bytes(text) {
        Ok(bytes) if bytes >= QUEUE_SIZE_LEAST => Ok(bytes),
        Ok(_) => Err(format!("is too little: {least} at least")),
        Err(_) => Err(format!("is no size: write 1Gi or the like, {least} at least")),
    }
}

fn workers(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=WORKERS_MAX).contains(number));
    number.ok_or_else(|| format!("is no number of threads: 1 to {WORKERS_MAX} is allowed"))
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "is not known: write true or false".to_owned())
}

fn inbound_default(text: &str) -> Result<String, String> {
    let known = INBOUND_DEFAULTS.contains(&text);
    if known {
        Ok(text.to_owned())
    } else {
        Err(format!("is not known: write {}", INBOUND_DEFAULTS.join(" or ")))
    }
}

fn port(text: &str) -> Result<u16, String> {
    policy::name::parse_port(text).map_err(|_| "is no port: 1 to 65535 is allowed".to_owned())
}

fn ports(text: &str) -> Result<BTreeSet<u16>, String> {
    let given = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let ports: Result<BTreeSet<u16>, String> = given
        .map(|part| {
            let wrong = |_| format!("names {part:?}, which is no port: write 1 to 65535 with commas between");
            policy::name::parse_port(part).map_err(wrong)
        })
        .collect();
    match ports {
        Ok(ports) if ports.len() > PORTS_MAX => {
            Err(format!("names {} ports: at most {PORTS_MAX} are allowed", ports.len()))
        }
        ports => ports,
    }
}

fn seconds_within(text: &str, grace: Duration) -> Result<u64, String> {
    let asked = parse_duration(text).map_err(|error| error.to_string())?;
    if asked.as_secs() >= 1 && asked.subsec_nanos() == 0 && asked < grace {
        return Ok(asked.as_secs());
    }
    let most = grace.as_secs().saturating_sub(1);
    Err(format!("does not fit: whole seconds, 1s to {most}s (below terminationGracePeriodSeconds)"))
}
