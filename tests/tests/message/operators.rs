//! operators: what the admin port does with a queue, and what it will not guess.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Answer, ask};
use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{Setup, Shop, is_problem, json_of, retry_after};

async fn operate(shop: &Shop, method: &str, path: &str) -> Answer {
    let admin = shop.admin();
    ask(admin, &format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\n")).await.expect("it answers")
}

/// The one queue there is.
async fn queue(shop: &Shop) -> Value {
    let queues = json_of(&operate(shop, "GET", "/queues").await);
    queues["queues"][0].clone()
}

#[tokio::test]
async fn a_parameter_that_a_verb_does_not_use_is_refused_and_changes_nothing() {
    let shop = Setup::of(json!({})).script(|_| Act::status(400)).start().await;
    let mut id = String::new();
    for path in ["/1", "/2"] {
        id = shop.enqueue(path, &[]).await;
        shop.reaches(&id, "DeadLettered").await;
    }
    let name = queue(&shop).await["name"].as_str().unwrap().to_owned();
    let redriven = format!("redrive?id={id}");
    for (asked, word) in [
        (format!("purge?queue={name}&part=dead&id={id}"), "id="),
        (format!("purge?queue={name}&part=dead&limit=1"), "limit="),
        (format!("purge?queue={name}&part=dead&after=1"), "after="),
        (format!("purge?queue={name}&part=dead&rate=1"), "rate="),
        (format!("purge?queue={name}&part=dead&id="), "id="),
        (format!("purge?queue={name}&part=dead&key="), "key="),
        (format!("redrive?queue={name}&limit=1"), "limit="),
        (format!("redrive?queue={name}&after=1"), "after="),
        (format!("redrive?queue={name}&part=waiting"), "part=waiting"),
        (format!("redrive?queue={name}&part=quarantined"), "part=quarantined"),
        (format!("redrive?queue={name}&id="), "id="),
        (format!("{redriven}&status=500"), "status="),
        (format!("{redriven}&rate=1"), "rate="),
        (format!("pause?queue={name}&key=k"), "key="),
        (format!("resume?queue={name}&part=dead"), "part="),
    ] {
        let answer = operate(&shop, "POST", &format!("/queues/{asked}")).await;
        is_problem(&asked, &answer, 400, &[word]);
    }
    let now = queue(&shop).await;
    assert_eq!((&now["deadLetters"], &now["depth"], &now["paused"]), (&json!(2), &json!(0), &Value::Null));
    let filtered = format!("/queues/purge?queue={name}&durability=local&part=dead&status=400&since=1h");
    let purged = operate(&shop, "POST", &filtered).await;
    assert_eq!((purged.status, &json_of(&purged)["purged"]), (200, &json!(2)), "{}", purged.text());
}

#[tokio::test]
async fn a_second_redrive_is_409_and_says_how_far_the_first_is() {
    let shop = Setup::of(json!({})).script(|_| Act::status(400)).start().await;
    for path in ["/1", "/2", "/3"] {
        let id = shop.enqueue(path, &[]).await;
        shop.reaches(&id, "DeadLettered").await;
    }
    let name = queue(&shop).await["name"].as_str().unwrap().to_owned();
    let redrive = |more: &str| format!("/queues/redrive?queue={name}&rate=0.01{more}");
    let first = operate(&shop, "POST", &redrive("")).await;
    assert_eq!((first.status, &json_of(&first)["redrive"]["of"]), (202, &json!(3)), "{}", first.text());
    let second = operate(&shop, "POST", &redrive("")).await;
    is_problem("under way", &second, 409, &["redrive-under-way", "0 of 3 dead letters", "replace"]);
    let third = operate(&shop, "POST", &redrive("&replace=true&status=500")).await;
    assert_eq!(third.status, 202, "{}", third.text());
    let done = until("its end", || queue(&shop), |queue| queue["redriving"] == json!(false)).await;
    let redrive = &done["redrive"];
    assert_eq!(redrive["number"], json_of(&third)["redrive"]["number"]);
    assert_eq!((&redrive["meant"], &redrive["redriven"]), (&json!(0), &json!(0)), "nothing matches");
}

#[tokio::test]
async fn a_queue_whose_paused_policy_was_deleted_goes_on_when_it_is_resumed() {
    let shop = Shop::with(json!({"paused": true})).await;
    let id = shop.enqueue("/", &[]).await;
    let name = queue(&shop).await["name"].as_str().unwrap().to_owned();
    let resume = format!("/queues/resume?queue={name}");
    assert_eq!(operate(&shop, "POST", &resume).await.status, 200);
    assert_eq!(queue(&shop).await["paused"], json!("policy"), "it still says so");
    let manifests = shop.mesh.dir.path().join("manifests/all.yaml");
    let text = std::fs::read_to_string(&manifests).expect("they were written");
    let kept: Vec<_> = text.split("\n---\n").filter(|object| !object.contains("AsyncPolicy")).collect();
    std::fs::write(&manifests, kept.join("\n---\n")).expect("they are written");
    until("its policy to be gone", || queue(&shop), |queue| queue["paused"] == json!("policy-gone")).await;
    assert_eq!(shop.status(&id).await["state"], "Queued");
    assert_eq!(operate(&shop, "POST", &resume).await.status, 200);
    shop.reaches(&id, "Succeeded").await;
}

#[tokio::test]
async fn a_dead_letter_is_not_redriven_into_a_full_queue_yet() {
    let shop = Setup::of(json!({"queue": {"maxMessages": 1}}))
        .script(|seen| if seen.nth == 1 { Act::status(400) } else { Act::ok() })
        .start()
        .await;
    let dead = shop.enqueue("/", &[]).await;
    shop.reaches(&dead, "DeadLettered").await;
    let waits = shop.enqueue("/later", &[("tidegate-delay", "PT1H")]).await;
    let redrive = format!("{dead}:redrive");
    let refused = shop.resource("POST", &redrive, &[]).await;
    is_problem("full", &refused, 429, &["over-quota", "full"]);
    retry_after("full", &refused);
    assert_eq!(shop.status(&dead).await["state"], "DeadLettered");
    assert_eq!(shop.resource("DELETE", &waits, &[]).await.status, 204);
    let redriven = shop.resource("POST", &redrive, &[]).await;
    assert_eq!(redriven.status, 202, "{redriven:?} {}", redriven.text());
    shop.reaches(&dead, "Succeeded").await;
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body_and_a_refusal_says_what_is_allowed() {
    let shop = Setup::of(json!({})).start().await;
    let admin = shop.admin();
    let raw = async |method: &str, path: &str| {
        let mut stream = TcpStream::connect(admin).await.expect("it listens");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("it answers");
        said
    };
    for path in ["/metrics", "/ready", "/live", "/queues", "/config", "/log-level", "/"] {
        let said = raw("HEAD", path).await;
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert!(body.is_empty(), "{path}: {body}");
    }
    for (method, path, allowed) in [
        ("DELETE", "/metrics", "GET, HEAD"),
        ("GET", "/drain", "POST"),
        ("PATCH", "/queues", "GET, HEAD, POST"),
    ] {
        let said = raw(method, path).await.to_lowercase();
        assert!(said.starts_with("http/1.1 405"), "{method} {path}: {said}");
        assert!(said.contains(&format!("allow: {}\r\n", allowed.to_lowercase())), "{method} {path}: {said}");
    }
}
