//! quota: a full queue says 429 and when to come again, and loses nothing.

use std::collections::VecDeque;

use serde_json::json;

use crate::mesh::{host, until};
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem, json_of, policy, retry_after, send};

#[tokio::test]
async fn more_messages_than_the_policy_allows_are_429() {
    let shop = Shop::with(json!({"paused": true, "queue": {"maxMessages": 3}})).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    let full = shop.post("/full", &[PREFER], "").await;
    is_problem("by messages", &full, 429, &["full"]);
    retry_after("by messages", &full);
    assert_eq!(full.header("location"), None);
    let synchronous = shop.post("/synchronous", &[], "").await;
    assert_eq!(synchronous.status, 200, "synchronous traffic goes on: {synchronous:?}");
    assert_eq!(shop.resource("DELETE", &ids[0], &[]).await.status, 204);
    shop.enqueue("/room", &[]).await;
    is_problem("again", &shop.post("/full", &[PREFER], "").await, 429, &[]);
    for id in &ids[1..] {
        assert_eq!(shop.status(id).await["state"], "Queued", "nothing is dropped");
    }
}

#[tokio::test]
async fn more_bytes_than_the_policy_allows_are_429() {
    let shop = Shop::with(json!({"paused": true, "maxBodyBytes": 4096, "queue": {"maxBytes": 10_000}})).await;
    let body = "x".repeat(4000);
    let mut accepted = 0;
    let full = loop {
        let answer = shop.post("/", &[PREFER], &body).await;
        if answer.status != 202 {
            break answer;
        }
        accepted += 1;
        assert!(accepted <= 2, "three bodies of 4000 bytes do not fit into 10,000");
    };
    assert!(accepted >= 1, "one of 4000 bytes fits: {full:?}");
    is_problem("by bytes", &full, 429, &["full"]);
    retry_after("by bytes", &full);
    let bytes = shop.metric("tidegate_queue_bytes", &[]).await;
    assert!(bytes >= 4000.0 * f64::from(accepted), "{bytes}");
}

