//! observability: what the sidecar tells of requests, and what it never tells.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::app::App;
use crate::client::{Answer, ask, seen_header, within};
use crate::mesh::{ADMIN, APPLICATION, Mesh, Plan, host, until};

/// The lines of JSON that a sidecar has written.
fn lines(mesh: &Mesh, pod: &str) -> Vec<Value> {
    let log = mesh.sidecars[pod].log();
    log.lines()
        .filter(|line| line.starts_with('{'))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[tokio::test]
async fn the_access_log_has_a_line_of_json_for_each_request_on_both_sides() {
    let mesh = Plan::of(&["web", "orders"])
        .flags("web", &["--access-log"])
        .flags("orders", &["--access-log"])
        .start()
        .await;
    let _app = App::start(mesh.at("orders", APPLICATION)).await;
    let length = mesh.get("web", "orders", "/a?secret=1").await.body.len();
    mesh.get("web", "nobody", "/").await.is_refusal(503, "destination_not_found");
    let web = until("two lines", || async { lines(&mesh, "web") }, |lines| lines.len() == 2).await;
    let line = &web[0];
    for (field, value) in [
        ("direction", "outbound"),
        ("method", "GET"),
        ("authority", &host("orders")),
        ("path", "/a"),
        ("version", "HTTP/1.1"),
        ("endpoint", &mesh.at("orders", APPLICATION).to_string()),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(
        (&line["status"], &line["attempts"], &line["complete"]),
        (&200.into(), &1.into(), &true.into())
    );
    assert_eq!(line["bytes"], length, "{line}");
    assert!(line["duration_ms"].as_f64().is_some_and(|took| took > 0.0), "{line}");
    assert!(line["backend"].as_str().is_some_and(|backend| backend.contains("orders")), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    assert_eq!(web[1]["status"], 503);
    assert!(web[1]["proxy_status"].as_str().is_some_and(|told| told.contains("destination_not_found")));
    let orders = until("a line", || async { lines(&mesh, "orders") }, |lines| lines.len() == 1).await;
    assert_eq!(orders[0]["direction"], "inbound");
    assert_eq!(orders[0]["client"], "spiffe://cluster.local/ns/shop/sa/web");
    assert!(!mesh.sidecars["web"].log().contains("secret"), "a query is not logged");
}

#[tokio::test]
async fn the_log_level_changes_at_run_time_and_a_wrong_one_is_told() {
    let mesh = Plan::of(&["web"]).start().await;
    let put = |filter: &'static str| {
        let head = format!(
            "PUT /log-level HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{filter}",
            filter.len()
        );
        let admin = mesh.at("web", ADMIN);
        async move { ask(admin, &head).await.unwrap() }
    };
    let refused = "a request failed";
    mesh.get("web", "nobody", "/").await;
    assert!(!mesh.sidecars["web"].log().contains(refused));
    let told = put("debug").await;
    assert_eq!((told.status, told.text().trim()), (200, "debug"));
    assert_eq!(mesh.admin("web", "/log-level").await.text().trim(), "debug");
    mesh.get("web", "nobody", "/").await;
    until("a line", || async { mesh.sidecars["web"].log() }, |log| log.contains(refused)).await;
    let wrong = put("a=b=c").await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    assert_eq!(mesh.admin("web", "/log-level").await.text().trim(), "debug", "what held holds");
    let long = format!(
        "PUT /log-level HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000\r\n\r\n{}",
        "x".repeat(2000)
    );
    assert_eq!(ask(mesh.at("web", ADMIN), &long).await.unwrap().status, 413);
}

#[tokio::test]
async fn config_shows_versions_and_digest_and_no_secret() {
    let mesh = Plan::of(&["web", "orders"]).start().await;
    let _app = App::start(mesh.at("orders", APPLICATION)).await;
    mesh.get("web", "orders", "/").await.seen();
    let answer = mesh.admin("web", "/config").await;
    let config: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(config["version"], "0.1.0");
    assert!(config["digest"].as_str().is_some_and(|digest| digest.len() >= 16), "{}", config["digest"]);
    let versions = config["snapshot"]["versions"].as_object().expect("versions");
    assert!(versions.keys().any(|key| key.contains("orders")), "{versions:?}");
    assert_eq!(config["flags"]["outbound"], mesh.at("web", crate::mesh::OUTBOUND).to_string());
    let token = std::fs::read_to_string(mesh.dir.path().join("state/tokens/shop.web.token")).unwrap();
    let status = ask(mesh.net.at(1, 8087), "GET /status HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    for text in [answer.text(), status.text(), mesh.sidecars["web"].log(), mesh.controller.log()] {
        assert!(!text.contains(token.trim()) && !text.contains("PRIVATE KEY"), "a secret is shown");
    }
}

/// A collector of traces: what was posted, and where.
async fn collector() -> (SocketAddr, mpsc::Receiver<(String, Bytes)>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel(64);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| take(request, tell.clone()));
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, told, serving)
}

async fn take(
    request: Request<Incoming>,
    tell: mpsc::Sender<(String, Bytes)>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let _ = tell.send((path, body)).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let empty = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(empty);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[tokio::test]
async fn spans_reach_the_collector_in_the_clients_trace_and_the_application_sees_it() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let (address, mut told, _serving) = collector().await;
    let endpoint = format!("http://{address}");
    let flags = ["--otlp-endpoint", endpoint.as_str()];
    let mut mesh = Plan::of(&["web", "orders"]).flags("web", &flags).flags("orders", &flags).start().await;
    let _app = App::start(mesh.at("orders", APPLICATION)).await;
    let head = format!(
        "GET /a HTTP/1.1\r\nHost: {}\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n",
        host("orders")
    );
    let answer: Answer = mesh.ask("web", &head).await;
    let seen = answer.seen();
    let parent = seen_header(&seen, "traceparent").expect("a traceparent").to_owned();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && !parent.contains("b7ad6b7169203331"), "{parent}");
    let trace: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).unwrap()).collect();
    // What is left is sent when they stop.
    for pod in ["web", "orders"] {
        mesh.sidecars[pod].signal("-TERM");
    }
    let mut names = Vec::new();
    while names.len() < 2 {
        let (path, body) = within(told.recv()).await.expect("the collector runs");
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        assert!(body.windows(16).any(|bytes| bytes == trace), "the span is of another trace");
        let name =
            ["web", "orders"].into_iter().find(|name| body.windows(name.len()).any(|b| b == name.as_bytes()));
        names.push(name);
    }
    for pod in ["web", "orders"] {
        assert!(mesh.sidecars.get_mut(pod).unwrap().ended().await.success());
    }
}
