//! accept: the 202, and every row of the table of what an enqueue is answered with.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{answer, within};
use crate::mesh::{host, until};
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem, json_of, policy, retry_after, send};

/// RFC 9562: version 7, the RFC's variant.
#[track_caller]
pub(crate) fn is_uuid_v7(id: &str) {
    let parts: Vec<_> = id.split('-').map(str::len).collect();
    let hex = id.chars().all(|c| c == '-' || c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
    let variant = id.chars().nth(19).unwrap_or_default();
    assert!(
        parts == [8, 4, 4, 4, 12] && hex && id.chars().nth(14) == Some('7') && "89ab".contains(variant),
        "{id} is no UUIDv7"
    );
}

#[track_caller]
pub(crate) fn is_rfc3339(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let shaped = text.len() >= 20
        && text.ends_with('Z')
        && text.char_indices().all(|(at, c)| match at {
            4 | 7 => c == '-',
            10 => c == 'T',
            13 | 16 => c == ':',
            _ => c.is_ascii_digit() || c == '.' || c == 'Z',
        });
    assert!(shaped, "{value} is no time of RFC 3339 in UTC");
}

#[tokio::test]
async fn the_202_says_where_what_and_how_durable() {
    for (class, prefer) in [("local", true), ("local", false), ("memory", true), ("memory", false)] {
        let row = format!("durability {class}, Prefer sent: {prefer}");
        let durability = if class == "local" { "Local" } else { "Memory" };
        let shop = Shop::with(json!({"mode": "Always", "durability": durability})).await;
        let headers: &[_] = if prefer { &[PREFER] } else { &[] };
        let answer = shop.post("/orders", headers, "body").await;
        let id = id_of(&answer);
        is_uuid_v7(&id);
        assert_eq!(answer.header("tidegate-durability").as_deref(), Some(class), "{row}");
        let applied = prefer.then_some("respond-async");
        assert_eq!(answer.header("preference-applied").as_deref(), applied, "{row}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/json"), "{row}");
        assert_eq!(answer.header("tidegate-duplicate"), None, "{row}");
        retry_after(&row, &answer);
        let document = json_of(&answer);
        is_rfc3339(&document["enqueuedAt"]);
        let wanted = json!({"id": id, "state": "Queued", "durability": class,
            "enqueuedAt": document["enqueuedAt"]});
        assert_eq!(document, wanted, "{row}");
        let status = shop.reaches(&id, "Succeeded").await;
        assert_eq!(status["id"], *id, "{row}");
    }
}

#[tokio::test]
async fn ids_are_of_version_seven_and_ascend() {
    let shop = Shop::with(json!({})).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(shop.enqueue("/", &[]).await);
    }
    ids.iter().for_each(|id| is_uuid_v7(id));
    assert!(ids.is_sorted(), "{ids:?}");
}

#[tokio::test]
async fn the_same_key_and_the_same_request_is_the_same_message() {
    let shop = Shop::with(json!({})).await;
    // It waits while the others come: once it has ended there is nothing to ask again for.
    let first = shop.enqueue("/pay?a=1", &[("idempotency-key", "k1"), ("tidegate-delay", "PT2S")]).await;
    for (row, key) in [("bare", "k1"), ("quoted", "\"k1\"")] {
        let again = shop.post("/pay?a=1", &[PREFER, ("idempotency-key", key)], "body").await;
        assert_eq!(id_of(&again), first, "{row}");
        assert_eq!(again.header("tidegate-duplicate").as_deref(), Some("?1"), "{row}");
        retry_after(row, &again);
    }
    shop.reaches(&first, "Succeeded").await;
    let ended = shop.post("/pay?a=1", &[PREFER, ("idempotency-key", "k1")], "body").await;
    assert_eq!(id_of(&ended), first, "also after its end");
    assert_eq!(ended.header("tidegate-duplicate").as_deref(), Some("?1"));
    assert_eq!(ended.header("retry-after"), None);
    let other = shop.enqueue("/pay?a=1", &[("idempotency-key", "k2")]).await;
    assert_ne!(other, first);
    shop.reaches(&other, "Succeeded").await;
    assert_eq!(shop.orders().seen().len(), 2, "one delivery for each key");
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_is_stored() {
    let shop = std::sync::Arc::new(Setup::of(json!({})).flags(&["--workers", "3"]).start().await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let shop = shop.clone();
        asking.spawn(async move { shop.post("/", &[PREFER, ("idempotency-key", "k")], "body").await });
    }
    let answers = asking.join_all().await;
    let first = id_of(&answers[0]);
    assert!(answers.iter().all(|answer| id_of(answer) == first), "one Location for all");
    let fresh = answers.iter().filter(|answer| answer.header("tidegate-duplicate").is_none()).count();
    assert_eq!(fresh, 1, "all but one are duplicates");
    shop.reaches(&first, "Succeeded").await;
    assert_eq!(shop.orders().seen().len(), 1);
}

#[tokio::test]
async fn many_at_once_are_all_stored_and_each_delivered_once() {
    let shop = std::sync::Arc::new(Setup::of(json!({})).flags(&["--workers", "3"]).start().await);
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..100 {
        let shop = shop.clone();
        asking.spawn(async move { shop.enqueue(&format!("/{number}"), &[]).await });
    }
    let mut ids = asking.join_all().await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100, "an id for each");
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    let mut paths = shop.orders().paths();
    paths.sort();
    paths.dedup();
    assert_eq!((paths.len(), shop.orders().seen().len()), (100, 100));
}

