//! resources: what a caller reads of its message, and does to it, under `/.tidegate/requests/`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accept::is_rfc3339;
use crate::client::ask;
use crate::mesh::{OUTBOUND, host, until};
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem, json_of, retry_after, send};

fn is_ended(status: &Value) -> bool {
    ["Succeeded", "DeadLettered", "Cancelled"].iter().any(|end| status["state"] == *end)
}

#[tokio::test]
async fn a_delivered_message_goes_through_its_states() {
    let shop = Setup::of(json!({}))
        .script(|seen| if seen.nth == 1 { Act::status(500) } else { Act::held() })
        .start()
        .await;
    let slow = [PREFER, ("tidegate-delay", "PT1S")];
    let id = id_of(&shop.post("/", &slow, "").await);
    let scheduled = shop.status(&id).await;
    assert_eq!(scheduled["state"], "Scheduled", "{scheduled}");
    is_rfc3339(&scheduled["nextAttemptAt"]);
    assert_eq!(scheduled["attempts"], json!([]));
    assert_eq!(scheduled["resultUrl"], format!("/.tidegate/requests/{id}/result"));
    shop.orders().has(2).await;
    let delivering = shop.status(&id).await;
    assert_eq!(delivering["state"], "Delivering", "{delivering}");
    shop.orders().let_go();
    let done = shop.reaches(&id, "Succeeded").await;
    let attempts = done["attempts"].as_array().expect("a list").clone();
    assert_eq!(attempts.len(), 2, "{done}");
    for (attempt, status) in attempts.iter().zip([500, 200]) {
        is_rfc3339(&attempt["at"]);
        assert_eq!(attempt["status"], status, "{done}");
        assert!(attempt["durationMs"].is_u64(), "{done}");
    }
    assert!(attempts[0]["at"].as_str() < attempts[1]["at"].as_str(), "{done}");
}

#[tokio::test]
async fn every_state_can_be_seen() {
    let shop = Setup::of(json!({"delivery": {"backoffDelay": "PT20S", "backoffMax": "PT60S"},
        "rateLimits": {"maxConcurrentDispatches": 3}}))
    .script(|seen| match seen.path.as_str() {
        "/500" => Act::status(500),
        "/503" => Act::status(503),
        "/400" => Act::status(400),
        "/break" => Act::Break,
        "/held" => Act::held(),
        _ => Act::ok(),
    })
    .start()
    .await;
    let succeeded = shop.enqueue("/200", &[]).await;
    shop.reaches(&succeeded, "Succeeded").await;
    let dead = shop.enqueue("/400", &[]).await;
    let status = shop.reaches(&dead, "DeadLettered").await;
    assert_eq!(status["reason"], "NonRetryable", "{status}");
    for (path, attempted) in [("/500", json!(500)), ("/503", json!(503)), ("/break", Value::Null)] {
        let id = shop.enqueue(path, &[]).await;
        let status = shop.reaches(&id, "Retrying").await;
        is_rfc3339(&status["nextAttemptAt"]);
        let attempt = &status["attempts"][0];
        // Behind the receiver's sidecar a lost connection is a 502 of that sidecar's.
        assert!(attempt["status"] == attempted || path == "/break", "{path}: {status}");
        assert!(path != "/break" || attempt["error"].is_string() || attempt["status"] == 502, "{status}");
        assert!(!attempt["at"].is_null() && attempt["durationMs"].is_u64(), "{path}: {status}");
    }
    let scheduled = shop.enqueue("/later", &[("tidegate-delay", "PT1H")]).await;
    shop.reaches(&scheduled, "Scheduled").await;
    let mut held = Vec::new();
    for number in 0..3 {
        held.push(shop.enqueue("/held", &[]).await);
        shop.reaches(&held[number], "Delivering").await;
    }
    let queued = shop.enqueue("/queued", &[]).await;
    let status = shop.status(&queued).await;
    assert_eq!(status["state"], "Queued", "{status}");
    assert_eq!(shop.resource("DELETE", &queued, &[]).await.status, 204);
    let status = shop.status(&queued).await;
    assert_eq!(status["state"], "Cancelled", "{status}");
    assert!(is_ended(&status));
    shop.orders().let_go();
}

