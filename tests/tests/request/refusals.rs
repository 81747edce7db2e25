//! refusals: the inbound port is no open relay, and nothing goes round for ever.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;
use crate::client::{answer, rest, seen_header, within};
use crate::mesh::{ADMIN, APPLICATION, INBOUND, Mesh, OUTBOUND, Plan, host};
use crate::peer::{anonymous, certified, connect, header, identity};

const HOUR: Duration = Duration::from_secs(3600);

async fn orders(flags: &[&str]) -> (Mesh, App) {
    let mesh = Plan::of(&["orders"]).flags("orders", flags).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    (mesh, app)
}

fn get(more: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: orders\r\n{more}\r\n")
}

/// Sends bytes and hears nothing but the end.
async fn is_cut(mut io: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let _ = io.write_all(bytes).await;
    let heard = rest(&mut io).await;
    assert!(heard.is_empty(), "{}", String::from_utf8_lossy(&heard));
}

#[tokio::test]
async fn plaintext_to_the_inbound_port_is_no_relay() {
    let (mesh, app) = orders(&["--inbound-default", "Allow"]).await;
    let inbound = mesh.at("orders", INBOUND);
    let before = mesh.rss_kib("orders");
    for _ in 0..50 {
        is_cut(TcpStream::connect(inbound).await.unwrap(), get("").as_bytes()).await;
    }
    is_cut(TcpStream::connect(inbound).await.unwrap(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    is_cut(TcpStream::connect(inbound).await.unwrap(), &header(APPLICATION, None)).await;
    let grown = mesh.rss_kib("orders") - before;
    assert!(grown < 2048, "grew by {grown} KiB");
    mesh.counts("orders", "inbound", "relay_denied", 52.0).await;
    assert_eq!(app.arrived(), 0);
}

#[tokio::test]
async fn tls_for_somebody_else_or_without_the_transport_header_is_no_relay() {
    let (mesh, app) = orders(&["--inbound-default", "Allow"]).await;
    let inbound = mesh.at("orders", INBOUND);
    let web = certified(&mesh.dir.path().join("state"), identity("web"), HOUR);
    assert!(connect(&web, inbound, "cart", true).await.is_err(), "a foreign name was accepted");
    mesh.counts("orders", "inbound", "relay_denied", 1.0).await;
    is_cut(connect(&web, inbound, "orders", false).await.unwrap(), get("").as_bytes()).await;
    mesh.counts("orders", "inbound", "relay_denied", 2.0).await;
    is_cut(connect(&web, inbound, "orders", true).await.unwrap(), get("").as_bytes()).await;
    let long = [b"transport.l5d.io/v1\r\n\r\n".as_slice(), &u32::MAX.to_be_bytes()].concat();
    is_cut(connect(&web, inbound, "orders", true).await.unwrap(), &long).await;
    mesh.counts("orders", "inbound", "http_protocol_error", 2.0).await;
    assert_eq!(app.arrived(), 0);
}

#[tokio::test]
async fn a_header_that_names_the_proxys_own_port_or_a_gateways_service_is_refused() {
    let (mesh, app) = orders(&["--inbound-default", "Allow"]).await;
    let inbound = mesh.at("orders", INBOUND);
    let web = certified(&mesh.dir.path().join("state"), identity("web"), HOUR);
    for port in [ADMIN, INBOUND, OUTBOUND] {
        let bytes = [header(port, None), b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat();
        is_cut(connect(&web, inbound, "orders", true).await.unwrap(), &bytes).await;
    }
    mesh.counts("orders", "inbound", "relay_denied", 3.0).await;
    let bytes = [header(APPLICATION, Some("cart.shop.svc.cluster.local")), get("").into_bytes()].concat();
    is_cut(connect(&web, inbound, "orders", true).await.unwrap(), &bytes).await;
    mesh.counts("orders", "inbound", "http_protocol_error", 1.0).await;
    assert_eq!(app.arrived(), 0);
}

#[tokio::test]
async fn a_forged_client_id_is_replaced_by_the_true_one_and_stripped_without_identity() {
    let (mesh, _app) = orders(&["--inbound-default", "Allow"]).await;
    let (inbound, state) = (mesh.at("orders", INBOUND), mesh.dir.path().join("state"));
    let forged = get("l5d-client-id: king.shop.serviceaccount.identity.linkerd.cluster.local\r\n");
    let bytes = [header(APPLICATION, None), forged.into_bytes()].concat();
    let web = certified(&state, identity("web"), HOUR);
    let mut io = connect(&web, inbound, "orders", true).await.unwrap();
    io.write_all(&bytes).await.unwrap();
    let seen = within(answer(&mut io)).await.unwrap().seen();
    assert_eq!(seen_header(&seen, "l5d-client-id"), Some(identity("web").dns_name().as_str()));
    let mut io = anonymous(&state, inbound, "orders").await.unwrap();
    io.write_all(&bytes).await.unwrap();
    let seen = within(answer(&mut io)).await.unwrap().seen();
    assert_eq!(seen_header(&seen, "l5d-client-id"), None);
}

#[tokio::test]
async fn a_client_without_identity_is_answered_403_by_default() {
    let (mesh, app) = orders(&[]).await;
    let mut io =
        anonymous(&mesh.dir.path().join("state"), mesh.at("orders", INBOUND), "orders").await.unwrap();
    let bytes = [header(APPLICATION, None), get("").into_bytes()].concat();
    io.write_all(&bytes).await.unwrap();
    within(answer(&mut io)).await.unwrap().is_refusal(403, "http_request_denied");
    mesh.counts("orders", "inbound", "http_request_denied", 1.0).await;
    assert_eq!(app.arrived(), 0);
}

#[tokio::test]
async fn a_certificate_that_expired_is_refused() {
    let (mesh, app) = orders(&[]).await;
    let life = Duration::from_secs(2);
    let web = certified(&mesh.dir.path().join("state"), identity("web"), life);
    let expired = tokio::time::Instant::now() + life + Duration::from_secs(1);
    let bytes = [header(APPLICATION, None), get("").into_bytes()].concat();
    let mut io = connect(&web, mesh.at("orders", INBOUND), "orders", true).await.unwrap();
    io.write_all(&bytes).await.unwrap();
    within(answer(&mut io)).await.unwrap().seen();
    tokio::time::sleep_until(expired).await;
    // TLS 1.3: the client has finished before the server has looked at its certificate.
    if let Ok(io) = connect(&web, mesh.at("orders", INBOUND), "orders", true).await {
        is_cut(io, &bytes).await;
    }
    mesh.counts("orders", "inbound", "tls_protocol_error", 1.0).await;
    assert_eq!(app.arrived(), 1);
}

/// Brings every byte back to `to`.
async fn relay(from: SocketAddr, to: SocketAddr) -> tokio::task::JoinSet<()> {
    let listener = TcpListener::bind(from).await.unwrap();
    let mut relays = tokio::task::JoinSet::new();
    relays.spawn(async move {
        let mut each = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            each.spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    relays
}

#[tokio::test]
async fn a_request_that_goes_round_ends_with_508_after_a_bounded_number_of_rounds() {
    let mesh = Plan::of(&["web", "orders"]).plain("orders").start().await;
    let _relay = relay(mesh.at("orders", APPLICATION), mesh.at("web", OUTBOUND)).await;
    mesh.get("web", "orders", "/").await.is_refusal(508, "proxy_loop_detected");
    assert_eq!(mesh.errors("web", "outbound", "proxy_loop_detected").await, 1.0);
    let answered = mesh.metric("web", "tidegate_request_responses_total", &[("direction", "outbound")]).await;
    println!("508 after {answered} rounds");
    assert!(answered <= 8.0, "{answered} rounds");
}

#[tokio::test]
async fn its_own_outbound_and_inbound_addresses_are_no_destination() {
    let mesh = Plan::of(&["web"]).start().await;
    for port in [OUTBOUND, INBOUND] {
        let own = mesh.at("web", port);
        let answer = mesh.ask("web", &format!("GET / HTTP/1.1\r\nHost: {own}\r\n")).await;
        answer.is_refusal(503, "destination_not_found");
        assert!(answer.text().contains("is this proxy itself"), "{answer:?}");
    }
    mesh.counts("web", "outbound", "destination_not_found", 2.0).await;
}

#[tokio::test]
async fn a_request_to_the_proxy_that_does_not_say_where_it_goes_is_400() {
    let mesh = Plan::of(&["web"]).start().await;
    let answer = mesh.ask("web", "GET / HTTP/1.0\r\n").await;
    answer.is_refusal(400, "http_request_error");
    assert!(answer.text().contains("must say where it goes"), "{answer:?}");
    for bad in ["under_score", "a..b", "orders:0"] {
        let answer = mesh.ask("web", &format!("GET / HTTP/1.1\r\nHost: {bad}\r\n")).await;
        answer.is_refusal(400, "http_request_error");
    }
    mesh.counts("web", "outbound", "http_request_error", 4.0).await;
    let nobody = mesh.ask("web", &format!("GET / HTTP/1.1\r\nHost: {}\r\n", host("nobody"))).await;
    nobody.is_refusal(503, "destination_not_found");
}

#[tokio::test]
async fn two_hosts_are_400() {
    let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
    let _orders = App::start(mesh.at("orders", APPLICATION)).await;
    let _plain = App::start(mesh.at("plain", APPLICATION)).await;
    for service in ["plain", "orders"] {
        // RFC 9112 §3.2: a request with more than one Host is answered 400.
        let head = format!("GET / HTTP/1.1\r\nHost: {}\r\nHost: elsewhere\r\n", host(service));
        let answer = mesh.ask("web", &head).await;
        assert_eq!(answer.status, 400, "{service}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_own_coding_is_the_clients_fault_and_not_the_endpoints() {
    let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
    let _orders = App::start(mesh.at("orders", APPLICATION)).await;
    let _plain = App::start(mesh.at("plain", APPLICATION)).await;
    for service in ["orders", "plain"] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
            host(service)
        );
        let answer = mesh.ask("web", &head).await;
        let broken = [("result", "broken"), ("pod", service)];
        let broken = mesh.metric("web", "tidegate_request_endpoint_attempts_total", &broken).await;
        assert_eq!((answer.status, broken), (400, 0.0), "{service}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_body_with_two_lengths_is_read_in_one_way_alone() {
    let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
    let _orders = App::start(mesh.at("orders", APPLICATION)).await;
    let _plain = App::start(mesh.at("plain", APPLICATION)).await;
    for service in ["orders", "plain"] {
        for lengths in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
        ] {
            let named = host(service);
            let body = "d\r\nGET /smuggled\r\n0\r\n";
            let head = format!("POST / HTTP/1.1\r\nHost: {named}\r\n{lengths}\r\n\r\n{body}");
            let answer = mesh.ask("web", &head).await;
            if answer.status == 400 {
                continue;
            }
            // RFC 9112 §6.3: the coding overrides the length, which must not go on.
            let seen = answer.seen();
            assert_eq!(seen["body"], 13, "{service}, {lengths}: {seen}");
            assert_ne!(seen_header(&seen, "content-length"), Some("4"), "{service}, {lengths}: {seen}");
        }
        for lengths in
            ["Content-Length: 4\r\nContent-Length: 5", "Content-Length: +4", "Transfer-Encoding: identity"]
        {
            let head = format!("POST / HTTP/1.1\r\nHost: {}\r\n{lengths}\r\n\r\nabcd", host(service));
            assert_eq!(mesh.ask("web", &head).await.status, 400, "{lengths}");
        }
    }
}
