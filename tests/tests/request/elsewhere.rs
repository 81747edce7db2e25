//! elsewhere: a request that one endpoint did not take goes to another, and within its budget once more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::app::App;
use crate::client::{answer, within};
use crate::frames::{Connection, HEADERS, refuse, settings};
use crate::manifests::{policy, route};
use crate::mesh::{APPLICATION, Mesh, OUTBOUND, Plan, host};

const RETRIES: &str = "tidegate_request_retries_total";
const ATTEMPTS: &str = "tidegate_request_endpoint_attempts_total";
/// At least.
const POSTS: usize = 50;

/// orders has two endpoints: one that serves, and spare, which is not of the mesh.
async fn shop() -> (Mesh, App) {
    let mesh = Plan::of(&["web", "orders", "spare"]).plain("spare").start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    mesh.announced("orders", "spare").await;
    (mesh, app)
}

/// Posts until [`POSTS`] were answered and three of them tried again for `reason`, while orders' own
/// endpoint has a request, so that spare has the lesser load. Each is executed once. Says how many
/// were tried again, the held one included.
async fn post_until(mesh: &Mesh, app: &App, reason: &str, mut post: impl AsyncFnMut() -> Value) -> f64 {
    let again = async || mesh.metric("web", RETRIES, &[("reason", reason)]).await;
    let before = app.arrived();
    let posts = async {
        app.has(before + 1).await;
        let (first, mut sent) = (again().await, 0);
        while sent < POSTS || again().await < first + 3.0 {
            assert_eq!(post().await["body"], 5);
            sent += 1;
            assert!(sent < 100 * POSTS, "nobody went elsewhere");
        }
        app.let_go();
        sent
    };
    let (held, sent) = tokio::join!(mesh.get("web", "orders", "/hold"), posts);
    held.seen();
    assert_eq!(app.arrived() - before, 1 + sent);
    let again = again().await;
    println!("{again} of {sent} were tried again: {reason}");
    again
}

#[expect(clippy::cast_precision_loss, reason = "few")]
fn number(count: usize) -> f64 {
    count as f64
}

#[tokio::test]
async fn a_post_whose_endpoint_is_not_reached_is_executed_once_by_another() {
    let (mesh, app) = shop().await;
    let post = async || {
        let mut stream = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\nhello", host("orders"));
        stream.write_all(head.as_bytes()).await.unwrap();
        within(answer(&mut stream)).await.unwrap().seen()
    };
    let again = post_until(&mesh, &app, "connect", post).await;
    let missed = [("pod", "spare"), ("result", "not_connected")];
    assert_eq!(mesh.metric("web", ATTEMPTS, &missed).await, again);
}

/// A peer over HTTP/2 that refuses every stream unprocessed.
async fn refusing(at: SocketAddr) -> (Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let (refused, mut serving) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let count = refused.clone();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            connections.spawn(async move {
                stream.read_exact(&mut [0; 24]).await.unwrap();
                let mut connection = Connection(stream);
                connection.send(&settings()).await;
                while let Some(head) = connection.next_of(HEADERS).await {
                    count.fetch_add(1, Ordering::Relaxed);
                    connection.send(&refuse(head.stream)).await;
                }
            });
        }
    });
    (refused, serving)
}

#[tokio::test]
async fn a_post_whose_stream_is_refused_is_executed_once_by_another_endpoint() {
    let (mesh, app) = shop().await;
    let (refused, _serving) = refusing(mesh.at("spare", APPLICATION)).await;
    let tcp = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    // HTTP/2, which is what goes to spare then.
    let post = async || {
        let request = Request::post(format!("http://{}/", host("orders")));
        let request = request.body(Full::new(Bytes::from_static(b"hello"))).unwrap();
        let response = within(client.send_request(request)).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    };
    let again = post_until(&mesh, &app, "refused", post).await;
    assert_eq!(number(refused.load(Ordering::Relaxed)), again);
    let attempts = [("pod", "spare"), ("result", "refused")];
    assert_eq!(mesh.metric("web", ATTEMPTS, &attempts).await, again);
}

#[tokio::test]
async fn retries_after_a_response_stop_where_the_budget_ends() {
    const GETS: usize = 50;
    for percent in [0, 10] {
        let budget = policy(&json!({"retry": {"budget": {"percent": percent, "minPerSecond": 0}}}));
        let again = route(&json!({"retry": {"attempts": 1, "codes": [503], "backoff": "1ms"}}));
        let mesh = Plan::of(&["web", "orders"]).with(budget).with(again).start().await;
        let app = App::start(mesh.at("orders", APPLICATION)).await;
        for _ in 0..GETS {
            assert_eq!(mesh.get("web", "orders", "/503").await.status, 503);
        }
        let retries = app.arrived() - GETS;
        println!("{percent} %: {retries} retries of {GETS} requests");
        assert!(retries <= GETS * percent / 100, "{percent} %: {retries} retries");
        assert!((retries > 0) == (percent > 0), "{percent} %: {retries} retries");
        assert_eq!(mesh.metric("web", RETRIES, &[("reason", "response")]).await, number(retries));
        let denied = mesh.metric("web", RETRIES, &[("reason", "budget_exhausted")]).await;
        assert_eq!(denied, number(GETS - retries));
    }
}
