//! grpc: unary calls handed over as messages, by Python's gRPC and frame by frame.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::client::within;
use crate::mesh::{APPLICATION, OUTBOUND, host, until};
use crate::python;
use crate::receiver::Act;
use crate::shop::{Setup, Shop};

fn ack() -> Value {
    json!({"grpc": {"ack": "EmptyMessage"}})
}

/// A Python service, and the calls it told of; ends when dropped.
struct Service {
    told: Arc<Mutex<Vec<Value>>>,
    _reading: JoinSet<()>,
    _child: Child,
}

impl Service {
    async fn start(address: SocketAddr) -> Self {
        let mut child = python::command("grpc_unary.py")
            .args(["serve", &address.to_string()])
            .spawn()
            .expect("python starts: see tests/run");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                tell.lock().unwrap().push(serde_json::from_str::<Value>(&line).unwrap());
            }
        });
        let service = Self { told, _reading: reading, _child: child };
        until("the service", || async { service.told.lock().unwrap().len() }, |told| *told > 0).await;
        service
    }

    fn calls(&self) -> Vec<Value> {
        self.told.lock().unwrap()[1..].to_vec()
    }

    async fn has(&self, calls: usize) -> Vec<Value> {
        until("calls", || async { self.calls() }, |told| told.len() >= calls).await
    }
}

async fn call(shop: &Shop, method: &str, metadata: &[&str], payload: &[&str]) -> Value {
    let (address, authority) = (shop.outbound().to_string(), host("orders"));
    let mut arguments = vec!["call", &address, "--authority", &authority, "--method", method];
    metadata.iter().for_each(|pair| arguments.extend(["--metadata", pair]));
    payload.iter().for_each(|word| arguments.extend(["--payload", word]));
    python::run("grpc_unary.py", &arguments, &Value::Null).await
}

async fn with_service(spec: Value) -> (Shop, Service) {
    let shop = Setup::of(spec).away().start().await;
    let service = Service::start(shop.mesh.at("orders", APPLICATION)).await;
    (shop, service)
}

#[tokio::test]
async fn a_unary_call_that_prefers_it_is_acknowledged_with_an_empty_message_and_delivered() {
    let (shop, service) = with_service(ack()).await;
    let metadata = ["prefer=respond-async", "x-kept=1"];
    let told = call(&shop, "Unary", &metadata, &["first"]).await;
    assert_eq!((&told["code"], &told["replies"]), (&json!("OK"), &json!([""])), "{told}");
    let id = told["trailing"]["tidegate-request-id"].as_str().unwrap_or_else(|| panic!("{told}"));
    crate::accept::is_uuid_v7(id);
    let calls = service.has(1).await;
    assert_eq!((&calls[0]["method"], &calls[0]["payload"]), (&json!("Unary"), &json!("first")));
    let seen = &calls[0]["metadata"];
    assert_eq!(seen["tidegate-request-id"], id, "{seen}");
    assert_eq!(seen["tidegate-attempt"], "1", "{seen}");
    assert_eq!(seen["x-kept"], "1", "{seen}");
    assert_eq!(seen["idempotency-key"], id, "{seen}");
    assert!(seen.get("prefer").is_none(), "{seen}");
    let peer = seen["l5d-client-id"].as_str().unwrap_or_default();
    assert!(peer.starts_with("web.shop."), "{seen}");
    shop.reaches(id, "Succeeded").await;
    let synchronous = call(&shop, "Unary", &[], &["second"]).await;
    assert_eq!(synchronous["replies"], json!(["reply to second"]), "{synchronous}");
    assert_eq!(service.has(2).await.len(), 2);
}

#[tokio::test]
async fn a_call_is_stored_while_its_service_is_away() {
    let shop = Setup::of(ack()).away().start().await;
    let told = call(&shop, "Unary", &["prefer=respond-async"], &["early"]).await;
    assert_eq!(told["code"], "OK", "{told}");
    let service = Service::start(shop.mesh.at("orders", APPLICATION)).await;
    assert_eq!(service.has(1).await[0]["payload"], "early");
}

