//! callbacks: the end of a message told as a signed CloudEvent, with the message's own guarantees.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::mesh::{APPLICATION, host, until};
use crate::python;
use crate::receiver::{Act, Receiver, Script, Seen};
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn secret(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hooks", "namespace": "shop"},
        "stringData": {"secret": value}})
}

fn setup() -> Setup {
    let callback = json!({"allowedHosts": ["*.shop.svc.cluster.local"], "secretRef": {"name": "hooks"}});
    Setup::of(json!({"callback": callback, "delivery": {"retry": 3}})).with(secret(SECRET)).pod("hooks")
}

fn address() -> String {
    format!("http://{}/done?order=7", host("hooks"))
}

async fn hooks(shop: &Shop, script: Script) -> Receiver {
    Receiver::start(shop.mesh.at("hooks", APPLICATION), script).await
}

fn always_ok() -> Script {
    Arc::new(|_| Act::ok())
}

async fn verified(seen: &Seen, secret: &str) -> Value {
    let body = String::from_utf8(seen.body.to_vec()).unwrap();
    let given = json!({"secret": secret, "body": body, "headers": seen.headers});
    python::run("webhook_verify.py", &[], &given).await
}

/// A CloudEvent in structured mode, as its own library reads it after the signature is checked.
async fn event(seen: &Seen) -> Value {
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/done?order=7"));
    let kind = seen.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/cloudevents+json"), "{kind}");
    let told = verified(seen, SECRET).await;
    assert_eq!(told["verified"], true, "{told}");
    let event = told["event"].clone();
    assert_eq!(event["specversion"], "1.0", "{event}");
    for attribute in ["id", "source", "type"] {
        assert!(event[attribute].as_str().is_some_and(|text| !text.is_empty()), "{attribute}: {event}");
    }
    event
}

#[tokio::test]
async fn success_is_told_with_its_response_as_a_signed_event() {
    let shop = setup()
        .script(|_| {
            Act::Answer(201, vec![("x-order", "7".into()), ("content-type", "text/plain".into())], "made")
        })
        .start()
        .await;
    let hooks = hooks(&shop, always_ok()).await;
    let id = shop.enqueue("/", &[("tidegate-callback", &address())]).await;
    let seen = hooks.has(1).await;
    let event = event(&seen[0]).await;
    assert_eq!(event["type"], "dev.tidegate.request.completed", "{event}");
    assert!(event.to_string().contains(&id), "which request ended: {event}");
    let response = &event["data"]["response"];
    assert_eq!((&response["status"], &response["body"]), (&json!(201), &json!("made")), "{event}");
    assert_eq!(response["headers"]["x-order"], "7", "{event}");
    assert_eq!(shop.orders().seen()[0].header("tidegate-callback"), None);
    // It is a message itself.
    let own = seen[0].id().expect("an id of its own").to_owned();
    assert_ne!(own, id);
    crate::accept::is_uuid_v7(&own);
    assert_eq!(seen[0].header("webhook-id"), Some(own.as_str()));
    until("its end", || async { shop.metric("tidegate_queue_messages", &[]).await }, |n| *n == 0.0).await;
}

#[tokio::test]
async fn a_dead_letter_is_told_too() {
    let shop = setup()
        .script(|seen| if seen.path == "/400" { Act::with(400, "x-why", "bad") } else { Act::Break })
        .start()
        .await;
    let hooks = hooks(&shop, always_ok()).await;
    for (number, (path, reason)) in
        [("/400", "NonRetryable"), ("/break", "Exhausted")].into_iter().enumerate()
    {
        let id = shop.enqueue(path, &[("tidegate-callback", &address())]).await;
        let seen = hooks.has(number + 1).await;
        let event = event(&seen[number]).await;
        assert_eq!(event["type"], "dev.tidegate.request.deadlettered", "{path}: {event}");
        assert!(event.to_string().contains(&id) && event.to_string().contains(reason), "{path}: {event}");
        if path == "/400" {
            assert_eq!(event["data"]["response"]["status"], 400, "{event}");
        }
    }
}

