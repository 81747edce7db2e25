//! backend_policy: BackendPolicy, how a Service is used.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use policy::limits;
use policy::name::{Label, parse_port};
use policy::snapshot::Protocol;

use crate::duration::print_go;
use crate::form::LABEL;
use crate::node::{Node, Read};
use crate::object::Meta;
use crate::problem::Fault;
use crate::schema::Schema;

const SPEC: [&str; 5] = ["targetRefs", "protocol", "loadBalancing", "retry", "limits"];
const TARGET: [&str; 3] = ["group", "kind", "name"];
const BALANCING: [&str; 1] = ["algorithm"];
const RETRY: [&str; 2] = ["budget", "maxBodyBytes"];
const BUDGET: [&str; 3] = ["percent", "interval", "minPerSecond"];
const LIMITS: [&str; 2] = ["maxInFlight", "queue"];

const TARGETS: RangeInclusive<usize> = 1..=limits::POLICY_TARGETS_MAX;
const GROUPS: [(&str, ()); 1] = [("", ())];
const KINDS: [(&str, ()); 1] = [("Service", ())];
const ALGORITHMS: [(&str, ()); 1] = [("PeakEWMA", ())];
const PROTOCOLS: [(&str, Protocol); 4] = [
    ("HTTP", Protocol::Http),
    ("HTTP2", Protocol::Http2),
    ("TLS", Protocol::Tls),
    ("Opaque", Protocol::Opaque),
];
const PERCENT: RangeInclusive<u64> = 0..=100;
/// A window a budget can be taken over: shorter counts noise, longer forgets nothing.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const PER_SECOND: RangeInclusive<u64> = 0..=1_000_000;
const BODY_BYTES: RangeInclusive<u64> = 0..=limits::RETRY_BODY_BYTES_CAP;
const IN_FLIGHT: RangeInclusive<u64> = 1..=u32::MAX as u64;
const QUEUE: RangeInclusive<u64> = 0..=u32::MAX as u64;

/// How a Service is used.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendPolicy {
    /// The name.
    pub meta: Meta,
    /// The Services, of its own namespace.
    pub targets: Vec<Label>,
    /// How ports are spoken to, by the Service's port.
    pub protocol: BTreeMap<u16, Protocol>,
    /// The retry budget.
    pub budget: Option<RetryBudgetSpec>,
    /// Bytes of a body kept for a retry.
    pub retry_body_bytes_max: Option<u64>,
    /// Requests on their way at once.
    pub in_flight_max: Option<u32>,
    /// Requests that wait at once.
    pub queue_max: Option<u32>,
}

/// A retry budget; what is absent has the default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RetryBudgetSpec {
    /// Retries in percent of requests, 0 to 100.
    pub percent: Option<u8>,
    /// The window, 1 s to 1 h.
    pub interval: Option<Duration>,
    /// Retries per second that are always allowed.
    pub min_per_second: Option<u32>,
}

impl BackendPolicy {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let spec = root.need("spec")?;
        spec.only(&SPEC, &[("breaker", "BackendPolicy breaker")])?;
        balancing(&spec)?;
        let mut policy = Self {
            meta: Meta::read(root)?,
            targets: targets(&spec)?,
            protocol: protocols(&spec)?,
            budget: None,
            retry_body_bytes_max: None,
            in_flight_max: None,
            queue_max: None,
        };
        policy.read_retry(&spec)?;
        policy.read_limits(&spec)?;
        Ok(policy)
    }

    fn read_retry(&mut self, spec: &Node<'_>) -> Read<()> {
        let Some(retry) = spec.get("retry")? else { return Ok(()) };
        retry.only(&RETRY, &[])?;
        if let Some(bytes) = retry.get("maxBodyBytes")? {
            self.retry_body_bytes_max = Some(bytes.number_in(BODY_BYTES)?);
        }
        let Some(budget) = retry.get("budget")? else { return Ok(()) };
        budget.only(&BUDGET, &[])?;
        self.budget = Some(RetryBudgetSpec {
            percent: budget.get("percent")?.map(|node| node.number_in(PERCENT)).transpose()?,
            interval: budget.get("interval")?.map(|node| node.gateway_duration_in(INTERVAL)).transpose()?,
            min_per_second: budget.get("minPerSecond")?.map(|node| node.number_in(PER_SECOND)).transpose()?,
        });
        Ok(())
    }

    fn read_limits(&mut self, spec: &Node<'_>) -> Read<()> {
        let Some(node) = spec.get("limits")? else { return Ok(()) };
        node.only(&LIMITS, &[])?;
        self.in_flight_max = node.get("maxInFlight")?.map(|node| node.number_in(IN_FLIGHT)).transpose()?;
        self.queue_max = node.get("queue")?.map(|node| node.number_in(QUEUE)).transpose()?;
        Ok(())
    }

    /// The schema of its spec.
    pub(crate) fn schema() -> Schema {
        let protocol = Schema::map(Schema::one_of(&PROTOCOLS), limits::POLICY_PORTS_MAX);
        let spec = Schema::object(
            &SPEC,
            [
                ("targetRefs", targets_schema()),
                (
                    "protocol",
                    protocol
                        .says(PROTOCOL_SAYS)
                        .rule(PORT_KEYS, "each key is a port's number, from 1 to 65535, as in \"8080\""),
                ),
                ("loadBalancing", balancing_schema()),
                ("retry", retry_schema()),
                ("limits", limits_schema()),
            ],
        );
        spec.need(&["targetRefs"]).says("How the Services it names are used by every client of the mesh.")
    }
}

