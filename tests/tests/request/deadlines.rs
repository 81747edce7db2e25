//! deadlines: what takes longer than it may is ended by the sidecar, told and counted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::App;
use crate::client::within;
use crate::manifests::route;
use crate::mesh::{APPLICATION, Mesh, OUTBOUND, Plan, host};

const RESPONSES: &str = "tidegate_request_responses_total";
/// What the end of a time may take on a slow machine: nothing else ends these requests at all.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A gRPC call whose client does not keep the time that it names.
struct Call {
    began: Instant,
    response: Response<Incoming>,
    _client: SendRequest<Empty<Bytes>>,
}

impl Call {
    async fn of(mesh: &Mesh, path: &str, timeout: &str) -> Self {
        let io = TokioIo::new(TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap());
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://{}{path}", host("orders")))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", timeout)
            .body(Empty::new())
            .unwrap();
        let began = Instant::now();
        let response = within(client.send_request(request)).await.unwrap();
        Self { began, response, _client: client }
    }

    fn took(&self, at_least: Duration) {
        let took = self.began.elapsed();
        assert!(took >= at_least && took < at_least + LATE_MAX, "{took:?}");
    }
}

/// web asks orders.
async fn shop() -> (Mesh, App) {
    let mesh = Plan::of(&["web", "orders"]).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    (mesh, app)
}

/// One response, with gRPC's status of a deadline, and one error.
async fn is_counted(mesh: &Mesh) {
    let labels = [("direction", "outbound"), ("route", "default"), ("status", "2xx"), ("grpc_status", "4")];
    mesh.reaches("web", RESPONSES, &labels, 1.0).await;
    assert_eq!(mesh.metric("web", RESPONSES, &[("direction", "outbound")]).await, 1.0);
    mesh.counts("web", "outbound", "http_response_timeout", 1.0).await;
    assert_eq!(mesh.errors("web", "outbound", "http_response_timeout").await, 1.0);
}

fn is_deadline_exceeded(headers: &HeaderMap) {
    let message = headers["grpc-message"].to_str().unwrap();
    assert_eq!(headers["grpc-status"], "4", "{headers:?}");
    assert!(message.starts_with("tidegate: http_response_timeout: "), "{message}");
}

#[tokio::test]
async fn a_grpc_call_that_is_not_answered_in_its_time_ends_as_deadline_exceeded() {
    let (mesh, app) = shop().await;
    let call = Call::of(&mesh, "/hold", "300m").await;
    call.took(Duration::from_millis(300));
    assert_eq!((call.response.status().as_u16(), app.arrived()), (200, 1));
    is_deadline_exceeded(call.response.headers());
    let told = call.response.headers()["proxy-status"].to_str().unwrap();
    assert!(told.starts_with("tidegate; error=http_response_timeout; "), "{told}");
    is_counted(&mesh).await;
}

#[tokio::test]
async fn a_grpc_response_that_outlasts_its_time_ends_with_deadline_exceeded_in_its_trailers() {
    let (mesh, _app) = shop().await;
    let mut call = Call::of(&mesh, "/half", "300m").await;
    assert!(!call.response.headers().contains_key("grpc-status"), "{:?}", call.response);
    let half = within(call.response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(half.into_data().unwrap(), "half");
    let trailers = within(call.response.body_mut().frame()).await.unwrap().unwrap();
    call.took(Duration::from_millis(300));
    is_deadline_exceeded(&trailers.into_trailers().unwrap());
    assert!(within(call.response.body_mut().frame()).await.is_none());
    is_counted(&mesh).await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_when_its_time_is_over_however_fast_it_comes_and_is_read() {
    let bounded = route(&json!({"timeouts": {"request": "200ms"}}));
    let mesh = Plan::of(&["web", "orders"]).with(bounded).start().await;
    let _app = App::start(mesh.at("orders", APPLICATION)).await;
    let mut stream = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
    let head = format!("GET /endless HTTP/1.1\r\nHost: {}\r\n\r\n", host("orders"));
    let began = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let mut total = 0;
    // The end is a reset or not, but never that of a whole body.
    while let Ok(count @ 1..) = within(stream.read(&mut piece)).await {
        read = piece[..count].to_vec();
        total += count;
    }
    let took = began.elapsed();
    println!("{} KiB were read in {took:?}", total / 1024);
    let least = Duration::from_millis(200);
    assert!(took >= least && took < least + LATE_MAX, "{took:?}");
    assert!(total > 1024 * 1024 && !read.ends_with(b"0\r\n\r\n"), "{total} bytes");
    mesh.counts("web", "outbound", "http_response_timeout", 1.0).await;
    let labels = [("route", "all"), ("status", "2xx")];
    mesh.reaches("web", RESPONSES, &labels, 1.0).await;
    assert_eq!(mesh.metric("web", RESPONSES, &labels).await, 1.0);
}
