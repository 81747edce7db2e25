//! drain: told to stop, the sidecar delivers what it can, keeps the rest, and buries nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::mesh::{program, until};
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, is_problem, retry_after};

async fn is_draining(shop: &Shop) {
    let ready = || async { shop.mesh.admin("web", "/ready").await.status };
    until("readiness false", ready, |status| *status == 503).await;
}

#[tokio::test]
async fn a_backlog_is_delivered_within_the_grace() {
    let spec = json!({"rateLimits": {"maxConcurrentDispatches": 2}, "delivery": {"timeout": "PT30S"}});
    let mut shop = Setup::of(spec)
        .script(|seen| if seen.path == "/0" { Act::held() } else { Act::after(100) })
        .start()
        .await;
    for number in 0..20 {
        shop.enqueue(&format!("/{number}"), &[]).await;
    }
    shop.orders().has(1).await;
    shop.mesh.sidecars["web"].signal("-TERM");
    is_draining(&shop).await;
    let refused = shop.post("/late", &[PREFER], "").await;
    is_problem("asynchronous", &refused, 503, &[]);
    retry_after("asynchronous", &refused);
    let synchronous = shop.send("GET /synchronous", &[], "").await;
    assert_eq!(synchronous.status, 200, "synchronous traffic goes on: {synchronous:?}");
    // Until here one is under way, and there is something to drain.
    shop.orders().let_go();
    let ended = shop.mesh.sidecars.get_mut("web").unwrap().ended().await;
    assert!(ended.success(), "{ended:?}");
    let paths = shop.orders().paths();
    for number in 0..20 {
        let path = format!("/{number}");
        assert_eq!(paths.iter().filter(|seen| **seen == path).count(), 1, "{path} in {paths:?}");
    }
    assert!(!paths.contains(&"/late".to_owned()));
    shop.start_again().await;
    assert_eq!(shop.metric("tidegate_queue_messages", &[]).await, 0.0);
    assert_eq!(shop.metric("tidegate_queue_dead_letter_messages", &[]).await, 0.0);
}

/// Runs `tidegate-proxy drain` as the kubelet runs a preStop hook: in the sidecar's environment.
async fn hook(shop: &Shop) -> std::process::Output {
    let admin = shop.admin().to_string();
    let environment = [
        ("TIDEGATE_ADMIN", admin.as_str()),
        ("TIDEGATE_ANCHORS", "/nowhere/anchors.pem"),
        ("TIDEGATE_TOKEN_FILE", "/nowhere/token"),
        ("TIDEGATE_NAMESPACE", "shop"),
        ("TIDEGATE_STRICT", "false"),
    ];
    let mut command = tokio::process::Command::new(program("tidegate-proxy"));
    command.arg("drain").envs(environment).output().await.expect("it starts")
}

#[tokio::test]
async fn the_prestop_hook_begins_the_drain_and_the_sidecar_goes_on_until_sigterm() {
    let mut shop = Setup::of(json!({})).script(|_| Act::after(20)).start().await;
    shop.enqueue("/before", &[]).await;
    let told = hook(&shop).await;
    assert!(told.status.success(), "{told:?}");
    is_draining(&shop).await;
    let refused = shop.post("/late", &[PREFER], "").await;
    is_problem("asynchronous", &refused, 503, &["problems/draining"]);
    // With its queue empty and nobody connected it would have ended, had this been the word to stop.
    let empty = || shop.metric("tidegate_queue_messages", &[]);
    until("everything delivered", empty, |waiting| *waiting == 0.0).await;
    for number in 0..10 {
        let synchronous = shop.send(&format!("GET /synchronous/{number}"), &[], "").await;
        let answered = (synchronous.status, synchronous.header("connection"));
        assert_eq!(answered, (200, None), "the application beside still works: {synchronous:?}");
    }
    assert!(hook(&shop).await.status.success(), "told twice is told once");
    let sidecar = shop.mesh.sidecars.get_mut("web").unwrap();
    assert!(sidecar.is_running());
    sidecar.signal("-TERM");
    assert!(sidecar.ended().await.success());
    assert!(shop.orders().paths().contains(&"/before".to_owned()));
}

