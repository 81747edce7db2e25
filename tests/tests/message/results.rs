//! results: what a delivery's result means, row by row.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{Setup, Shop, empty_service, id_of, policy, send};

/// A receiver that does the same to every request on a row's path, so many times, and then answers well.
struct Row {
    name: &'static str,
    act: Box<dyn Fn() -> Act + Send + Sync>,
    times: usize,
}

impl Row {
    fn always(name: &'static str, act: Act) -> Self {
        Self::times(name, usize::MAX, act)
    }

    fn times(name: &'static str, times: usize, act: Act) -> Self {
        Self::made(name, times, move || act.clone())
    }

    /// With what is made when the request is there.
    fn made(name: &'static str, times: usize, act: impl Fn() -> Act + Send + Sync + 'static) -> Self {
        Self { name, act: Box::new(act), times }
    }
}

/// Delivers one message for each row at once; their final statuses, by row.
async fn delivered(spec: Value, rows: Vec<Row>) -> (Shop, Vec<(&'static str, String, Value)>) {
    let names: Vec<_> = rows.iter().map(|row| row.name).collect();
    let script: HashMap<String, Row> =
        rows.into_iter().enumerate().map(|(at, row)| (format!("/{at}"), row)).collect();
    let shop = Setup::of(spec)
        .script(move |seen| match script.get(&seen.path) {
            Some(row) if seen.nth <= row.times => (row.act)(),
            _ => Act::ok(),
        })
        .start()
        .await;
    let mut ids = Vec::new();
    for at in 0..names.len() {
        ids.push(shop.enqueue(&format!("/{at}"), &[]).await);
    }
    let mut ends = Vec::new();
    for (name, id) in names.into_iter().zip(ids) {
        let ended = |status: &Value| status["state"] == "Succeeded" || status["state"] == "DeadLettered";
        let status = until(name, || shop.status(&id), ended).await;
        ends.push((name, id, status));
    }
    (shop, ends)
}

/// Enough for rows that wait for nothing, and few enough to be used up.
fn two_retries() -> Value {
    json!({"delivery": {"retry": 2}, "rateLimits": {"maxConcurrentDispatches": 100}})
}

/// The same for a row that waits for nothing but the end of its time.
fn two_short_retries() -> Value {
    json!({"delivery": {"retry": 2, "timeout": "PT1S"}})
}

#[tokio::test]
async fn a_success_is_done_after_one_attempt() {
    let rows = [("200", 200), ("201", 201), ("202", 202), ("204", 204), ("206", 206)];
    let rows = rows.map(|(name, status)| Row::always(name, Act::Answer(status, vec![], "")));
    let (shop, ends) = delivered(two_retries(), rows.into()).await;
    for (at, (row, id, status)) in ends.into_iter().enumerate() {
        assert_eq!(status["state"], "Succeeded", "{row}: {status}");
        assert_eq!(shop.orders().seen_at(&format!("/{at}")).len(), 1, "{row}");
        assert_eq!(shop.result(&id).await.status.to_string(), row);
    }
}

#[tokio::test]
async fn a_refusal_for_good_is_a_dead_letter_at_once_and_its_response_kept() {
    let names = [
        "300", "301", "302", "303", "307", "308", "400", "401", "402", "403", "405", "406", "411", "412",
        "413", "414", "415", "416", "417", "418", "421", "422", "423", "424", "426", "428", "431", "451",
    ];
    let rows = names.map(|name| Row::always(name, Act::with(name.parse().unwrap(), "x-row", name)));
    let (shop, ends) = delivered(two_retries(), rows.into()).await;
    for (at, (row, id, status)) in ends.into_iter().enumerate() {
        assert_eq!(status["state"], "DeadLettered", "{row}: {status}");
        assert_eq!(status["reason"], "NonRetryable", "{row}: {status}");
        assert_eq!(shop.orders().seen_at(&format!("/{at}")).len(), 1, "{row}: one attempt");
        let kept = shop.result(&id).await;
        assert_eq!(
            (kept.status.to_string().as_str(), kept.text().as_str()),
            (row, "said"),
            "{row}: {kept:?}"
        );
        assert_eq!(kept.header("x-row").as_deref(), Some(row));
    }
}

#[tokio::test]
async fn gone_is_a_dead_letter() {
    let (shop, ends) = delivered(two_retries(), vec![Row::always("410", Act::status(410))]).await;
    assert_eq!(ends[0].2["state"], "DeadLettered", "{}", ends[0].2);
    assert_eq!(shop.orders().seen().len(), 1);
    assert_eq!(shop.result(&ends[0].1).await.status, 410);
}

/// What may pass: each is retried and uses an attempt up.
fn failures() -> [(Value, Vec<(&'static str, Act)>); 2] {
    let statuses =
        ["404", "408", "409", "425", "500", "501", "502", "504", "505", "507", "508", "511", "599"];
    let mut failures: Vec<_> = statuses.map(|name| (name, Act::status(name.parse().unwrap()))).into();
    failures.extend([("lost after bytes", Act::Break), ("torn answer", Act::Torn(200))]);
    [(two_retries(), failures), (two_short_retries(), vec![("timeout", Act::held())])]
}

#[tokio::test]
async fn a_failure_that_may_pass_is_retried_and_succeeds() {
    for (spec, failures) in failures() {
        let rows = failures.into_iter().map(|(name, act)| Row::times(name, 2, act)).collect();
        let (shop, ends) = delivered(spec, rows).await;
        for (at, (row, _, status)) in ends.into_iter().enumerate() {
            assert_eq!(status["state"], "Succeeded", "{row}: {status}");
            let attempts: Vec<_> =
                shop.orders().seen_at(&format!("/{at}")).iter().map(|seen| seen.attempt()).collect();
            assert_eq!(attempts, [Some(1), Some(2), Some(3)], "{row}");
        }
    }
}

#[tokio::test]
async fn a_failure_that_lasts_uses_its_attempts_up() {
    for (spec, failures) in failures() {
        let rows = failures.into_iter().map(|(name, act)| Row::always(name, act)).collect();
        let (shop, ends) = delivered(spec, rows).await;
        for (at, (row, id, status)) in ends.into_iter().enumerate() {
            assert_eq!(status["state"], "DeadLettered", "{row}: {status}");
            assert_eq!(status["reason"], "Exhausted", "{row}: {status}");
            let attempts = shop.orders().seen_at(&format!("/{at}")).len();
            assert_eq!(attempts, 3, "{row}: the first attempt and retry: 2");
            assert_eq!(status["attempts"].as_array().map(Vec::len), Some(3), "{row}: {status}");
            if let Ok(code) = row.parse::<u16>() {
                assert_eq!(shop.result(&id).await.status, code, "{row}: the last response is kept");
            }
        }
    }
}

#[tokio::test]
async fn push_back_uses_no_attempt_up() {
    let rows = vec![
        Row::times("429", 4, Act::status(429)),
        Row::times("503", 4, Act::status(503)),
        Row::times("429 with Retry-After: 0", 4, Act::with(429, "retry-after", "0")),
    ];
    let spec = json!({"delivery": {"retry": 1}, "rateLimits": {"maxConcurrentDispatches": 100}});
    let (shop, ends) = delivered(spec, rows).await;
    for (at, (row, _, status)) in ends.into_iter().enumerate() {
        assert_eq!(status["state"], "Succeeded", "{row}: {status}");
        assert_eq!(shop.orders().seen_at(&format!("/{at}")).len(), 5, "{row}");
    }
}

/// The time so many seconds ahead, less a part of one, as an HTTP date.
fn ahead(seconds: u64) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds;
    let (days, rest) = (at / 86_400, at % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let names = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (name, named) =
        (names[usize::try_from(days % 7).unwrap()], months[usize::try_from(month - 1).unwrap()]);
    format!("{name}, {day:02} {named} {year} {:02}:{:02}:{:02} GMT", rest / 3600, rest / 60 % 60, rest % 60)
}

#[tokio::test]
async fn retry_after_wins_if_it_is_later_and_is_capped() {
    // The fifth in a row lets the whole queue wait: it is the one that names no time.
    let rows = vec![
        Row::times("503, an hour, capped at 4 s", 1, Act::with(503, "retry-after", "3600")),
        Row::times("429, 1 s", 1, Act::with(429, "retry-after", "1")),
        Row::times("503, 1 s", 1, Act::with(503, "retry-after", "1")),
        // From one to two seconds after the request.
        Row::made("429, a date", 1, || Act::with(429, "retry-after", ahead(2))),
        Row::times("503, a word", 1, Act::with(503, "retry-after", "soon")),
    ];
    // Who waits for less than the cap was not capped; the cap itself is far below the hour.
    let bounds = [(4.0, 20.0), (1.0, 4.0), (1.0, 4.0), (1.0, 4.0), (0.0, 4.0)];
    let (shop, ends) = delivered(json!({"delivery": {"retryAfterMax": "PT4S"}}), rows).await;
    for (at, ((row, _, status), (least, most))) in ends.into_iter().zip(bounds).enumerate() {
        assert_eq!(status["state"], "Succeeded", "{row}: {status}");
        let seen = shop.orders().seen_at(&format!("/{at}"));
        let waited = (seen[1].at - seen[0].at).as_secs_f64();
        assert!(waited > least - 0.05 && waited < most - 0.05, "{row}: {waited} s");
    }
}

/// Seconds into the day of a time with milliseconds.
fn in_day(time: &Value) -> f64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let clock = text.split_once('T').and_then(|(_, clock)| clock.strip_suffix('Z')).expect("UTC");
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("a number"))
}

/// What was chosen to wait, from the end of the last attempt to the next, in seconds. Both are the
/// sidecar's own words: how fast it is does not count.
fn chosen_wait(status: &Value) -> f64 {
    let last = status["attempts"].as_array().and_then(|attempts| attempts.last());
    let last = last.unwrap_or_else(|| panic!("no attempt in {status}"));
    let ended = in_day(&last["at"]) + last["durationMs"].as_f64().expect("it ended") / 1000.0;
    // Midnight may lie between.
    let wait = in_day(&status["nextAttemptAt"]) - ended;
    if wait < -43_200.0 { wait + 86_400.0 } else { wait }
}

#[tokio::test]
async fn backoff_wins_if_it_is_later_than_retry_after() {
    let spec = json!({"delivery": {"backoffDelay": "PT1H", "backoffMax": "PT1H"}});
    let shop = Setup::of(spec).script(|_| Act::with(503, "retry-after", "1")).start().await;
    // Full jitter: that none of four waits for longer than three seconds comes once in 10¹² times.
    let mut longest = f64::MIN;
    for number in 0..4 {
        let id = shop.enqueue(&format!("/{number}"), &[]).await;
        let wait = chosen_wait(&shop.reaches(&id, "Retrying").await);
        assert!((0.99..3601.0).contains(&wait), "{wait} s");
        longest = longest.max(wait);
    }
    assert!(longest > 3.0, "{longest} s");
}

#[tokio::test]
async fn waits_grow_with_jitter_and_not_beyond_their_bound() {
    tokio::join!(waits_grow("exponential", [0.2, 0.4, 0.6]), waits_grow("linear", [0.2, 0.4, 0.6]));
}

/// `bounds` of the waits after one failure, two, three and more.
async fn waits_grow(kind: &str, bounds: [f64; 3]) {
    let spec = json!({"delivery": {"retry": 8, "backoffPolicy": kind, "backoffDelay": "PT0.2S", "backoffMax": "PT0.6S"}});
    let shop = Setup::of(spec).script(|_| Act::status(500)).start().await;
    let id = shop.enqueue("/", &[]).await;
    let waits = RefCell::new(BTreeMap::new());
    let dead = |status: &Value| {
        // Due by now, it has no next time.
        if status["nextAttemptAt"].is_string() {
            let failures = status["attempts"].as_array().map_or(0, Vec::len);
            waits.borrow_mut().insert(failures, chosen_wait(status));
        }
        status["state"] == "DeadLettered"
    };
    until("the end", || shop.status(&id), dead).await;
    let waits = waits.into_inner();
    assert_eq!(shop.orders().seen().len(), 9, "{kind}");
    // A short wait may be over before anybody looks.
    assert!(waits.len() >= 3, "{kind}: {waits:?}");
    for (failures, wait) in &waits {
        let bound = bounds[(failures - 1).min(2)];
        // On top come milliseconds that were cut, and what lies between an attempt's end and the choice.
        assert!((-0.01..bound + 0.15).contains(wait), "{kind}: {waits:?}");
    }
    let waits: Vec<_> = waits.into_values().collect();
    let most = waits.iter().copied().fold(f64::MIN, f64::max);
    let least = waits.iter().copied().fold(f64::MAX, f64::min);
    assert!(most - least > 0.01, "{kind}: no jitter in {waits:?}");
}

#[tokio::test]
async fn who_cannot_be_reached_costs_no_attempt() {
    // One attempt alone: had any been used up, the message would be dead.
    let once = json!({"delivery": {"retry": 0}});
    for row in ["a failed connect", "a failed connect behind the receiver's sidecar"] {
        let mut setup = Setup::of(once.clone()).away();
        if row == "a failed connect" {
            setup = setup.plain("orders");
        }
        let mut shop = setup.start().await;
        let id = shop.enqueue("/", &[]).await;
        stays_waiting(row, &shop, &id).await;
        shop.arrive(|_| Act::ok()).await;
        shop.reaches(&id, "Succeeded").await;
        let seen = shop.orders().seen();
        assert_eq!((seen.len(), seen[0].attempt()), (1, Some(1)), "{row}");
    }
    let [service, slice] = empty_service("nobody");
    let mut spec = once.clone();
    spec["targetRefs"] = json!([{"kind": "Service", "name": "nobody"}]);
    let shop = Setup::without_policy().with(service).with(slice).with(policy("nobody", spec)).start().await;
    let authority = crate::mesh::host("nobody");
    let prefer = [crate::shop::PREFER];
    let id = id_of(&send(shop.outbound(), "POST /", &authority, &prefer, "").await);
    stays_waiting("no ready endpoint", &shop, &id).await;
    // TLS to a receiver that speaks plaintext.
    let shop = Setup::of(once).straight("orders").plain("orders").start().await;
    let id = shop.enqueue("/", &[]).await;
    stays_waiting("a TLS refusal", &shop, &id).await;
    assert!(shop.orders().seen().is_empty());
}

#[tokio::test]
async fn an_open_breaker_costs_no_attempt() {
    let narrow = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "BackendPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "orders"}], "limits": {"maxInFlight": 1, "queue": 0}}});
    let shop = Setup::of(json!({"delivery": {"retry": 0}}))
        .with(narrow)
        .script(|seen| if seen.path == "/held" { Act::held() } else { Act::ok() })
        .start()
        .await;
    let during = async {
        shop.orders().has(1).await;
        let id = shop.enqueue("/", &[]).await;
        stays_waiting("an open breaker", &shop, &id).await;
        shop.orders().let_go();
        id
    };
    let (held, id) = tokio::join!(shop.post("/held", &[], ""), during);
    assert_eq!(held.status, 200);
    shop.reaches(&id, "Succeeded").await;
    assert_eq!(shop.orders().seen_at("/")[0].attempt(), Some(1));
}

async fn stays_waiting(row: &str, shop: &Shop, id: &str) {
    let end = Instant::now() + Duration::from_millis(700);
    while Instant::now() < end {
        let status = shop.status(id).await;
        let waits = ["Queued", "Retrying", "Delivering"].iter().any(|state| status["state"] == *state);
        assert!(waits, "{row}: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_grows_too_old_is_a_dead_letter() {
    let mut shop = Setup::of(json!({"delivery": {"maxAge": "PT1S"}})).plain("orders").away().start().await;
    let began = Instant::now();
    let id = shop.enqueue("/", &[]).await;
    let status = shop.reaches(&id, "DeadLettered").await;
    assert_eq!(status["reason"], "Expired", "nobody was there: {status}");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    shop.arrive(|_| Act::status(503)).await;
    let id = shop.enqueue("/", &[]).await;
    let status = shop.reaches(&id, "DeadLettered").await;
    assert_eq!(status["reason"], "Expired", "503 uses no attempt up, but time: {status}");
}

#[tokio::test]
async fn no_retry_is_the_senders_but_the_queues() {
    let retry = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "orders", "port": 8080}],
            "rules": [{"retry": {"codes": [500], "attempts": 5, "backoff": "25ms"},
                "backendRefs": [{"name": "orders", "port": 8080}]}]}});
    let shop =
        Setup::of(json!({"delivery": {"retry": 1}})).with(retry).script(|_| Act::status(500)).start().await;
    let id = shop.enqueue("/", &[]).await;
    shop.reaches(&id, "DeadLettered").await;
    assert_eq!(shop.orders().seen().len(), 2, "one request for each attempt");
}
