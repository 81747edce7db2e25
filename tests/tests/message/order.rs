//! order: lanes, priority, due times, expiry, and who lets whom go on.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::mesh::until;
use crate::receiver::{Act, Seen};
use crate::shop::{PREFER, Setup, Shop, id_of};

/// The paths in the order in which they were first seen.
fn firsts(seen: &[Seen]) -> Vec<String> {
    let mut known = HashSet::new();
    seen.iter().map(|seen| seen.path.clone()).filter(|path| known.insert(path.clone())).collect()
}

#[tokio::test]
async fn first_deliveries_ascend_for_every_key_whatever_fails() {
    for workers in ["1", "3"] {
        ascend(workers).await;
    }
}

async fn ascend(workers: &str) {
    let shop =
        Setup::of(json!({"delivery": {"retry": 100, "backoffDelay": "PT0.01S", "backoffMax": "PT0.03S"}}))
            .script(|seen| {
                // Every message fails as often as its number says, each time in another way.
                let number: usize = seen.path.rsplit('/').next().unwrap().parse().unwrap();
                match (seen.nth > number % 4, seen.nth) {
                    (true, _) => Act::ok(),
                    (false, 1) => Act::status(500),
                    (false, 2) => Act::Break,
                    (false, _) => Act::status(503),
                }
            })
            .flags(&["--workers", workers])
            .start()
            .await;
    let mut ids = Vec::new();
    for number in 0..12 {
        for key in ["a", "b", "c", "d"] {
            ids.push(shop.enqueue(&format!("/{key}/{number}"), &[("tidegate-key", key)]).await);
        }
    }
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    let seen = shop.orders().seen();
    let mut lanes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for seen in &seen {
        let (key, number) = seen.path[1..].split_once('/').unwrap();
        lanes.entry(key.to_owned()).or_default().push(number.parse().unwrap());
    }
    assert_eq!(lanes.len(), 4);
    for (key, numbers) in lanes {
        // Not only first deliveries: a lane hands out its next after the settle of the one before.
        assert!(numbers.is_sorted(), "{workers} workers, lane {key}: {numbers:?}");
        assert_eq!(numbers.last(), Some(&11), "{workers} workers, lane {key}");
    }
}

#[tokio::test]
async fn the_ordering_key_may_be_any_header() {
    let shop = Setup::of(json!({"ordering": {"key": "header:X-Account"}, "delivery": {"backoffDelay": "PT0.2S", "backoffMax": "PT0.2S"}}))
        .script(|seen| if seen.path == "/1" && seen.nth < 3 { Act::status(500) } else { Act::ok() })
        .start()
        .await;
    for (path, account) in [("/1", "a"), ("/2", "a"), ("/other", "b")] {
        shop.enqueue(path, &[("x-account", account)]).await;
    }
    let seen = shop.orders().has(5).await;
    let of_a: Vec<_> =
        seen.iter().filter(|seen| seen.path != "/other").map(|seen| seen.path.as_str()).collect();
    assert_eq!(of_a, ["/1", "/1", "/1", "/2"]);
    let first = &shop.orders().seen_at("/1")[0];
    assert_eq!(first.header("x-account"), Some("a"), "a header of the application's own arrives");
}

#[tokio::test]
async fn a_blocked_lane_holds_up_no_other() {
    let shop = Setup::of(json!({"delivery": {"backoffDelay": "PT30S", "backoffMax": "PT60S"}}))
        .script(|seen| if seen.path == "/blocked" { Act::status(500) } else { Act::ok() })
        .start()
        .await;
    let blocked = shop.enqueue("/blocked", &[("tidegate-key", "bad")]).await;
    let mut behind = Vec::new();
    let mut others = Vec::new();
    for number in 0..50 {
        behind.push(shop.enqueue(&format!("/behind/{number}"), &[("tidegate-key", "bad")]).await);
        others.push(
            shop.enqueue(&format!("/other/{number}"), &[("tidegate-key", &format!("good-{}", number % 3))])
                .await,
        );
    }
    let without = shop.enqueue("/without", &[]).await;
    for id in others.iter().chain([&without]) {
        shop.reaches(id, "Succeeded").await;
    }
    shop.reaches(&blocked, "Retrying").await;
    for id in &behind {
        assert_eq!(shop.status(id).await["state"], "Queued");
    }
    assert!(shop.orders().paths().iter().all(|path| !path.starts_with("/behind")));
}

