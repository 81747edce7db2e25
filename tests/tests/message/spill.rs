//! spill: mode Spill tries synchronously and stores what cannot be processed now.

use std::sync::Arc;

use serde_json::json;

use crate::mesh::{APPLICATION, host, until};
use crate::receiver::{Act, Receiver};
use crate::shop::{PREFER, Setup, Shop, empty_service, id_of, is_problem, policy, send};

fn spill() -> serde_json::Value {
    json!({"mode": "Spill"})
}

#[tokio::test]
async fn a_request_that_was_not_processed_is_stored() {
    for (row, act) in [
        ("a complete 429", Act::status(429)),
        ("a complete 503", Act::status(503)),
        ("a complete 503 with Retry-After", Act::with(503, "retry-after", "1")),
    ] {
        let first = act.clone();
        let shop = Setup::of(spill())
            .script(move |seen| if seen.nth == 1 { first.clone() } else { Act::ok() })
            .start()
            .await;
        let answer = shop.post("/", &[], "body").await;
        assert_eq!(answer.status, 202, "{row}: {answer:?} {}", answer.text());
        assert_eq!(answer.header("preference-applied"), None, "{row}: nobody preferred it");
        shop.reaches(&id_of(&answer), "Succeeded").await;
        let seen = shop.orders().seen();
        assert_eq!(seen.len(), 2, "{row}: {seen:?}");
        assert_eq!(seen[0].id(), None, "{row}: the first was synchronous");
        assert_eq!(seen[1].id(), Some(id_of(&answer).as_str()), "{row}");
    }
}