#[tokio::test]
async fn the_result_replays_status_headers_and_body_whatever_the_status() {
    let shop = Setup::of(json!({"delivery": {"retry": 0}}))
        .script(|seen| {
            let status = seen.path[1..].parse().unwrap_or(200);
            let headers = vec![
                ("content-type", "text/x-thing".into()),
                ("x-order", "7".into()),
                ("x-order", "8".into()),
            ];
            Act::Answer(status, headers, if status == 204 { "" } else { "the body" })
        })
        .start()
        .await;
    for (status, state) in [
        (200, "Succeeded"),
        (201, "Succeeded"),
        (204, "Succeeded"),
        (301, "DeadLettered"),
        (400, "DeadLettered"),
        (410, "DeadLettered"),
        (422, "DeadLettered"),
        (500, "DeadLettered"),
    ] {
        let id = shop.enqueue(&format!("/{status}"), &[]).await;
        shop.reaches(&id, state).await;
        for round in 0..2 {
            let result = shop.result(&id).await;
            assert_eq!(result.status, status, "{status}, round {round}: {result:?} {}", result.text());
            assert_eq!(result.header("content-type").as_deref(), Some("text/x-thing"), "{status}");
            assert_eq!(result.header("x-order").as_deref(), Some("7, 8"), "{status}");
            assert_eq!(result.text(), if status == 204 { "" } else { "the body" }, "{status}");
        }
    }
}

#[tokio::test]
async fn a_result_is_202_while_pending_and_waited_for() {
    let spec = json!({"delivery": {"timeout": "PT60S"}});
    let shop = Setup::of(spec).script(|_| Act::held()).start().await;
    let id = shop.enqueue("/", &[]).await;
    shop.orders().has(1).await;
    let pending = shop.result(&id).await;
    assert_eq!(pending.status, 202, "{pending:?}");
    assert_eq!(json_of(&pending)["state"], "Delivering", "{}", pending.text());
    retry_after("pending", &pending);
    let rest = format!("{id}/result");
    let began = Instant::now();
    let still = shop.resource("GET", &rest, &[("prefer", "wait=1")]).await;
    assert_eq!(still.status, 202, "{still:?}");
    let took = began.elapsed().as_secs_f64();
    assert!((0.9..6.0).contains(&took), "it waited {took} s");
    let headers = [("prefer", "wait=30")];
    let (waited, ()) = tokio::join!(shop.resource("GET", &rest, &headers), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        shop.orders().let_go();
    });
    assert_eq!((waited.status, waited.text().as_str()), (200, "said"), "{waited:?}");
    let began = Instant::now();
    let known = shop.resource("GET", &rest, &[("prefer", "wait=30")]).await;
    assert_eq!(known.status, 200);
    assert!(began.elapsed().as_secs_f64() < 5.0, "what has ended is not waited for");
}

#[tokio::test]
async fn an_end_without_a_response_is_a_problem_document() {
    let shop = Setup::of(json!({"delivery": {"retry": 0, "timeout": "PT0.2S"}}))
        .plain("orders")
        .script(|seen| if seen.path == "/break" { Act::Break } else { Act::held() })
        .start()
        .await;
    let cancelled = shop.enqueue("/", &[("tidegate-delay", "PT1H")]).await;
    assert_eq!(shop.resource("DELETE", &cancelled, &[]).await.status, 204);
    let broken = shop.enqueue("/break", &[]).await;
    shop.reaches(&broken, "DeadLettered").await;
    let late = shop.enqueue("/late", &[]).await;
    shop.reaches(&late, "DeadLettered").await;
    for (row, id, word) in [
        ("cancelled", cancelled, "cancelled"),
        ("the connection lost", broken, "exhausted"),
        ("timed out", late, "exhausted"),
    ] {
        let result = shop.result(&id).await;
        let kind = result.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{row}: {result:?} {}", result.text());
        assert!(result.text().to_lowercase().contains(word), "{row}: {}", result.text());
    }
}

#[tokio::test]
async fn a_result_is_410_when_its_time_is_over() {
    let shop = Shop::with(json!({"result": {"ttl": "PT3S"}})).await;
    let began = Instant::now();
    let id = shop.enqueue("/", &[]).await;
    shop.reaches(&id, "Succeeded").await;
    assert_eq!(shop.result(&id).await.status, 200);
    let gone = until("410", || shop.result(&id), |result| result.status != 200).await;
    is_problem("after ttl", &gone, 410, &[]);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(shop.status(&id).await["state"], "Succeeded", "what became of it is known longer");
}

#[tokio::test]
async fn a_response_longer_than_allowed_is_not_kept() {
    let shop = Shop::with(json!({"result": {"maxBytes": 2}})).await;
    let id = shop.enqueue("/", &[]).await;
    shop.reaches(&id, "Succeeded").await;
    let result = shop.result(&id).await;
    is_problem("too large", &result, 410, &["result-too-large", "result.maxBytes", "Succeeded"]);
    assert!(!result.text().contains("said"), "{}", result.text());
}

