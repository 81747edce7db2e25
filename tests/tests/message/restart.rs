//! restart: what a killed sidecar had promised, the next one keeps.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of};

#[tokio::test]
async fn what_was_accepted_is_delivered_by_the_next_sidecar() {
    let mut shop = Setup::of(json!({})).plain("orders").away().start().await;
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(shop.enqueue(&format!("/{number}"), &[("tidegate-key", &format!("k{}", number % 3))]).await);
    }
    shop.kill_and_start().await;
    for id in &ids {
        let state = shop.status(id).await["state"].clone();
        assert!(state == "Queued" || state == "Retrying" || state == "Delivering", "{id}: {state}");
    }
    shop.arrive(|_| Act::ok()).await;
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    let mut lanes = vec![Vec::new(); 3];
    for path in shop.orders().paths() {
        let number: usize = path[1..].parse().unwrap();
        lanes[number % 3].push(number);
    }
    for lane in lanes {
        assert!(lane.is_sorted(), "{lane:?}");
        assert_eq!(lane.len(), 10);
    }
}

#[tokio::test]
async fn an_id_stays_what_the_client_was_told_when_the_pod_comes_back_at_another_address() {
    let mut shop = Setup::of(json!({})).plain("orders").away().start().await;
    let id = shop.enqueue("/", &[]).await;
    let directory = shop.queue.path().display().to_string();
    shop.mesh.restart("web", &["--queue-directory", &directory, "--pod-ip", "10.9.9.9"].map(str::to_owned));
    shop.is_ready().await;
    let waits = shop.status(&id).await;
    assert!(
        ["Queued", "Retrying", "Delivering"].map(|state| json!(state)).contains(&waits["state"]),
        "{waits}"
    );
    assert_eq!(waits["id"], json!(id));
    shop.arrive(|_| Act::ok()).await;
    shop.reaches(&id, "Succeeded").await;
    let seen = &shop.orders().seen_at("/")[0];
    assert_eq!(seen.header("tidegate-request-id"), Some(id.as_str()));
    assert_eq!(seen.header("idempotency-key").map(|key| key.trim_matches('"')), Some(id.as_str()));
}

#[tokio::test]
async fn bodies_and_headers_survive() {
    let mut shop = Setup::of(json!({"maxBodyBytes": "2Mi"})).plain("orders").away().start().await;
    // Bodies around the store's chunks.
    let bodies = [0, 1, 65_535, 65_536, 65_537, 1_500_000].map(|length| "x".repeat(length));
    let mut ids = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let headers = [PREFER, ("x-number", &number.to_string())];
        ids.push(id_of(&shop.post(&format!("/{number}?q=1"), &headers, body).await));
    }
    shop.kill_and_start().await;
    shop.arrive(|_| Act::ok()).await;
    for (number, (id, body)) in ids.iter().zip(&bodies).enumerate() {
        shop.reaches(id, "Succeeded").await;
        let seen = &shop.orders().seen_at(&format!("/{number}"))[0];
        assert!(seen.body == body.as_bytes(), "{number}: {} bytes of {}", seen.body.len(), body.len());
        assert_eq!(seen.header("x-number"), Some(number.to_string().as_str()));
    }
}

#[tokio::test]
async fn results_and_ends_survive() {
    let mut shop = Setup::of(json!({}))
        .script(|seen| match seen.path.as_str() {
            "/400" => Act::with(400, "x-why", "bad"),
            _ => Act::with(201, "x-order", "7"),
        })
        .start()
        .await;
    let done = shop.enqueue("/done", &[]).await;
    let dead = shop.enqueue("/400", &[]).await;
    shop.reaches(&done, "Succeeded").await;
    shop.reaches(&dead, "DeadLettered").await;
    let before = (shop.status(&done).await, shop.status(&dead).await);
    shop.kill_and_start().await;
    assert_eq!((shop.status(&done).await, shop.status(&dead).await), before);
    assert_eq!(shop.result(&done).await.header("x-order").as_deref(), Some("7"));
    let result = shop.result(&dead).await;
    assert_eq!((result.status, result.header("x-why").as_deref()), (400, Some("bad")));
    assert!(shop.resource("POST", &format!("{dead}:redrive"), &[]).await.status < 300);
    shop.orders().has(3).await;
}

#[tokio::test]
async fn due_times_survive() {
    let mut shop = Shop::with(json!({})).await;
    let began = Instant::now();
    let id = shop.enqueue("/later", &[("tidegate-delay", "PT6S")]).await;
    let due = shop.status(&id).await["nextAttemptAt"].clone();
    shop.kill_and_start().await;
    let status = shop.status(&id).await;
    assert_eq!((&status["state"], &status["nextAttemptAt"]), (&json!("Scheduled"), &due), "{status}");
    let seen = shop.orders().has(1).await;
    let after = seen[0].at - began;
    assert!(after >= Duration::from_millis(5900) && after < Duration::from_secs(11), "{after:?}");
}

#[tokio::test]
async fn backoff_and_retry_after_survive() {
    let mut shop = Setup::of(json!({}))
        .script(|seen| if seen.nth == 1 { Act::with(503, "retry-after", "3") } else { Act::ok() })
        .start()
        .await;
    let id = shop.enqueue("/", &[]).await;
    shop.reaches(&id, "Retrying").await;
    shop.kill_and_start().await;
    shop.reaches(&id, "Succeeded").await;
    let seen = shop.orders().seen();
    let waited = seen[1].at - seen[0].at;
    assert!(waited >= Duration::from_millis(2900), "{waited:?}");
}

