//! metrics: what is counted after a sequence that is known, and the drain estimate against the clock.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop};

const NAMES: [&str; 10] = [
    "tidegate_queue_messages",
    "tidegate_queue_bytes",
    "tidegate_queue_oldest_message_age_seconds",
    "tidegate_queue_enqueue_total",
    "tidegate_queue_commit_seconds_count",
    "tidegate_queue_delivery_attempts_total",
    "tidegate_queue_in_flight",
    "tidegate_queue_throttled_seconds_total",
    "tidegate_queue_dead_letter_messages",
    "tidegate_queue_drain_estimate_seconds",
];

async fn is_at(shop: &Shop, name: &str, labels: &[(&str, &str)], value: f64) {
    let what = format!("{name}{labels:?} = {value}");
    until(&what, || shop.metric(name, labels), |seen| (*seen - value).abs() < 1e-9).await;
}

#[tokio::test]
async fn every_metric_has_the_value_of_a_known_sequence() {
    let spec = json!({"queue": {"maxMessages": 4}, "delivery": {"retry": 1},
        "rateLimits": {"maxConcurrentDispatches": 1}});
    let shop = Setup::of(spec)
        .script(|seen| match (seen.path.as_str(), seen.nth) {
            ("/500", 1) => Act::status(500),
            ("/503", 1) => Act::status(503),
            ("/400", _) => Act::status(400),
            ("/held", _) => Act::held(),
            _ => Act::ok(),
        })
        .start()
        .await;
    for (path, state) in [
        ("/1", "Succeeded"),
        ("/2", "Succeeded"),
        ("/500", "Succeeded"),
        ("/503", "Succeeded"),
        ("/400", "DeadLettered"),
    ] {
        let id = shop.enqueue(path, &[("idempotency-key", path)]).await;
        shop.reaches(&id, state).await;
    }
    let duplicate = shop.post("/1", &[PREFER, ("idempotency-key", "/1")], "body").await;
    assert_eq!(duplicate.status, 202);
    let other = shop.post("/1", &[PREFER, ("idempotency-key", "/1")], "other").await;
    assert_eq!(other.status, 422);
    let held = shop.enqueue("/held", &[]).await;
    shop.reaches(&held, "Delivering").await;
    shop.enqueue("/later", &[("tidegate-delay", "PT1H")]).await;
    shop.enqueue("/queued", &[]).await;
    shop.enqueue("/queued", &[]).await;
    assert_eq!(shop.post("/full", &[PREFER], "").await.status, 429);

    for (result, count) in
        [("accepted", 9.0), ("duplicate", 1.0), ("other_fingerprint", 1.0), ("queue_full", 1.0)]
    {
        is_at(&shop, "tidegate_queue_enqueue_total", &[("result", result)], count).await;
    }
    for (outcome, count) in
        [("delivered", 4.0), ("retried", 1.0), ("pushed_back", 1.0), ("dead_lettered", 1.0)]
    {
        is_at(&shop, "tidegate_queue_delivery_attempts_total", &[("outcome", outcome)], count).await;
    }
    for (state, count) in [("queued", 2.0), ("scheduled", 1.0), ("retrying", 0.0), ("delivering", 1.0)] {
        is_at(&shop, "tidegate_queue_messages", &[("state", state)], count).await;
    }
    is_at(&shop, "tidegate_queue_in_flight", &[], 1.0).await;
    is_at(&shop, "tidegate_queue_dead_letter_messages", &[], 1.0).await;
    let bytes = shop.metric("tidegate_queue_bytes", &[]).await;
    assert!((16.0..16_384.0).contains(&bytes), "four bodies of four bytes and their heads: {bytes}");
    let commits = shop.metric("tidegate_queue_commit_seconds_count", &[]).await;
    assert!(commits >= 9.0, "{commits}");
    let concurrency = [("reason", "concurrency")];
    shop.mesh.reaches("web", "tidegate_queue_throttled_seconds_total", &concurrency, 0.05).await;
    let age = "tidegate_queue_oldest_message_age_seconds";
    shop.mesh.reaches("web", age, &[], 1.0).await;
    assert!(shop.metric(age, &[]).await < 30.0);

    let text = shop.mesh.admin("web", "/metrics").await.text();
    for name in NAMES {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        let queue = name.contains("commit") || line.contains("queue=\"shop/orders-async/");
        assert!(queue, "the label names the queue: {line}");
    }
    shop.orders().let_go();
    is_at(&shop, "tidegate_queue_messages", &[], 1.0).await;
    is_at(&shop, "tidegate_queue_in_flight", &[], 0.0).await;
    is_at(&shop, "tidegate_queue_delivery_attempts_total", &[("outcome", "delivered")], 7.0).await;
}