#[tokio::test]
async fn who_asks_for_the_response_of_a_request_that_died_or_was_taken_back_gets_no_success() {
    let shop =
        Setup::of(json!({"delivery": {"retry": 0}})).plain("orders").script(|_| Act::Break).start().await;
    let waits = [("prefer", "respond-async, wait=20")];
    let answer = shop.post("/dies", &waits, "").await;
    let told = json_of(&answer);
    assert_eq!((answer.status, &told["state"]), (202, &json!("DeadLettered")), "{answer:?} {told}");
    assert_eq!((&told["reason"], answer.header("retry-after")), (&json!("Exhausted"), None), "{answer:?}");
    let result = shop.result(told["id"].as_str().unwrap()).await;
    is_problem("died", &result, 502, &["no-result", "DeadLettered", "Exhausted"]);
    let later = shop.enqueue("/later", &[("tidegate-delay", "PT1H")]).await;
    assert_eq!(shop.resource("DELETE", &later, &[]).await.status, 204);
    is_problem("taken back", &shop.result(&later).await, 410, &["cancelled", "Cancelled"]);
}

#[tokio::test]
async fn a_repetition_of_what_has_succeeded_is_told_so() {
    let shop = Shop::with(json!({})).await;
    let keyed = [PREFER, ("idempotency-key", "k")];
    let id = id_of(&shop.post("/", &keyed, "").await);
    shop.reaches(&id, "Succeeded").await;
    let again = shop.post("/", &keyed, "").await;
    assert_eq!((id_of(&again), &json_of(&again)["state"]), (id, &json!("Succeeded")), "{again:?}");
    assert_eq!(again.header("retry-after"), None, "{again:?}");
}

#[tokio::test]
async fn an_end_is_known_also_where_no_response_is_kept() {
    let shop = Shop::with(json!({"result": {"ttl": "PT0S"}})).await;
    let id = shop.enqueue("/", &[]).await;
    shop.orders().has(1).await;
    let result = until("an end", || shop.result(&id), |result| result.status != 202).await;
    is_problem("none kept", &result, 410, &["result-not-kept", "keeps none"]);
    assert!(!result.text().contains("said"), "the response is kept if ttl > 0: {result:?}");
    let status = shop.resource("GET", &id, &[]).await;
    assert_eq!(status.status, 200, "404 is for what is unknown: {status:?} {}", status.text());
    assert_eq!(json_of(&status)["state"], "Succeeded");
}

#[tokio::test]
async fn many_wait_for_one_result() {
    let shop = std::sync::Arc::new(Setup::of(json!({})).script(|_| Act::held()).start().await);
    let id = shop.enqueue("/", &[]).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (shop, rest) = (shop.clone(), format!("{id}/result"));
        asking.spawn(async move { shop.resource("GET", &rest, &[("prefer", "wait=30")]).await.status });
    }
    shop.orders().has(1).await;
    shop.orders().let_go();
    assert_eq!(asking.join_all().await, [200; 30]);
}

#[tokio::test]
async fn a_dead_letter_is_redriven_with_its_id_and_fresh_attempts() {
    let shop = Setup::of(json!({"delivery": {"retry": 1}}))
        .script(|seen| if seen.nth <= 2 { Act::status(500) } else { Act::ok() })
        .start()
        .await;
    let id = shop.enqueue("/", &[]).await;
    let dead = shop.reaches(&id, "DeadLettered").await;
    assert_eq!(dead["reason"], "Exhausted", "{dead}");
    let answer = shop.resource("POST", &format!("{id}:redrive"), &[]).await;
    assert!((200..300).contains(&answer.status), "{answer:?} {}", answer.text());
    let status = shop.reaches(&id, "Succeeded").await;
    assert_eq!(status["id"], *id);
    let seen = shop.orders().seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.id() == Some(&id)), "{seen:?}");
    assert_eq!(seen[2].attempt(), Some(1), "fresh attempts");
    let again = shop.resource("POST", &format!("{id}:redrive"), &[]).await;
    assert_eq!(again.status, 409, "it is no dead letter: {again:?}");
    assert_eq!(shop.orders().seen().len(), 3);
}

