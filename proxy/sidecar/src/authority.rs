//! authority: which destination a name in a request means.
//!
//! Without redirection there is no original address: the request's authority (absolute URI,
//! `:authority` or `Host`) says where it goes. Names are read as a pod's resolver would read them
//! with Kubernetes' search list, so `orders`, `orders.shop`, `orders.shop.svc` and
//! `orders.shop.svc.cluster.local` are one Service. Case does not matter (RFC 3986 §3.2.2).

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use policy::name::{Domain, Label, ServicePort};
use policy::snapshot::DestinationKey;

/// What an authority means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meant {
    /// An address, or a name that can only be a Service.
    Destination(DestinationKey),
    /// Two labels: a Service where there is one of that name, otherwise a name of the world.
    ServiceOr(ServicePort, External),
    /// A name of the world.
    External(External),
}

/// A name outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct External {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The authority is not one that can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAnAuthority {
    #[error("{0:?} is neither an address nor a host name")]
    Host(String),
    #[error("the port of {0:?} is no number from 1 to 65535")]
    Port(String),
}

/// The port that `authority` names; `None`: it names none, or an empty one (RFC 3986 §3.2.3).
///
/// # Errors
/// What it names is no port.
pub(crate) fn port(authority: &Authority) -> Result<Option<u16>, NotAnAuthority> {
    // `Authority::port` takes what is no number for none.
    let whole = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, whole)| whole);
    let named = whole.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
    let Some(named) = named.filter(|named| !named.is_empty()) else { return Ok(None) };
    let digits = named.bytes().all(|byte| byte.is_ascii_digit());
    let port = named.parse().ok().filter(|port| digits && *port > 0);
    port.map(Some).ok_or_else(|| NotAnAuthority::Port(authority.as_str().to_owned()))
}

/// Reads `authority` as the workload in `namespace` of a cluster named `cluster_domain` means it.
pub(crate) fn read(
    authority: &Authority,
    default_port: u16,
    namespace: &Label,
    cluster_domain: &Domain,
) -> Result<Meant, NotAnAuthority> {
    let wrong = || NotAnAuthority::Host(authority.as_str().to_owned());
    let port = port(authority)?.unwrap_or(default_port);
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(Meant::Destination(DestinationKey::Address(SocketAddr::new(ip, port))));
    }
    if host == "localhost" {
        return Ok(Meant::Destination(DestinationKey::Address(([127, 0, 0, 1], port).into())));
    }
    Domain::new(&host).map_err(|_| wrong())?;
    let service = |name: &str, namespace: &str| {
        let labels = (Label::new(namespace).ok()?, Label::new(name).ok()?);
        ServicePort::new(labels.0, labels.1, port).ok()
    };
    let within = host
        .strip_suffix(cluster_domain.as_str())
        .and_then(|rest| rest.strip_suffix('.'))
        .filter(|rest| rest.ends_with(".svc"))
        .unwrap_or(&host);
    if let Some((name, namespace)) = within.strip_suffix(".svc").and_then(|rest| rest.split_once('.')) {
        let key = service(name, namespace).ok_or_else(wrong)?;
        return Ok(Meant::Destination(DestinationKey::Service(key)));
    }
    let labels: Vec<&str> = host.split('.').collect();
    let external = External { host: host.clone(), port };
    Ok(match labels[..] {
        [name] => {
            Meant::Destination(DestinationKey::Service(service(name, namespace.as_str()).ok_or_else(wrong)?))
        }
        [name, namespace] => match service(name, namespace) {
            Some(key) => Meant::ServiceOr(key, external),
            None => Meant::External(external),
        },
        _ => Meant::External(external),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(authority: &str) -> Result<Meant, NotAnAuthority> {
        let namespace = Label::new("edge").unwrap();
        let domain = Domain::new("cluster.local").unwrap();
        read(&authority.parse().unwrap(), 80, &namespace, &domain)
    }

    fn destination(key: &str) -> Meant {
        Meant::Destination(key.parse().unwrap())
    }

    #[test]
    fn every_spelling_of_a_service_is_the_same_destination() {
        for spelling in ["orders.shop.svc:8080", "orders.shop.svc.cluster.local:8080", "Orders.Shop.SVC:8080"]
        {
            assert_eq!(meant(spelling).unwrap(), destination("orders.shop.svc:8080"), "{spelling}");
        }
        assert_eq!(meant("orders").unwrap(), destination("orders.edge.svc:80"));
    }

    #[test]
    fn two_labels_may_be_a_service_or_a_name_of_the_world() {
        let external = External { host: "example.com".to_owned(), port: 443 };
        let service = "example.com.svc:443".parse().unwrap();
        assert_eq!(meant("example.com:443").unwrap(), Meant::ServiceOr(service, external));
    }

    #[test]
    fn addresses_and_localhost_are_addresses() {
        assert_eq!(meant("10.0.0.1:81").unwrap(), destination("10.0.0.1:81"));
        assert_eq!(meant("[::1]:81").unwrap(), destination("[::1]:81"));
        assert_eq!(meant("LOCALHOST").unwrap(), destination("127.0.0.1:80"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["a..b", "under_score"] {
            assert!(matches!(meant(bad), Err(NotAnAuthority::Host(_))), "{bad} passed");
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_not_taken_for_the_default() {
        for bad in
            ["orders.shop:0", "orders.shop:65536", "orders.shop:99999", "10.0.0.1:99999", "[::1]:99999"]
        {
            assert!(matches!(meant(bad), Err(NotAnAuthority::Port(_))), "{bad} passed");
        }
        assert_eq!(meant("orders.shop.svc:65535").unwrap(), destination("orders.shop.svc:65535"));
        assert_eq!(meant("orders.shop.svc:").unwrap(), destination("orders.shop.svc:80"));
        assert_eq!(meant("u:7@orders.shop.svc:81").unwrap(), destination("orders.shop.svc:81"));
    }

    #[test]
    fn a_name_in_another_domain_that_ends_in_svc_is_not_of_this_cluster() {
        let external = External { host: "orders.shop.svc.other.example".to_owned(), port: 80 };
        assert_eq!(meant("orders.shop.svc.other.example").unwrap(), Meant::External(external));
    }
}
