//! tests: what a page holds, and what it must not.

use super::*;
use crate::operate::shown::{Listed, Point, Tried};

fn queue(name: &str) -> Listed {
    let point = |depth| Point {
        at: "2026-11-05T14:00:00Z".to_owned(),
        depth,
        oldest_age_seconds: 2.0,
        arrivals_per_second: 1.0,
        completions_per_second: 0.0,
    };
    Listed {
        name: name.to_owned(),
        policy: "shop/orders".to_owned(),
        destination: "orders".to_owned(),
        durability: "local",
        depth: 3,
        messages_max: 100,
        bytes: 2048,
        bytes_max: 4096,
        oldest_age_seconds: Some(75.0),
        in_flight: 1,
        scheduled: 0,
        retrying: 1,
        dead_letters: 2,
        dead_letter_bytes: 100,
        quarantined: 0,
        paused: None,
        blocked: Some("dead_letter_full".to_owned()),
        redriving: false,
        redrive: None,
        arrivals_per_second: 1.5,
        completions_per_second: 0.0,
        utilisation: None,
        drain_estimate_seconds: None,
        history: [1, 5, 2].map(point).into(),
    }
}

fn overview(queues: Vec<Listed>) -> Overview {
    let store = Store {
        durability: "local",
        bytes: 10,
        bytes_max: 100,
        full: None,
        damaged: None,
        doubted: None,
        poisoned: None,
    };
    let (pod, identity) = ("web-0".to_owned(), "spiffe://cluster.local/ns/shop/sa/web".to_owned());
    Overview { pod, identity, trouble: None, trouble_condition: None, stores: vec![store], queues }
}

fn message(text: &str) -> Shown {
    let tried = Tried {
        at: "2026-11-05T14:00:00Z".to_owned(),
        status: Some(503),
        grpc: false,
        error: Some(text.to_owned()),
        duration_ms: 12,
    };
    Shown {
        id: "01900000-0001-7400-8000-00050a000007".to_owned(),
        state: "DeadLettered",
        reason: Some("Exhausted"),
        queue: text.to_owned(),
        durability: "local",
        enqueued_at: "2026-11-05T14:00:00Z".to_owned(),
        age_seconds: 5.0,
        attempts: vec![tried],
        attempts_used: 1,
        next_attempt_at: None,
        ended_at: None,
        expires_at: None,
        about: text.to_owned(),
        key: Some(text.to_owned()),
        priority: Some(3),
        bytes: Some(10),
        call: None,
    }
}

#[test]
fn nothing_that_others_wrote_becomes_markup() {
    let evil = "\"><script>alert(1)</script><img src=x onerror='x'>&amp;";
    let queue = queue(evil);
    let chosen = Chosen {
        queue: queue.clone(),
        part: "dead",
        messages: vec![message(evil)],
        next: Some(7),
        later: true,
    };
    let mut overview = overview(vec![queue]);
    (overview.pod, overview.trouble) = (evil.to_owned(), Some(evil.to_owned()));
    let view = View { overview, chosen: Some(chosen), said: None };
    let text = document(evil, true, &body(&view)).into_string();
    assert!(!text.contains("<script>") && !text.contains("<img"), "{text}");
    assert_eq!(text.matches("<script").count(), 1, "only our own");
    assert!(text.contains("&lt;script&gt;alert(1)"), "{text}");
    let wrong = problem(StatusCode::NOT_FOUND, evil, evil);
    assert_eq!(wrong.status(), StatusCode::NOT_FOUND);
}

#[test]
fn a_page_says_depth_age_attempts_and_offers_what_can_be_done() {
    let queue = queue("shop/orders/http");
    let chosen = Chosen {
        queue: queue.clone(),
        part: "dead",
        messages: vec![message("POST /a")],
        next: None,
        later: false,
    };
    let view = View { overview: overview(vec![queue]), chosen: Some(chosen), said: None };
    let text = body(&view).into_string();
    let parts = [
        "dead letter full",
        "1 min 15 s",
        "never at this rate",
        "503: POST /a",
        "Redrive all 2",
        "Purge 2 dead letters",
        "/queues/purge?queue=shop%2Forders%2Fhttp&amp;durability=local&amp;part=dead&amp;from=page",
        "Redrive this one",
        "Pause",
        "highest 5",
    ];
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains(" style="), "the policy lets no inline style through");
}

#[test]
fn an_address_cannot_put_words_on_the_page() {
    assert_eq!(said("queue=a%2Fb&said=purged&n=5"), ("queue=a%2Fb".to_owned(), Some("5 purged.".to_owned())));
    assert_eq!(said("said=Call+this+number&n=x").1, None);
    assert_eq!(said("said=purged&n=lots").1, None);
}

#[test]
fn answers_let_nothing_foreign_run_and_no_other_page_frame_them() {
    let view = View { overview: overview(Vec::new()), chosen: None, said: None };
    let answers = [page(&view), asset("/page/style.css").unwrap(), asset("/page/refresh.js").unwrap()];
    for answer in answers {
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    assert!(asset("/page/other").is_none());
}
