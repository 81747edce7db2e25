//! access_policy: AccessPolicy, who may reach pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use policy::identity::IdentityPattern;
use policy::limits;
use policy::name::{Domain, Label};
use policy::snapshot::Access;

use crate::form::{DOMAIN, IDENTITY, LABEL, LABEL_KEY, LABEL_VALUE, PORT_NAME};
use crate::kubernetes::PortRef;
use crate::node::{Node, PORT, Read};
use crate::object::Meta;
use crate::problem::Fault;
use crate::schema::Schema;

const SPEC: [&str; 4] = ["selector", "ports", "default", "rules"];
const SELECTOR: [&str; 1] = ["matchLabels"];
const RULE: [&str; 1] = ["from"];
const SOURCE: [&str; 4] = ["serviceAccount", "identity", "network", "unauthenticated"];
const ACCOUNT: [&str; 2] = ["name", "namespace"];

const DEFAULTS: [(&str, Access); 2] = [("Deny", Access::Deny), ("Allow", Access::Allow)];
const SOURCES: RangeInclusive<usize> = 1..=limits::ACCESS_SOURCES_MAX;
/// The longest network there is: IPv6 whose last part is written as IPv4, and its prefix.
const NETWORK_CHARS_MAX: usize = 49;

/// Who may reach pods of its namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessPolicy {
    /// The name.
    pub meta: Meta,
    /// Labels of the pods; empty selects all of the namespace.
    pub selector: BTreeMap<String, String>,
    /// Their ports; empty means all.
    pub ports: Vec<PolicyPort>,
    /// What happens to whoever no rule names.
    pub default: Access,
    /// Who is let in.
    pub rules: Vec<AccessRuleSpec>,
}

/// A port by number or name, as a policy writes it.
pub type PolicyPort = PortRef;

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessRuleSpec {
    /// Any of these is let in.
    pub from: Vec<Source>,
}

/// One kind of peers.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A service account; without a namespace, of the policy's own.
    ServiceAccount {
        /// Its namespace.
        namespace: Option<Label>,
        /// Its name.
        name: Domain,
    },
    /// By identity.
    Identity(IdentityPattern),
    /// By address, without identity.
    Network(IpNet),
}

impl AccessPolicy {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let spec = root.need("spec")?;
        spec.only(&SPEC, &[("targetRefs", "an AccessPolicy for a route (targetRefs)")])?;
        let ports = spec.items_in("ports", limits::POLICY_PORTS_MAX)?;
        let rules = spec.items_in("rules", limits::ACCESS_RULES_MAX)?;
        Ok(Self {
            meta: Meta::read(root)?,
            selector: selector(&spec.need("selector")?)?,
            ports: ports.iter().map(port).collect::<Read<_>>()?,
            default: spec
                .get("default")?
                .map_or(Ok(Access::Deny), |node| node.one_of(&DEFAULTS, &["Audit"]))?,
            rules: rules.iter().map(rule).collect::<Read<_>>()?,
        })
    }

    /// The schema of its spec.
    pub(crate) fn schema() -> Schema {
        let port = Schema::number_or(&PORT, &PORT_NAME)
            .rule(
                "type(self) == int || !self.matches('^[0-9]+$') || (int(self) >= 1 && int(self) <= 65535)",
                "a port is a number from 1 to 65535",
            )
            .rule(
                "type(self) == int || self.matches('^[0-9]+$') || self.matches('[a-z]')",
                "a port's name has a letter in it",
            );
        let spec = Schema::object(
            &SPEC,
            [
                ("selector", selector_schema()),
                ("ports", Schema::list(port, &(0..=limits::POLICY_PORTS_MAX)).says(PORTS_SAY)),
                (
                    "default",
                    Schema::one_of(&DEFAULTS)
                        .or("Deny")
                        .says("What happens to whoever no rule names: Deny or Allow."),
                ),
                (
                    "rules",
                    Schema::list(rule_schema(), &(0..=limits::ACCESS_RULES_MAX))
                        .says("Who is let in: whom any of the rules names. None: what default says."),
                ),
            ],
        );
        spec.need(&["selector"])
            .says("Who may reach the pods it selects. Probes of the pods themselves are always let in.")
    }
}

const PORTS_SAY: &str = "Ports of the pods, by number or by the name of the container port; none means all. A policy that \
     names a port goes before one for all ports. Example: [http, 9090].";

fn selector(node: &Node<'_>) -> Read<BTreeMap<String, String>> {
    node.only(&SELECTOR, &[("matchExpressions", "selector.matchExpressions")])?;
    let Some(labels) = node.get("matchLabels")? else { return Ok(BTreeMap::new()) };
    let label = |(key, value): (&str, Node<'_>)| {
        if !LABEL_KEY.holds(key) {
            return Err(Fault::new(value.path.clone(), format!("{key:?} {}", LABEL_KEY.wrong)));
        }
        Ok((key.to_owned(), value.formed(&LABEL_VALUE)?.to_owned()))
    };
    labels.entries_in(limits::SELECTOR_LABELS_MAX)?.into_iter().map(label).collect()
}

