//! limits: each bound is reached through a socket, and answered with a code and a count.

use std::time::Instant;

use serde_json::json;
use tokio::net::TcpStream;

use crate::app::App;
use crate::client::{ask, rest, seen_header};
use crate::frames::{
    CONTINUATION, Connection, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM, frame, get,
    reset,
};
use crate::manifests::policy;
use crate::mesh::{APPLICATION, Mesh, OUTBOUND, Plan, host, until};

/// web asks, orders answers.
async fn shop() -> (Mesh, App) {
    let mesh = Plan::of(&["web", "orders"]).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    (mesh, app)
}

/// Runs `what` and says how much the sidecar beside `pod` grew, in KiB.
async fn growth(mesh: &Mesh, pod: &str, what: impl Future<Output = ()>) -> i64 {
    let before = mesh.rss_kib(pod);
    what.await;
    let grown = mesh.rss_kib(pod) - before;
    println!("{pod} grew by {grown} KiB");
    grown
}

#[tokio::test]
async fn a_head_of_more_than_64_kib_is_answered_431() {
    let (mesh, _app) = shop().await;
    mesh.get("web", "orders", "/").await.seen();
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\nx-long: {}\r\n", host("orders"), "x".repeat(70_000));
    let grown = growth(&mesh, "web", async {
        for _ in 0..50 {
            assert_eq!(mesh.ask("web", &long).await.status, 431);
        }
    })
    .await;
    mesh.counts("web", "outbound", "http_request_header_size", 50.0).await;
    assert!(grown < 3 * 1024, "grew by {grown} KiB");
    let seen = mesh.get("web", "orders", "/after").await.seen();
    assert_eq!(seen_header(&seen, "host"), Some(host("orders").as_str()));
}