/// A queue that delivers one at a time, and is busy with `/held`.
async fn busy(spec: Value) -> (Shop, String) {
    let mut spec = spec;
    spec["rateLimits"] = json!({"maxConcurrentDispatches": 1});
    let shop = Setup::of(spec)
        .script(|seen| if seen.path == "/held" { Act::held() } else { Act::ok() })
        .start()
        .await;
    let held = shop.enqueue("/held", &[("priority", "u=0")]).await;
    shop.orders().has(1).await;
    (shop, held)
}

#[tokio::test]
async fn the_most_urgent_goes_first_and_equals_in_order() {
    let (shop, _) = busy(json!({})).await;
    for (path, urgency) in [
        ("/7", Some("u=7")),
        ("/default", None),
        ("/5", Some("u=5")),
        ("/3", Some("u=3, i")),
        ("/0", Some("u=0")),
        ("/8", Some("u=8")),
        ("/1", Some("i, u=1")),
    ] {
        let headers: Vec<_> = urgency.map(|value| ("priority", value)).into_iter().collect();
        shop.enqueue(path, &headers).await;
    }
    shop.orders().let_go();
    shop.orders().has(8).await;
    assert_eq!(shop.orders().paths(), ["/held", "/0", "/1", "/default", "/3", "/8", "/5", "/7"]);
}

#[tokio::test]
async fn priority_compares_the_heads_of_lanes() {
    let (shop, _) = busy(json!({})).await;
    for (path, key, urgency) in
        [("/a7", "a", "u=7"), ("/a0", "a", "u=0"), ("/b5", "b", "u=5"), ("/b6", "b", "u=6")]
    {
        shop.enqueue(path, &[("tidegate-key", key), ("priority", urgency)]).await;
    }
    shop.orders().let_go();
    shop.orders().has(5).await;
    assert_eq!(
        shop.orders().paths(),
        ["/held", "/b5", "/b6", "/a7", "/a0"],
        "u=0 waits behind its lane's head"
    );
}

#[tokio::test]
async fn a_delay_is_kept_and_others_do_not_wait_for_it() {
    let shop = Shop::with(json!({})).await;
    let began = Instant::now();
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(3500);
    let not_before = rfc3339(ahead);
    shop.enqueue("/delay", &[("tidegate-delay", "PT2S")]).await;
    shop.enqueue("/not-before", &[("tidegate-not-before", &not_before)]).await;
    shop.enqueue("/past", &[("tidegate-not-before", "2001-01-01T00:00:00Z")]).await;
    shop.enqueue("/now", &[]).await;
    let seen = shop.orders().has(4).await;
    assert_eq!(firsts(&seen)[2..], ["/delay", "/not-before"], "{seen:?}");
    let after = |at: usize| (seen[at].at - began).as_secs_f64();
    // That the others came first says that they did not wait. The delayed one is not woken by the last one's
    // time; the last one's upper bound is only against "never".
    assert!((1.99..3.4).contains(&after(2)), "{}", after(2));
    assert!((3.49..8.5).contains(&after(3)), "{}", after(3));
}

/// With milliseconds, of today: the suite does not run for a day.
fn rfc3339(at: Duration) -> String {
    let output = std::process::Command::new("date")
        .args([
            "-u",
            "-d",
            &format!("@{}.{:03}", at.as_secs(), at.subsec_millis()),
            "+%Y-%m-%dT%H:%M:%S.%3NZ",
        ])
        .output()
        .expect("date runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_delayed_message_joins_its_lane_when_it_is_due() {
    let shop = Shop::with(json!({})).await;
    let late = shop.enqueue("/late", &[("tidegate-key", "k"), ("tidegate-delay", "PT4S")]).await;
    let now = shop.enqueue("/now", &[("tidegate-key", "k")]).await;
    shop.reaches(&now, "Succeeded").await;
    assert_eq!(shop.status(&late).await["state"], "Scheduled", "it is in nobody's way");
    shop.reaches(&late, "Succeeded").await;
    assert_eq!(shop.orders().paths(), ["/now", "/late"]);
}

#[tokio::test]
async fn what_expires_is_not_delivered_and_lets_its_lane_go_on() {
    let mut shop = Setup::of(json!({})).plain("orders").away().start().await;
    let soon = rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3));
    let key = ("tidegate-key", "k");
    let expiring = shop.enqueue("/expiring", &[key, ("tidegate-expires", &soon)]).await;
    let behind = shop.enqueue("/behind", &[key]).await;
    let status = shop.reaches(&expiring, "DeadLettered").await;
    assert_eq!(status["reason"], "Expired", "{status}");
    shop.arrive(|_| Act::ok()).await;
    shop.reaches(&behind, "Succeeded").await;
    assert_eq!(shop.orders().paths(), ["/behind"]);
}

