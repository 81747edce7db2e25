//! counted: every response stands in the series of its route, those of our own and upgrades too.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::app::App;
use crate::client::{Answer, answer, within};
use crate::manifests::{empty, policy, route};
use crate::mesh::{APPLICATION, INBOUND, Mesh, OUTBOUND, Plan, host};
use crate::peer::{certified, connect, header, identity};

const RESPONSES: &str = "tidegate_request_responses_total";
const DURATIONS: &str = "tidegate_request_duration_seconds_count";
const ATTEMPTS: &str = "tidegate_request_endpoint_attempts_total";

/// Over HTTP/1, which a sidecar passes on all the same.
fn grpc() -> String {
    format!("POST /a.B/C HTTP/1.1\r\nHost: {}\r\nContent-Type: application/grpc\r\n", host("orders"))
}

/// So many are counted, if not at once, and no more.
async fn are_counted(mesh: &Mesh, pod: &str, name: &str, labels: &[(&str, &str)], count: f64) {
    mesh.reaches(pod, name, labels, count).await;
    assert_eq!(mesh.metric(pod, name, labels).await, count, "{pod}: {name} {labels:?}");
}

#[tokio::test]
async fn a_request_that_finds_the_queue_full_counts_in_the_series_of_its_route() {
    let narrow = policy(&json!({"limits": {"maxInFlight": 1, "queue": 1}}));
    let mesh = Plan::of(&["web", "orders"]).with(narrow).with(route(&json!({}))).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    let others = async {
        app.has(1).await;
        let (a, b) = (mesh.get("web", "orders", "/"), mesh.get("web", "orders", "/"));
        let (mut a, mut b) = (Box::pin(a), Box::pin(b));
        let (refused, waiting) =
            tokio::select! { answer = &mut a => (answer, b), answer = &mut b => (answer, a) };
        refused.is_refusal(503, "connection_limit_reached");
        let told = mesh.ask("web", &grpc()).await;
        assert_eq!((told.status, told.header("grpc-status").as_deref()), (200, Some("8")), "{told:?}");
        app.let_go();
        waiting.await.seen();
    };
    let (first, ()) = tokio::join!(mesh.get("web", "orders", "/hold"), others);
    first.seen();
    let all = [("direction", "outbound"), ("route_kind", "HTTPRoute"), ("route", "all"), ("rule", "0")];
    let with = |status, grpc| [&all[..], &[("status", status), ("grpc_status", grpc)]].concat();
    are_counted(&mesh, "web", RESPONSES, &with("5xx", ""), 1.0).await;
    are_counted(&mesh, "web", RESPONSES, &with("2xx", "8"), 1.0).await;
    mesh.reaches("web", RESPONSES, &with("2xx", ""), 2.0).await;
    are_counted(&mesh, "web", DURATIONS, &all, 4.0).await;
}

#[tokio::test]
async fn a_request_that_finds_no_endpoint_counts_in_the_series_of_its_route() {
    let [service, slice] = empty("orders");
    let mesh = Plan::of(&["web"]).with(service).with(slice).start().await;
    let head = grpc();
    let (plain, grpc) = tokio::join!(mesh.get("web", "orders", "/"), mesh.ask("web", &head));
    plain.is_refusal(503, "destination_unavailable");
    assert_eq!((grpc.status, grpc.header("grpc-status").as_deref()), (200, Some("14")), "{grpc:?}");
    let with = |status, grpc| [("route_kind", "default"), ("status", status), ("grpc_status", grpc)];
    are_counted(&mesh, "web", RESPONSES, &with("5xx", ""), 1.0).await;
    are_counted(&mesh, "web", RESPONSES, &with("2xx", "14"), 1.0).await;
}