#[tokio::test]
async fn the_grace_runs_from_the_hook_and_leaves_a_last_moment() {
    let mut shop = Setup::of(json!({})).flags(&["--drain-grace", "2s"]).script(|_| Act::held()).start().await;
    shop.enqueue("/held", &[]).await;
    shop.orders().has(1).await;
    assert!(hook(&shop).await.status.success());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let began = std::time::Instant::now();
    let sidecar = shop.mesh.sidecars.get_mut("web").unwrap();
    sidecar.signal("-TERM");
    sidecar.ended().await;
    let took = began.elapsed().as_secs_f64();
    assert!((0.8..1.9).contains(&took), "the grace is used up, and a second is left: {took} s");
}

#[tokio::test]
async fn a_hook_that_finds_no_sidecar_says_so() {
    let shop = Setup::of(json!({})).start().await;
    let admin = shop.admin();
    drop(shop);
    let mut command = tokio::process::Command::new(program("tidegate-proxy"));
    let told = command.arg("drain").arg("--admin").arg(admin.to_string()).output().await.unwrap();
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!told.status.success() && said.contains("is it running?"), "{said}");
}

/// A second of grace for a backlog of three, and one that is held.
async fn cut_short(delivery: Value) -> (Shop, Vec<String>) {
    let mut shop = Setup::of(json!({"rateLimits": {"maxConcurrentDispatches": 2}, "delivery": delivery}))
        .flags(&["--drain-grace", "1s"])
        .script(|seen| if seen.path == "/held" { Act::held() } else { Act::after(150) })
        .start()
        .await;
    let mut ids = vec![shop.enqueue("/held", &[]).await];
    shop.orders().has(1).await;
    for number in 0..20 {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    shop.mesh.sidecars["web"].signal("-TERM");
    let ended = shop.mesh.sidecars.get_mut("web").unwrap().ended().await;
    assert!(ended.success(), "{ended:?}");
    (shop, ids)
}

#[tokio::test]
async fn what_outlasts_the_grace_stays_and_is_delivered_by_the_next_start() {
    let (mut shop, ids) = cut_short(json!({"timeout": "PT30S"})).await;
    let log = shop.mesh.sidecars["web"].log();
    let told = log.lines().find(|line| line.contains("messages") && line.contains("stay"));
    let told = told.unwrap_or_else(|| panic!("no line says how much stays:\n{log}"));
    let count: usize = told
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '=')
        .find_map(|word| word.strip_prefix("messages="))
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no number in {told}"));
    assert!((1..=20).contains(&count), "{told}");
    let before = shop.orders().seen().len();
    assert!(before > 2, "dispatch goes on within the budget");
    shop.orders().let_go();
    shop.start_again().await;
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
    let paths = shop.orders().paths();
    let repeated = paths.len() - ids.len();
    assert!(repeated <= 2, "what was answered is not sent again: {paths:?}");
    assert_eq!(shop.metric("tidegate_queue_dead_letter_messages", &[]).await, 0.0);
}

#[tokio::test]
async fn an_attempt_cut_short_by_a_shutdown_is_never_a_dead_letter() {
    // One attempt alone: did the shutdown use it up, its message would be dead.
    let (mut shop, ids) = cut_short(json!({"retry": 0, "timeout": "PT30S"})).await;
    shop.orders().let_go();
    shop.start_again().await;
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_the_drain_up_no_longer_than_the_grace() {
    let mut shop = Setup::of(json!({"delivery": {"retry": 0}}))
        .flags(&["--drain-grace", "1s"])
        .plain("orders")
        .away()
        .start()
        .await;
    let id = shop.enqueue("/", &[]).await;
    let later = shop.enqueue("/later", &[("tidegate-delay", "PT2S")]).await;
    let began = std::time::Instant::now();
    shop.mesh.sidecars["web"].signal("-TERM");
    shop.mesh.sidecars.get_mut("web").unwrap().ended().await;
    // The grace, and what an end takes on a slow machine; without an end it would be 25 s.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    shop.arrive(|_| Act::ok()).await;
    shop.start_again().await;
    shop.reaches(&id, "Succeeded").await;
    shop.reaches(&later, "Succeeded").await;
}

#[tokio::test]
async fn what_is_due_later_does_not_hold_the_drain_up() {
    let mut shop = Shop::with(json!({})).await;
    let later = shop.enqueue("/later", &[("tidegate-delay", "PT1H")]).await;
    let began = std::time::Instant::now();
    shop.mesh.sidecars["web"].signal("-TERM");
    shop.mesh.sidecars.get_mut("web").unwrap().ended().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    shop.start_again().await;
    assert_eq!(shop.status(&later).await["state"], "Scheduled");
}
