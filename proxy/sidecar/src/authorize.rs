//! authorize: whether a peer may reach a port of the workload beside this proxy.
//!
//! The AccessPolicy in force for the port decides; where there is none, the proxy's own default
//! (`--inbound-default`). `--strict` goes first and turns away plaintext. The paths
//! of probes that the pod itself declares are let through to everybody, because the kubelet has no
//! identity.

use std::net::IpAddr;

use http::Request;
use policy::identity::Identity;
use policy::snapshot::{Access, AccessRule, GRPC_PROBE_PATH, InboundPort};

/// Who asks: proven by the connection, never by a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The identity its certificate names; `None` in plaintext or without a client certificate.
    pub(crate) identity: Option<Identity>,
    /// The address it connects from.
    pub(crate) address: IpAddr,
    /// The connection to this proxy is TLS.
    pub(crate) tls: bool,
}

/// The proxy's own say, from its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Defaults {
    /// For ports that no AccessPolicy selects.
    pub(crate) access: Access,
    /// Plaintext is refused, but for probes.
    pub(crate) strict: bool,
}

/// Why a peer is turned away. Each is a word in metrics and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum Denied {
    /// `--strict` and no TLS.
    #[error("plaintext is refused by this workload (strict)")]
    Plaintext,
    /// The AccessPolicy of the port names nobody like the peer.
    #[error("no rule of the AccessPolicy lets this client in")]
    Policy,
    /// No AccessPolicy, and the default asks for an identity.
    #[error("an identity of the mesh is needed and the client has none")]
    Unauthenticated,
    /// No AccessPolicy, and the default is Deny.
    #[error("no AccessPolicy lets anybody in and the default is Deny")]
    Default,
}

/// Decides for a connection, or for any request on it but a probe.
pub(crate) fn authorize(port: &InboundPort, defaults: Defaults, peer: &Peer) -> Result<(), Denied> {
    if defaults.strict && !peer.tls {
        return Err(Denied::Plaintext);
    }
    let ruled = port.policy.is_some();
    if port.rules.iter().any(|rule| names(rule, peer)) {
        return Ok(());
    }
    let access = match port.default {
        Some(access) => access,
        None if ruled => Access::Deny,
        None => defaults.access,
    };
    match access {
        Access::Allow => Ok(()),
        Access::AllowAuthenticated if peer.identity.is_some() => Ok(()),
        Access::AllowAuthenticated => Err(Denied::Unauthenticated),
        Access::Deny if ruled => Err(Denied::Policy),
        Access::Deny => Err(Denied::Default),
    }
}

/// Whether a request is one of the port's own probes, which anybody may ask for. A probe asks and
/// brings nothing: what upgrades, or has a body, is more than that. A gRPC probe is a call of the
/// health service's `Check`, where the pod declares one.
pub(crate) fn is_probe<B: http_body::Body>(port: &InboundPort, request: &Request<B>) -> bool {
    let path = request.uri().path();
    let asks = if path == GRPC_PROBE_PATH {
        // The call's one message names a service at most.
        let kind = request.headers().get(http::header::CONTENT_TYPE);
        request.method() == http::Method::POST
            && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    } else {
        request.method() == http::Method::GET && request.body().is_end_stream()
    };
    asks && !request.headers().contains_key(http::header::UPGRADE)
        && port.probes.iter().any(|probe| probe == path)
}

