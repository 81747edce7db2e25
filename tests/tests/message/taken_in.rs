//! taken_in: what may be stored at all, and what that costs a request that need not be.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{answer, within};
use crate::mesh::{host, until};
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem, json_of, send};

const MESSAGE: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

fn spill() -> Value {
    json!({"mode": "Spill", "grpc": {"ack": "EmptyMessage"}})
}

/// A body that is sent part by part, until the sender is dropped.
struct Parts(mpsc::Receiver<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

/// A connection of HTTP/2 to web's sidecar; ends when dropped.
struct Http2 {
    sender: http2::SendRequest<Parts>,
    _driving: JoinSet<()>,
}

impl Http2 {
    async fn to(shop: &Shop) -> Self {
        let stream = TcpStream::connect(shop.outbound()).await.unwrap();
        let builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(async move { drop(connection.await) });
        Self { sender, _driving: driving }
    }

    /// A request whose body the test sends.
    fn begin(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (mpsc::Sender<Bytes>, impl Future<Output = hyper::Result<Response<Incoming>>> + use<>) {
        let (parts, body) = mpsc::channel(16);
        let mut request = Request::post(format!("http://{}{path}", host("orders")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        (parts, self.sender.send_request(request.body(Parts(body)).unwrap()))
    }

    async fn post(&mut self, path: &str, headers: &[(&str, &str)], parts: &[Bytes]) -> Reply {
        let (body, response) = self.begin(path, headers);
        let sent = async {
            for part in parts {
                // Whoever answers early reads no further.
                let _ = body.send(part.clone()).await;
            }
            drop(body);
        };
        let (response, ()) = within(async { tokio::join!(response, sent) }).await;
        Reply::of(response.unwrap()).await
    }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl Reply {
    async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = within(body.collect()).await.expect("a body that is well-formed");
        let trailers = body.trailers().cloned().unwrap_or_default();
        Self { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).or_else(|| self.headers.get(name))?.to_str().ok()
    }
}

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

#[tokio::test]
async fn a_grpc_stream_is_tried_as_it_comes_and_never_stored() {
    let shop = Setup::of(spill()).script(|_| Act::Grpc(0, None)).start().await;
    let mut client = Http2::to(&shop).await;
    let (parts, response) = client.begin("/shop.Orders/Both", &GRPC);
    let mut answering = JoinSet::new();
    answering.spawn(response);
    parts.send(Bytes::from_static(MESSAGE)).await.unwrap();
    until("the open stream at its service", || async { shop.orders().under_way_max() }, |n| *n == 1).await;
    drop(parts);
    let response = within(answering.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(Reply::of(response).await.header("grpc-status"), Some("0"), "a stream that stays open");
    let mut message = vec![0; 5 + (1 << 20)];
    message[2] = 0x10;
    let long = vec![Bytes::from(message); 5];
    let reply = client.post("/shop.Orders/Up", &GRPC, &long).await;
    assert_eq!(reply.header("grpc-status"), Some("0"), "longer than what may be stored: {:?}", reply.headers);
    assert_eq!(shop.orders().seen_at("/shop.Orders/Up")[0].body.len(), 5 * (5 + (1 << 20)));
}

#[tokio::test]
async fn a_grpc_stream_whose_service_is_away_is_not_acknowledged() {
    let shop = Setup::of(spill()).away().start().await;
    let mut client = Http2::to(&shop).await;
    let two = vec![Bytes::from_static(MESSAGE); 2];
    let reply = client.post("/shop.Orders/Up", &GRPC, &two).await;
    assert_eq!(reply.header("grpc-status"), Some("14"), "{:?}", reply.headers);
    assert_eq!(reply.header("tidegate-request-id"), None);
    assert_eq!(shop.metric("tidegate_queue_messages", &[]).await, 0.0);
    let unary = client.post("/shop.Orders/Unary", &GRPC, &two[..1]).await;
    assert_eq!(unary.header("grpc-status"), Some("0"), "a unary call is: {:?}", unary.headers);
    assert!(unary.header("tidegate-request-id").is_some());
}

#[tokio::test]
async fn a_key_that_was_answered_202_is_not_executed_again() {
    let shop = Setup::of(spill())
        .script(|seen| if seen.id().is_none() && seen.nth == 1 { Act::status(503) } else { Act::held() })
        .start()
        .await;
    let key = [("idempotency-key", "pay-1")];
    let first = id_of(&shop.post("/pay", &key, "body").await);
    for key in ["pay-1", "\"pay-1\""] {
        let again = shop.post("/pay", &[("idempotency-key", key)], "body").await;
        assert_eq!(id_of(&again), first, "{key}");
        assert_eq!(again.header("tidegate-duplicate").as_deref(), Some("?1"), "{key}");
    }
    is_problem("another body", &shop.post("/pay", &key, "other").await, 422, &["idempotency"]);
    shop.orders().let_go();
    shop.reaches(&first, "Succeeded").await;
    let ended = shop.post("/pay", &key, "body").await;
    assert_eq!(id_of(&ended), first, "also after its end");
    let seen = shop.orders().seen();
    assert_eq!(seen.iter().filter(|seen| seen.id().is_none()).count(), 1, "tried once: {seen:?}");
}

#[tokio::test]
async fn what_is_too_large_to_be_stored_is_proxied_under_spill() {
    let shop = Setup::of(spill()).script(|_| Act::ok()).start().await;
    let large = "x".repeat(5 << 20);
    let known = shop.post("/known", &[], &large).await;
    assert_eq!(known.status, 200, "{known:?}");
    let mut stream = TcpStream::connect(shop.outbound()).await.unwrap();
    let head =
        format!("POST /chunked HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", host("orders"));
    let _ = stream.write_all(format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len()).as_bytes()).await;
    let chunked = within(answer(&mut stream)).await.expect("an answer");
    assert_eq!(chunked.status, 200, "{chunked:?}");
    for path in ["/known", "/chunked"] {
        assert_eq!(shop.orders().seen_at(path)[0].body.len(), large.len(), "{path}");
    }
}

#[tokio::test]
async fn an_upload_that_stalls_holds_up_no_request_that_need_not_be_stored() {
    let mut spec = spill();
    spec["maxBodyBytes"] = json!("16Mi");
    let shop = Setup::of(spec).script(|_| Act::ok()).start().await;
    let mut stalled = TcpStream::connect(shop.outbound()).await.unwrap();
    let head =
        format!("POST /stalled HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", host("orders"));
    stalled.write_all(format!("{head}4\r\nhalf\r\n").as_bytes()).await.unwrap();
    // It goes its own way once it was waited for; others do not wait for that.
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(shop.post("/", &[], "body").await.status, 200);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    let beside = || async {
        shop.post("/", &[], "body").await;
        shop.orders().under_way_max()
    };
    until("the stalled one at its receiver, and another", beside, |n| *n == 2).await;
    stalled.write_all(b"6\r\n whole\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(within(answer(&mut stalled)).await.unwrap().status, 200);
    assert_eq!(shop.orders().seen_at("/stalled")[0].body, "half whole");
}

#[tokio::test]
async fn a_head_that_could_never_be_sent_is_not_taken_in() {
    let shop = Shop::with(json!({"mode": "Preferred"})).await;
    let two = [PREFER, ("host", "other")];
    assert_eq!(shop.post("/", &two, "").await.status, 400, "two hosts");
    let names: Vec<_> = (0..97).map(|number| format!("x-{number}")).collect();
    let mut headers: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let mut client = Http2::to(&shop).await;
    assert_eq!(client.post("/", &headers, &[]).await.status, 200, "as it is, it can be");
    headers.push(PREFER);
    let reply = client.post("/", &headers, &[]).await;
    assert_eq!(reply.status, 431, "with what a delivery adds it cannot: {:?}", reply.headers);
    assert_eq!(shop.metric("tidegate_queue_enqueue_total", &[("result", "accepted")]).await, 0.0);
    let spills = Setup::of(spill()).script(|_| Act::ok()).start().await;
    let reply = Http2::to(&spills).await.post("/", &headers[..97], &[]).await;
    assert_eq!(reply.status, 200, "nor does that hold up what need not be stored");
}

/// Every head of a row of them, from smaller to larger, is taken in and delivered or refused with 431; returns
/// how many were taken in.
async fn delivered_or_refused(shop: &Shop, heads: &[Vec<(String, String)>]) -> usize {
    let mut taken = 0;
    for head in heads {
        let mut headers: Vec<_> = head.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.push(PREFER);
        let answer = shop.post("/", &headers, "body").await;
        if answer.status == 202 {
            shop.reaches(&id_of(&answer), "Succeeded").await;
            taken += 1;
            continue;
        }
        // A head that is too large for the connection itself is refused there, without a document.
        assert_eq!(answer.status, 431, "{answer:?} {}", answer.text());
        if answer.header("content-type").is_some() {
            is_problem("a head near the bound", &answer, 431, &["head-too-large", "delivery"]);
        }
    }
    taken
}

#[tokio::test]
async fn an_http1_head_that_is_taken_in_passes_every_sidecar_on_its_way() {
    let shop = Shop::with(json!({})).await;
    let fields = |count: usize| (0..count).map(|number| (format!("x-{number}"), "1".to_owned())).collect();
    let counts: Vec<Vec<_>> = (86..=96).map(fields).collect();
    let taken = delivered_or_refused(&shop, &counts).await;
    assert!((1..counts.len()).contains(&taken), "the bound is crossed: {taken}");
    let long = |bytes: usize| vec![("x-long".to_owned(), "x".repeat(bytes))];
    let lengths: Vec<Vec<_>> = (64_000..65_600).step_by(40).map(long).collect();
    let taken = delivered_or_refused(&shop, &lengths).await;
    assert!((1..lengths.len()).contains(&taken), "the bound is crossed: {taken}");
    let refused = [("problem", "head-too-large")];
    assert!(shop.metric("tidegate_sidecar_async_refused_total", &refused).await >= 2.0);
    assert_eq!(shop.metric("tidegate_queue_dead_letter_messages", &[]).await, 0.0);
}

#[tokio::test]
async fn a_refusal_that_is_too_long_to_be_looked_through_is_passed_on_whole_in_http2() {
    let long: &'static str = "x".repeat(100_000).leak();
    let shop = Setup::of(spill()).script(move |_| Act::Answer(503, Vec::new(), long)).start().await;
    let reply = Http2::to(&shop).await.post("/", &[], &[Bytes::from_static(b"body")]).await;
    assert_eq!(reply.status, 503, "{:?}", reply.headers);
    assert_eq!((reply.header("content-length"), reply.body.len()), (Some("100000"), long.len()));
}

#[tokio::test]
async fn a_message_that_is_due_is_queued_not_scheduled() {
    let shop = Shop::with(json!({})).await;
    for (name, value, state) in [
        ("tidegate-delay", "PT0S", "Queued"),
        ("tidegate-not-before", "2001-01-01T00:00:00Z", "Queued"),
        ("tidegate-delay", "PT30S", "Scheduled"),
    ] {
        let accepted = shop.post("/", &[PREFER, (name, value)], "").await;
        assert_eq!(json_of(&accepted)["state"], state, "{name}: {value}");
    }
}

#[tokio::test]
async fn an_absolute_uri_stands_above_host_in_a_message_too() {
    let shop = Shop::with(json!({})).await;
    let named = host("orders");
    for (path, headers) in [("/now", &[][..]), ("/later", &[PREFER])] {
        let answer = send(shop.outbound(), &format!("POST http://{named}{path}"), "other", headers, "").await;
        if answer.status == 202 {
            shop.reaches(&id_of(&answer), "Succeeded").await;
        }
        assert_eq!(shop.orders().seen_at(path)[0].header("host"), Some(named.as_str()), "{path}");
    }
}
