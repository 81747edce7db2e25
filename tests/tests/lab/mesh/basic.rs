//! basic: no route, one route, and which requests a route is for.
#![allow(non_snake_case, reason = "the conformance suite's own names")]

use anyhow::{Result, ensure};
use lab::manifests;

use super::ask::{ask, expect, expect_server};
use super::town::{Town, route};

/// A rule that marks every response.
fn mark(value: &str, backend: &str) -> String {
    format!(
        "  - filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{ set: [{{ name: X-Header-Set, value: {value} }}] }}
    backendRefs: [{{ name: {backend}, port: 80 }}]"
    )
}

#[test]
fn MeshBasic() -> Result<()> {
    let town = Town::new()?;
    for client in town.clients() {
        expect(client, &["http://echo/"], |reply| reply.status == 200)?;
    }
    // Not only reached, but proven: the servers' sidecars know the client by its certificate.
    for account in ["client", "echo-v1"] {
        let client = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        let labels = [("client", client.as_str()), ("tls", "true")];
        let mut proven = 0.0;
        for sidecar in &town.sidecars[..2] {
            proven += sidecar.metric("tidegate_sidecar_peer_requests_total", &labels)?;
        }
        ensure!(
            proven >= 16.0,
            "{proven} requests came proven from {client}: {}",
            town.sidecars[0].metrics()?
        );
    }
    Ok(())
}

#[test]
fn MeshHTTPRouteSimpleSameNamespace() -> Result<()> {
    let town = Town::new()?;
    town.route("simple", "name: echo", "  - backendRefs: [{ name: echo-v1, port: 80 }]")?;
    for client in town.clients() {
        expect_server(client, &["http://echo/"], "echo-v1")?;
    }
    Ok(())
}

#[test]
fn MeshTrafficSplit() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches: [{ path: { type: Exact, value: /v1 } }]
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ path: { type: Exact, value: /v2 } }]
    backendRefs: [{ name: echo-v2, port: 80 }]";
    town.route("split", "name: echo", rules)?;
    for client in town.clients() {
        expect_server(client, &["http://echo/v1"], "echo-v1")?;
        expect_server(client, &["http://echo/v2"], "echo-v2")?;
    }
    Ok(())
}

#[test]
fn MeshPorts() -> Result<()> {
    let town = Town::new()?;
    town.route("one-port", "name: echo-v1, port: 80", &mark("v1", "echo-v1"))?;
    town.route("all-ports", "name: echo-v2", &mark("v2", "echo-v2"))?;
    let cases = [
        ("http://echo-v1/", "echo-v1", Some("v1")),
        ("http://echo-v1:8080/", "echo-v1", None),
        ("http://echo-v2/", "echo-v2", Some("v2")),
        ("http://echo-v2:8080/", "echo-v2", Some("v2")),
    ];
    for client in town.clients() {
        for (url, server, set) in cases {
            expect(client, &[url], |reply| {
                let marked = reply.header("x-header-set");
                reply.status == 200 && reply.server() == server && marked.as_deref() == set
            })?;
        }
    }
    Ok(())
}

#[test]
fn MeshFrontend() -> Result<()> {
    let town = Town::new()?;
    town.route("frontend", "name: echo-v2", &mark("set", "echo-v2"))?;
    for client in town.clients() {
        expect(client, &["http://echo-v2/"], |reply| {
            reply.status == 200
                && reply.server() == "echo-v2"
                && reply.header("x-header-set").as_deref() == Some("set")
        })?;
        expect(client, &[&format!("http://{}:8080/", town.v2.ip())], |reply| {
            reply.status == 200 && reply.server() == "echo-v2" && reply.header("x-header-set").is_none()
        })?;
    }
    Ok(())
}

/// Where a connection goes decides, not which host its request names.
#[test]
fn MeshFrontendHostname() -> Result<()> {
    let town = Town::new()?;
    town.route("frontend", "name: echo-v2", &mark("set", "echo-v2"))?;
    for client in town.clients() {
        expect(client, &["-H", "Host: echo-v1", "http://echo-v2/"], |reply| {
            reply.status == 200
                && reply.server() == "echo-v2"
                && reply.header("x-header-set").as_deref() == Some("set")
        })?;
        expect(client, &["-H", "Host: echo-v2", "http://echo-v1/"], |reply| {
            reply.status == 200 && reply.server() == "echo-v1" && reply.header("x-header-set").is_none()
        })?;
    }
    Ok(())
}

#[test]
fn MeshConsumerRoute() -> Result<()> {
    let town = Town::new()?;
    town.world.put("namespace-consumer", &manifests::namespace("consumer"))?;
    let consumer = town.world.pod_in("consumer", "consumer", "consumer", &[])?;
    let _sidecar = town.world.sidecar(&consumer)?;
    let rules = mark("set", "echo-v1, namespace: shop");
    let manifest = route("HTTPRoute", "consumer", "consumers", "name: echo-v1, namespace: shop", &rules);
    town.world.put("route-consumers", &manifest)?;
    let url = "http://echo-v1.shop/";
    expect(&consumer, &[url], |reply| {
        reply.status == 200
            && reply.server() == "echo-v1"
            && reply.header("x-header-set").as_deref() == Some("set")
    })?;
    for client in town.clients() {
        for reply in ask(client, &[url, url, url])? {
            ensure!(reply.status == 200 && reply.server() == "echo-v1", "{reply:#?}");
            ensure!(reply.header("x-header-set").is_none(), "the producer's client got {reply:#?}");
        }
    }
    Ok(())
}
