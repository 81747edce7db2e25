//! pods: who takes part in the demo, and where each listens.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use policy::identity::Identity;

/// The demo's manifests by name of file, as they stand in `manifests/demo`.
const MANIFESTS: [(&str, &str); 4] = [
    ("pods.yaml", include_str!("../../../../manifests/demo/pods.yaml")),
    ("policies.yaml", include_str!("../../../../manifests/demo/policies.yaml")),
    ("routes.yaml", include_str!("../../../../manifests/demo/routes.yaml")),
    ("services.yaml", include_str!("../../../../manifests/demo/services.yaml")),
];

/// Where the controller serves proxies.
pub(crate) const CONTROLLER: SocketAddr = at(1, 8086);
/// Where the controller says how it is.
pub(crate) const CONTROLLER_ADMIN: SocketAddr = at(1, 8087);
/// The Service that is asked.
pub(crate) const HOST: &str = "orders.shop.svc.cluster.local:8080";
/// The Service that messages are sent to.
pub(crate) const MAIL_HOST: &str = "mail.shop.svc.cluster.local:8080";
/// The namespace of all pods.
pub(crate) const NAMESPACE: &str = "shop";

/// The client: the demo's own requests go through its sidecar.
pub(crate) const WEB: Pod = Pod { name: "web", account: "web", host: 2 };
/// One endpoint of orders.
pub(crate) const ORDERS_1: Pod = Pod { name: "orders-1", account: "orders", host: 3 };
/// The other one, which is stopped and started again in the middle.
pub(crate) const ORDERS_2: Pod = Pod { name: "orders-2", account: "orders", host: 4 };
/// Where a route sends what is asked under /prices.
pub(crate) const PRICES: Pod = Pod { name: "prices", account: "prices", host: 5 };
/// Takes messages, late: it is stopped while they are sent.
pub(crate) const MAIL: Pod = Pod { name: "mail", account: "mail", host: 6 };
/// All that are asked and answer at once.
pub(crate) const RECEIVERS: [Pod; 3] = [ORDERS_1, ORDERS_2, PRICES];
/// All with a sidecar.
pub(crate) const PODS: [Pod; 5] = [WEB, ORDERS_1, ORDERS_2, PRICES, MAIL];
/// The service account of nobody, which `--fault wrong-identity` borrows.
pub(crate) const INTRUDER: &str = "intruder";

/// One pod: an address of its own on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its service account.
    pub(crate) account: &'static str,
    /// The last part of its address.
    host: u8,
}

const fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 1, host)), port)
}

impl Pod {
    /// Where its application listens.
    pub(crate) fn application(self) -> SocketAddr {
        at(self.host, 8080)
    }

    /// Where its sidecar takes the application's requests.
    pub(crate) fn outbound(self) -> SocketAddr {
        at(self.host, 4140)
    }

    /// Where its sidecar takes requests of others.
    pub(crate) fn inbound(self) -> SocketAddr {
        at(self.host, 4143)
    }

    /// Where its sidecar says how it is.
    pub(crate) fn admin(self) -> SocketAddr {
        at(self.host, 4191)
    }

    /// Whom its certificate is to name.
    pub(crate) fn identity(self) -> String {
        format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{}", self.account)
    }

    /// The same in the spelling of the header that its requests carry to applications.
    pub(crate) fn client_id(self) -> String {
        self.identity().parse::<Identity>().map(|identity| identity.dns_name()).unwrap_or_default()
    }

    /// The name its sidecar's process goes by.
    pub(crate) fn sidecar(self) -> String {
        format!("{} sidecar", self.name)
    }

    /// The name its application's process goes by.
    pub(crate) fn workload(self) -> String {
        format!("{} application", self.name)
    }
}

/// Every address that must be free.
pub(crate) fn addresses() -> Vec<SocketAddr> {
    let pods = PODS.iter().flat_map(|pod| [pod.application(), pod.outbound(), pod.inbound(), pod.admin()]);
    [CONTROLLER, CONTROLLER_ADMIN].into_iter().chain(pods).collect()
}

/// Writes the manifests into a directory.
pub(crate) fn write_manifests(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    MANIFESTS.iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::{Object, parse_file, validate_all};

    #[test]
    fn the_manifests_are_right_and_name_the_same_pods_as_the_demo() {
        let mut objects = Vec::new();
        for (name, text) in MANIFESTS {
            let (read, problems) = parse_file(name, text);
            assert_eq!(problems, []);
            objects.extend(read);
        }
        assert_eq!(validate_all(&objects), []);
        for pod in PODS {
            let found = objects.iter().find_map(|object| match &object.value {
                Object::Pod(found) if found.meta.name.as_str() == pod.name => Some(found),
                _ => None,
            });
            let found = found.expect("every pod of the demo has a manifest");
            assert_eq!(found.service_account.as_str(), pod.account);
            assert_eq!(found.addresses, [pod.application().ip()]);
        }
    }
}
