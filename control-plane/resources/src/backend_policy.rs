//! backend_policy: BackendPolicy, how a Service is used.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::limits;
use policy::name::{Label, parse_port};
use policy::snapshot::Protocol;

use crate::node::{Node, Read};
use crate::object::Meta;
use crate::problem::Fault;

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
        let later = [("breaker", "BackendPolicy breaker")];
        spec.only(&["targetRefs", "protocol", "loadBalancing", "retry", "limits"], &later)?;
        balancing(&spec)?;
        let targets = spec.need("targetRefs")?;
        let targets_list = targets.list()?.iter().map(target).collect::<Read<Vec<_>>>()?;
        if targets_list.is_empty() {
            return Err(targets.fault("names no Service: the policy would do nothing"));
        }
        let mut policy = Self {
            meta: Meta::read(root)?,
            targets: targets_list,
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
        retry.only(&["budget", "maxBodyBytes"], &[])?;
        if let Some(bytes) = retry.get("maxBodyBytes")? {
            self.retry_body_bytes_max = Some(bytes.number_in(0, limits::RETRY_BODY_BYTES_CAP)?);
        }
        let Some(budget) = retry.get("budget")? else { return Ok(()) };
        budget.only(&["percent", "interval", "minPerSecond"], &[])?;
        self.budget = Some(RetryBudgetSpec {
            percent: budget.get("percent")?.map(|node| node.number_in(0, 100)).transpose()?,
            interval: budget.get("interval")?.map(|node| interval(&node)).transpose()?,
            min_per_second: budget
                .get("minPerSecond")?
                .map(|node| node.number_in(0, 1_000_000))
                .transpose()?,
        });
        Ok(())
    }

    fn read_limits(&mut self, spec: &Node<'_>) -> Read<()> {
        let Some(node) = spec.get("limits")? else { return Ok(()) };
        node.only(&["maxInFlight", "queue"], &[])?;
        let most = u64::from(u32::MAX);
        self.in_flight_max = node.get("maxInFlight")?.map(|node| node.number_in(1, most)).transpose()?;
        self.queue_max = node.get("queue")?.map(|node| node.number_in(0, most)).transpose()?;
        Ok(())
    }
}

fn target(node: &Node<'_>) -> Read<Label> {
    node.only(&["group", "kind", "name"], &[("sectionName", "a policy for one port alone (sectionName)")])?;
    let (group, kind) = (node.text_or("group", "")?, node.text_or("kind", "Service")?);
    if !matches!(group.as_str(), "" | "core") || kind != "Service" {
        return Err(node.fault("only a Service (group \"\", kind Service) can be a target"));
    }
    node.need("name")?.parsed()
}

fn balancing(spec: &Node<'_>) -> Read<()> {
    let Some(node) = spec.get("loadBalancing")? else { return Ok(()) };
    let later =
        [("slowStart", "loadBalancing.slowStart"), ("zone", "loadBalancing.zone"), ("ringHash", "RingHash")];
    node.only(&["algorithm"], &later)?;
    let Some(algorithm) = node.get("algorithm")? else { return Ok(()) };
    match algorithm.text()? {
        "PeakEWMA" => Ok(()),
        name @ ("LeastRequest" | "RingHash") => {
            let message = format!("{name} is not implemented yet: write PeakEWMA or remove it");
            Err(algorithm.fault(message))
        }
        name => Err(algorithm.fault(format!("{name:?} is no algorithm: write PeakEWMA"))),
    }
}

fn protocols(spec: &Node<'_>) -> Read<BTreeMap<u16, Protocol>> {
    let Some(node) = spec.get("protocol")? else { return Ok(BTreeMap::new()) };
    let mut protocols = BTreeMap::new();
    for (key, value) in node.entries()? {
        let port = parse_port(key).map_err(|error| Fault::new(value.path.clone(), error.to_string()))?;
        let protocol = match value.text()? {
            "HTTP" => Protocol::Http,
            "HTTP2" => Protocol::Http2,
            "TLS" => Protocol::Tls,
            "Opaque" => Protocol::Opaque,
            other => {
                return Err(
                    value.fault(format!("{other:?} is no protocol: write HTTP, HTTP2, TLS or Opaque"))
                );
            }
        };
        protocols.insert(port, protocol);
    }
    Ok(protocols)
}

/// A window a budget can be taken over: shorter counts noise, longer forgets nothing.
fn interval(node: &Node<'_>) -> Read<Duration> {
    let interval = node.duration()?;
    if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err(node.fault("is out of range: 1s to 1h is allowed"))
    }
}
