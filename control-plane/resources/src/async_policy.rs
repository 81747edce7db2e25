//! async_policy: AsyncPolicy, which requests are taken in as messages, and how they are delivered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use policy::limits;
use policy::name::{Domain, Label};
use policy::queue::{self, Backoff, Credentials, Delivery, Durability, GrpcAck, Mode, RateLimits};

use crate::duration::print_iso;
use crate::node::{Node, Read};
use crate::object::Meta;
use crate::quantity::print_bytes;
use crate::sink::SinkRef;

/// The longest time a policy can speak of: that for which a message can be delayed.
const LONGEST: Duration = limits::MESSAGE_DELAY_MAX;
/// The shortest time between two attempts: less would be a busy loop against a receiver that is ill.
const BACKOFF_LEAST: Duration = Duration::from_millis(10);
/// The shortest time anything can be waited for.
const TIMEOUT_LEAST: Duration = Duration::from_millis(1);
/// How long a key is remembered at least: shorter, a client's own retry would be a second request.
const WINDOW_LEAST: Duration = Duration::from_secs(1);
/// The slowest rate, about nine in a day, and the fastest, which no sidecar reaches.
const PER_SECOND: std::ops::RangeInclusive<f64> = 0.0001..=1_000_000.0;
/// The most deliveries begun at once after a pause.
const BURST_CAP: u64 = 1_000_000;
/// The most bytes in a queue: the store counts them as signed 64-bit numbers.
const QUEUE_BYTES_CAP: u64 = 1 << 62;
/// Methods, and hosts for callbacks, that one policy may name.
const NAMES_MAX: usize = 64;

const _: () = assert!(limits::QUEUE_BYTES_MAX >= limits::MESSAGE_BODY_BYTES_CAP);

/// Which requests are taken in as messages, and how they are delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct AsyncPolicy {
    /// The name.
    pub meta: Meta,
    /// For what it holds; none where only routes' filters name it.
    pub targets: Vec<AsyncTarget>,
    /// What it says, but for the callbacks' key and the sink.
    pub says: Arc<queue::AsyncPolicy>,
    /// Where its dead letters are sent on to.
    pub sink: Option<SinkRef>,
    /// The Secret of its namespace that callbacks are signed with.
    pub callback_secret: Option<Domain>,
}

/// For what an AsyncPolicy holds, in its own namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AsyncTarget {
    /// A Service: wherever nothing below says otherwise.
    Service(Label),
    /// All rules of an HTTPRoute.
    Route(Domain),
    /// The rule of an HTTPRoute that has this name.
    Rule(Domain, String),
}

impl AsyncTarget {
    /// What it is called in `namespace`.
    #[must_use]
    pub fn within(&self, namespace: &Label) -> String {
        match self {
            Self::Service(name) => format!("Service {namespace}/{name}"),
            Self::Route(name) => format!("HTTPRoute {namespace}/{name}"),
            Self::Rule(name, rule) => format!("rule {rule:?} of HTTPRoute {namespace}/{name}"),
        }
    }
}

impl AsyncPolicy {
    /// Of two policies for one target the one with the lesser rank holds: the older, then the one
    /// whose name comes first. One without a time is as new as can be.
    pub fn rank(&self) -> impl Ord + fmt::Debug + '_ {
        (self.meta.created.is_none(), self.meta.created.as_deref(), self.meta.name.as_str())
    }

    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let meta = Meta::read(root)?;
        let spec = root.need("spec")?;
        spec.only(
            &[
                "targetRefs",
                "mode",
                "methods",
                "durability",
                "queue",
                "maxBodyBytes",
                "ordering",
                "delivery",
                "rateLimits",
                "idempotency",
                "result",
                "callback",
                "credentials",
                "grpc",
                "paused",
            ],
            &[],
        )?;
        let mut says = plain(&meta, &spec)?;
        queue(&spec, &mut says)?;
        idempotency(&spec, &mut says)?;
        result(&spec, &mut says)?;
        let callback_secret = callback(&spec, &mut says)?;
        let sink = sink(&spec, &meta)?;
        Ok(Self { meta, targets: targets(&spec)?, says: Arc::new(says), sink, callback_secret })
    }
}

