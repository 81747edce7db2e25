//! opaque: ports that pods say are carried as bytes, whatever speaks there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use policy::name::parse_port;
use resources::{Pod, ServicePortSpec};

use super::{Affected, Index, Named, has_labels, within};

/// The ports, by number, with commas between; the injector refuses what is none.
const OPAQUE_PORTS: &str = "tidegate.dev/opaque-ports";

/// The ports that `pod` says are opaque.
pub(super) fn ports(pod: &Pod) -> BTreeSet<u16> {
    let said = pod.meta.annotations.get(OPAQUE_PORTS).map_or("", String::as_str);
    said.split(',').filter_map(|port| parse_port(port.trim()).ok()).collect()
}

impl Index {
    /// Whether a pod behind a Service says so of the port it stands for: clients have to speak to all
    /// of them in one way.
    pub(super) fn is_opaque(&self, named: &Named, spec: &ServicePortSpec) -> bool {
        let Some(service) = self.services.get(named).filter(|service| !service.selector.is_empty()) else {
            return false;
        };
        let speaking = self.opaque_pods.iter().filter(|(namespace, _)| *namespace == named.0);
        speaking.filter_map(|pod| self.pods.get(pod)).any(|pod| {
            has_labels(pod, &service.selector)
                && pod.resolve(&spec.target).is_some_and(|port| ports(pod).contains(&port))
        })
    }

    /// Whether the pod that has this address says so.
    pub(super) fn is_opaque_address(&self, address: SocketAddr) -> bool {
        let pod = self.addresses.pod(address.ip()).and_then(|named| self.pods.get(named));
        pod.is_some_and(|pod| ports(pod).contains(&address.port()))
    }

    /// Names what hangs on the ports of `pod`: the Services before it, and the pods beside it.
    pub(super) fn touch_opaque(&self, pod: &Pod, affected: &mut Affected) {
        let services: Vec<&Named> = within(&self.services, pod.meta.namespace.as_str())
            .filter(|(_, service)| !service.selector.is_empty() && has_labels(pod, &service.selector))
            .map(|(named, _)| named)
            .collect();
        for named in services {
            affected.destinations.insert(named.clone());
            affected.backends.insert(named.clone());
            self.touch_inbound(named, affected);
        }
    }
}