#[tokio::test]
async fn unknown_ids_are_404() {
    let shop = Shop::with(json!({})).await;
    let known = shop.enqueue("/", &[]).await;
    // Of another time, and of a position that was never written.
    let (late, far) = (format!("7{}", &known[1..]), format!("{}ff{}", &known[..24], &known[26..]));
    for id in [late.as_str(), &far, "7", "not-an-id", "01900000-0001-4400-8000-00050a000007"] {
        for (method, rest) in [("GET", ""), ("GET", "/result"), ("DELETE", ""), ("POST", ":redrive")] {
            let answer = shop.resource(method, &format!("{id}{rest}"), &[]).await;
            is_problem(&format!("{method} {id}{rest}"), &answer, 404, &[]);
        }
    }
    let elsewhere = shop.send("GET /.tidegate/nothing", &[], "").await;
    assert_eq!(elsewhere.status, 404, "the path is reserved: {elsewhere:?}");
    assert!(shop.orders().paths().iter().all(|path| !path.starts_with("/.tidegate")));
}

#[tokio::test]
async fn an_id_whose_holder_is_gone_is_404() {
    for by_address in [false, true] {
        let setup = Shop::setup();
        let shop = if by_address { setup.by_address() } else { setup }.start().await;
        let known = shop.enqueue("/", &[]).await;
        // The same, kept by 127.255.255.254, which is no pod.
        let elsewhere = format!("{}7ffffffe", &known[..28]);
        for (method, rest) in [("GET", ""), ("GET", "/result"), ("DELETE", ""), ("POST", ":redrive")] {
            let answer = shop.resource(method, &format!("{elsewhere}{rest}"), &[]).await;
            let row = format!("{method} {elsewhere}{rest}, loopback in the mesh's networks: {by_address}");
            is_problem(&row, &answer, 404, &[]);
        }
    }
}

#[tokio::test]
async fn the_admin_port_answers_too() {
    let shop = Setup::of(json!({"paused": true})).start().await;
    let id = shop.enqueue("/", &[]).await;
    let (path, admin) = (format!("/.tidegate/requests/{id}"), shop.admin());
    let get = ask(shop.admin(), &format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n")).await.unwrap();
    assert_eq!(get.status, 200, "{get:?} {}", get.text());
    assert_eq!(json_of(&get)["state"], "Queued");
    let delete = ask(shop.admin(), &format!("DELETE {path} HTTP/1.1\r\nHost: {admin}\r\n")).await.unwrap();
    assert_eq!(delete.status, 204, "{delete:?} {}", delete.text());
}

/// `web2`, a replica: another pod of web's service account.
pub(crate) async fn with_replica(setup: Setup) -> Shop {
    let mut shop = setup.pod("web2").by_address().start().await;
    let token = shop.mesh.dir.path().join("state/tokens/shop.web.token").display().to_string();
    let flags = ["--service-account", "web", "--token-file", &token].map(str::to_owned);
    shop.mesh.restart("web2", &flags);
    until("web2's readiness", || shop.mesh.admin_if_up("web2", "/ready"), |text| text == "ready\n").await;
    shop
}

#[tokio::test]
async fn any_replicas_sidecar_finds_a_message_by_its_id() {
    let shop = with_replica(Shop::setup()).await;
    let id = shop.enqueue("/", &[]).await;
    shop.reaches(&id, "Succeeded").await;
    let replica = shop.mesh.at("web2", OUTBOUND);
    let line = format!("GET /.tidegate/requests/{id}");
    let status = send(replica, &line, &host("orders"), &[], "").await;
    assert_eq!(status.status, 200, "{status:?} {}", status.text());
    assert_eq!(json_of(&status)["state"], "Succeeded");
    let result = send(replica, &format!("{line}/result"), &host("orders"), &[], "").await;
    assert_eq!((result.status, result.text().as_str()), (200, "said"), "{result:?}");
}

#[tokio::test]
async fn another_workload_neither_reads_nor_cancels() {
    let shop = Setup::of(json!({"paused": true})).pod("cart").by_address().start().await;
    let id = shop.enqueue("/", &[]).await;
    for pod in ["cart", "orders"] {
        let sidecar = shop.mesh.at(pod, OUTBOUND);
        for (method, rest) in [("GET", ""), ("GET", "/result"), ("DELETE", ""), ("POST", ":redrive")] {
            let line = format!("{method} /.tidegate/requests/{id}{rest}");
            let answer = send(sidecar, &line, &host("orders"), &[], "").await;
            assert!(matches!(answer.status, 403 | 404), "{pod}, {line}: {answer:?} {}", answer.text());
        }
    }
    assert_eq!(shop.status(&id).await["state"], "Queued");
}

impl Shop {
    /// With a policy that says nothing.
    pub(crate) fn setup() -> Setup {
        Setup::of(json!({}))
    }
}
