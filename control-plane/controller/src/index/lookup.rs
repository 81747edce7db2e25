//! lookup: what stands behind a name or an address.

use std::net::SocketAddr;

use policy::name::ServicePort;
use policy::route::{Action, BackendTarget};
use policy::snapshot::{BackendKey, Destination, DestinationKey, Protocol, ServicePolicy};
use resources::Service;

use super::{Index, Named};
use crate::compile;

impl Index {
    /// The answer to `key` for a client of namespace `client`, and every backend it names.
    pub(crate) fn lookup(&self, key: &DestinationKey, client: &str) -> (Destination, Vec<BackendKey>) {
        let destination = match key {
            DestinationKey::Service(port) => {
                let named = super::named_of(port);
                self.by_name(&named, port.port, client)
            }
            DestinationKey::Address(address) => self.by_address(*address, client),
        };
        let backends = backends(&destination);
        (destination, backends)
    }

    fn by_name(&self, named: &Named, port: u16, client: &str) -> Destination {
        let (namespace, name) = named;
        let Some(service) = self.service(named) else {
            return Destination::Unknown { cause: format!("there is no Service {namespace}/{name}") };
        };
        if let Some(external) = &service.external_name {
            return Destination::ExternalName(external.clone());
        }
        let spec = service.ports.iter().find(|spec| spec.port == port);
        match (spec, super::service_port(named, port)) {
            (Some(spec), Some(key)) => {
                let rules = compile::rules(self, named, spec, client);
                Destination::Service(ServicePolicy {
                    service: Some(key.clone()),
                    protocol: self.protocol(named, spec),
                    // Where there are rules each has its own.
                    asynchronous: if rules.is_empty() {
                        self.async_policies().of_service(named)
                    } else {
                        None
                    },
                    rules,
                    backend: BackendKey::Service(key),
                })
            }
            _ => Destination::Unknown { cause: no_port(named, service, port) },
        }
    }

    fn by_address(&self, address: SocketAddr, client: &str) -> Destination {
        let ip = address.ip();
        if let Some(named) = self.addresses.service(ip) {
            return self.by_name(named, address.port(), client);
        }
        if self.addresses.pod(ip).is_some() || self.addresses.is_endpoint(ip) {
            let service = self.endpoint_port(address);
            // The client chose the pod: the Service's routes are not asked, and nothing is kept for
            // a pod that may be gone before it is delivered.
            return Destination::Service(ServicePolicy {
                protocol: match &service {
                    Some(port) => self.port_protocol(port),
                    None if self.is_opaque_address(address) => Protocol::Opaque,
                    None => Protocol::Detect,
                },
                service,
                rules: Vec::new(),
                backend: BackendKey::Address(address),
                asynchronous: None,
            });
        }
        if self.mesh().networks.iter().any(|network| network.contains(&ip)) {
            let cause = format!("{ip} is an address of the mesh's networks, but no Service or pod has it");
            return Destination::Unknown { cause };
        }
        Destination::External
    }

    pub(super) fn port_protocol(&self, port: &ServicePort) -> Protocol {
        let named = super::named_of(port);
        let spec =
            self.service(&named).and_then(|service| service.ports.iter().find(|s| s.port == port.port));
        spec.map_or(Protocol::Detect, |spec| self.protocol(&named, spec))
    }
}

/// Why a Service cannot be reached on `port`.
pub(crate) fn no_port((namespace, name): &Named, service: &Service, port: u16) -> String {
    let ports: Vec<String> = service.ports.iter().map(|spec| spec.port.to_string()).collect();
    let has = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
    format!("Service {namespace}/{name} has no port {port}; it has {has}")
}

fn backends(destination: &Destination) -> Vec<BackendKey> {
    let Destination::Service(policy) = destination else { return Vec::new() };
    let mut keys = vec![policy.backend.clone()];
    for rule in &policy.rules {
        let Action::Forward(forward) = &*rule.action else { continue };
        for backend in &forward.backends {
            if let BackendTarget::Backend(key) = &backend.target
                && !keys.contains(key)
            {
                keys.push(key.clone());
            }
        }
    }
    keys
}
