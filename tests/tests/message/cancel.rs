//! cancel: DELETE takes a message back, or says why it cannot.

use std::time::Duration;

use serde_json::json;

use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{Setup, Shop, is_problem};

#[tokio::test]
async fn what_is_cancelled_is_not_attempted() {
    let shop = Setup::of(json!({"paused": true})).start().await;
    let id = shop.enqueue("/", &[]).await;
    for round in ["first", "again"] {
        let answer = shop.resource("DELETE", &id, &[]).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{round}: {answer:?}");
    }
    let status = shop.status(&id).await;
    assert_eq!(status["state"], "Cancelled", "{status}");
    assert_eq!(shop.metric("tidegate_queue_messages", &[]).await, 0.0);
    assert!(shop.orders().seen().is_empty());
}

#[tokio::test]
async fn a_cancel_is_flushed_before_the_204() {
    let mut shop = Setup::of(json!({})).plain("orders").away().start().await;
    let id = shop.enqueue("/cancelled", &[]).await;
    let other = shop.enqueue("/other", &[]).await;
    until("a pause between attempts", || shop.resource("DELETE", &id, &[]), |answer| answer.status == 204)
        .await;
    shop.kill_and_start().await;
    shop.arrive(|_| Act::ok()).await;
    shop.reaches(&other, "Succeeded").await;
    assert_eq!(shop.status(&id).await["state"], "Cancelled");
    assert_eq!(shop.orders().paths(), ["/other"], "no further attempt");
}

#[tokio::test]
async fn a_cancel_too_late_is_409() {
    let shop = Setup::of(json!({}))
        .script(|seen| if seen.path == "/400" { Act::status(400) } else { Act::held() })
        .start()
        .await;
    let id = shop.enqueue("/", &[]).await;
    shop.orders().has(1).await;
    is_problem("while one runs", &shop.resource("DELETE", &id, &[]).await, 409, &[]);
    shop.orders().let_go();
    shop.reaches(&id, "Succeeded").await;
    is_problem("after success", &shop.resource("DELETE", &id, &[]).await, 409, &[]);
    let dead = shop.enqueue("/400", &[]).await;
    shop.reaches(&dead, "DeadLettered").await;
    is_problem("in the dead letter", &shop.resource("DELETE", &dead, &[]).await, 409, &[]);
    assert_eq!(shop.result(&id).await.status, 200, "its result is as it was");
}

#[tokio::test]
async fn a_cancel_and_a_dispatch_race_and_one_of_them_wins() {
    let shop = Shop::with(json!({})).await;
    let (mut cancelled, mut delivered) = (0, 0);
    // Due at about the moment of the cancel, however long that takes here: sooner after each that came in
    // time, later after each that did not.
    let mut delay = Duration::from_millis(6);
    for number in 0..60 {
        let path = format!("/{number}");
        let due = format!("PT{}.{:03}S", delay.as_secs(), delay.subsec_millis());
        let id = shop.enqueue(&path, &[("tidegate-delay", &due)]).await;
        let answer = shop.resource("DELETE", &id, &[]).await;
        match answer.status {
            204 => {
                cancelled += 1;
                delay = delay * 3 / 4;
                assert_eq!(shop.status(&id).await["state"], "Cancelled");
                assert!(shop.orders().seen_at(&path).is_empty(), "204 means no further attempt");
            }
            409 => {
                delivered += 1;
                delay = delay * 5 / 4 + Duration::from_millis(1);
                shop.reaches(&id, "Succeeded").await;
                assert_eq!(shop.orders().seen_at(&path).len(), 1);
            }
            _ => panic!("{answer:?} {}", answer.text()),
        }
    }
    assert!(cancelled > 0 && delivered > 0, "{cancelled} cancelled, {delivered} delivered: no race");
}