#[tokio::test]
async fn without_an_ack_in_the_policy_it_is_unimplemented() {
    let (shop, service) = with_service(json!({})).await;
    let told = call(&shop, "Unary", &["prefer=respond-async"], &["never"]).await;
    assert_eq!(told["code"], "UNIMPLEMENTED", "{told}");
    assert!(told["trailing"].get("tidegate-request-id").is_none(), "{told}");
    let synchronous = call(&shop, "Unary", &[], &["now"]).await;
    assert_eq!(synchronous["replies"], json!(["reply to now"]), "{synchronous}");
    assert_eq!(service.calls().len(), 1, "nothing was stored");
}

#[tokio::test]
async fn streams_are_never_asynchronous() {
    let (shop, _service) = with_service(ack()).await;
    for method in ["Up", "Both"] {
        let told = call(&shop, method, &["prefer=respond-async"], &["one", "two"]).await;
        assert!(told["trailing"].get("tidegate-request-id").is_none(), "{method}: {told}");
        assert!(told["code"] != "OK" || told["replies"] != json!([""]), "{method}: {told}");
    }
    assert_eq!(shop.metric("tidegate_queue_enqueue_total", &[("result", "accepted")]).await, 0.0);
    assert_eq!(shop.metric("tidegate_queue_messages", &[]).await, 0.0);
}

#[tokio::test]
async fn a_stream_that_stays_open_is_not_held_up_by_a_policy() {
    // Mode Always and no preference: a stream is proxied, or it would never see its first reply.
    let (shop, service) = with_service(json!({"mode": "Always", "grpc": {"ack": "EmptyMessage"}})).await;
    for method in ["Up", "Both"] {
        let told = call(&shop, method, &[], &["one", "two"]).await;
        assert!(told["trailing"].get("tidegate-request-id").is_none(), "{method}: {told}");
        assert_eq!(told["code"], "OK", "{method}: {told}");
    }
    assert_eq!(service.has(2).await.len(), 2);
}

/// What a unary call over HTTP/2 is answered.
struct Reply {
    head: http::response::Parts,
    body: Bytes,
    trailers: HeaderMap,
}

impl Reply {
    fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).or_else(|| self.head.headers.get(name))?.to_str().ok()
    }
}

async fn frame_call(shop: &Shop, path: &str, headers: &[(&str, &str)]) -> Reply {
    let stream = TcpStream::connect(shop.mesh.at("web", OUTBOUND)).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(connection.await) });
    let mut request = Request::post(format!("http://{}{path}", host("orders")))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]))).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    let body = within(body.collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Reply { head, body: body.to_bytes(), trailers }
}

#[tokio::test]
async fn the_acknowledgement_is_what_grpc_says_a_response_is() {
    let shop = Setup::of(ack()).script(|_| Act::Grpc(0, None)).start().await;
    let reply = frame_call(&shop, "/shop.Orders/Unary", &[("prefer", "respond-async")]).await;
    assert_eq!(reply.head.status, 200);
    assert_eq!(reply.head.headers["content-type"], "application/grpc");
    assert_eq!(reply.body.as_ref(), [0; 5], "an empty message, uncompressed");
    assert_eq!(reply.trailer("grpc-status"), Some("0"));
    let id = reply.trailers["tidegate-request-id"].to_str().unwrap();
    shop.reaches(id, "Succeeded").await;
    assert_eq!(shop.orders().seen()[0].body.as_ref(), [0, 0, 0, 0, 2, 8, 1]);
}