fn names(rule: &AccessRule, peer: &Peer) -> bool {
    match rule {
        AccessRule::Identity(pattern) => peer.identity.as_ref().is_some_and(|id| pattern.matches(id)),
        AccessRule::Network(network) => network.contains(&peer.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW_AUTHENTICATED: Defaults = Defaults { access: Access::AllowAuthenticated, strict: false };

    fn meshed(account: &str) -> Peer {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        Peer { identity: Some(identity), address: "10.1.0.9".parse().unwrap(), tls: true }
    }

    fn plain(address: &str) -> Peer {
        Peer { identity: None, address: address.parse().unwrap(), tls: false }
    }

    fn only_web() -> InboundPort {
        InboundPort {
            policy: Some("shop/orders".into()),
            rules: vec![AccessRule::Identity("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap())],
            ..InboundPort::default()
        }
    }

    #[test]
    fn without_a_policy_the_default_decides() {
        let port = InboundPort::default();
        let with = |access| Defaults { access, strict: false };
        for (access, known, unknown) in [
            (Access::Allow, Ok(()), Ok(())),
            (Access::AllowAuthenticated, Ok(()), Err(Denied::Unauthenticated)),
            (Access::Deny, Err(Denied::Default), Err(Denied::Default)),
        ] {
            assert_eq!(authorize(&port, with(access), &meshed("web")), known, "{access:?}");
            assert_eq!(authorize(&port, with(access), &plain("10.0.0.1")), unknown, "{access:?}");
        }
    }

    #[test]
    fn a_policy_lets_in_whom_it_names_and_nobody_else() {
        let allow_all = Defaults { access: Access::Allow, strict: false };
        assert_eq!(authorize(&only_web(), allow_all, &meshed("web")), Ok(()));
        assert_eq!(authorize(&only_web(), allow_all, &meshed("cart")), Err(Denied::Policy));
        assert_eq!(authorize(&only_web(), allow_all, &plain("10.0.0.1")), Err(Denied::Policy));
    }

    #[test]
    fn a_network_is_let_in_without_identity_but_not_past_strict() {
        let mut port = only_web();
        port.rules.push(AccessRule::Network("10.0.0.0/8".parse().unwrap()));
        assert_eq!(authorize(&port, ALLOW_AUTHENTICATED, &plain("10.9.9.9")), Ok(()));
        assert_eq!(authorize(&port, ALLOW_AUTHENTICATED, &plain("11.0.0.1")), Err(Denied::Policy));
        let strict = Defaults { strict: true, ..ALLOW_AUTHENTICATED };
        assert_eq!(authorize(&port, strict, &plain("10.9.9.9")), Err(Denied::Plaintext));
        assert_eq!(authorize(&port, strict, &meshed("web")), Ok(()));
    }

    #[test]
    fn a_policy_default_holds_for_whom_no_rule_names() {
        let port = InboundPort { default: Some(Access::Allow), ..only_web() };
        let deny = Defaults { access: Access::Deny, strict: false };
        assert_eq!(authorize(&port, deny, &plain("10.0.0.1")), Ok(()));
    }

    #[test]
    fn a_probe_is_its_exact_path_by_get() {
        let port = InboundPort { probes: vec!["/healthz".to_owned()], ..only_web() };
        let get = |path: &str| Request::get(path).body(String::new()).unwrap();
        assert!(is_probe(&port, &get("/healthz")));
        assert!(!is_probe(&port, &Request::post("/healthz").body(String::new()).unwrap()));
        assert!(!is_probe(&port, &get("/healthz/../admin")));
    }

    #[test]
    fn a_grpc_probe_is_the_check_of_a_pod_that_declares_it() {
        let check = |kind: &str| {
            let call = Request::post("/grpc.health.v1.Health/Check").header("content-type", kind);
            call.body("\0\0\0\0\0".to_owned()).unwrap()
        };
        let port = InboundPort { probes: vec![GRPC_PROBE_PATH.to_owned()], ..only_web() };
        assert!(is_probe(&port, &check("application/grpc")));
        assert!(!is_probe(&port, &check("application/json")));
        assert!(!is_probe(&only_web(), &check("application/grpc")));
        let watch = Request::post("/grpc.health.v1.Health/Watch").header("content-type", "application/grpc");
        assert!(!is_probe(&port, &watch.body(String::new()).unwrap()));
    }

    #[test]
    fn a_probe_that_upgrades_or_has_a_body_is_none() {
        let port = InboundPort { probes: vec!["/healthz".to_owned()], ..only_web() };
        let upgrade = Request::get("/healthz").header("upgrade", "websocket").body(String::new()).unwrap();
        assert!(!is_probe(&port, &upgrade));
        assert!(!is_probe(&port, &Request::get("/healthz").body("all of it".to_owned()).unwrap()));
    }
}
