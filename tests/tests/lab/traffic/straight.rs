//! straight: a sidecar whose inbound port nobody is told is found by redirection.

use anyhow::{Result, ensure};
use lab::manifests::{self, Port};
use serde_json::{Value, json};

use super::{Pair, WEB, curl_ok, wait_for_count};

/// `shop` without a known inbound port, as a peer of another mesh's making has none.
fn pair() -> Result<(Pair, Vec<lab::Process>)> {
    let ports = [
        Port::new("http", 80, 8080),
        Port::new("bytes", 90, 8081),
        Port::new("opaque", 91, 8082).speaking("tcp"),
    ];
    Pair::new(&ports, |world, shop| {
        let named = [("http", 8080), ("bytes", 8081), ("opaque", 8082)];
        let mut pod: Value = serde_json::from_str(&manifests::pod(shop, &[("app", "shop")], &named))?;
        pod["metadata"]["annotations"] = json!({"tidegate.dev/proxy-inbound-port": "none"});
        world.put("pod-shop", &pod.to_string())?;
        // Nothing comes to the sidecar's own port any more: whatever arrives was redirected.
        shop.run(shop.command("nft").arg(
            "add table ip closed
             add chain ip closed in { type filter hook prerouting priority -300; }
             add rule ip closed in iifname != lo tcp dport 4143 counter drop",
        ))?;
        Ok(vec![
            shop.serve("http_echo.py", &["--listen", "0.0.0.0:8080", "--name", "shop"])?,
            shop.serve("http_echo.py", &["--listen", "0.0.0.0:8081", "--name", "bytes"])?,
            shop.serve("http_echo.py", &["--listen", "0.0.0.0:8082", "--name", "opaque"])?,
        ])
    })
}

#[test]
fn tls_straight_to_the_application_is_brought_to_its_sidecar_by_redirection() -> Result<()> {
    let (pair, _servers) = pair()?;
    for url in ["http://shop/one", "http://shop/two", "http://shop:90/three"] {
        let said: Value = serde_json::from_str(&curl_ok(&pair.web, &[url])?)?;
        ensure!(url.ends_with(said["path"].as_str().unwrap_or("nowhere")), "{url}: {said}");
        // The application sees what was asked, and by whom.
        let headers = said["headers"].to_string().to_lowercase();
        ensure!(headers.contains("web.shop.serviceaccount.identity.linkerd"), "{url}: {said}");
        ensure!(!headers.contains("l5d-orig-proto"), "{url}: {said}");
    }
    let proven = [("client", WEB), ("tls", "true")];
    let asked = pair.shop_sidecar.metric("tidegate_sidecar_peer_requests_total", &proven)?;
    ensure!(asked == 3.0 && pair.unproven()? == 0.0, "{asked} requests came over mTLS from {WEB}");
    let closed = pair.shop.run(pair.shop.command("nft").args(["list", "table", "ip", "closed"]))?;
    ensure!(closed.contains("counter packets 0 "), "the inbound port was asked: {closed}");
    Ok(())
}

#[test]
fn an_opaque_port_is_carried_as_bytes_that_way_too() -> Result<()> {
    let (pair, _servers) = pair()?;
    // HTTP inside, which nobody on the way looks at.
    let said = curl_ok(&pair.web, &["http://shop:91/four"])?;
    ensure!(said.contains("\"server\": \"opaque\"") && !said.contains("l5d-"), "{said}");
    wait_for_count("carried connections", 1.0, || {
        pair.shop_sidecar.metric("tidegate_sidecar_tcp_connections_total", &[("direction", "inbound")])
    })?;
    ensure!(pair.proven()? == 0.0 && pair.unproven()? == 0.0, "it was taken for requests");
    Ok(())
}

#[test]
fn who_may_not_come_in_that_way_is_told_403() -> Result<()> {
    let (pair, _servers) = pair()?;
    let nobody = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "AccessPolicy",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "default": "Deny"}});
    pair.world.put("access-shop", &nobody.to_string())?;
    lab::until("a refusal", std::time::Duration::from_secs(10), || {
        let said = curl_ok(&pair.web, &["-i", "http://shop/five"])?;
        Ok(said.starts_with("HTTP/1.1 403 ").then_some(()))
    })?;
    // So is a new connection, which is not let in at all.
    let said = curl_ok(&pair.web, &["-i", "http://shop:90/six"])?;
    ensure!(said.starts_with("HTTP/1.1 403 ") && said.contains("http_request_denied"), "{said}");
    Ok(())
}

#[test]
fn a_workload_without_a_known_port_reaches_itself() -> Result<()> {
    let (pair, _servers) = pair()?;
    let said = curl_ok(&pair.shop, &["http://shop/me"])?;
    ensure!(said.contains("\"server\": \"shop\""), "{said}");
    let own = [("client", "spiffe://cluster.local/ns/shop/sa/shop"), ("tls", "true")];
    let asked = pair.shop_sidecar.metric("tidegate_sidecar_peer_requests_total", &own)?;
    ensure!(asked == 1.0, "{asked} requests of itself came over mTLS");
    Ok(())
}