fn selector_schema() -> Schema {
    let labels = Schema::map(Schema::form(&LABEL_VALUE), limits::SELECTOR_LABELS_MAX)
        .rule(
            &format!("self.all(key, key.matches(r'{}'))", LABEL_KEY.pattern()),
            "each key is a label's name, as in app or app.kubernetes.io/name",
        )
        .says("Labels a pod must have, all of them.");
    Schema::object(&SELECTOR, [("matchLabels", labels)])
        .says("The pods, of the policy's own namespace; {} selects all of them. Example: {matchLabels: {app: orders}}.")
}

fn port(node: &Node<'_>) -> Read<PolicyPort> {
    if node.value.is_number() {
        return Ok(PortRef::Number(node.port()?));
    }
    let text = node.formed(&PORT_NAME)?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = policy::name::parse_port(text).map_err(|error| node.fault(error.to_string()))?;
        return Ok(PortRef::Number(port));
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(node.fault(format!("{text:?} is no port's name: one has a letter in it")));
    }
    Ok(PortRef::Name(text.to_owned()))
}

fn rule(node: &Node<'_>) -> Read<AccessRuleSpec> {
    let later = [("to", "rules[].to (methods, paths)"), ("rateLimit", "rules[].rateLimit")];
    node.only(&RULE, &later)?;
    let from = node.need("from")?.list_in(SOURCES)?;
    Ok(AccessRuleSpec { from: from.iter().map(source).collect::<Read<_>>()? })
}

fn rule_schema() -> Schema {
    let from = Schema::list(source_schema(), &SOURCES).says("Whom it lets in: any of these.");
    Schema::object(&RULE, [("from", from)]).need(&["from"])
}

fn source(node: &Node<'_>) -> Read<Source> {
    node.only(&SOURCE, &[])?;
    let account = node.get("serviceAccount")?;
    let identity = node.get("identity")?;
    let network = node.get("network")?;
    let unauthenticated = node.get("unauthenticated")?.map_or(Ok(false), |node| node.flag())?;
    if unauthenticated && network.is_none() {
        return Err(node.fault("unauthenticated goes with network alone: add network, or remove it"));
    }
    match (account, identity, network) {
        (Some(account), None, None) => {
            account.only(&ACCOUNT, &[])?;
            let namespace = account.label_of("namespace")?;
            Ok(Source::ServiceAccount { namespace, name: account.need("name")?.parsed()? })
        }
        (None, Some(identity), None) => Ok(Source::Identity(identity.parsed()?)),
        (None, None, Some(network)) if unauthenticated => Ok(Source::Network(self::network(&network)?)),
        (None, None, Some(network)) => Err(network.fault(
            "a network of authenticated peers is not implemented yet: add unauthenticated: true, \
             or name identities instead",
        )),
        _ => Err(node.fault("names not exactly one of serviceAccount, identity, network: split it")),
    }
}

/// A network in the spelling of the API server, which is stricter than the type's. No peer's address is an
/// IPv4 one in IPv6's clothes: such a network would let nobody in.
fn network(node: &Node<'_>) -> Read<IpNet> {
    let network: IpNet = node.parsed()?;
    let address = node.text()?.split('/').next().map(str::parse::<IpAddr>);
    match address {
        Some(Ok(IpAddr::V6(address))) if address.to_ipv4_mapped().is_some() => {
            Err(node.fault("is an IPv4 network written as IPv6: write it as IPv4"))
        }
        Some(Ok(_)) => Ok(network),
        _ => Err(node.fault(format!("is no address in the usual spelling: write \"{network}\""))),
    }
}

fn source_schema() -> Schema {
    let account = Schema::object(
        &ACCOUNT,
        [
            ("name", Schema::form(&DOMAIN).says("Its name.")),
            (
                "namespace",
                Schema::form(&LABEL).says("Its namespace; the policy's own where none is written."),
            ),
        ],
    );
    let network = Schema::text(NETWORK_CHARS_MAX)
        .rule("isCIDR(self)", "write a network, as in \"10.0.0.0/8\" or \"fd00::/8\"")
        .says("By address, without an identity; goes with unauthenticated: true. Example: 10.9.0.0/16.");
    let source = Schema::object(
        &SOURCE,
        [
            ("serviceAccount", account.need(&["name"]).says("The workloads of a service account.")),
            (
                "identity",
                Schema::form(&IDENTITY).says(
                    "By identity: one, all below a prefix that ends with /, or \"*\" for whoever has one. \
                     Example: spiffe://cluster.local/ns/edge/sa/*.",
                ),
            ),
            ("network", network),
            (
                "unauthenticated",
                Schema::flag().says("Lets peers without an identity in, from network alone."),
            ),
        ],
    );
    source
        .rule("(has(self.serviceAccount) ? 1 : 0) + (has(self.identity) ? 1 : 0) + (has(self.network) ? 1 : 0) == 1", "write exactly one of serviceAccount, identity and network")
        .rule("!has(self.unauthenticated) || !self.unauthenticated || has(self.network)", "unauthenticated goes with network alone: add network, or remove it")
        .rule("!has(self.network) || (has(self.unauthenticated) && self.unauthenticated)", "a network of authenticated peers is not implemented yet: add unauthenticated: true, or name identities instead")
}