/// What stands alone, the rest with its defaults.
fn plain(meta: &Meta, spec: &Node<'_>) -> Read<queue::AsyncPolicy> {
    let modes = [("Preferred", Mode::Preferred), ("Spill", Mode::Spill), ("Always", Mode::Always)];
    let durabilities = [("Local", Durability::Local), ("Memory", Durability::Memory)];
    let credentials =
        [("Refuse", Credentials::Refuse), ("Drop", Credentials::Drop), ("Store", Credentials::Store)];
    let one_of = |key, later| -> Read<_> {
        Ok(spec.get(key)?.map(|node| node.one_of(&durabilities, later)).transpose()?.unwrap_or_default())
    };
    let says = queue::AsyncPolicy::new(format!("{}/{}", meta.namespace, meta.name));
    Ok(queue::AsyncPolicy {
        mode: spec.get("mode")?.map(|node| node.one_of(&modes, &[])).transpose()?.unwrap_or_default(),
        methods: methods(spec)?.unwrap_or(says.methods),
        durability: one_of("durability", &["Broker"])?,
        ordering_header: ordering(spec)?.or(says.ordering_header),
        delivery: delivery(spec)?,
        rate: rate(spec)?,
        credentials: match spec.get("credentials")? {
            Some(node) => node.one_of(&credentials, &[])?,
            None => Credentials::default(),
        },
        grpc_ack: grpc_ack(spec)?,
        paused: spec.get("paused")?.map_or(Ok(false), |node| node.flag())?,
        ..says
    })
}

fn targets(spec: &Node<'_>) -> Read<Vec<AsyncTarget>> {
    let mut targets = Vec::new();
    for node in spec.items("targetRefs")? {
        let target = target(&node)?;
        if targets.contains(&target) {
            return Err(node.fault("stands there already: remove it"));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn target(node: &Node<'_>) -> Read<AsyncTarget> {
    node.only(&["group", "kind", "name", "sectionName"], &[])?;
    let (group, kind) = (node.text_or("group", "")?, node.text_or("kind", "Service")?);
    let (name, section) = (node.need("name")?, node.get("sectionName")?);
    match (group.as_str(), kind.as_str(), section) {
        ("" | "core", "Service", None) => Ok(AsyncTarget::Service(name.parsed()?)),
        ("" | "core", "Service", Some(section)) => {
            let what = "an AsyncPolicy for one port alone (sectionName)";
            Err(section.fault(format!("{what} is not implemented yet: remove it")))
        }
        ("gateway.networking.k8s.io", "HTTPRoute", None) => Ok(AsyncTarget::Route(name.parsed()?)),
        ("gateway.networking.k8s.io", "HTTPRoute", Some(section)) => {
            Ok(AsyncTarget::Rule(name.parsed()?, section.text()?.to_owned()))
        }
        _ => Err(node.fault(format!(
            "kind {kind:?} of group {group:?} cannot be a target: write kind Service (group \"\") or \
             HTTPRoute (group \"gateway.networking.k8s.io\")"
        ))),
    }
}

fn methods(spec: &Node<'_>) -> Read<Option<Vec<String>>> {
    let Some(node) = spec.get("methods")? else { return Ok(None) };
    let mut methods = Vec::new();
    for item in bounded(&node)? {
        let text = item.text()?;
        let is_method = text.bytes().all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte));
        if text.is_empty() || text.len() > 32 || !is_method {
            return Err(item.fault(format!("{text:?} is not a method: upper-case letters, as in \"POST\"")));
        }
        if matches!(text, "CONNECT" | "TRACE") {
            return Err(item.fault(format!("{text} is never taken in as a message: remove it")));
        }
        if methods.iter().any(|method| method == text) {
            return Err(item.fault(format!("{text} stands there already: remove it")));
        }
        methods.push(text.to_owned());
    }
    Ok(Some(methods))
}

/// The items of a list that has some, and not too many.
fn bounded<'a>(node: &Node<'a>) -> Read<Vec<Node<'a>>> {
    let items = node.list()?;
    match items.len() {
        0 => Err(node.fault("is empty: name one, or remove it")),
        length if length > NAMES_MAX => {
            Err(node.fault(format!("has {length} entries, {NAMES_MAX} are allowed")))
        }
        _ => Ok(items),
    }
}

