//! opening: when the store is opened, and when no more.

use serde_json::json;

use crate::client::ask;
use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, is_problem, json_of, retry_after};

#[tokio::test]
async fn a_store_that_was_not_open_when_the_drain_began_takes_nothing_in() {
    let mut shop = Setup::of(json!({}))
        .script(|seen| if seen.path == "/held" { Act::held() } else { Act::ok() })
        .start()
        .await;
    let during = async {
        shop.orders().has(1).await;
        shop.mesh.sidecars["web"].signal("-TERM");
        let ready = || async { shop.mesh.admin("web", "/ready").await.status };
        until("readiness false", ready, |status| *status == 503).await;
        let refused = shop.post("/late", &[PREFER], "").await;
        is_problem("the first asynchronous one", &refused, 503, &["problems/draining"]);
        retry_after("the first asynchronous one", &refused);
        shop.orders().let_go();
    };
    let (held, ()) = tokio::join!(shop.post("/held", &[], ""), during);
    assert_eq!(held.status, 200, "{held:?}");
    let ended = shop.mesh.sidecars.get_mut("web").unwrap().ended().await;
    assert!(ended.success(), "{ended:?}");
    assert_eq!(shop.orders().paths(), ["/held"]);
}

#[tokio::test]
async fn what_was_left_is_delivered_when_its_directory_is_free_though_nobody_asks() {
    let mut shop = Setup::of(json!({})).plain("orders").away().start().await;
    let id = shop.enqueue("/", &[]).await;
    drop(shop.mesh.sidecars.remove("web"));
    let lock = std::fs::File::open(shop.queue.path().join("lock")).expect("the store has a lock");
    lock.lock().expect("its holder is gone");
    shop.arrive(|_| Act::ok()).await;
    shop.start_again().await;
    let unknown = shop.resource("GET", &id, &[]).await;
    is_problem("nobody knows", &unknown, 503, &["in use"]);
    let admin = shop.admin();
    let queues = ask(admin, &format!("GET /queues HTTP/1.1\r\nHost: {admin}\r\n")).await.unwrap();
    assert!(json_of(&queues)["trouble"].as_str().unwrap().contains("in use"), "{}", queues.text());
    drop(lock);
    let seen = shop.orders().has(1).await;
    assert_eq!(seen[0].id(), Some(id.as_str()));
    shop.reaches(&id, "Succeeded").await;
}
