//! schema: the schema of an AsyncPolicy's spec.

use policy::queue::{self, Delivery, RateLimits};
use serde_json::json;

use super::{AsyncPolicy, terms};
use crate::duration::print_iso;
use crate::form::{DOMAIN, HEADER_KEY, HOST, LABEL, METHOD, RATE_KEY, SECTION};
use crate::quantity::print_bytes;
use crate::schema::{Schema, bytes_at_least, not_longer};
use crate::sink::SinkRef;

impl AsyncPolicy {
    /// The schema of its spec. Whatever has one default shows it in the cluster.
    pub(crate) fn schema() -> Schema {
        let defaults = queue::AsyncPolicy::new("");
        let spec = Schema::object(
            &terms::SPEC,
            [
                ("targetRefs", targets()),
                ("mode", Schema::one_of(&terms::MODES).or(json!(defaults.mode)).says(MODE)),
                ("methods", methods(&defaults)),
                (
                    "durability",
                    Schema::one_of(&terms::DURABILITIES).or(json!(defaults.durability)).says(DURABILITY),
                ),
                ("queue", queue(&defaults)),
                ("maxBodyBytes", body(&defaults)),
                ("ordering", ordering()),
                ("delivery", delivery(&defaults.delivery)),
                ("rateLimits", rate(&defaults.rate)),
                ("idempotency", idempotency(&defaults)),
                ("result", result(&defaults)),
                ("callback", callback()),
                (
                    "credentials",
                    Schema::one_of(&terms::CREDENTIALS).or(json!(defaults.credentials)).says(CREDENTIALS),
                ),
                ("grpc", grpc()),
                ("paused", Schema::flag().or(defaults.paused).says(PAUSED)),
            ],
        );
        let quota = bytes_at_least("self.queue.maxBytes", "self.maxBodyBytes");
        spec.rule_at(".queue.maxBytes", &quota, "is a quota smaller than one message: see maxBodyBytes").says(
            "Which requests are taken in as messages by the sidecar of whoever sends them, and how they are delivered.",
        )
    }
}

const MODE: &str = "Preferred takes in requests that say Prefer: respond-async. Spill takes in those, and others whose \
     receiver cannot take them now. Always takes in all.";
const DURABILITY: &str = "What a 202 means. Local: the message is flushed on the pod's volume, and survives the \
     sidecar's crash and a reboot if the volume does, but not the pod's deletion. Memory: it survives the \
     application's crash alone.";
const CREDENTIALS: &str = "What is done with Authorization and Cookie: Refuse answers 400, Drop takes them off, Store \
     keeps them encrypted.";
const PAUSED: &str = "Nothing is delivered while this is true; requests are taken in as before.";

fn targets() -> Schema {
    let target = Schema::object(
        &terms::TARGET,
        [
            (
                "group",
                Schema::one_of(&terms::GROUPS).or(terms::CORE).says(
                    "The API group: the empty one of a Service, gateway.networking.k8s.io of an HTTPRoute.",
                ),
            ),
            (
                "kind",
                Schema::one_of(&terms::KINDS).or(terms::SERVICE).says("The kind: Service or HTTPRoute."),
            ),
            ("name", Schema::form(&DOMAIN).says("The name.")),
            ("sectionName", Schema::form(&SECTION).says("The name of one rule of an HTTPRoute.")),
        ],
    );
    let (core, gateway) = (terms::CORE, terms::GATEWAY);
    let (service, route) = (terms::SERVICE, terms::ROUTE);
    let pair = format!(
        "self.group == '{core}' && self.kind == '{service}' || self.group == '{gateway}' && self.kind == '{route}'"
    );
    let target = target
        .need(&["name"])
        .rule(&pair, "write kind Service (group \"\") or HTTPRoute (group \"gateway.networking.k8s.io\")")
        .rule_at(
            ".name",
            &format!("self.kind != '{service}' || self.name.matches(r'{}')", LABEL.pattern()),
            "a Service's name is one DNS label",
        )
        .rule_at(
            ".sectionName",
            &format!("!has(self.sectionName) || self.kind == '{route}'"),
            "an AsyncPolicy for one port alone (sectionName) is not implemented yet: remove it",
        );
    let same = "a.group == b.group && a.kind == b.kind && a.name == b.name && \
                (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')";
    Schema::list(target, &terms::TARGETS)
        .rule(&format!("self.all(a, self.exists_one(b, {same}))"), "a target stands there once")
        .says(
            "For what it holds, in its own namespace: a Service, an HTTPRoute, or one of its rules (sectionName). \
             The nearest to a request holds: its rule, its route, its Service; of two for one target the older. \
             None: only the filters of routes name it (type ExtensionRef).",
        )
}