/// An application that answers each head with these bytes, and echoes what comes then.
async fn says(at: SocketAddr, response: &'static str) -> JoinSet<()> {
    let listener = TcpListener::bind(at).await.unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                stream.write_all(response.as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    serving
}

/// web asks orders for another protocol.
async fn upgrade(mesh: &Mesh) -> (Answer, TcpStream) {
    let mut stream = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
    let head =
        format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", host("orders"));
    stream.write_all(head.as_bytes()).await.unwrap();
    (within(answer(&mut stream)).await.expect("an answer"), stream)
}

/// One response of this class on either side, and none besides.
async fn once_on_both_sides(mesh: &Mesh, status: &str) {
    for (pod, direction) in [("web", "outbound"), ("orders", "inbound")] {
        mesh.reaches(pod, RESPONSES, &[("direction", direction), ("status", status)], 1.0).await;
        are_counted(mesh, pod, RESPONSES, &[], 1.0).await;
        are_counted(mesh, pod, DURATIONS, &[], 1.0).await;
    }
    let port = format!("port {APPLICATION}");
    are_counted(mesh, "orders", RESPONSES, &[("backend", &port)], 1.0).await;
}

#[tokio::test]
async fn an_upgrade_that_both_sides_agree_to_counts_on_both_sides() {
    let mesh = Plan::of(&["web", "orders"]).start().await;
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let _orders = says(mesh.at("orders", APPLICATION), agreed).await;
    let (answer, mut stream) = upgrade(&mesh).await;
    assert_eq!((answer.status, answer.header("upgrade").as_deref()), (101, Some("echo")), "{answer:?}");
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    within(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");
    once_on_both_sides(&mesh, "1xx").await;
    are_counted(&mesh, "web", ATTEMPTS, &[("result", "success")], 1.0).await;
}

#[tokio::test]
async fn an_upgrade_answered_503_counts_on_both_sides_and_is_a_failure_of_the_endpoint() {
    let mesh = Plan::of(&["web", "orders"]).start().await;
    let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let _orders = says(mesh.at("orders", APPLICATION), busy).await;
    let (answer, _stream) = upgrade(&mesh).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"), "{answer:?}");
    once_on_both_sides(&mesh, "5xx").await;
    are_counted(&mesh, "web", ATTEMPTS, &[("result", "failure")], 1.0).await;
    assert_eq!(mesh.metric("web", ATTEMPTS, &[("result", "success")]).await, 0.0);
}

#[tokio::test]
async fn a_tunnel_opened_by_connect_and_one_that_is_not_count_where_they_come_in() {
    let mesh = Plan::of(&["orders"]).start().await;
    let state = mesh.dir.path().join("state");
    let web = certified(&state, identity("web"), Duration::from_secs(3600));
    let ask = || async {
        let mut io = connect(&web, mesh.at("orders", INBOUND), "orders", true).await.unwrap();
        io.write_all(&header(APPLICATION, None)).await.unwrap();
        io.write_all(b"CONNECT inside:1 HTTP/1.1\r\nHost: inside:1\r\n\r\n").await.unwrap();
        io.flush().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(io.read_u8()).await.unwrap());
        }
        (String::from_utf8(head).unwrap(), io)
    };
    let (nobody, _io) = ask().await;
    assert!(nobody.starts_with("HTTP/1.1 502 ") && nobody.contains("error=connection_refused"), "{nobody}");
    are_counted(&mesh, "orders", RESPONSES, &[("direction", "inbound"), ("status", "5xx")], 1.0).await;
    let _orders = says(mesh.at("orders", APPLICATION), "HTTP/1.1 200 OK\r\n\r\n").await;
    let (opened, mut io) = ask().await;
    assert!(opened.starts_with("HTTP/1.1 200 "), "{opened}");
    io.write_all(b"hello").await.unwrap();
    io.flush().await.unwrap();
    let mut echo = [0; 5];
    within(io.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");
    are_counted(&mesh, "orders", RESPONSES, &[("direction", "inbound"), ("status", "2xx")], 1.0).await;
    are_counted(&mesh, "orders", RESPONSES, &[], 2.0).await;
}
