//! waits: a wait for the other side ends in time, with a code, a count, and nothing left behind.

use std::time::{Duration, Instant};

use policy::limits;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::app::App;
use crate::client::answer;
use crate::manifests::{empty, policy};
use crate::mesh::{APPLICATION, Mesh, OUTBOUND, Plan, host};

/// So many wait at once.
const REQUESTS: usize = 50;
/// How long the last of them may take to be told on a slow machine. Whose limit it is, the token and the
/// shortest time say: the next longer limit with the same token is further away.
const LATE_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(
    limits::CONNECT_TIMEOUT.as_secs() + LATE_MAX.as_secs() < limits::HANDSHAKE_TIMEOUT.as_secs()
        && limits::BACKEND_QUEUE_TIMEOUT.as_secs() + LATE_MAX.as_secs() < limits::HANDSHAKE_TIMEOUT.as_secs()
);
/// How long nobody is there in [`an_endpoint_that_comes_within_three_seconds_serves_those_who_wait`].
const NOBODY: Duration = Duration::from_millis(300);

/// Asks for orders so many times at once; each is refused with the token after the wait.
async fn each_is_refused(mesh: &Mesh, status: u16, token: &str, wait: Duration) {
    let outbound = mesh.at("web", OUTBOUND);
    let (before, began) = (mesh.rss_kib("web"), Instant::now());
    let mut asked = Vec::new();
    for _ in 0..REQUESTS {
        let mut stream = TcpStream::connect(outbound).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host("orders"));
        stream.write_all(head.as_bytes()).await.unwrap();
        asked.push(stream);
    }
    for mut stream in asked {
        let told = tokio::time::timeout(wait + LATE_MAX, answer(&mut stream)).await;
        told.unwrap().unwrap().is_refusal(status, token);
        let took = began.elapsed();
        assert!(took + Duration::from_millis(100) >= wait && took < wait + LATE_MAX, "{took:?}");
    }
    let grown = mesh.rss_kib("web") - before;
    println!("{REQUESTS} waited {:?} for {token}: web grew by {grown} KiB", began.elapsed());
    #[expect(clippy::cast_precision_loss, reason = "fifty")]
    let requests = REQUESTS as f64;
    mesh.counts("web", "outbound", token, requests).await;
    assert_eq!(mesh.errors("web", "outbound", token).await, requests);
    assert!(grown < 4 * 1024, "grew by {grown} KiB");
}

#[tokio::test]
async fn an_endpoint_whose_kernel_does_not_answer_is_given_up_after_a_second() {
    let mesh = Plan::of(&["web", "orders"]).plain("orders").start().await;
    // A full queue of connections that nobody accepts: the kernel drops what else comes.
    let socket = TcpSocket::new_v4().unwrap();
    // Another test may have used the address a moment ago.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(mesh.at("orders", APPLICATION)).unwrap();
    let _full = socket.listen(1).unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(mesh.at("orders", APPLICATION)))
            .await
    {
        filling.push(stream);
    }
    each_is_refused(&mesh, 502, "connection_timeout", limits::CONNECT_TIMEOUT).await;
}

#[tokio::test]
async fn a_peer_that_does_not_shake_hands_is_given_up_after_ten_seconds() {
    let mesh = Plan::of(&["web", "orders"]).straight("orders").plain("orders").start().await;
    let _mute = TcpListener::bind(mesh.at("orders", APPLICATION)).await.unwrap();
    each_is_refused(&mesh, 502, "connection_timeout", limits::HANDSHAKE_TIMEOUT).await;
}

#[tokio::test]
async fn a_place_that_does_not_come_free_is_waited_for_three_seconds() {
    let narrow = policy(&json!({"limits": {"maxInFlight": 1, "queue": 50}}));
    let mesh = Plan::of(&["web", "orders"]).with(narrow).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    let others = async {
        app.has(1).await;
        each_is_refused(&mesh, 503, "connection_limit_reached", limits::BACKEND_QUEUE_TIMEOUT).await;
        app.let_go();
    };
    let (first, ()) = tokio::join!(mesh.get("web", "orders", "/hold"), others);
    first.seen();
    assert_eq!(app.arrived(), 1);
}

/// A Service without endpoints, orders, and a pod that could be one.
async fn without_endpoints() -> Mesh {
    let [service, slice] = empty("orders");
    Plan::of(&["web", "cart"]).plain("cart").with(service).with(slice).start().await
}

#[tokio::test]
async fn a_service_without_endpoints_is_503_after_three_seconds() {
    let mesh = without_endpoints().await;
    each_is_refused(&mesh, 503, "destination_unavailable", limits::BACKEND_QUEUE_TIMEOUT).await;
}

#[tokio::test]
async fn an_endpoint_that_comes_within_three_seconds_serves_those_who_wait() {
    let mesh = without_endpoints().await;
    let app = App::start(mesh.at("cart", APPLICATION)).await;
    let began = Instant::now();
    let announcing = async {
        tokio::time::sleep(NOBODY).await;
        mesh.announce("orders", "cart");
    };
    let (a, b, ()) =
        tokio::join!(mesh.get("web", "orders", "/a"), mesh.get("web", "orders", "/b"), announcing);
    for answer in [a, b] {
        answer.seen();
    }
    let took = began.elapsed();
    println!("served {took:?} after they asked");
    // They waited; after three seconds they would have been refused.
    assert!(took >= NOBODY, "{took:?}");
    assert_eq!(app.arrived(), 2);
}