fn methods(defaults: &queue::AsyncPolicy) -> Schema {
    let never = format!("!(self in {})", json!(terms::NEVER));
    let method = Schema::form(&METHOD).rule(&never, "is never taken in as a message: remove it");
    Schema::set(method, &terms::NAMES)
        .or(defaults.methods.clone())
        .says("Methods that are taken in; requests of every other are passed on.")
}

fn queue(defaults: &queue::AsyncPolicy) -> Schema {
    let bytes = Schema::bytes(&terms::QUEUE_BYTES)
        .or(print_bytes(defaults.queue_bytes_max))
        .says("Bytes of messages that wait, at least maxBodyBytes. Example: 256Mi.");
    let messages =
        Schema::number(&terms::QUEUE_MESSAGES).or(defaults.queue_messages_max).says("Messages that wait.");
    Schema::object(&terms::QUEUE, [("maxBytes", bytes), ("maxMessages", messages)])
        .or_defaults()
        .says("How much may wait in the queue of one pod for one destination. A full queue answers 429; nothing is dropped.")
}

fn body(defaults: &queue::AsyncPolicy) -> Schema {
    Schema::bytes(&terms::BODY_BYTES)
        .or(print_bytes(defaults.body_bytes_max))
        .says("Bytes of one request's body, up to 16Mi; a longer one is answered 413.")
}

/// A key that is no credential.
fn key(form: &crate::form::Form) -> Schema {
    let credentials: Vec<String> =
        terms::CREDENTIAL_HEADERS.iter().map(|name| format!("header:{name}")).collect();
    Schema::form(form).rule(
        &format!("!(self.lowerAscii() in {})", json!(credentials)),
        "names a header that holds a credential, which a key would write down: name another",
    )
}

fn ordering() -> Schema {
    Schema::wrapper(
        "key",
        key(&HEADER_KEY).says("The header whose value is the key, as in \"header:Tidegate-Key\"."),
    )
    .or(json!({"key": "header:Tidegate-Key"}))
    .says("Messages with one key are delivered one after another, in the order they were taken in.")
}

fn delivery(defaults: &Delivery) -> Schema {
    let span = |allowed, default, says| Schema::duration(allowed).or(print_iso(default)).says(says);
    let delivery = Schema::object(
        &terms::DELIVERY,
        [
            ("retry", Schema::number(&terms::RETRY).or(defaults.retry).says("Attempts after the first.")),
            ("backoffPolicy", Schema::one_of(&terms::BACKOFFS).or(json!(defaults.backoff)).says(
                "How waits between attempts grow: exponential doubles them, linear adds backoffDelay each time.",
            )),
            ("backoffDelay", span(&terms::BACKOFF, defaults.backoff_delay, "The first wait, from PT0.01S, not above backoffMax.")),
            ("backoffMax", span(&terms::BACKOFF, defaults.backoff_max, "The longest wait. Example: PT5M or 5m.")),
            ("timeout", span(&terms::TIMEOUT, defaults.timeout, "For one attempt, until its response is there.")),
            ("retryAfterMax", span(&terms::ANY, defaults.retry_after_max, "The longest Retry-After of a receiver that is heeded.")),
            ("maxAge", span(&terms::WINDOW, defaults.age_max, "From acceptance to the dead letter, from PT1S.")),
            ("deadLetterSink", SinkRef::schema()),
        ],
    );
    // The rule is held against the default of the whole too, which has neither.
    let both = "has(self.backoffDelay) && has(self.backoffMax)";
    let order = format!("!({both}) || {}", not_longer("self.backoffDelay", "self.backoffMax"));
    delivery
        .or_defaults()
        .rule_at(".backoffDelay", &order, "backoffDelay is longer than backoffMax")
        .says("How a message is delivered. Durations are ISO 8601 (PT0.5S, P1D) or Go's (500ms, 72h), 30 days at most.")
}