#[tokio::test]
async fn more_messages_in_all_queues_than_the_sidecar_may_hold_are_429() {
    let mails = policy("mails-async", json!({"targetRefs": [{"kind": "Service", "name": "mails"}]}));
    let setup = Setup::of(json!({})).flags(&["--queue-messages-max", "3"]).pod("mails").with(mails);
    let held = |path: &str| if path == "/synchronous" { Act::ok() } else { Act::held() };
    let shop = setup.script(move |seen| held(&seen.path)).start().await;
    let mails = async || send(shop.outbound(), "POST /", &host("mails"), &[PREFER], "").await;
    let mut ids = Vec::new();
    for number in 0..2 {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    // Nobody is there: it waits.
    id_of(&mails().await);
    for (row, answer) in [("the same queue", shop.post("/", &[PREFER], "").await), ("another", mails().await)]
    {
        is_problem(row, &answer, 429, &["over-quota", "this proxy"]);
        retry_after(row, &answer);
        assert_eq!(answer.header("location"), None, "{row}");
    }
    let refused = shop.metric("tidegate_queue_enqueue_total", &[("result", "source_over_quota")]).await;
    assert_eq!(refused, 2.0);
    assert_eq!(shop.post("/synchronous", &[], "").await.status, 200, "synchronous traffic goes on");
    shop.orders().let_go();
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    until("room for another", &mails, |answer| answer.status == 202).await;
}

#[tokio::test]
async fn more_idempotency_keys_than_the_sidecar_may_remember_are_429() {
    let spec = json!({"idempotency": {"window": "PT3S"}});
    let shop = Setup::of(spec).flags(&["--queue-keys-max", "2"]).script(|_| Act::ok()).start().await;
    let keyed = async |key: &str| shop.post("/", &[PREFER, ("idempotency-key", key)], "body").await;
    let first = id_of(&keyed("1").await);
    id_of(&keyed("2").await);
    shop.reaches(&first, "Succeeded").await;
    let refused = keyed("3").await;
    is_problem("a third key", &refused, 429, &["too-many-keys", "2 idempotency keys"]);
    assert_eq!(retry_after("a third key", &refused), 60);
    assert_eq!(refused.header("location"), None);
    let refused = shop.metric("tidegate_queue_enqueue_total", &[("result", "too_many_keys")]).await;
    assert_eq!(refused, 1.0);
    assert_eq!(id_of(&keyed("1").await), first, "a repetition needs no room");
    shop.enqueue("/without", &[]).await;
    until("a window to end", || keyed("4"), |answer| answer.status == 202).await;
}

#[tokio::test]
async fn a_full_queue_takes_in_again_when_it_has_drained() {
    let shop = Setup::of(json!({"queue": {"maxMessages": 2}})).script(|_| Act::held()).start().await;
    let first = shop.enqueue("/1", &[]).await;
    let second = shop.enqueue("/2", &[]).await;
    is_problem("full", &shop.post("/3", &[PREFER], "").await, 429, &[]);
    shop.orders().let_go();
    shop.reaches(&first, "Succeeded").await;
    shop.reaches(&second, "Succeeded").await;
    let third = id_of(&shop.post("/3", &[PREFER], "").await);
    shop.reaches(&third, "Succeeded").await;
}

#[tokio::test]
async fn a_duplicate_of_what_waits_is_told_so_even_when_the_queue_is_full() {
    let shop = Shop::with(json!({"paused": true, "queue": {"maxMessages": 1}})).await;
    let first = shop.enqueue("/", &[("idempotency-key", "k")]).await;
    let again = shop.post("/", &[PREFER, ("idempotency-key", "k")], "body").await;
    assert_eq!(id_of(&again), first);
    assert_eq!(again.header("tidegate-duplicate").as_deref(), Some("?1"));
}

#[tokio::test]
async fn a_full_directory_is_503_and_takes_in_again_when_there_is_room() {
    let shop = Setup::of(json!({"paused": true})).flags(&["--queue-bytes-max", "8Mi"]).start().await;
    let body = "x".repeat(256 * 1024);
    let mut ids = VecDeque::new();
    let full = loop {
        let answer = shop.post("/", &[PREFER], &body).await;
        if answer.status != 202 {
            break answer;
        }
        ids.push_back(id_of(&answer));
        assert!(ids.len() < 32, "32 bodies of 256 KiB do not fit into 8 MiB");
    };
    is_problem("the disk", &full, 503, &["full"]);
    retry_after("the disk", &full);
    let synchronous = shop.post("/synchronous", &[], "").await;
    assert_eq!(synchronous.status, 200, "synchronous traffic goes on: {synchronous:?}");
    for id in &ids {
        assert_eq!(shop.status(id).await["state"], "Queued", "nothing is dropped");
    }
    // Room for what ends is kept: a cancel needs some itself.
    for id in ids.drain(..ids.len() / 2) {
        assert_eq!(shop.resource("DELETE", &id, &[]).await.status, 204);
    }
    let again = || shop.post("/", &[PREFER], &body);
    let again = until("room", again, |answer| answer.status == 202).await;
    ids.push_back(id_of(&again));
    shop.rewrite("\"paused\":true", "\"paused\":false");
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
}

#[tokio::test]
async fn results_make_room_before_accepts_are_refused() {
    let long: &'static str = Box::leak("x".repeat(200 * 1024).into_boxed_str());
    let shop = Setup::of(json!({}))
        .flags(&["--queue-bytes-max", "8Mi"])
        .script(move |_| Act::Answer(200, vec![], long))
        .start()
        .await;
    let mut ids = Vec::new();
    // 12 MiB of responses in a directory of 8 MiB.
    for number in 0..60 {
        let id = shop.enqueue(&format!("/{number}"), &[]).await;
        shop.reaches(&id, "Succeeded").await;
        ids.push(id);
    }
    let last = shop.result(&ids[59]).await;
    assert_eq!((last.status, last.body.len()), (200, long.len()));
    is_problem("the oldest", &shop.result(&ids[0]).await, 410, &[]);
    assert_eq!(shop.status(&ids[0]).await["state"], "Succeeded", "what became of it is still known");
}

#[tokio::test]
async fn a_full_dead_letter_stops_its_queue_and_says_so() {
    let mails = policy("mails-async", json!({"targetRefs": [{"kind": "Service", "name": "mails"}]}));
    let shop = Setup::of(json!({"queue": {"maxMessages": 8}, "rateLimits": {"maxConcurrentDispatches": 1}}))
        .pod("mails")
        .with(mails)
        .script(|seen| if seen.nth == 1 { Act::status(400) } else { Act::ok() })
        .start()
        .await;
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    let stopped = [("reason", "dead_letter_full")];
    shop.mesh.reaches("web", "tidegate_queue_throttled_seconds_total", &stopped, 0.05).await;
    let dead = shop.metric("tidegate_queue_dead_letter_messages", &[]).await;
    let waiting = shop.metric("tidegate_queue_messages", &[]).await;
    assert!(dead >= 1.0 && waiting >= 1.0, "{dead} dead, {waiting} wait");
    assert!((dead + waiting - 8.0).abs() < 1e-9, "nothing is dropped: {dead} dead, {waiting} wait");
    // Only that queue.
    let other = send(shop.outbound(), "POST /", &host("mails"), &[PREFER], "").await;
    id_of(&other);
    // What is redriven makes room, until everything has gone.
    let all_gone = || async {
        for id in &ids {
            let status = json_of(&shop.resource("GET", id, &[]).await);
            if status["state"] == "DeadLettered" {
                shop.resource("POST", &format!("{id}:redrive"), &[]).await;
            }
        }
        shop.orders().seen().iter().filter(|seen| seen.nth == 2).count()
    };
    until("every message delivered", all_gone, |delivered| *delivered == 8).await;
}

#[tokio::test]
async fn a_paused_policy_takes_in_and_delivers_when_it_goes_on() {
    let shop = Shop::with(json!({"paused": true})).await;
    let id = shop.enqueue("/", &[]).await;
    assert_eq!(shop.status(&id).await["state"], "Queued");
    assert!(shop.orders().seen().is_empty());
    shop.rewrite("\"paused\":true", "\"paused\":false");
    shop.reaches(&id, "Succeeded").await;
}