#[tokio::test]
async fn a_queue_held_back_says_for_what() {
    let shop = Shop::with(json!({"paused": true})).await;
    shop.enqueue("/", &[]).await;
    let paused = [("reason", "paused_by_policy")];
    shop.mesh.reaches("web", "tidegate_queue_throttled_seconds_total", &paused, 0.1).await;
    let mut shop = Setup::of(json!({})).plain("orders").away().start().await;
    let id = shop.enqueue("/", &[]).await;
    shop.mesh
        .reaches("web", "tidegate_queue_throttled_seconds_total", &[("reason", "unavailable")], 0.1)
        .await;
    let unavailable = [("outcome", "unavailable")];
    shop.mesh.reaches("web", "tidegate_queue_delivery_attempts_total", &unavailable, 2.0).await;
    shop.arrive(|_| Act::ok()).await;
    shop.reaches(&id, "Succeeded").await;
}

/// A gauge of one scrape.
fn gauge(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How many wait while nothing is delivered, and come while the backlog drains.
const BACKLOG: usize = 80;
const MORE: usize = 10;
/// C, and how many may go at once. With a burst of one, each that goes late makes all others late.
const SERVED: usize = 40;
const BURST: usize = 10;

#[tokio::test]
#[allow(clippy::cast_precision_loss, reason = "a few dozen")]
async fn a_backlog_drains_at_the_rate_served_as_the_estimate_says() {
    let rate = json!({"maxDispatchesPerSecond": SERVED, "maxBurstSize": BURST});
    let mut shop = Setup::of(json!({"paused": true, "rateLimits": rate})).start().await;
    for number in 0..BACKLOG {
        shop.enqueue(&format!("/backlog/{number}"), &[]).await;
    }
    // A sidecar that has seen nobody come: P is 10 a second at most for a while, and not the backlog.
    shop.kill_and_start().await;
    let resumed = Instant::now();
    shop.rewrite("\"paused\":true", "\"paused\":false");
    shop.orders().has(1).await;
    let (mut more, mut seen_finite) = (0, false);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let text = shop.mesh.admin("web", "/metrics").await.text();
        let [depth, estimate, p, c] = [
            "tidegate_queue_messages",
            "tidegate_queue_drain_estimate_seconds",
            "tidegate_queue_arrivals_per_second",
            "tidegate_queue_served_per_second",
        ]
        .map(|name| gauge(&text, name));
        let utilisation = gauge(&text, "tidegate_queue_utilisation");
        let row = format!("Q {depth}, P {p}, C {c}, estimated {estimate} s, P/C {utilisation}");
        if depth == 0.0 {
            assert!(estimate.abs() < 1e-9, "{row}");
            break;
        }
        if c <= p {
            assert!(estimate.is_infinite(), "{row}");
        } else {
            seen_finite = true;
            let expected = depth / (c - p);
            assert!((estimate - expected).abs() < 0.05 * expected + 0.2, "{row}");
        }
        assert!(c <= 0.0 || (utilisation - p / c).abs() < 0.05 * utilisation + 0.05, "{row}");
        if more < MORE {
            shop.enqueue(&format!("/more/{more}"), &[]).await;
            more += 1;
        }
        assert!(depth <= (BACKLOG + MORE) as f64, "{row}");
    }
    let seen = shop.orders().seen();
    assert_eq!(seen.len(), BACKLOG + more);
    let least = (seen.len() - BURST) as f64 / SERVED as f64;
    let (first, last) = (seen[0].at, seen[seen.len() - 1].at);
    let [since_resumed, span] = [last - resumed, last - first].map(|time| time.as_secs_f64());
    let row = format!("throughput is min(P, C) = C: {} in {span} s, {least} s are right", seen.len());
    // Nothing went before it might, however slow the machine is; on top come its last attempts.
    assert!(since_resumed > least - 0.002 && span < 1.1 * least + 0.5, "{row}");
    assert!(seen_finite, "no finite estimate was ever given");
}