#[tokio::test]
async fn a_request_without_anybody_to_send_it_to_is_stored() {
    for with_sidecar in [false, true] {
        let row = format!("a failed connect, with a sidecar at orders: {with_sidecar}");
        let mut setup = Setup::of(spill()).away();
        if !with_sidecar {
            setup = setup.plain("orders");
        }
        let mut shop = setup.start().await;
        let answer = shop.post("/", &[], "body").await;
        assert_eq!(answer.status, 202, "{row}: {answer:?} {}", answer.text());
        shop.arrive(|_| Act::ok()).await;
        shop.reaches(&id_of(&answer), "Succeeded").await;
        assert_eq!(shop.orders().seen().len(), 1, "{row}");
    }
    let [service, slice] = empty_service("nobody");
    let targets = json!([{"kind": "Service", "name": "nobody"}]);
    let shop = Setup::without_policy()
        .with(service)
        .with(slice)
        .with(policy("nobody", json!({"mode": "Spill", "targetRefs": targets})))
        .start()
        .await;
    let answer = send(shop.outbound(), "POST /", &host("nobody"), &[], "body").await;
    assert_eq!(answer.status, 202, "no endpoint: {answer:?} {}", answer.text());
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_stored_only_if_twice_does_no_harm() {
    let key = ("idempotency-key", "k");
    for (row, act, unsafe_answer) in [
        ("the connection lost after bytes", Act::Break, 502),
        ("a 502", Act::status(502), 502),
        ("a 504", Act::status(504), 504),
        ("a 503 that breaks off", Act::Torn(503), 503),
    ] {
        for (method, headers, stored) in [
            ("POST", &[][..], false),
            ("PATCH", &[], false),
            ("PUT", &[], true),
            ("DELETE", &[], true),
            ("POST", &[key], true),
        ] {
            let row = format!("{row}, {method} with {headers:?}");
            let first = act.clone();
            let shop = Setup::of(spill())
                .script(move |seen| if seen.id().is_none() { first.clone() } else { Act::ok() })
                .start()
                .await;
            let answer = shop.send(&format!("{method} /"), headers, "body").await;
            if stored {
                assert_eq!(answer.status, 202, "{row}: {answer:?} {}", answer.text());
                shop.reaches(&id_of(&answer), "Succeeded").await;
            } else {
                assert_eq!(answer.status, unsafe_answer, "{row}: {answer:?} {}", answer.text());
                assert!(
                    shop.orders().seen().iter().all(|seen| seen.id().is_none()),
                    "{row}: nothing is stored"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_answered_by_its_receiver() {
    let busy = || Act::Answer(503, vec![("retry-after", "7".into()), ("x-load", "9".into())], "too busy");
    let full = Setup::of(json!({"mode": "Spill", "queue": {"maxMessages": 1}})).script(move |_| busy());
    let shop = full.start().await;
    shop.enqueue("/", &[("tidegate-delay", "PT1H")]).await;
    for (row, shop) in [
        ("full", shop),
        ("no directory", Setup::of(spill()).no_queue().script(move |_| busy()).start().await),
    ] {
        let answer = shop.post("/", &[], "body").await;
        assert_eq!((answer.status, answer.text().as_str()), (503, "too busy"), "{row}: {answer:?}");
        assert_eq!(answer.header("retry-after").as_deref(), Some("7"), "{row}");
        assert_eq!(answer.header("x-load").as_deref(), Some("9"), "{row}");
    }
    let nobody = Setup::of(spill()).no_queue().away().start().await.post("/", &[], "body").await;
    assert!((502..=504).contains(&nobody.status), "{nobody:?}");
    assert!(nobody.header("proxy-status").is_some(), "the synchronous error: {nobody:?}");
}

#[tokio::test]
async fn an_answer_is_an_answer() {
    let shop =
        Setup::of(spill()).script(|seen| Act::status(seen.path[1..].parse().unwrap_or(200))).start().await;
    for status in [200, 204, 301, 400, 401, 404, 409, 422, 500] {
        let answer = shop.send(&format!("PUT /{status}"), &[("idempotency-key", "k")], "").await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let stored = [("result", "accepted")];
    assert_eq!(shop.metric("tidegate_queue_enqueue_total", &stored).await, 0.0);
}

#[tokio::test]
async fn while_the_keys_lane_is_not_empty_a_request_is_stored_at_once() {
    let shop =
        Setup::of(json!({"mode": "Spill", "delivery": {"backoffDelay": "PT0.5S", "backoffMax": "PT0.5S"}}))
            .script(|seen| match (seen.path.as_str(), seen.nth) {
                ("/first", 1) => Act::status(503),
                ("/first", _) => Act::held(),
                _ => Act::ok(),
            })
            .start()
            .await;
    let first = id_of(&shop.post("/first", &[("tidegate-key", "a")], "").await);
    let second = shop.post("/second", &[("tidegate-key", "a")], "").await;
    let second = id_of(&second);
    let other = shop.post("/third", &[("tidegate-key", "b")], "").await;
    assert_eq!(other.status, 200, "another lane: {other:?}");
    let without = shop.post("/fourth", &[], "").await;
    assert_eq!(without.status, 200, "no key, no lane: {without:?}");
    assert!(shop.orders().seen_at("/second").is_empty(), "it went around the first");
    until("the first again", || async { shop.orders().seen_at("/first").len() }, |count| *count >= 2).await;
    shop.orders().let_go();
    shop.reaches(&first, "Succeeded").await;
    shop.reaches(&second, "Succeeded").await;
    let seen = shop.orders().seen_at("/second");
    assert_eq!((seen.len(), seen[0].id()), (1, Some(second.as_str())), "once, as a message");
    let after = shop.post("/fifth", &[("tidegate-key", "a")], "").await;
    assert_eq!(after.status, 200, "the lane is empty again: {after:?}");
}

#[tokio::test]
async fn a_key_under_way_synchronously_is_answered_409() {
    let shop = Setup::of(spill()).script(|_| Act::held()).start().await;
    let key = ("idempotency-key", "pay-1");
    let during = async {
        shop.orders().has(1).await;
        for (row, headers) in [
            ("bare", vec![key]),
            ("quoted", vec![("idempotency-key", "\"pay-1\"")]),
            ("asynchronous", vec![key, PREFER]),
        ] {
            is_problem(row, &shop.post("/pay", &headers, "body").await, 409, &["idempotency-key"]);
        }
        shop.orders().let_go();
    };
    let headers = [key];
    let (first, ()) = tokio::join!(shop.post("/pay", &headers, "body"), during);
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(shop.orders().seen().len(), 1, "one execution");
    let again = shop.post("/pay", &[("idempotency-key", "pay-2")], "body").await;
    assert_eq!(again.status, 200, "{again:?}");
}

#[tokio::test]
async fn a_spill_with_a_preference_is_not_tried_first() {
    let spec = json!({"mode": "Spill", "delivery": {"timeout": "PT60S"}});
    let shop = Setup::of(spec).script(|_| Act::held()).start().await;
    // The receiver answers nothing before the test lets it: this does not wait for the receiver.
    let id = shop.enqueue("/", &[]).await;
    shop.orders().let_go();
    shop.reaches(&id, "Succeeded").await;
    let seen = shop.orders().seen();
    assert_eq!((seen.len(), seen[0].id()), (1, Some(id.as_str())), "once, as a message");
}

/// A receiver that is behind an open breaker is not reached, as if nobody were there.
#[tokio::test]
async fn an_open_breaker_spills() {
    let breaker = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "BackendPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "orders"}], "limits": {"maxInFlight": 1, "queue": 0}}});
    let shop: Shop = Setup::of(spill())
        .with(breaker)
        .script(|seen| if seen.path == "/held" { Act::held() } else { Act::ok() })
        .start()
        .await;
    let over = async {
        shop.orders().has(1).await;
        let answer = shop.post("/over", &[], "body").await;
        let id = id_of(&answer);
        shop.orders().let_go();
        id
    };
    let (held, id) = tokio::join!(shop.post("/held", &[], ""), over);
    assert_eq!(held.status, 200, "{held:?}");
    shop.reaches(&id, "Succeeded").await;
    assert_eq!(shop.orders().seen_at("/over").len(), 1);
}

#[tokio::test]
async fn the_queue_survives_the_callee() {
    let mut shop = Setup::of(spill()).plain("orders").start().await;
    assert_eq!(shop.post("/here", &[], "").await.status, 200);
    shop.leave();
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(id_of(&shop.post(&format!("/{number}"), &[("tidegate-key", "k")], "").await));
    }
    let back = Receiver::start(shop.mesh.at("orders", APPLICATION), Arc::new(|_| Act::ok())).await;
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    assert_eq!(back.paths(), ["/0", "/1", "/2", "/3", "/4"]);
}