#[tokio::test]
async fn more_than_100_header_fields_are_answered_431() {
    let (mesh, _app) = shop().await;
    let head = |count: usize| {
        let fields: String = (0..count).map(|number| format!("x-{number}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: {}\r\n{fields}", host("orders"))
    };
    mesh.ask("web", &head(90)).await.seen();
    let many = head(100);
    let grown = growth(&mesh, "web", async {
        for _ in 0..50 {
            assert_eq!(mesh.ask("web", &many).await.status, 431);
        }
    })
    .await;
    mesh.counts("web", "outbound", "http_request_header_size", 50.0).await;
    assert!(grown < 3 * 1024, "grew by {grown} KiB");
}

#[tokio::test]
async fn an_http2_header_list_of_more_than_64_kib_is_answered_431_and_the_connection_lives() {
    let (mesh, _app) = shop().await;
    let mut connection = Connection::open(mesh.at("web", OUTBOUND)).await;
    connection.send(&get(1, &host("orders"), "/", &[])).await;
    assert_eq!(connection.next_of(HEADERS).await.unwrap().status(), Some(200));
    let long = "x".repeat(15_000);
    let fields: Vec<_> = ["x-a", "x-b", "x-c", "x-d", "x-e"].map(|name| (name, long.as_str())).to_vec();
    let before = mesh.rss_kib("web");
    for stream in (3..43).step_by(2) {
        connection.send(&get(stream, &host("orders"), "/", &fields)).await;
        let refused = connection.next_of(HEADERS).await.expect("the connection lives");
        // Later ones are told by an index into the table that the first has filled.
        let is_431 = refused.status() == Some(431) || (stream > 3 && refused.status() != Some(200));
        assert!(refused.stream == stream && is_431, "{refused:?}");
    }
    let grown = mesh.rss_kib("web") - before;
    println!("web grew by {grown} KiB");
    assert!(grown < 3 * 1024, "grew by {grown} KiB");
    connection.send(&get(43, &host("orders"), "/", &[])).await;
    assert_eq!(connection.next_of(HEADERS).await.unwrap().status(), Some(200));
}

#[tokio::test]
async fn a_431_of_http2_is_counted() {
    let (mesh, _app) = shop().await;
    let mut connection = Connection::open(mesh.at("web", OUTBOUND)).await;
    let long = "x".repeat(15_000);
    let fields: Vec<_> = ["x-a", "x-b", "x-c", "x-d", "x-e"].map(|name| (name, long.as_str())).to_vec();
    connection.send(&get(1, &host("orders"), "/", &fields)).await;
    assert_eq!(connection.next_of(HEADERS).await.unwrap().status(), Some(431));
    assert_eq!(mesh.errors("web", "outbound", "http_request_header_size").await, 1.0);
}

#[tokio::test]
async fn the_251st_stream_of_a_connection_is_refused_and_those_before_are_served() {
    let (mesh, app) = shop().await;
    mesh.get("web", "orders", "/").await.seen();
    let mut connection = Connection::open(mesh.at("web", OUTBOUND)).await;
    let before = mesh.rss_kib("web");
    for number in 0..260 {
        connection.send(&get(2 * number + 1, &host("orders"), "/hold", &[])).await;
    }
    for _ in 250..260 {
        let refused = connection.next_of(RST_STREAM).await.expect("a refused stream");
        assert!(refused.stream > 2 * 249 + 1, "{refused:?}");
        assert_eq!(refused.code(), REFUSED_STREAM);
    }
    app.has(1 + 250).await;
    println!("web grew by {} KiB with 250 streams open", mesh.rss_kib("web") - before);
    assert_eq!(app.arrived(), 1 + 250);
    app.let_go();
    for _ in 0..250 {
        assert_eq!(connection.next_of(HEADERS).await.unwrap().status(), Some(200));
    }
}

#[tokio::test]
async fn streams_reset_rapidly_end_the_connection_with_enhance_your_calm() {
    let (mesh, _app) = shop().await;
    mesh.get("web", "orders", "/").await.seen();
    let flood: Vec<u8> = (0..2000)
        .map(|number| 2 * number + 1)
        .flat_map(|stream| [get(stream, &host("orders"), "/", &[]), reset(stream)].concat())
        .collect();
    let grown = growth(&mesh, "web", async {
        for _ in 0..20 {
            let mut connection = Connection::open(mesh.at("web", OUTBOUND)).await;
            connection.send(&flood).await;
            let end = connection.next_of(GOAWAY).await.expect("a GOAWAY before the end");
            assert_eq!(end.code(), ENHANCE_YOUR_CALM);
        }
    })
    .await;
    mesh.counts("web", "outbound", "http_protocol_error", 20.0).await;
    assert!(grown < 4 * 1024, "grew by {grown} KiB");
    mesh.get("web", "orders", "/").await.seen();
}

#[tokio::test]
async fn a_connection_beyond_connections_max_is_closed_at_once_and_a_freed_place_is_taken() {
    let mesh = Plan::of(&["web", "orders"]).flags("web", &["--connections-max", "3"]).start().await;
    let _app = App::start(mesh.at("orders", APPLICATION)).await;
    let outbound = mesh.at("web", OUTBOUND);
    let mut held = Vec::new();
    for number in 1..=3 {
        held.push(TcpStream::connect(outbound).await.unwrap());
        let labels = [("direction", "outbound")];
        let accepted = "tidegate_transport_connections_accepted_total";
        mesh.reaches("web", accepted, &labels, f64::from(number)).await;
    }
    let grown = growth(&mesh, "web", async {
        for _ in 0..200 {
            let mut more = TcpStream::connect(outbound).await.unwrap();
            assert!(rest(&mut more).await.is_empty());
        }
    })
    .await;
    let refused = "tidegate_transport_connections_refused_total";
    assert_eq!(mesh.metric("web", refused, &[("direction", "outbound")]).await, 200.0);
    assert!(grown < 2 * 1024, "grew by {grown} KiB");
    held.pop();
    let again = || async { ask(outbound, &format!("GET / HTTP/1.1\r\nHost: {}\r\n", host("orders"))).await };
    until("a place", again, |answer| answer.as_ref().is_some_and(|answer| answer.status == 200)).await;
}

#[tokio::test]
async fn a_request_beyond_a_backends_places_and_queue_is_refused_at_once() {
    let narrow = policy(&json!({"limits": {"maxInFlight": 1, "queue": 1}}));
    let mesh = Plan::of(&["web", "orders"]).with(narrow).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    let first = async {
        let answer = mesh.get("web", "orders", "/hold").await;
        answer.seen();
    };
    let others = async {
        app.has(1).await;
        let (a, b) = (mesh.get("web", "orders", "/"), mesh.get("web", "orders", "/"));
        let (mut a, mut b) = (Box::pin(a), Box::pin(b));
        let refused = tokio::select! { answer = &mut a => (answer, b), answer = &mut b => (answer, a) };
        refused.0.is_refusal(503, "connection_limit_reached");
        let grpc =
            format!("POST /a.B/C HTTP/1.1\r\nHost: {}\r\nContent-Type: application/grpc\r\n", host("orders"));
        let told = mesh.ask("web", &grpc).await;
        assert_eq!((told.status, told.header("grpc-status").as_deref()), (200, Some("8")), "{told:?}");
        mesh.counts("web", "outbound", "connection_limit_reached", 2.0).await;
        app.let_go();
        refused.1.await.seen();
    };
    tokio::join!(first, others);
}

#[tokio::test]
async fn without_the_controller_known_destinations_go_on_and_new_ones_are_503_with_a_cause() {
    let mut mesh = Plan::of(&["web", "orders", "cart"]).start().await;
    let _app = App::start(mesh.at("orders", APPLICATION)).await;
    let _cart = App::start(mesh.at("cart", APPLICATION)).await;
    mesh.get("web", "orders", "/").await.seen();
    mesh.controller.kill();
    mesh.get("web", "orders", "/").await.seen();
    let began = Instant::now();
    let answer = mesh.get("web", "cart", "/").await;
    answer.is_refusal(503, "destination_unavailable");
    let took = began.elapsed();
    assert!((2.9..4.0).contains(&took.as_secs_f64()), "{took:?}");
    assert!(answer.text().contains("the controller has not answered for cart.shop.svc:8080"), "{answer:?}");
    assert!(mesh.errors("web", "outbound", "destination_unavailable").await >= 1.0);
    assert_eq!(mesh.metric("web", "tidegate_sidecar_controller_connected", &[]).await, 0.0);
    mesh.get("web", "orders", "/").await.seen();
    assert_eq!(mesh.admin("web", "/ready").await.status, 200, "what was known holds");
    mesh.start_controller();
    let again = || mesh.get("web", "cart", "/");
    until("cart", again, |answer| answer.status == 200).await;
}

#[tokio::test]
async fn a_response_with_a_head_of_more_than_64_kib_is_502() {
    let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
    let _orders = App::start(mesh.at("orders", APPLICATION)).await;
    let _plain = App::start(mesh.at("plain", APPLICATION)).await;
    for service in ["orders", "plain"] {
        mesh.get("web", service, "/").await.seen();
        let grown = growth(&mesh, "web", async {
            for _ in 0..20 {
                assert_eq!(mesh.get("web", service, "/large-head").await.status, 502, "{service}");
            }
        })
        .await;
        assert!(grown < 3 * 1024, "{service}: grew by {grown} KiB");
    }
}

#[tokio::test]
async fn a_header_block_that_never_ends_ends_the_connection() {
    let (mesh, _app) = shop().await;
    mesh.get("web", "orders", "/").await.seen();
    let begin = frame(HEADERS, 0, 1, &[0x82, 0x86, 0x84]);
    let more = frame(CONTINUATION, 0, 1, b"\x00\x03x-a\x011").repeat(50_000);
    let grown = growth(&mesh, "web", async {
        for _ in 0..5 {
            let mut connection = Connection::open(mesh.at("web", OUTBOUND)).await;
            connection.send(&begin).await;
            connection.send(&more).await;
            // A GOAWAY may be lost to the reset that follows what was sent on after it.
            if let Some(end) = connection.next_of(GOAWAY).await {
                assert_ne!(end.code(), 0);
            }
        }
    })
    .await;
    mesh.counts("web", "outbound", "http_protocol_error", 5.0).await;
    assert!(grown < 3 * 1024, "grew by {grown} KiB");
}

#[tokio::test]
async fn a_process_without_descriptors_waits_counts_and_goes_on_when_there_are_some() {
    let (mesh, _app) = shop().await;
    mesh.get("web", "orders", "/").await.seen();
    mesh.sidecars["web"].leave_descriptors(2);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap());
    }
    let said = || async { mesh.sidecars["web"].log().contains("accepting failed") };
    until("a failed accept", said, |said| *said).await;
    mesh.sidecars["web"].leave_descriptors(100);
    let errors = "tidegate_transport_accept_errors_total";
    mesh.reaches("web", errors, &[("direction", "outbound")], 1.0).await;
    drop(held);
    let answer = mesh.get("web", "orders", "/").await;
    assert_eq!(answer.status, 200);
}