#[tokio::test]
async fn a_body_in_chunks_and_one_that_is_expected_are_taken_in_whole() {
    let shop = Shop::with(json!({})).await;
    for (path, rest) in [
        ("/chunks", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n6\r\n whole\r\n0\r\n\r\n"),
        ("/expected", "Expect: 100-continue\r\nContent-Length: 10\r\n\r\nhalf whole"),
    ] {
        let mut stream = TcpStream::connect(shop.outbound()).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {}\r\nPrefer: respond-async\r\n{rest}", host("orders"));
        stream.write_all(head.as_bytes()).await.unwrap();
        // An answer that promises no body has none.
        let mut head = String::new();
        while !head.contains("HTTP/1.1 202") || !head.ends_with("\r\n\r\n") {
            head.push(char::from(within(stream.read_u8()).await.expect("an answer")));
        }
        let location = head.lines().find_map(|line| line.strip_prefix("location: /.tidegate/requests/"));
        shop.reaches(location.unwrap_or_else(|| panic!("{head}")), "Succeeded").await;
        let seen = &shop.orders().seen_at(path)[0];
        assert_eq!(seen.body, "half whole", "{path}");
        assert_eq!(seen.header("content-length"), Some("10"), "{path}");
        assert_eq!((seen.header("expect"), seen.header("transfer-encoding")), (None, None), "{path}");
    }
}

#[tokio::test]
async fn the_same_key_for_another_request_is_422() {
    let shop = Shop::with(json!({})).await;
    let key = ("idempotency-key", "k");
    shop.enqueue("/pay?a=1", &[key]).await;
    for (row, line, body) in [
        ("another method", "PUT /pay?a=1", "body"),
        ("another path", "POST /paid?a=1", "body"),
        ("another query", "POST /pay?a=2", "body"),
        ("another body", "POST /pay?a=1", "other"),
    ] {
        let answer = shop.send(line, &[PREFER, key], body).await;
        is_problem(row, &answer, 422, &[]);
        assert_eq!(answer.header("location"), None, "{row}");
    }
    assert_eq!(shop.orders().has(1).await.len(), 1);
}

#[tokio::test]
async fn a_key_is_of_its_queue_and_its_window() {
    let second = policy("mails-async", json!({"targetRefs": [{"kind": "Service", "name": "mails"}]}));
    let shop = Setup::of(json!({"idempotency": {"window": "PT1S"}})).pod("mails").with(second).start().await;
    let key = ("idempotency-key", "k");
    let began = Instant::now();
    let first = shop.enqueue("/", &[key]).await;
    let elsewhere = send(shop.outbound(), "POST /", &host("mails"), &[PREFER, key], "body").await;
    assert_ne!(id_of(&elsewhere), first, "another queue");
    assert_eq!(elsewhere.header("tidegate-duplicate"), None);
    let ask = || async { id_of(&shop.post("/", &[PREFER, key], "body").await) };
    until("the end of the window", ask, |id| *id != first).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_required_key_that_is_missing_is_400() {
    let shop = Shop::with(json!({"idempotency": {"required": true}})).await;
    is_problem("no key", &shop.post("/", &[PREFER], "").await, 400, &["idempotency-key"]);
    shop.enqueue("/with", &[("idempotency-key", "k")]).await;
    let synchronous = shop.post("/synchronous", &[], "").await;
    assert_eq!(synchronous.status, 200, "nobody asks a synchronous request for it: {synchronous:?}");
}

#[tokio::test]
async fn connect_and_upgrades_are_proxied() {
    let shop = Setup::of(json!({"mode": "Always"})).script(|_| Act::ok()).start().await;
    let upgrade = [PREFER, ("connection", "upgrade"), ("upgrade", "websocket")];
    let answer = shop.post("/upgrade", &upgrade, "").await;
    assert_eq!(answer.status, 200, "Upgrade: {answer:?} {}", answer.text());
    let to = host("orders");
    let mut stream = TcpStream::connect(shop.outbound()).await.unwrap();
    let head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nPrefer: respond-async\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "CONNECT: {}", String::from_utf8_lossy(&head));
    stream.write_all(b"POST /tunnelled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(within(answer_of(&mut stream)).await, Some(200), "inside the tunnel");
    assert!(shop.orders().seen().iter().all(|seen| seen.id().is_none()), "{:?}", shop.orders().seen());
}

async fn answer_of(stream: &mut TcpStream) -> Option<u16> {
    answer(stream).await.map(|answer| answer.status)
}

#[tokio::test]
async fn a_body_over_the_policys_bound_is_413() {
    let shop = Shop::with(json!({"maxBodyBytes": 1024})).await;
    shop.enqueue("/small", &[]).await;
    let exact = shop.post("/exact", &[PREFER], &"x".repeat(1024)).await;
    id_of(&exact);
    is_problem("by its length", &shop.post("/", &[PREFER], &"x".repeat(1025)).await, 413, &["1024"]);
    let mut stream = TcpStream::connect(shop.outbound()).await.unwrap();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let head = format!("POST / HTTP/1.1\r\nHost: {}\r\nPrefer: respond-async\r\n", host("orders"));
    let whole = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    stream.write_all(whole.as_bytes()).await.unwrap();
    let chunked = within(answer(&mut stream)).await.expect("an answer");
    is_problem("in chunks", &chunked, 413, &["1024"]);
    let large = "x".repeat(4096);
    let synchronous = shop.post("/synchronous", &[], &large).await;
    assert_eq!(synchronous.status, 200, "the bound is for messages: {synchronous:?}");
    until("three", || async { shop.orders().seen().len() }, |count| *count == 3).await;
}

#[tokio::test]
async fn a_body_over_the_stores_bound_is_413_though_its_policy_allows_it() {
    let setup = Setup::of(json!({"maxBodyBytes": 4_194_304}));
    let shop = setup.flags(&["--queue-bytes-max", "16Mi"]).start().await;
    let large = shop.post("/", &[PREFER], &"x".repeat(2_000_000)).await;
    is_problem("over the store's bound", &large, 413, &["fit the store", "1048576"]);
    let refused = shop.metric("tidegate_queue_enqueue_total", &[("result", "too_large")]).await;
    assert_eq!(refused, 1.0);
    let id = shop.enqueue("/small", &[]).await;
    shop.reaches(&id, "Succeeded").await;
}

#[tokio::test]
async fn of_a_body_that_ends_early_nothing_is_stored() {
    let shop = Shop::with(json!({"mode": "Always"})).await;
    for (row, coding) in [
        ("shorter than its length", "Content-Length: 100\r\n\r\nhalf"),
        ("without the last chunk", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("in the middle of a chunk", "Transfer-Encoding: chunked\r\n\r\n64\r\nhalf"),
    ] {
        let mut stream = TcpStream::connect(shop.outbound()).await.unwrap();
        let head = format!("POST /half HTTP/1.1\r\nHost: {}\r\n{coding}", host("orders"));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        if let Some(answer) = within(answer(&mut stream)).await {
            assert!((400..500).contains(&answer.status), "{row}: {answer:?}");
            assert_eq!(answer.header("location"), None, "{row}");
        }
    }
    let id = id_of(&shop.post("/whole", &[], "").await);
    shop.reaches(&id, "Succeeded").await;
    assert_eq!(shop.orders().paths(), ["/whole"]);
    assert_eq!(shop.metric("tidegate_queue_messages", &[]).await, 0.0, "nothing is left behind");
}

#[tokio::test]
async fn headers_that_cannot_be_understood_are_400_and_named() {
    let shop = Shop::with(json!({})).await;
    for (name, value) in [
        ("tidegate-delay", "soon"),
        ("tidegate-delay", "-PT1S"),
        ("tidegate-not-before", "tomorrow"),
        ("tidegate-expires", "yesterday"),
        ("tidegate-expires", "2001-01-01T00:00:00Z"),
        ("idempotency-key", "\"open"),
    ] {
        let answer = shop.post("/", &[PREFER, (name, value)], "").await;
        is_problem(&format!("{name}: {value}"), &answer, 400, &[name]);
    }
    assert!(shop.orders().seen().is_empty());
}

#[tokio::test]
async fn while_it_drains_an_enqueue_is_503_and_never_202() {
    let shop =
        Setup::of(json!({"mode": "Always", "methods": ["POST"]})).script(|_| Act::held()).start().await;
    let held = id_of(&shop.post("/held", &[], "").await);
    shop.orders().has(1).await;
    shop.mesh.sidecars["web"].signal("-TERM");
    let ready = || async { shop.mesh.admin("web", "/ready").await.status };
    until("draining", ready, |status| *status == 503).await;
    let late = shop.post("/late", &[], "").await;
    is_problem("draining", &late, 503, &[]);
    retry_after("draining", &late);
    assert_eq!(late.header("location"), None);
    assert_eq!(shop.status(&held).await["state"], "Delivering", "its resources still answer");
    shop.orders().let_go();
}
