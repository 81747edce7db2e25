//! inbound: what holds for traffic into one workload.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use policy::identity::{Identity, IdentityPattern};
use policy::snapshot::{Access, AccessRule, Inbound, InboundPort, Protocol};
use resources::{AccessPolicy, Pod, Source};

use super::{Index, Named, access_policy_in_force, has_labels, opaque, within};

impl Index {
    /// What holds for pod `name` of `identity`'s namespace. A pod that is not there, or that is
    /// somebody else's, gets the document of a workload without ports: policies select pods, and a
    /// name alone proves none.
    pub(crate) fn inbound(&self, name: &str, identity: &Identity) -> Inbound {
        let named = (identity.namespace.to_string(), name.to_owned());
        let pod = self.pods.get(&named).filter(|pod| self.identity(pod) == *identity);
        let mut inbound =
            Inbound { identity: identity.clone(), ports: Default::default(), other: InboundPort::default() };
        let Some(pod) = pod else {
            // Nobody can say which of the namespace's policies select it: closed, not open.
            if self.access.contains_key(&named.0) {
                inbound.other.default = Some(Access::Deny);
            }
            return inbound;
        };
        let policies = self.access_policies_of(pod);
        inbound.other = self.inbound_port(pod, None, &policies);
        for port in self.known_ports(pod, &policies) {
            let own = self.inbound_port(pod, Some(port), &policies);
            if own != inbound.other {
                inbound.ports.insert(port, own);
            }
        }
        inbound
    }

    fn inbound_port(&self, pod: &Pod, port: Option<u16>, policies: &[&AccessPolicy]) -> InboundPort {
        let policy = access_policy_in_force(policies, pod, port);
        let mut inbound = InboundPort::default();
        if let Some(port) = port {
            inbound.protocol = self.inbound_protocol(pod, port);
            let probes = pod.containers.iter().flat_map(|container| &container.probes);
            let paths: BTreeSet<&String> = probes
                .filter(|probe| pod.resolve(&probe.port) == Some(port))
                .map(|probe| &probe.path)
                .collect();
            inbound.probes = paths.into_iter().cloned().collect();
        }
        if let Some(policy) = policy {
            inbound.policy = Some(format!("{}/{}", policy.meta.namespace, policy.meta.name).into());
            inbound.rules = self.access_rules(policy);
            inbound.default = Some(policy.default);
        }
        inbound
    }

    fn access_rules(&self, policy: &AccessPolicy) -> Vec<AccessRule> {
        let rule = |source: &Source| match source {
            Source::ServiceAccount { namespace, name } => {
                AccessRule::Identity(IdentityPattern::Exact(Identity {
                    trust_domain: self.mesh.trust_domain.clone(),
                    namespace: namespace.clone().unwrap_or_else(|| policy.meta.namespace.clone()),
                    service_account: name.clone(),
                }))
            }
            Source::Identity(pattern) => AccessRule::Identity(pattern.clone()),
            Source::Network(network) => AccessRule::Network(*network),
        };
        policy.rules.iter().flat_map(|spec| &spec.from).map(rule).collect()
    }

    fn known_ports(&self, pod: &Pod, policies: &[&AccessPolicy]) -> BTreeSet<u16> {
        let mut ports: BTreeSet<u16> = pod.ports().map(|port| port.port).collect();
        let probes = pod.containers.iter().flat_map(|container| &container.probes);
        ports.extend(probes.filter_map(|probe| pod.resolve(&probe.port)));
        let named = policies.iter().flat_map(|policy| &policy.ports);
        ports.extend(named.filter_map(|reference| pod.resolve(reference)));
        ports.extend(opaque::ports(pod));
        for (_, service) in self.services_of(pod) {
            ports.extend(service.ports.iter().filter_map(|spec| pod.resolve(&spec.target)));
        }
        ports
    }

    /// What the Services before this port say; the first that says anything holds, else the pod itself.
    fn inbound_protocol(&self, pod: &Pod, port: u16) -> Protocol {
        let selected = self.services_of(pod).flat_map(|(named, service)| {
            let specs = service.ports.iter().filter(|spec| pod.resolve(&spec.target) == Some(port));
            specs.map(move |spec| self.protocol(named, spec))
        });
        let dialled = pod.addresses.iter().filter_map(|address| {
            let service = self.endpoint_port(SocketAddr::new(*address, port))?;
            Some(self.port_protocol(&service))
        });
        let own = opaque::ports(pod).contains(&port).then_some(Protocol::Opaque);
        selected.chain(dialled).chain(own).find(|protocol| *protocol != Protocol::Detect).unwrap_or_default()
    }

    fn services_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (&'a Named, &'a resources::Service)> {
        let services = within(&self.services, pod.meta.namespace.as_str());
        services.filter(|(_, service)| !service.selector.is_empty() && has_labels(pod, &service.selector))
    }
}
