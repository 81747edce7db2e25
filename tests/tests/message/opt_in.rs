//! opt_in: which requests are taken in, by mode, preference, method and rule.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Answer;
use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of, policy};

/// What one row of the table says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    Proxied,
    TakenIn,
    /// Taken in, but its own response is the answer.
    Replayed,
}

/// Asks once and says what became of it; the receiver must see it once either way.
async fn asked(shop: &Shop, method: &str, path: &str, prefer: Option<&str>) -> (Says, Answer) {
    let headers: Vec<_> = prefer.map(|value| ("prefer", value)).into_iter().collect();
    let answer = shop.send(&format!("{method} {path}"), &headers, "body").await;
    let seen = until(path, || async { shop.orders().seen_at(path) }, |seen| !seen.is_empty()).await;
    let says = match (answer.status, seen[0].id()) {
        (202, Some(id)) if id_of(&answer) == id => Says::TakenIn,
        (200, Some(_)) => Says::Replayed,
        (200, None) => Says::Proxied,
        _ => panic!("{method} {path} {prefer:?}: {answer:?} {seen:?}"),
    };
    assert_eq!(seen.len(), 1, "{method} {path} {prefer:?}: one execution, not {seen:?}");
    (says, answer)
}

#[tokio::test]
async fn mode_and_preference_decide_as_the_table_says() {
    use Says::{Proxied, Replayed, TakenIn};
    let (with, within, alone) = (Some("respond-async"), Some("respond-async, wait=5"), Some("wait=5"));
    type Rows = [(Option<&'static str>, Says); 4];
    let table: [(Option<&str>, Rows); 4] = [
        (None, [(None, Proxied), (with, Proxied), (within, Proxied), (alone, Proxied)]),
        (Some("Preferred"), [(None, Proxied), (with, TakenIn), (within, Replayed), (alone, Proxied)]),
        (Some("Spill"), [(None, Proxied), (with, TakenIn), (within, Replayed), (alone, Proxied)]),
        (Some("Always"), [(None, TakenIn), (with, TakenIn), (within, Replayed), (alone, TakenIn)]),
    ];
    for (mode, rows) in table {
        let setup = match mode {
            Some(mode) => Setup::of(json!({ "mode": mode })),
            None => Setup::without_policy(),
        };
        let shop = setup.start().await;
        for (number, (prefer, wanted)) in rows.into_iter().enumerate() {
            let row = format!("mode {mode:?}, Prefer {prefer:?}");
            let path = format!("/{number}");
            let (says, answer) = asked(&shop, "POST", &path, prefer).await;
            assert_eq!(says, wanted, "{row}: {answer:?}");
            let seen = &shop.orders().seen_at(&path)[0];
            let passed = if mode.is_none() { prefer } else { None };
            if mode.is_none() || wanted != Proxied {
                assert_eq!(seen.header("prefer"), passed, "{row}: the header at the receiver");
            }
        }
    }
}

#[tokio::test]
async fn only_the_policys_methods_are_taken_in() {
    let all = ["GET", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];
    for (methods, taken) in [
        (Value::Null, vec!["POST", "PUT", "PATCH", "DELETE"]),
        (json!(["GET", "PATCH"]), vec!["GET", "PATCH"]),
    ] {
        let mut spec = json!({"mode": "Always"});
        if !methods.is_null() {
            spec["methods"] = methods.clone();
        }
        let shop = Shop::with(spec).await;
        for method in all {
            let (says, answer) = asked(&shop, method, &format!("/{method}"), Some("respond-async")).await;
            let wanted = if taken.contains(&method) { Says::TakenIn } else { Says::Proxied };
            assert_eq!(says, wanted, "{method} with methods {methods}: {answer:?}");
            assert_eq!(shop.orders().seen_at(&format!("/{method}"))[0].method, method);
        }
    }
}

#[tokio::test]
async fn a_wait_that_is_long_enough_is_answered_with_the_response_of_the_one_execution() {
    let shop = Setup::of(json!({}))
        .script(|seen| match seen.path.as_str() {
            "/made" => Act::After(
                Duration::from_millis(300),
                Box::new(Act::Answer(201, vec![("x-order", "7".into())], "made")),
            ),
            _ => Act::with(400, "x-why", "bad"),
        })
        .start()
        .await;
    let began = Instant::now();
    let answer = shop.post("/made", &[("prefer", "respond-async, wait=5")], "one").await;
    let took = began.elapsed();
    assert_eq!((answer.status, answer.text().as_str()), (201, "made"), "{answer:?}");
    assert_eq!(answer.header("x-order").as_deref(), Some("7"));
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    // Whatever its status, the response of the attempt that ended it is the answer.
    let answer = shop.post("/bad", &[("prefer", "respond-async; foo, wait=5")], "two").await;
    assert_eq!((answer.status, answer.header("x-why").as_deref()), (400, Some("bad")), "{answer:?}");
    assert_eq!(shop.orders().paths(), ["/made", "/bad"], "one execution each");
}

#[tokio::test]
async fn a_wait_that_is_too_short_is_answered_202_and_the_execution_goes_on() {
    let shop = Setup::of(json!({})).script(|_| Act::held()).start().await;
    let began = Instant::now();
    let answer = shop.post("/", &[("prefer", "respond-async, wait=1")], "one").await;
    let took = began.elapsed().as_secs_f64();
    let id = id_of(&answer);
    assert!((0.9..3.0).contains(&took), "{took} s");
    assert_eq!(shop.status(&id).await["state"], "Delivering", "its first attempt started at once");
    shop.orders().let_go();
    shop.reaches(&id, "Succeeded").await;
    assert_eq!(shop.orders().seen().len(), 1, "one execution, not two");
}

#[tokio::test]
async fn a_policy_holds_for_the_rule_that_names_it_and_for_no_other() {
    let parent = json!([{"group": "", "kind": "Service", "name": "orders", "port": 8080}]);
    let rule = |name: &str, filters: Value| {
        json!({"name": name, "matches": [{"path": {"type": "PathPrefix", "value": format!("/{name}")}}],
            "filters": filters, "backendRefs": [{"name": "orders", "port": 8080}]})
    };
    let by_filter = json!([{"type": "ExtensionRef",
        "extensionRef": {"group": "tidegate.dev", "kind": "AsyncPolicy", "name": "by-filter"}}]);
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"parentRefs": parent, "rules": [
            rule("section", json!([])), rule("filter", by_filter), rule("plain", json!([]))]}});
    let named = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "orders",
        "sectionName": "section"}]);
    let shop = Setup::without_policy()
        .with(route)
        .with(policy("by-section", json!({"mode": "Always", "targetRefs": named})))
        .with(policy("by-filter", json!({"mode": "Always", "targetRefs": []})))
        .start()
        .await;
    for (path, wanted) in [("/section", Says::TakenIn), ("/filter", Says::TakenIn), ("/plain", Says::Proxied)]
    {
        let (says, answer) = asked(&shop, "POST", path, None).await;
        assert_eq!(says, wanted, "{path}: {answer:?}");
    }
    assert_eq!(shop.post("/plain", &[PREFER], "").await.status, 200, "no policy, no promise");
}
