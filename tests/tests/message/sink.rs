//! sink: what dies is sent on to the policy's deadLetterSink, once, and nothing is lost on the way.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::client::ask;
use crate::mesh::{APPLICATION, host, program, until};
use crate::receiver::{Act, Receiver, Script};
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem, json_of};

const QUEUE: &str = "shop/orders-async/dead-letter-sink";

/// Orders refuses everything but `/fine`; what dies goes to `/letters` of Service dead.
fn setup(more: Value) -> Setup {
    // A kill may cost an attempt.
    let mut spec = json!({"delivery": {"retry": 3, "deadLetterSink":
        {"ref": {"kind": "Service", "name": "dead"}, "uri": "/letters?from=orders"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let script = |path: &str| match path {
        "/fine" => Act::ok(),
        "/broken" => Act::Break,
        _ => Act::Answer(400, vec![], "bad order"),
    };
    Setup::of(spec).pod("dead").script(move |seen| script(&seen.path))
}

async fn dead(shop: &Shop, script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Receiver {
    let script: Script = Arc::new(move |seen| script(seen.nth));
    Receiver::start(shop.mesh.at("dead", APPLICATION), script).await
}

/// What the admin port says of a queue of the policy, once there is one.
async fn queue(shop: &Shop, name: &str) -> Value {
    let answer = shop.mesh.admin("web", "/queues").await;
    let queues = json_of(&answer)["queues"].as_array().cloned().unwrap_or_default();
    queues.into_iter().find(|queue| queue["name"].as_str().unwrap().contains(name)).unwrap_or_default()
}

/// Waits until the sink's queue holds so much.
async fn sink_holds(shop: &Shop, messages: u64, dead: u64) {
    let so = |queue: &Value| queue["depth"] == messages && queue["deadLetters"] == dead;
    until("the sink's queue", || queue(shop, QUEUE), so).await;
}

#[tokio::test]
async fn a_refused_message_arrives_at_the_sink_once_with_its_body_and_what_happened() {
    let shop = setup(json!({"credentials": "Store"})).start().await;
    let dead = dead(&shop, |_| Act::ok()).await;
    let event = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/web"),
        ("ce-type", "order.created"),
        ("content-type", "text/plain"),
        ("authorization", "Bearer of-orders"),
        ("tidegate-dead-letter-reason", "Forged"),
    ];
    let answer = shop.send("PUT /orders/7?x=y", &[&[PREFER], &event[..]].concat(), "body").await;
    let id = id_of(&answer);
    let status = shop.reaches(&id, "DeadLettered").await;
    assert_eq!((&status["reason"], &status["attemptsUsed"]), (&json!("NonRetryable"), &json!(1)), "{status}");
    assert_eq!(status["attempts"][0]["status"], 400, "{status}");
    let result = shop.result(&id).await;
    assert_eq!((result.status, result.text().as_str()), (400, "bad order"), "{result:?}");

    let seen = dead.has(1).await.remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("PUT", "/letters?from=orders"));
    assert_eq!(seen.body.as_ref(), b"body");
    let destination = format!("http://{}/orders/7?x=y", host("orders"));
    for (name, value) in [
        ("host", "dead.shop.svc:8080"),
        ("tidegate-dead-letter-reason", "NonRetryable"),
        ("tidegate-dead-letter-id", id.as_str()),
        ("tidegate-dead-letter-destination", destination.as_str()),
        ("tidegate-dead-letter-status", "400"),
        ("idempotency-key", id.as_str()),
        ("content-type", "text/plain"),
        ("ce-id", "7"),
        ("ce-knativeerrordest", destination.as_str()),
        ("ce-knativeerrorcode", "400"),
        ("ce-knativeerrordata", "YmFkIG9yZGVy"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(seen.header("authorization"), None, "it was meant for orders");
    assert_eq!(shop.orders().seen()[0].header("authorization"), Some("Bearer of-orders"));
    assert_eq!(shop.orders().seen()[0].header("tidegate-dead-letter-reason"), None);
    let own = seen.id().expect("it is a message itself");
    assert_ne!(own, id);

    let fine = shop.enqueue("/fine", &[]).await;
    shop.reaches(&fine, "Succeeded").await;
    sink_holds(&shop, 0, 0).await;
    let source = queue(&shop, "orders.shop").await;
    assert_eq!((&source["depth"], &source["deadLetters"]), (&json!(0), &json!(0)), "{source}");
    assert_eq!(dead.seen().len(), 1);
    let redriven = shop.resource("POST", &format!("{id}:redrive"), &[]).await;
    is_problem("it is not here any more", &redriven, 409, &["deadLetterSink"]);
}

#[tokio::test]
async fn what_dies_while_the_sink_is_away_is_kept_over_a_kill_and_sent_when_it_is_back() {
    let mut shop = setup(json!({})).start().await;
    let mut ids = Vec::new();
    for path in ["/refused", "/broken"] {
        let id = shop.enqueue(path, &[]).await;
        shop.reaches(&id, "DeadLettered").await;
        ids.push(id);
    }
    sink_holds(&shop, 2, 0).await;
    let depth = shop.metric("tidegate_queue_messages", &[("queue", QUEUE)]).await;
    assert_eq!(depth, 2.0, "its depth is told as of any queue");
    shop.kill_and_start().await;
    sink_holds(&shop, 2, 0).await;
    for id in &ids {
        assert_eq!(shop.status(id).await["state"], "DeadLettered");
    }
    let dead = dead(&shop, |nth| if nth == 1 { Act::status(500) } else { Act::ok() }).await;
    let seen = dead.has(3).await;
    sink_holds(&shop, 0, 0).await;
    assert_eq!(dead.seen().len(), 3);
    let mut sunk: Vec<_> =
        seen[1..].iter().map(|seen| seen.header("tidegate-dead-letter-id").unwrap().to_owned()).collect();
    sunk.sort();
    assert_eq!(sunk, ids);
    let reasons = |id: &str| {
        let of = seen.iter().find(|seen| seen.header("tidegate-dead-letter-id") == Some(id)).unwrap();
        (of.header("tidegate-dead-letter-reason"), of.header("tidegate-dead-letter-status"))
    };
    assert_eq!(reasons(&ids[0]), (Some("NonRetryable"), Some("400")));
    assert_eq!(reasons(&ids[1]), (Some("Exhausted"), None));
}

#[tokio::test]
async fn what_the_sink_refuses_stays_in_its_built_in_dead_letter_and_can_be_redriven() {
    let shop = setup(json!({})).start().await;
    let dead = dead(&shop, |nth| if nth == 1 { Act::status(400) } else { Act::ok() }).await;
    let id = shop.enqueue("/refused", &[]).await;
    let sunk = dead.has(1).await.remove(0).id().unwrap().to_owned();
    sink_holds(&shop, 0, 1).await;
    let status = shop.reaches(&sunk, "DeadLettered").await;
    assert_eq!((&status["reason"], &status["queue"]), (&json!("NonRetryable"), &json!(QUEUE)), "{status}");
    let letters = shop.metric("tidegate_queue_dead_letter_messages", &[("queue", QUEUE)]).await;
    assert_eq!(letters, 1.0);
    assert_eq!(dead.seen().len(), 1, "it is not sunk again");

    let admin = shop.admin().to_string();
    let told =
        std::process::Command::new(program("tidegate")).args(["dlq", "ls", "--proxy", &admin]).output();
    let told = String::from_utf8(told.expect("the operator's hand is built").stdout).unwrap();
    assert!(told.contains(QUEUE), "{told}");
    let head = format!("GET /queues/messages?queue={QUEUE}&part=dead HTTP/1.1\r\nHost: {admin}\r\n");
    let listed = ask(shop.admin(), &head).await.unwrap().text();
    assert!(listed.contains(&format!("POST /refused (dead letter {id})")), "{listed}");

    let redriven = shop.resource("POST", &format!("{sunk}:redrive"), &[]).await;
    assert_eq!(redriven.status, 202, "{redriven:?} {}", redriven.text());
    assert_eq!(dead.has(2).await[1].id(), Some(sunk.as_str()));
    sink_holds(&shop, 0, 0).await;
    assert_eq!((dead.seen().len(), shop.orders().seen().len()), (2, 1));
}

#[tokio::test]
async fn a_sink_queue_that_is_full_stops_the_policys_queues_and_says_so_until_there_is_room() {
    let shop = setup(json!({"queue": {"maxMessages": 1}, "rateLimits": {"maxConcurrentDispatches": 1}}))
        .start()
        .await;
    let first = shop.enqueue("/refused/1", &[]).await;
    shop.reaches(&first, "DeadLettered").await;
    sink_holds(&shop, 1, 0).await;
    let second = shop.enqueue("/refused/2", &[]).await;
    let stopped = |queue: &Value| queue.to_string().contains("dead_letter_full");
    until("the queue's stop", || queue(&shop, "orders.shop"), stopped).await;
    assert_eq!(shop.status(&second).await["state"], "Queued");
    let dead = dead(&shop, |_| Act::ok()).await;
    dead.has(2).await;
    shop.reaches(&second, "DeadLettered").await;
    assert_eq!((dead.seen().len(), shop.orders().seen().len()), (2, 2));
}
