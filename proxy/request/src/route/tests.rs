//! Rules against requests, as the Gateway API's conformance tests put them.

use http::Request;
use policy::route::RouteKind;
use prometheus_client::registry::Registry;

use super::*;

fn metrics() -> Metrics {
    Metrics::new(&mut Registry::default())
}

fn rule(name: &str, matches: Match) -> Rule {
    let name =
        RuleName { kind: RouteKind::Http, namespace: "shop".into(), route: "r".into(), rule: name.into() };
    Rule { name, matches, action: Arc::new(Action::Fail { cause: String::new() }) }
}

fn router(rules: Vec<Rule>) -> Router {
    let policy = ServicePolicy {
        service: None,
        protocol: policy::snapshot::Protocol::Http,
        rules,
        asynchronous: None,
        backend: "10.0.0.1:80".parse().unwrap(),
    };
    Router::new(&policy, &metrics(), |_| None)
}

fn chosen(router: &Router, request: http::request::Builder) -> Option<String> {
    let (parts, ()) = request.body(()).unwrap().into_parts();
    router.select(&parts).map(|rule| rule.name.rule.to_string())
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path)
}

#[test]
fn a_prefix_ends_at_an_element_and_the_first_match_wins() {
    let prefix = |path: &str| Match { path: Some(PathMatch::Prefix(path.to_owned())), ..Match::default() };
    let exact = Match { path: Some(PathMatch::Exact("/v2/x".to_owned())), ..Match::default() };
    let router = router(vec![rule("exact", exact), rule("v2", prefix("/v2/")), rule("all", prefix("/"))]);
    for (path, name) in [
        ("/v2/x", "exact"),
        ("/v2", "v2"),
        ("/v2/", "v2"),
        ("/v2/y?z=1", "v2"),
        ("/v2example", "all"),
        ("/", "all"),
    ] {
        assert_eq!(chosen(&router, get(path)).as_deref(), Some(name), "{path}");
    }
}

#[test]
fn headers_queries_and_methods_must_all_hold() {
    let named = |name: &str, value: &str| NamedMatch {
        name: name.to_owned(),
        value: ValueMatch::Exact(value.to_owned()),
    };
    let matches = Match {
        headers: vec![named("version", "one")],
        query: vec![named("animal", "blue whale")],
        method: Some("POST".to_owned()),
        ..Match::default()
    };
    let router = router(vec![rule("0", matches)]);
    let post = |uri: &str, version: &str| Request::post(uri).header("Version", version);
    assert!(chosen(&router, post("/?animal=blue+whale", "one")).is_some());
    assert!(chosen(&router, post("/?x=1&animal=blue%20whale&animal=cat", "one")).is_some());
    assert!(chosen(&router, post("/?animal=cat&animal=blue+whale", "one")).is_none());
    assert!(chosen(&router, post("/?animal=blue+whale", "two")).is_none());
    assert!(chosen(&router, get("/?animal=blue+whale").header("version", "one")).is_none());
}

#[test]
fn an_expression_must_match_the_whole_and_a_broken_one_fails_its_rule_alone() {
    let regex = |text: &str| Match { path: Some(PathMatch::Regex(text.to_owned())), ..Match::default() };
    let router = router(vec![
        rule("digits", regex("/[0-9]+")),
        rule("broken", regex("/(")),
        rule("rest", Match::default()),
    ]);
    assert_eq!(chosen(&router, get("/42")).as_deref(), Some("digits"));
    let (parts, ()) = get("/42/x").body(()).unwrap().into_parts();
    let selected = router.select(&parts).unwrap();
    assert!(matches!(&selected.action, CompiledAction::Fail(cause) if cause.contains("/(")));
}

#[test]
fn weights_share_and_zero_gets_nothing() {
    let backend = |weight, cause: &str| WeightedBackend {
        weight,
        target: BackendTarget::Invalid(cause.to_owned()),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
    };
    let compile = |backends| {
        let forward = policy::route::Forward { backends, ..Default::default() };
        CompiledForward::new(&forward, &rule("0", Match::default()), &metrics(), &mut |_| None).unwrap()
    };
    let plan = compile(vec![backend(70, "a"), backend(30, "b"), backend(0, "c")]);
    let mut taken = std::collections::HashMap::new();
    for _ in 0..10_000 {
        *taken.entry(plan.draw().unwrap().client.as_ref().err().unwrap().clone()).or_insert(0) += 1;
    }
    assert!((6700..7300).contains(&taken["a"]), "{taken:?}");
    assert!(!taken.contains_key("c"));
    assert!(compile(vec![backend(0, "a")]).draw().is_none());
    assert!(compile(Vec::new()).draw().is_none());
}