#[tokio::test]
async fn a_signature_of_another_key_or_over_another_body_does_not_verify() {
    let shop = setup().start().await;
    let hooks = hooks(&shop, always_ok()).await;
    shop.enqueue("/", &[("tidegate-callback", &address())]).await;
    let mut seen = hooks.has(1).await.remove(0);
    assert_eq!(verified(&seen, SECRET).await["verified"], true);
    let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    assert_eq!(verified(&seen, other).await["verified"], false);
    seen.body = seen.body.iter().copied().chain(*b" ").collect();
    assert_eq!(verified(&seen, SECRET).await["verified"], false);
}

#[tokio::test]
async fn a_callback_is_retried_when_its_receiver_is_away_or_fails() {
    let mut shop = setup().start().await;
    let id = shop.enqueue("/", &[("tidegate-callback", &address())]).await;
    shop.reaches(&id, "Succeeded").await;
    until(
        "the callback's waiting",
        || async { shop.metric("tidegate_queue_messages", &[]).await },
        |n| *n > 0.0,
    )
    .await;
    // Away, and a crash in between.
    shop.kill_and_start().await;
    let failing: Script = Arc::new(|seen| if seen.nth == 1 { Act::status(500) } else { Act::ok() });
    let hooks = hooks(&shop, failing).await;
    let seen = hooks.has(2).await;
    for seen in &seen {
        event(seen).await;
    }
    assert_eq!(seen[0].id(), seen[1].id());
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"), "so that its receiver can tell");
    // The kill may have cost an attempt.
    assert_eq!(seen[1].attempt(), seen[0].attempt().map(|first| first + 1));
    until("nothing left", || async { shop.metric("tidegate_queue_messages", &[]).await }, |n| *n == 0.0)
        .await;
    assert_eq!(shop.orders().seen().len(), 1);
}

#[tokio::test]
async fn a_callback_elsewhere_is_400_and_nothing_is_stored() {
    let shop = setup().start().await;
    for callback in [
        "http://evil.example/done",
        "http://shop.svc.cluster.local/done",
        "http://evilshop.svc.cluster.local/done",
        "http://hooks.shop.svc.cluster.local.evil.example/done",
        "http://hooks.shop.svc.cluster.local@evil.example/done",
        "http://169.254.169.254/latest",
        "ftp://hooks.shop.svc.cluster.local/done",
        "/done",
        "not a uri",
    ] {
        let answer = shop.post("/", &[PREFER, ("tidegate-callback", callback)], "").await;
        is_problem(callback, &answer, 400, &["callback"]);
        assert_eq!(answer.header("location"), None, "{callback}");
    }
    assert_eq!(shop.metric("tidegate_queue_messages", &[]).await, 0.0);
    assert!(shop.orders().seen().is_empty());
    let silent = Shop::with(json!({})).await;
    let answer = silent.post("/", &[PREFER, ("tidegate-callback", &address())], "").await;
    is_problem("a policy without callbacks", &answer, 400, &["callback"]);
}

#[tokio::test]
async fn the_key_of_callbacks_is_nowhere_shown() {
    let shop = setup().flags(&["--log", "debug"]).start().await;
    let hooks = hooks(&shop, always_ok()).await;
    let id = id_of(&shop.post("/", &[PREFER, ("tidegate-callback", &address())], "").await);
    hooks.has(1).await;
    let config = shop.mesh.admin("web", "/config").await.text();
    assert!(config.contains("orders-async"), "the policy is shown");
    let logs = [shop.mesh.sidecars["web"].log(), shop.mesh.controller.log()];
    for (name, text) in
        [("/config", config), ("web's log", logs[0].clone()), ("the controller's log", logs[1].clone())]
    {
        assert!(!text.contains(&SECRET[6..]), "{name} holds the key");
    }
    for path in shop.files() {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let found = bytes.windows(20).any(|part| part == &SECRET.as_bytes()[6..26]);
        assert!(!found, "{} holds the key", path.display());
    }
    shop.reaches(&id, "Succeeded").await;
}