#[tokio::test]
async fn a_status_of_grpc_decides_as_the_table_says() {
    let mut spec = ack();
    spec["delivery"] = json!({"retry": 4});
    spec["rateLimits"] = json!({"maxConcurrentDispatches": 100});
    let shop = Setup::of(spec)
        .script(|seen| {
            let code = seen.path.rsplit('/').next().unwrap().parse().unwrap();
            if seen.nth == 1 { Act::Grpc(code, None) } else { Act::Grpc(0, None) }
        })
        .start()
        .await;
    let retried = [("DEADLINE_EXCEEDED", 4), ("RESOURCE_EXHAUSTED", 8), ("ABORTED", 10), ("UNAVAILABLE", 14)];
    let others = [
        ("CANCELLED", 1),
        ("UNKNOWN", 2),
        ("INVALID_ARGUMENT", 3),
        ("NOT_FOUND", 5),
        ("ALREADY_EXISTS", 6),
        ("PERMISSION_DENIED", 7),
        ("FAILED_PRECONDITION", 9),
        ("OUT_OF_RANGE", 11),
        ("UNIMPLEMENTED", 12),
        ("INTERNAL", 13),
        ("DATA_LOSS", 15),
        ("UNAUTHENTICATED", 16),
    ];
    let rows = retried.map(|(name, code)| (name, code, "Succeeded", 2)).into_iter();
    let rows = rows.chain(others.map(|(name, code)| (name, code, "DeadLettered", 1)));
    for (name, code, state, attempts) in rows {
        let path = format!("/shop.Orders/{code}");
        let reply = frame_call(&shop, &path, &[("prefer", "respond-async")]).await;
        let id = reply.trailer("tidegate-request-id").unwrap_or_else(|| panic!("{name}: {:?}", reply.head));
        let ended = |status: &Value| status["state"] == "Succeeded" || status["state"] == "DeadLettered";
        let status = until(name, || shop.status(id), ended).await;
        assert_eq!(status["state"], state, "{name}: {status}");
        assert_eq!(shop.orders().seen_at(&path).len(), attempts, "{name}: {status}");
        if state == "DeadLettered" {
            assert_eq!(status["reason"], "NonRetryable", "{name}: {status}");
        }
    }
}

#[tokio::test]
async fn a_success_of_http_without_a_status_of_grpc_is_unknown_not_done() {
    let shop = Setup::of(ack())
        .script(|seen| {
            let status = seen.path.rsplit('/').next().unwrap().parse().unwrap();
            Act::Answer(status, Vec::new(), if status == 204 { "" } else { "said" })
        })
        .start()
        .await;
    for status in ["200", "201", "204"] {
        let path = format!("/shop.Orders/{status}");
        let reply = frame_call(&shop, &path, &[("prefer", "respond-async")]).await;
        let ended = shop.reaches(reply.trailer("tidegate-request-id").expect("an id"), "DeadLettered").await;
        assert_eq!(ended["reason"], "NonRetryable", "{status}: {ended}");
        assert_eq!(shop.orders().seen_at(&path).len(), 1, "{status}");
    }
}

#[tokio::test]
async fn pushback_counts_as_retry_after() {
    for code in [14, 8] {
        let shop = Setup::of(ack())
            .script(move |seen| if seen.nth == 1 { Act::Grpc(code, Some(900)) } else { Act::Grpc(0, None) })
            .start()
            .await;
        let reply = frame_call(&shop, "/shop.Orders/Unary", &[("prefer", "respond-async")]).await;
        shop.reaches(reply.trailer("tidegate-request-id").expect("an id"), "Succeeded").await;
        let seen = shop.orders().seen();
        let waited = seen[1].at - seen[0].at;
        assert!(
            waited >= Duration::from_millis(850) && waited < Duration::from_secs(3),
            "{code}: {waited:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_a_status_of_grpc() {
    let mut spec = ack();
    spec["idempotency"] = json!({"required": true});
    let shop = Setup::of(spec).script(|_| Act::Grpc(0, None)).start().await;
    let reply = frame_call(&shop, "/shop.Orders/Unary", &[("prefer", "respond-async")]).await;
    assert_eq!(
        (reply.head.status.as_u16(), reply.trailer("grpc-status")),
        (200, Some("3")),
        "{:?}",
        reply.head
    );
    assert!(reply.trailer("grpc-message").is_some_and(|text| text.contains("Idempotency-Key")));
    assert_eq!(reply.trailer("tidegate-request-id"), None);
}