fn ordering(spec: &Node<'_>) -> Read<Option<String>> {
    let Some(node) = spec.get("ordering")? else { return Ok(None) };
    node.only(&["key"], &[])?;
    header_key(&node.need("key")?, "write \"header:NAME\"").map(Some)
}

/// The NAME of `header:NAME`, in lower case.
fn header_key(node: &Node<'_>, remedy: &str) -> Read<String> {
    let text = node.text()?;
    let Some(name) = text.strip_prefix("header:") else {
        return Err(node.fault(format!("{text:?} is not known: {remedy}")));
    };
    // RFC 9110 §5.6.2, token.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(node.fault(format!("{name:?} is not a header name")));
    }
    let name = name.to_ascii_lowercase();
    if matches!(name.as_str(), "authorization" | "cookie" | "proxy-authorization") {
        return Err(
            node.fault(format!("{name} holds a credential, which a key would write down: name another"))
        );
    }
    Ok(name)
}

fn queue(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<()> {
    if let Some(node) = spec.get("maxBodyBytes")? {
        says.body_bytes_max = node.bytes_in(1, limits::MESSAGE_BODY_BYTES_CAP)?;
    }
    let Some(node) = spec.get("queue")? else { return Ok(()) };
    node.only(&["maxBytes", "maxMessages"], &[])?;
    if let Some(bytes) = node.get("maxBytes")? {
        says.queue_bytes_max = bytes.bytes_in(1, QUEUE_BYTES_CAP)?;
        if says.queue_bytes_max < says.body_bytes_max {
            let (quota, body) = (print_bytes(says.queue_bytes_max), print_bytes(says.body_bytes_max));
            let message = format!("{quota} is a quota smaller than one message: maxBodyBytes is {body}");
            return Err(bytes.fault(message));
        }
    }
    if let Some(messages) = node.get("maxMessages")? {
        says.queue_messages_max = messages.number_in(1, limits::QUEUE_MESSAGES_CAP)?;
    }
    Ok(())
}

fn delivery(spec: &Node<'_>) -> Read<Delivery> {
    let mut delivery = Delivery::default();
    let Some(node) = spec.get("delivery")? else { return Ok(delivery) };
    let known = [
        "retry",
        "backoffPolicy",
        "backoffDelay",
        "backoffMax",
        "timeout",
        "retryAfterMax",
        "maxAge",
        "deadLetterSink",
    ];
    node.only(&known, &[])?;
    if let Some(retry) = node.get("retry")? {
        delivery.retry = retry.number_in(0, limits::DELIVERY_RETRY_CAP.into())?;
    }
    if let Some(policy) = node.get("backoffPolicy")? {
        let known = [("exponential", Backoff::Exponential), ("linear", Backoff::Linear)];
        delivery.backoff = policy.one_of(&known, &[])?;
    }
    let set = |key, least, into: &mut Duration| -> Read<()> {
        if let Some(node) = node.get(key)? {
            *into = node.duration_in(least, LONGEST)?;
        }
        Ok(())
    };
    set("backoffDelay", BACKOFF_LEAST, &mut delivery.backoff_delay)?;
    set("backoffMax", BACKOFF_LEAST, &mut delivery.backoff_max)?;
    set("timeout", TIMEOUT_LEAST, &mut delivery.timeout)?;
    set("retryAfterMax", Duration::ZERO, &mut delivery.retry_after_max)?;
    set("maxAge", WINDOW_LEAST, &mut delivery.age_max)?;
    if delivery.backoff_max < delivery.backoff_delay {
        let (delay, max) = (print_iso(delivery.backoff_delay), print_iso(delivery.backoff_max));
        return Err(node.fault(format!("backoffDelay ({delay}) is longer than backoffMax ({max})")));
    }
    Ok(delivery)
}

fn sink(spec: &Node<'_>, meta: &Meta) -> Read<Option<SinkRef>> {
    let Some(delivery) = spec.get("delivery")? else { return Ok(None) };
    delivery.get("deadLetterSink")?.map(|node| SinkRef::read(&node, &meta.namespace)).transpose()
}

fn rate(spec: &Node<'_>) -> Read<RateLimits> {
    let mut rate = RateLimits::default();
    let Some(node) = spec.get("rateLimits")? else { return Ok(rate) };
    node.only(&["maxConcurrentDispatches", "maxDispatchesPerSecond", "maxBurstSize", "key"], &[])?;
    if let Some(node) = node.get("maxConcurrentDispatches")? {
        rate.concurrent_max = node.number_in(1, limits::DISPATCHES_CONCURRENT_CAP.into())?;
    }
    if let Some(node) = node.get("maxDispatchesPerSecond")? {
        let found = node.value.as_f64().filter(|rate| PER_SECOND.contains(rate));
        let allowed = format!("{} to {} is allowed", PER_SECOND.start(), PER_SECOND.end());
        rate.per_second = Some(found.ok_or_else(|| node.fault(format!("is no number in range: {allowed}")))?);
    }
    if let Some(node) = node.get("maxBurstSize")? {
        rate.burst_max = node.number_in(1, BURST_CAP)?;
    }
    if let Some(node) = node.get("key")?.filter(|node| node.value != "destination") {
        rate.key_header = Some(header_key(&node, "write destination or \"header:NAME\"")?);
    }
    Ok(rate)
}

fn idempotency(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<()> {
    let Some(node) = spec.get("idempotency")? else { return Ok(()) };
    node.only(&["required", "window"], &[])?;
    if let Some(required) = node.get("required")? {
        says.idempotency_required = required.flag()?;
    }
    if let Some(window) = node.get("window")? {
        says.idempotency_window = window.duration_in(WINDOW_LEAST, LONGEST)?;
    }
    Ok(())
}

fn result(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<()> {
    let Some(node) = spec.get("result")? else { return Ok(()) };
    node.only(&["ttl", "maxBytes"], &[])?;
    if let Some(ttl) = node.get("ttl")? {
        says.result_ttl = ttl.duration_in(Duration::ZERO, LONGEST)?;
    }
    if let Some(bytes) = node.get("maxBytes")? {
        says.result_bytes_max = bytes.bytes_in(0, limits::RESULT_BYTES_CAP)?;
    }
    Ok(())
}

/// Takes the hosts; what comes back is the name of the Secret.
fn callback(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<Option<Domain>> {
    let Some(node) = spec.get("callback")? else { return Ok(None) };
    node.only(&["allowedHosts", "secretRef"], &[])?;
    says.callback_hosts = bounded(&node.need("allowedHosts")?)?.iter().map(host).collect::<Read<_>>()?;
    let secret = node.need("secretRef")?;
    secret.only(&["name"], &[])?;
    let name = secret.need("name")?;
    if name.text()?.starts_with("whsec_") {
        return Err(name.fault("is a secret itself: name the Secret that holds it under \"secret\""));
    }
    name.parsed().map(Some)
}

/// A host by name, in lower case; `*.` in front stands for one or more labels.
fn host(node: &Node<'_>) -> Read<String> {
    let text = node.text()?.to_ascii_lowercase();
    match Domain::new(text.strip_prefix("*.").unwrap_or(&text)) {
        Ok(_) => Ok(text),
        Err(error) => Err(node.fault(format!("{error}; \"*.\" may stand in front"))),
    }
}

fn grpc_ack(spec: &Node<'_>) -> Read<Option<GrpcAck>> {
    let Some(node) = spec.get("grpc")? else { return Ok(None) };
    node.only(&["ack"], &[])?;
    node.need("ack")?.one_of(&[("EmptyMessage", GrpcAck::EmptyMessage)], &["Operation"]).map(Some)
}
