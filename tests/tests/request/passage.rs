//! passage: what passes a sidecar and what stays behind, and other ways to say where to go.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::app::App;
use crate::client::{answer, seen_header, within};
use crate::mesh::{APPLICATION, Mesh, OUTBOUND, Plan, host};

/// web asks; orders is of the mesh, plain is not.
async fn shop() -> (Mesh, App, App) {
    let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
    let orders = App::start(mesh.at("orders", APPLICATION)).await;
    let plain = App::start(mesh.at("plain", APPLICATION)).await;
    (mesh, orders, plain)
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_stripped_and_the_request_answered() {
    let (mesh, _orders, _plain) = shop().await;
    for service in ["orders", "plain"] {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            host(service)
        );
        let seen = mesh.ask("web", &head).await.seen();
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(seen_header(&seen, name), None, "{service}: {name}");
        }
        assert_eq!(seen["version"], "HTTP/1.1");
    }
}

#[tokio::test]
async fn headers_of_one_hop_stay_behind_and_others_pass() {
    let (mesh, _orders, _plain) = shop().await;
    for service in ["orders", "plain"] {
        let head = format!(
            "GET /a?b=c HTTP/1.1\r\nHost: {}\r\nConnection: x-private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nTE: gzip\r\nX-Kept: 1\r\nX-Kept: 2\r\n",
            host(service)
        );
        let seen = mesh.ask("web", &head).await.seen();
        for name in ["connection", "x-private", "keep-alive", "proxy-connection", "te", "l5d-orig-proto"] {
            assert_eq!(seen_header(&seen, name), None, "{service}: {name}");
        }
        assert_eq!(seen_header(&seen, "x-kept"), Some("1, 2"), "{service}");
        assert_eq!((&seen["uri"], &seen["version"]), (&json!("/a?b=c"), &json!("HTTP/1.1")), "{service}");
    }
}

#[tokio::test]
async fn an_absolute_uri_says_where_to_go_whatever_host_says() {
    let (mesh, _orders, _plain) = shop().await;
    for service in ["orders", "plain"] {
        let named = host(service);
        let seen =
            mesh.ask("web", &format!("GET http://{named}/a HTTP/1.1\r\nHost: elsewhere\r\n")).await.seen();
        assert_eq!(seen["uri"], "/a", "{service}");
        // RFC 9112 §3.2.2: a proxy replaces Host by what the absolute URI names.
        assert_eq!(seen_header(&seen, "host"), Some(named.as_str()), "{service}");
        let seen = mesh.ask("web", &format!("GET http://{named}/a HTTP/1.0\r\n")).await.seen();
        assert_eq!((&seen["uri"], &seen["version"]), (&json!("/a"), &json!("HTTP/1.0")), "{service}");
    }
}

#[tokio::test]
async fn connect_opens_a_tunnel_to_a_service_and_to_an_address() {
    let (mesh, orders, plain) = shop().await;
    for to in [host("orders"), plain.address.to_string()] {
        let mut stream = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(tokio::io::AsyncReadExt::read_u8(&mut stream)).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            !head.contains("content-length") && !head.contains("transfer-encoding"),
            "RFC 9110 §9.3.6: {head}"
        );
        stream.write_all(b"GET /inside HTTP/1.1\r\nHost: inside\r\n\r\n").await.unwrap();
        let seen = within(answer(&mut stream)).await.unwrap().seen();
        assert_eq!((&seen["uri"], seen_header(&seen, "host")), (&json!("/inside"), Some("inside")));
    }
    assert_eq!((orders.arrived(), plain.arrived()), (1, 1));
}

#[tokio::test]
async fn a_service_that_is_another_name_is_resolved_and_reached() {
    let outside = App::start(([127, 0, 0, 1], 0).into()).await;
    let port = outside.address.port();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "world", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}});
    let mesh = Plan::of(&["web"]).with(service).start().await;
    let named = format!("world.shop.svc.cluster.local:{port}");
    let seen = mesh.ask("web", &format!("GET /out HTTP/1.1\r\nHost: {named}\r\n")).await.seen();
    assert_eq!((&seen["uri"], seen_header(&seen, "host")), (&json!("/out"), Some(named.as_str())));
}

#[tokio::test]
async fn requests_travel_between_sidecars_with_the_clients_identity() {
    let (mesh, _orders, _plain) = shop().await;
    let seen = mesh.get("web", "orders", "/").await.seen();
    let id = seen_header(&seen, "l5d-client-id").expect("the client is named");
    assert!(id.starts_with("web.shop.serviceaccount.identity."), "{id}");
    let forged = format!("GET / HTTP/1.1\r\nHost: {}\r\nl5d-client-id: king\r\n", host("orders"));
    assert_eq!(seen_header(&mesh.ask("web", &forged).await.seen(), "l5d-client-id"), Some(id));
    let client = [("client", "spiffe://cluster.local/ns/shop/sa/web"), ("tls", "true")];
    assert_eq!(mesh.metric("orders", "tidegate_sidecar_peer_requests_total", &client).await, 2.0);
}