#[tokio::test]
async fn the_idempotency_window_survives() {
    let mut shop = Shop::with(json!({})).await;
    let key = ("idempotency-key", "k");
    let ended = shop.enqueue("/", &[key]).await;
    shop.reaches(&ended, "Succeeded").await;
    let waiting = shop.enqueue("/later", &[("idempotency-key", "l"), ("tidegate-delay", "PT1H")]).await;
    shop.kill_and_start().await;
    for (path, key, first) in [("/", "k", &ended), ("/later", "l", &waiting)] {
        let again = shop.post(path, &[PREFER, ("idempotency-key", key)], "body").await;
        assert_eq!(id_of(&again), **first);
        assert_eq!(again.header("tidegate-duplicate").as_deref(), Some("?1"));
    }
    let other = shop.post("/", &[PREFER, key], "other").await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(shop.orders().seen().len(), 1);
}

#[tokio::test]
async fn a_message_that_kills_its_sender_ends_in_the_dead_letter() {
    let mut shop = Setup::of(json!({"delivery": {"retry": 2}}))
        .script(|seen| if seen.path == "/deadly" { Act::held() } else { Act::ok() })
        .start()
        .await;
    let key = ("tidegate-key", "k");
    let deadly = shop.enqueue("/deadly", &[key]).await;
    let behind = shop.enqueue("/behind", &[key]).await;
    for attempt in 1..=3 {
        let seen = || async { shop.orders().seen_at("/deadly") };
        let seen = until("the next attempt", seen, |seen| seen.len() >= attempt).await;
        assert_eq!(seen.len(), attempt);
        assert_eq!(seen[attempt - 1].attempt(), u32::try_from(attempt).ok());
        // It kills its sender while the attempt runs.
        shop.kill_and_start().await;
    }
    let status = shop.reaches(&deadly, "DeadLettered").await;
    assert_eq!(status["reason"], "Exhausted", "{status}");
    shop.reaches(&behind, "Succeeded").await;
    assert_eq!(shop.orders().seen_at("/deadly").len(), 3, "it does not loop for ever");
    assert_eq!(shop.orders().seen_at("/behind").len(), 1);
}

#[tokio::test]
async fn attempts_cut_off_by_a_kill_are_told() {
    let mut shop = Setup::of(json!({"delivery": {"retry": 1}})).script(|_| Act::held()).start().await;
    let id = shop.enqueue("/", &[]).await;
    let enqueued_at = shop.status(&id).await["enqueuedAt"].clone();
    for attempt in 1..=2 {
        shop.orders().has(attempt).await;
        shop.kill_and_start().await;
    }
    let status = shop.reaches(&id, "DeadLettered").await;
    let attempts = status["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 2, "both attempts: {status}");
    for attempt in attempts {
        assert!(attempt["error"].is_string() && attempt["status"].is_null(), "{status}");
        assert!(
            attempt["at"].as_str() >= enqueued_at.as_str(),
            "an attempt is not before its message: {status}"
        );
    }
}

#[tokio::test]
async fn after_kills_at_any_moment_nothing_is_lost_and_lanes_repeat_one_at_most() {
    let mut shop = Setup::of(json!({"delivery": {"retry": 100}})).script(|_| Act::after(5)).start().await;
    let mut accepted = Vec::new();
    const KILLS: usize = 5;
    for kill in 0..KILLS {
        for number in 0..20 {
            let path = format!("/{}/{}", number % 4, kill * 20 + number);
            accepted.push(shop.enqueue(&path, &[("tidegate-key", &format!("k{}", number % 4))]).await);
        }
        shop.kill_and_start().await;
    }
    for id in &accepted {
        shop.reaches(id, "Succeeded").await;
    }
    let mut lanes = vec![Vec::new(); 4];
    for path in shop.orders().paths() {
        let (lane, number) = path[1..].split_once('/').unwrap();
        lanes[lane.parse::<usize>().unwrap()].push(number.parse::<usize>().unwrap());
    }
    for (lane, numbers) in lanes.into_iter().enumerate() {
        assert!(numbers.is_sorted(), "lane {lane}: {numbers:?}");
        let mut distinct = numbers.clone();
        distinct.dedup();
        assert_eq!(distinct.len(), KILLS * 5, "lane {lane}: nothing is lost: {numbers:?}");
        assert!(
            numbers.len() - distinct.len() <= KILLS,
            "lane {lane}: one repeats after each crash: {numbers:?}"
        );
    }
}

#[tokio::test]
async fn memory_promises_no_more_than_it_says() {
    let mut shop = Setup::of(json!({"durability": "Memory"})).no_queue().plain("orders").away().start().await;
    let answer = shop.post("/", &[PREFER], "").await;
    assert_eq!(answer.header("tidegate-durability").as_deref(), Some("memory"));
    let id = id_of(&answer);
    shop.arrive(|_| Act::ok()).await;
    shop.reaches(&id, "Succeeded").await;
    shop.kill_and_start().await;
    let gone = shop.resource("GET", &id, &[]).await;
    assert_eq!(gone.status, 404, "{gone:?}");
}
