//! access_policy: AccessPolicy, who may reach pods.

use std::collections::BTreeMap;

use ipnet::IpNet;
use policy::identity::IdentityPattern;
use policy::name::{Domain, Label};
use policy::snapshot::Access;

use crate::kubernetes::PortRef;
use crate::node::{Node, Read};
use crate::object::Meta;

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
        let later = [("targetRefs", "an AccessPolicy for a route (targetRefs)")];
        spec.only(&["selector", "ports", "default", "rules"], &later)?;
        let selector = spec.need("selector")?;
        let later = [("matchExpressions", "selector.matchExpressions")];
        selector.only(&["matchLabels"], &later)?;
        Ok(Self {
            meta: Meta::read(root)?,
            selector: selector.text_map("matchLabels")?,
            ports: spec.each("ports", port)?,
            default: spec.get("default")?.map_or(Ok(Access::Deny), |node| default(&node))?,
            rules: spec.each("rules", rule)?,
        })
    }
}

fn port(node: &Node<'_>) -> Read<PolicyPort> {
    if node.value.is_number() {
        return Ok(PortRef::Number(node.port()?));
    }
    let text = node.text()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = policy::name::parse_port(text).map_err(|error| node.fault(error.to_string()))?;
        return Ok(PortRef::Number(port));
    }
    Ok(PortRef::Name(text.to_owned()))
}

fn default(node: &Node<'_>) -> Read<Access> {
    match node.text()? {
        "Allow" => Ok(Access::Allow),
        "Deny" => Ok(Access::Deny),
        "Audit" => Err(node.fault("Audit is not implemented yet: write Allow or Deny")),
        other => Err(node.fault(format!("{other:?} is not known: write Allow or Deny"))),
    }
}

fn rule(node: &Node<'_>) -> Read<AccessRuleSpec> {
    let later = [("to", "rules[].to (methods, paths)"), ("rateLimit", "rules[].rateLimit")];
    node.only(&["from"], &later)?;
    let from = node.need("from")?;
    let from: Vec<Source> = from.list()?.iter().map(source).collect::<Read<_>>()?;
    if from.is_empty() {
        return Err(node.fault("names nobody in from: write whom it lets in, or remove the rule"));
    }
    Ok(AccessRuleSpec { from })
}

fn source(node: &Node<'_>) -> Read<Source> {
    node.only(&["serviceAccount", "identity", "network", "unauthenticated"], &[])?;
    let account = node.get("serviceAccount")?;
    let identity = node.get("identity")?;
    let network = node.get("network")?;
    let unauthenticated = node.get("unauthenticated")?.map_or(Ok(false), |node| node.flag())?;
    if unauthenticated && network.is_none() {
        return Err(node.fault("unauthenticated goes with network alone: add network, or remove it"));
    }
    match (account, identity, network) {
        (Some(account), None, None) => {
            account.only(&["name", "namespace"], &[])?;
            let namespace = account.label_of("namespace")?;
            Ok(Source::ServiceAccount { namespace, name: account.need("name")?.parsed()? })
        }
        (None, Some(identity), None) => Ok(Source::Identity(identity.parsed()?)),
        (None, None, Some(network)) if unauthenticated => Ok(Source::Network(network.parsed()?)),
        (None, None, Some(network)) => Err(network.fault(
            "a network of authenticated peers is not implemented yet: add unauthenticated: true, \
             or name identities instead",
        )),
        _ => Err(node.fault("names not exactly one of serviceAccount, identity, network: split it")),
    }
}