const PROTOCOL_SAYS: &str = "How ports are spoken to, by the Service's port. A port that is not named is spoken to as \
     its appProtocol says, else as its first bytes tell. Example: {\"8080\": HTTP, \"9092\": Opaque}.";
const PORT_KEYS: &str = "self.all(port, port.matches('^[1-9][0-9]{0,4}$') && int(port) <= 65535)";

fn targets(spec: &Node<'_>) -> Read<Vec<Label>> {
    let node = spec.need("targetRefs")?;
    let mut targets = Vec::new();
    for item in node.list_in(TARGETS)? {
        let target = target(&item)?;
        if targets.contains(&target) {
            return Err(item.fault("stands there already: remove it"));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn target(node: &Node<'_>) -> Read<Label> {
    node.only(&TARGET, &[("sectionName", "a policy for one port alone (sectionName)")])?;
    let (group, kind) = (node.get("group")?, node.get("kind")?);
    let known = |node: Option<Node<'_>>, names| node.map_or(Ok(()), |node| node.one_of(names, &[]));
    if known(group, &GROUPS).is_err() || known(kind, &KINDS).is_err() {
        return Err(node.fault("only a Service (group \"\", kind Service) can be a target"));
    }
    node.need("name")?.parsed()
}

fn targets_schema() -> Schema {
    let target = Schema::object(
        &TARGET,
        [
            ("group", Schema::one_of(&GROUPS).or("").says("The API group; a Service's is the empty one.")),
            ("kind", Schema::one_of(&KINDS).or("Service").says("The kind: Service.")),
            ("name", Schema::form(&LABEL).says("The Service's name.")),
        ],
    );
    let list = Schema::list(target.need(&["name"]), &TARGETS);
    list.rule("self.all(a, self.exists_one(b, a.name == b.name))", "a Service is named once")
        .says("The Services, of the policy's own namespace. Of two policies for one Service the older holds.")
}

fn balancing(spec: &Node<'_>) -> Read<()> {
    let Some(node) = spec.get("loadBalancing")? else { return Ok(()) };
    let later =
        [("slowStart", "loadBalancing.slowStart"), ("zone", "loadBalancing.zone"), ("ringHash", "RingHash")];
    node.only(&BALANCING, &later)?;
    node.get("algorithm")?.map_or(Ok(()), |node| node.one_of(&ALGORITHMS, &["LeastRequest", "RingHash"]))
}

fn balancing_schema() -> Schema {
    let algorithm = Schema::one_of(&ALGORITHMS).or("PeakEWMA").says(
        "How an endpoint is chosen. PeakEWMA takes, of two random endpoints, the one whose recent latency times \
         its requests under way is smaller.",
    );
    Schema::object(&BALANCING, [("algorithm", algorithm)])
        .or_defaults()
        .says("How requests are spread over the endpoints.")
}

fn protocols(spec: &Node<'_>) -> Read<BTreeMap<u16, Protocol>> {
    let Some(node) = spec.get("protocol")? else { return Ok(BTreeMap::new()) };
    let mut protocols = BTreeMap::new();
    for (key, value) in node.entries_in(limits::POLICY_PORTS_MAX)? {
        let fault = |message: String| Fault::new(value.path.clone(), message);
        let port = parse_port(key).map_err(|error| fault(error.to_string()))?;
        // Else one port could be named twice.
        if port.to_string() != key {
            return Err(fault(format!("{key:?} is a port in another spelling: write \"{port}\"")));
        }
        protocols.insert(port, value.one_of(&PROTOCOLS, &[])?);
    }
    Ok(protocols)
}

fn retry_schema() -> Schema {
    let percent = format!("{:.0}", limits::RETRY_BUDGET_RATIO * 100.0).parse::<u64>().unwrap_or_default();
    let budget = Schema::object(
        &BUDGET,
        [
            (
                "percent",
                Schema::number(&PERCENT)
                    .or(percent)
                    .says("Retries, in percent of the requests of the interval."),
            ),
            (
                "interval",
                Schema::gateway_duration(&INTERVAL)
                    .or(print_go(limits::RETRY_BUDGET_INTERVAL))
                    .says("Over which time requests are counted, 1s to 1h, as in \"10s\" or \"1m30s\"."),
            ),
            (
                "minPerSecond",
                Schema::number(&PER_SECOND)
                    .or(limits::RETRY_BUDGET_MIN_PER_SECOND)
                    .says("Retries in a second that are allowed whatever the share."),
            ),
        ],
    );
    let body = Schema::number(&BODY_BYTES)
        .or(limits::RETRY_BODY_BYTES_MAX)
        .says("Bytes of a request's body that are kept for a retry. A longer body is sent, but not again.");
    let budget = budget
        .or_defaults()
        .says("How many requests may be retries, so that they never add to an outage (GEP-3388).");
    Schema::object(&RETRY, [("budget", budget), ("maxBodyBytes", body)])
        .or_defaults()
        .says("What bounds the retries that routes ask for, and those after a failed connect.")
}

fn limits_schema() -> Schema {
    let in_flight = Schema::number(&IN_FLIGHT)
        .or(limits::BACKEND_IN_FLIGHT_MAX)
        .says("Requests of one client pod that are under way at once; more wait.");
    let queue = Schema::number(&QUEUE)
        .or(limits::BACKEND_QUEUE_MAX)
        .says("Requests of one client pod that wait at once, for 3 s at most; more are answered 503.");
    Schema::object(&LIMITS, [("maxInFlight", in_flight), ("queue", queue)])
        .or_defaults()
        .says("How much of it is used at once.")
}