#[tokio::test]
async fn a_redriven_message_joins_at_the_tail_with_its_id() {
    let shop = Setup::of(json!({}))
        .script(|seen| match (seen.path.as_str(), seen.nth) {
            ("/dead", 1) => Act::status(400),
            ("/held", _) => Act::held(),
            _ => Act::ok(),
        })
        .start()
        .await;
    let key = ("tidegate-key", "k");
    let dead = shop.enqueue("/dead", &[key]).await;
    shop.reaches(&dead, "DeadLettered").await;
    shop.enqueue("/held", &[key]).await;
    shop.orders().has(2).await;
    shop.enqueue("/third", &[key]).await;
    assert!(shop.resource("POST", &format!("{dead}:redrive"), &[]).await.status < 300);
    let fifth = shop.enqueue("/fifth", &[key]).await;
    shop.orders().let_go();
    shop.reaches(&fifth, "Succeeded").await;
    let seen = shop.orders().seen();
    let paths: Vec<_> = seen.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths, ["/dead", "/held", "/third", "/dead", "/fifth"]);
    assert_eq!((seen[3].id(), seen[3].attempt()), (Some(dead.as_str()), Some(1)), "fresh attempts");
}

#[tokio::test]
async fn a_dead_letter_lets_its_lane_go_on() {
    let shop = Setup::of(json!({"delivery": {"retry": 1}}))
        .script(|seen| match seen.path.as_str() {
            "/400" => Act::status(400),
            "/500" => Act::status(500),
            _ => Act::ok(),
        })
        .start()
        .await;
    let key = ("tidegate-key", "k");
    for path in ["/400", "/500", "/last"] {
        shop.enqueue(path, &[key]).await;
    }
    shop.orders().has(4).await;
    assert_eq!(shop.orders().paths(), ["/400", "/500", "/500", "/last"]);
}

#[tokio::test]
async fn a_cancelled_message_lets_its_lane_go_on() {
    let shop = Setup::of(json!({"delivery": {"backoffDelay": "PT30S", "backoffMax": "PT60S"}}))
        .script(|seen| if seen.path == "/first" { Act::status(500) } else { Act::ok() })
        .start()
        .await;
    let key = ("tidegate-key", "k");
    let first = shop.enqueue("/first", &[key]).await;
    let second = shop.enqueue("/second", &[key]).await;
    let third = shop.enqueue("/third", &[key]).await;
    shop.reaches(&first, "Retrying").await;
    assert_eq!(shop.resource("DELETE", &second, &[]).await.status, 204, "behind the head");
    assert_eq!(shop.resource("DELETE", &first, &[]).await.status, 204, "the head itself");
    shop.reaches(&third, "Succeeded").await;
    assert_eq!(shop.orders().paths(), ["/first", "/third"]);
}

#[tokio::test]
async fn without_a_key_nobody_waits_for_anybody() {
    let shop = Setup::of(json!({}))
        .script(|seen| if seen.path == "/held" { Act::held() } else { Act::ok() })
        .start()
        .await;
    shop.enqueue("/held", &[]).await;
    shop.orders().has(1).await;
    let id = id_of(&shop.post("/next", &[PREFER], "").await);
    shop.reaches(&id, "Succeeded").await;
    shop.orders().let_go();
    until("the end", || async { shop.metric("tidegate_queue_messages", &[]).await }, |left| *left == 0.0)
        .await;
}
