//! rates: the receiver never sees more than `rateLimits` lets through.

use std::time::Instant;

use serde_json::json;

use crate::receiver::Act;
use crate::shop::Setup;

#[tokio::test]
async fn no_more_deliveries_are_under_way_than_allowed() {
    // Held until as many are there as may be; then each takes a while, so that the next would overlap it.
    let shop = Setup::of(json!({"rateLimits": {"maxConcurrentDispatches": 3}}))
        .script(|_| Act::Held(Box::new(Act::after(30))))
        .start()
        .await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    shop.orders().has(3).await;
    shop.orders().let_go();
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    assert_eq!(shop.orders().under_way_max(), 3);
}

#[tokio::test]
async fn concurrency_counts_what_is_held() {
    let shop = Setup::of(json!({"rateLimits": {"maxConcurrentDispatches": 4}}))
        .script(|_| Act::held())
        .start()
        .await;
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    shop.orders().has(4).await;
    assert_eq!(shop.metric("tidegate_queue_in_flight", &[]).await, 4.0);
    for id in &ids[4..] {
        assert_eq!(shop.status(id).await["state"], "Queued");
    }
    shop.orders().let_go();
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    assert_eq!(shop.orders().under_way_max(), 4);
}

#[tokio::test]
async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
    for (burst, rate, messages) in [(1, 20.0, 21), (10, 20.0, 30)] {
        let spec = json!({"rateLimits": {"maxDispatchesPerSecond": rate, "maxBurstSize": burst}});
        let shop = Setup::of(spec).start().await;
        // The way to orders is there: no delivery waits for it.
        assert_eq!(shop.post("/first", &[], "").await.status, 200);
        // No message goes before it is there, and none comes before it goes: counted from here, a machine
        // that is slow only makes them later.
        let began = Instant::now();
        for number in 0..messages {
            shop.enqueue(&format!("/{number}"), &[]).await;
        }
        let enqueued = began.elapsed().as_secs_f64();
        let row = format!("burst {burst}, {rate} a second");
        let seen = shop.orders().has(1 + messages).await;
        let times: Vec<_> = seen[1..].iter().map(|one| (one.at - began).as_secs_f64()).collect();
        for (at, time) in times.iter().enumerate() {
            // No more than burst and rate allow (GCRA), but for the milliseconds in which it counts.
            #[allow(clippy::cast_precision_loss, reason = "a few dozen")]
            let least = ((at + 1) as f64 - f64::from(burst)) / rate;
            assert!(*time > least - 0.002, "{row}: number {at} came after {time} s, not {least}: {times:?}");
        }
        #[allow(clippy::cast_precision_loss, reason = "a few dozen")]
        let most = enqueued + messages as f64 / rate + 2.0;
        assert!(times[messages - 1] < most, "{row}: {times:?}");
    }
}

#[tokio::test]
async fn every_value_of_a_header_has_limits_of_its_own() {
    let shop = Setup::of(json!({"rateLimits": {"maxConcurrentDispatches": 1, "key": "header:X-Tenant"}}))
        .script(|seen| if seen.header("x-tenant") == Some("slow") { Act::held() } else { Act::ok() })
        .start()
        .await;
    let mut slow = Vec::new();
    let mut quick = Vec::new();
    for number in 0..5 {
        slow.push(shop.enqueue(&format!("/slow/{number}"), &[("x-tenant", "slow")]).await);
        quick.push(shop.enqueue(&format!("/quick/{number}"), &[("x-tenant", "quick")]).await);
    }
    for id in &quick {
        shop.reaches(id, "Succeeded").await;
    }
    let at =
        |path: &'static str| shop.orders().paths().into_iter().filter(|seen| seen.starts_with(path)).count();
    assert_eq!((at("/slow"), at("/quick")), (1, 5), "slow has one at a time, and is nobody's business");
    shop.orders().let_go();
    for id in &slow {
        shop.reaches(id, "Succeeded").await;
    }
}

#[tokio::test]
async fn the_receivers_push_back_sets_the_rate() {
    // The callee's capacity is 2; it answers 429 to more.
    let under_way = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let shop = Setup::of(json!({"delivery": {"retry": 0}, "rateLimits": {"maxConcurrentDispatches": 8}}))
        .script(move |seen| {
            let first = under_way.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if first % 3 == 2 && seen.nth == 1 { Act::with(429, "retry-after", "1") } else { Act::after(20) }
        })
        .start()
        .await;
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    for id in &ids {
        let status = shop.reaches(id, "Succeeded").await;
        assert_eq!(status["state"], "Succeeded", "a receiver that is full costs nothing: {status}");
    }
}
