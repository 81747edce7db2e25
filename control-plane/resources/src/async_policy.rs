//! async_policy: AsyncPolicy, which requests are taken in as messages, and how they are delivered.

mod schema;
mod terms;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use policy::name::{Domain, Label};
use policy::queue::{self, Delivery, GrpcAck, RateLimits};

use crate::duration::print_iso;
use crate::form::{HEADER_KEY, HOST, METHOD, RATE_KEY, SECTION};
use crate::node::{Node, Read};
use crate::object::Meta;
use crate::quantity::print_bytes;
use crate::sink::SinkRef;

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
        spec.only(&terms::SPEC, &[])?;
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
    let says = queue::AsyncPolicy::new(format!("{}/{}", meta.namespace, meta.name));
    Ok(queue::AsyncPolicy {
        mode: spec.one_or("mode", &terms::MODES, &[])?,
        methods: methods(spec)?.unwrap_or(says.methods),
        durability: spec.one_or("durability", &terms::DURABILITIES, &["Broker"])?,
        ordering_header: ordering(spec)?.or(says.ordering_header),
        delivery: delivery(spec)?,
        rate: rate(spec)?,
        credentials: spec.one_or("credentials", &terms::CREDENTIALS, &[])?,
        grpc_ack: grpc_ack(spec)?,
        paused: spec.get("paused")?.map_or(Ok(false), |node| node.flag())?,
        ..says
    })
}