fn rate(defaults: &RateLimits) -> Schema {
    let rate = Schema::object(
        &terms::RATE,
        [
            ("maxConcurrentDispatches", Schema::number(&terms::CONCURRENT).or(defaults.concurrent_max).says(
                "Deliveries that are under way at once.",
            )),
            ("maxDispatchesPerSecond", Schema::fraction(&terms::PER_SECOND).says(
                "Deliveries begun in a second, from 0.0001; none: as many as maxConcurrentDispatches lets through.",
            )),
            ("maxBurstSize", Schema::number(&terms::BURST).or(defaults.burst_max).says(
                "Deliveries begun at once after a pause.",
            )),
            ("key", key(&RATE_KEY).or(terms::DESTINATION).says(
                "What the limits are for: destination, or \"header:NAME\": each value of that header has limits of its own.",
            )),
        ],
    );
    rate.or_defaults().says("How fast one pod's queue is emptied (Cloud Tasks' names).")
}

fn idempotency(defaults: &queue::AsyncPolicy) -> Schema {
    let required = Schema::flag()
        .or(defaults.idempotency_required)
        .says("Whether requests without an Idempotency-Key are answered 400.");
    let window = Schema::duration(&terms::WINDOW)
        .or(print_iso(defaults.idempotency_window))
        .says("How long a key is remembered, from PT1S.");
    Schema::object(&terms::IDEMPOTENCY, [("required", required), ("window", window)])
        .or_defaults()
        .says("A request whose Idempotency-Key was seen within the window is answered as the first one was.")
}

fn result(defaults: &queue::AsyncPolicy) -> Schema {
    let ttl = Schema::duration(&terms::ANY)
        .or(print_iso(defaults.result_ttl))
        .says("How long it is kept; PT0S keeps none.");
    let bytes = Schema::bytes(&terms::RESULT_BYTES)
        .or(print_bytes(defaults.result_bytes_max))
        .says("Bytes of a body that is kept, up to 4Mi; a longer response is not kept.");
    Schema::object(&terms::RESULT, [("ttl", ttl), ("maxBytes", bytes)])
        .or_defaults()
        .says("The final response, for whoever asks at /.tidegate/requests/ID/result.")
}

fn callback() -> Schema {
    let hosts = Schema::list(Schema::form(&HOST), &terms::NAMES).says(
        "Hosts it may go to; \"*.\" in front stands for one or more labels. Example: [\"*.shop.svc\"].",
    );
    let secret = Schema::wrapper("name", Schema::form(&DOMAIN).says("The Secret's name.")).says(
        "The Secret, of the policy's namespace, under whose key \"secret\" the signing key stands: whsec_ and the \
         base64 of 24 to 64 bytes, as Standard Webhooks write it.",
    );
    Schema::object(&terms::CALLBACK, [("allowedHosts", hosts), ("secretRef", secret)])
        .need(&terms::CALLBACK)
        .says("Lets requests name an address that is told their end (Tidegate-Callback), as a signed CloudEvent.")
}

fn grpc() -> Schema {
    let ack = Schema::one_of(&terms::ACKS)
        .says("EmptyMessage: an empty message, the default value of any type; the id stands in a trailer.");
    Schema::wrapper("ack", ack)
        .says("What a unary gRPC call that prefers it is answered; without this UNIMPLEMENTED.")
}