fn targets(spec: &Node<'_>) -> Read<Vec<AsyncTarget>> {
    let Some(list) = spec.get("targetRefs")? else { return Ok(Vec::new()) };
    let mut targets = Vec::new();
    for node in list.list_in(terms::TARGETS)? {
        let target = target(&node)?;
        if targets.contains(&target) {
            return Err(node.fault("stands there already: remove it"));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn target(node: &Node<'_>) -> Read<AsyncTarget> {
    node.only(&terms::TARGET, &[])?;
    let (group, kind) = (node.text_or("group", terms::CORE)?, node.text_or("kind", terms::SERVICE)?);
    let (name, section) = (node.need("name")?, node.get("sectionName")?);
    match (group.as_str(), kind.as_str(), section) {
        (terms::CORE, terms::SERVICE, None) => Ok(AsyncTarget::Service(name.parsed()?)),
        (terms::CORE, terms::SERVICE, Some(section)) => {
            let what = "an AsyncPolicy for one port alone (sectionName)";
            Err(section.fault(format!("{what} is not implemented yet: remove it")))
        }
        (terms::GATEWAY, terms::ROUTE, None) => Ok(AsyncTarget::Route(name.parsed()?)),
        (terms::GATEWAY, terms::ROUTE, Some(section)) => {
            Ok(AsyncTarget::Rule(name.parsed()?, section.formed(&SECTION)?.to_owned()))
        }
        _ => Err(node.fault(format!(
            "kind {kind:?} of group {group:?} cannot be a target: write kind Service (group \"\") or \
             HTTPRoute (group \"gateway.networking.k8s.io\")"
        ))),
    }
}

fn methods(spec: &Node<'_>) -> Read<Option<Vec<String>>> {
    let Some(node) = spec.get("methods")? else { return Ok(None) };
    let mut methods: Vec<String> = Vec::new();
    for item in node.list_in(terms::NAMES)? {
        let text = item.formed(&METHOD)?;
        if terms::NEVER.contains(&text) {
            return Err(item.fault(format!("{text} is never taken in as a message: remove it")));
        }
        if methods.iter().any(|method| method == text) {
            return Err(item.fault(format!("{text} stands there already: remove it")));
        }
        methods.push(text.to_owned());
    }
    Ok(Some(methods))
}

fn ordering(spec: &Node<'_>) -> Read<Option<String>> {
    let Some(node) = spec.get("ordering")? else { return Ok(None) };
    node.only(&["key"], &[])?;
    let key = node.need("key")?;
    header(&key, key.formed(&HEADER_KEY)?).map(Some)
}

/// The NAME of `header:NAME`, in lower case.
fn header(node: &Node<'_>, key: &str) -> Read<String> {
    let name = key.strip_prefix("header:").unwrap_or(key).to_ascii_lowercase();
    if terms::CREDENTIAL_HEADERS.contains(&name.as_str()) {
        return Err(
            node.fault(format!("{name} holds a credential, which a key would write down: name another"))
        );
    }
    Ok(name)
}

fn queue(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<()> {
    if let Some(node) = spec.get("maxBodyBytes")? {
        says.body_bytes_max = node.bytes_in(terms::BODY_BYTES)?;
    }
    let Some(node) = spec.get("queue")? else { return Ok(()) };
    node.only(&terms::QUEUE, &[])?;
    if let Some(bytes) = node.get("maxBytes")? {
        says.queue_bytes_max = bytes.bytes_in(terms::QUEUE_BYTES)?;
        if says.queue_bytes_max < says.body_bytes_max {
            let (quota, body) = (print_bytes(says.queue_bytes_max), print_bytes(says.body_bytes_max));
            let message = format!("{quota} is a quota smaller than one message: maxBodyBytes is {body}");
            return Err(bytes.fault(message));
        }
    }
    if let Some(messages) = node.get("maxMessages")? {
        says.queue_messages_max = messages.number_in(terms::QUEUE_MESSAGES)?;
    }
    Ok(())
}

fn delivery(spec: &Node<'_>) -> Read<Delivery> {
    let mut delivery = Delivery::default();
    let Some(node) = spec.get("delivery")? else { return Ok(delivery) };
    node.only(&terms::DELIVERY, &[])?;
    if let Some(retry) = node.get("retry")? {
        delivery.retry = retry.number_in(terms::RETRY)?;
    }
    delivery.backoff = node.one_or("backoffPolicy", &terms::BACKOFFS, &[])?;
    let set = |key, allowed: RangeInclusive<Duration>, into: &mut Duration| -> Read<()> {
        if let Some(node) = node.get(key)? {
            *into = node.duration_in(allowed)?;
        }
        Ok(())
    };
    set("backoffDelay", terms::BACKOFF, &mut delivery.backoff_delay)?;
    set("backoffMax", terms::BACKOFF, &mut delivery.backoff_max)?;
    set("timeout", terms::TIMEOUT, &mut delivery.timeout)?;
    set("retryAfterMax", terms::ANY, &mut delivery.retry_after_max)?;
    set("maxAge", terms::WINDOW, &mut delivery.age_max)?;
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
    node.only(&terms::RATE, &[])?;
    if let Some(node) = node.get("maxConcurrentDispatches")? {
        rate.concurrent_max = node.number_in(terms::CONCURRENT)?;
    }
    if let Some(node) = node.get("maxDispatchesPerSecond")? {
        let found = node.value.as_f64().filter(|rate| terms::PER_SECOND.contains(rate));
        let allowed = format!("{} to {} is allowed", terms::PER_SECOND.start(), terms::PER_SECOND.end());
        rate.per_second = Some(found.ok_or_else(|| node.fault(format!("is no number in range: {allowed}")))?);
    }
    if let Some(node) = node.get("maxBurstSize")? {
        rate.burst_max = node.number_in(terms::BURST)?;
    }
    if let Some(node) = node.get("key")? {
        let key = node.formed(&RATE_KEY)?;
        rate.key_header = if key == terms::DESTINATION { None } else { Some(header(&node, key)?) };
    }
    Ok(rate)
}

fn idempotency(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<()> {
    let Some(node) = spec.get("idempotency")? else { return Ok(()) };
    node.only(&terms::IDEMPOTENCY, &[])?;
    if let Some(required) = node.get("required")? {
        says.idempotency_required = required.flag()?;
    }
    if let Some(window) = node.get("window")? {
        says.idempotency_window = window.duration_in(terms::WINDOW)?;
    }
    Ok(())
}

fn result(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<()> {
    let Some(node) = spec.get("result")? else { return Ok(()) };
    node.only(&terms::RESULT, &[])?;
    if let Some(ttl) = node.get("ttl")? {
        says.result_ttl = ttl.duration_in(terms::ANY)?;
    }
    if let Some(bytes) = node.get("maxBytes")? {
        says.result_bytes_max = bytes.bytes_in(terms::RESULT_BYTES)?;
    }
    Ok(())
}

/// Takes the hosts; what comes back is the name of the Secret.
fn callback(spec: &Node<'_>, says: &mut queue::AsyncPolicy) -> Read<Option<Domain>> {
    let Some(node) = spec.get("callback")? else { return Ok(None) };
    node.only(&terms::CALLBACK, &[])?;
    let hosts = node.need("allowedHosts")?.list_in(terms::NAMES)?;
    says.callback_hosts = hosts.iter().map(host).collect::<Read<_>>()?;
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
    let text = node.formed(&HOST)?.to_ascii_lowercase();
    match Domain::new(text.strip_prefix("*.").unwrap_or(&text)) {
        Ok(_) => Ok(text),
        Err(error) => Err(node.fault(format!("{error}; \"*.\" may stand in front"))),
    }
}

fn grpc_ack(spec: &Node<'_>) -> Read<Option<GrpcAck>> {
    let Some(node) = spec.get("grpc")? else { return Ok(None) };
    node.only(&["ack"], &[])?;
    node.need("ack")?.one_of(&terms::ACKS, &["Operation"]).map(Some)
}
