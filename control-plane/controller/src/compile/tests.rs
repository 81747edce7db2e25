//! tests: precedence and what fails.

use policy::route::{Action, BackendTarget, PathChange, PathMatch, Rule};
use policy::snapshot::{Destination, DestinationKey};

use crate::index::tests::{SHOP, index};

fn route(name: &str, namespace: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: orders, namespace: shop, port: 80}}], rules: {rules}}}\n---\n"
    )
}

fn rules_for(objects: &str, client: &str) -> Vec<Rule> {
    let index = index(&format!("{SHOP}{objects}"));
    let key: DestinationKey = "orders.shop.svc:80".parse().unwrap();
    match index.lookup(&key, client).0 {
        Destination::Service(policy) => policy.rules,
        other => panic!("{other:?}"),
    }
}

fn written(rules: &[Rule]) -> Vec<&str> {
    rules.iter().map(|rule| &*rule.name.rule).collect()
}

fn cause(action: &Action) -> &str {
    match action {
        Action::Fail { cause } => cause,
        Action::Redirect(redirect) => panic!("sends to {redirect:?}"),
        Action::Forward(forward) => match &forward.backends[0].target {
            BackendTarget::Invalid(cause) => cause,
            BackendTarget::Backend(key) => panic!("goes to {key}"),
        },
    }
}

#[test]
fn matches_stand_in_the_order_of_the_gateway_api() {
    let rules = "[{name: regex, matches: [{path: {type: RegularExpression, value: '/a.*'}}]},\
        {name: all},\
        {name: query, matches: [{path: {value: /a}, queryParams: [{name: q, value: v}]}]},\
        {name: header, matches: [{path: {value: /a}, headers: [{name: h, value: v}]}]},\
        {name: method, matches: [{path: {value: /a}, method: GET}]},\
        {name: long, matches: [{path: {value: /a/b}}]},\
        {name: exact, matches: [{path: {type: Exact, value: /a}}]}]";
    let rules = rules_for(&route("r", "shop", rules), "web");
    assert_eq!(written(&rules), ["exact", "regex", "long", "method", "header", "query", "all"]);
    assert_eq!(rules[6].matches.path, Some(PathMatch::Prefix("/".to_owned())));
}

#[test]
fn of_equal_matches_the_older_route_goes_first_then_the_name() {
    let dated = route("z", "shop", "[{name: old}]")
        .replace("name: z,", "name: z, creationTimestamp: '2020-01-01T00:00:00Z',");
    let text = route("b", "shop", "[{name: b}]") + &route("a", "shop", "[{name: a}]") + &dated;
    assert_eq!(written(&rules_for(&text, "web")), ["old", "a", "b"]);
}

#[test]
fn routes_of_the_clients_namespace_replace_those_of_the_service_for_it_alone() {
    let text = route("p", "shop", "[{name: producer}]") + &route("c", "web", "[{name: consumer}]");
    assert_eq!(written(&rules_for(&text, "web")), ["consumer"]);
    assert_eq!(written(&rules_for(&text, "edge")), ["producer"]);
    assert_eq!(written(&rules_for(&text, "shop")), ["producer"]);
}

#[test]
fn what_is_not_known_fails_its_rule_or_backend_alone() {
    let rules = "[{name: a, matches: [{path: {value: /a}}], filters: [{type: RequestMirror}], backendRefs: [{name: orders, port: 80}]},\
        {name: b, matches: [{path: {value: /b}}], backendRefs: [{name: orders, port: 80, filters: [{type: Magic}]}]},\
        {name: c, matches: [{path: {value: /c}, headers: [{name: h, type: RegularExpression, value: '('}]}], backendRefs: [{name: orders, port: 80}]},\
        {name: d, matches: [{path: {value: /d}}], retry: {attempts: 11}, backendRefs: [{name: orders, port: 80}]},\
        {name: e, matches: [{path: {value: /e}}], backendRefs: [{name: orders, port: 81}]},\
        {name: f, matches: [{path: {value: /f}}], backendRefs: [{name: orders, namespace: other, port: 80}]},\
        {name: g, matches: [{path: {value: /g}}], backendRefs: [{name: orders, port: 80}]}]";
    let rules = rules_for(&route("r", "shop", rules), "web");
    assert_eq!(written(&rules), ["c", "a", "b", "d", "e", "f", "g"]);
    for (rule, wanted) in [
        (1, "filter type \"RequestMirror\" in rules[0].filters[0] of HTTPRoute shop/r is not carried out"),
        (
            2,
            "filter type \"Magic\" in rules[1].backendRefs[0].filters[0] of HTTPRoute shop/r is not carried out",
        ),
        (0, "rules[2].matches[0].headers[0]: \"(\" is not a regular expression"),
        (3, "rules[3].retry.attempts of HTTPRoute shop/r is 11, at most 10 are carried out"),
        (4, "Service shop/orders has no port 81; it has 80, 5432"),
        (5, "takes a ReferenceGrant"),
    ] {
        assert!(cause(&rules[rule].action).contains(wanted), "{}", cause(&rules[rule].action));
    }
    let Action::Forward(forward) = &*rules[6].action else { panic!() };
    assert_eq!(forward.backends[0].target, BackendTarget::Backend("orders.shop.svc:80".parse().unwrap()));
}

#[test]
fn a_grant_lets_a_route_refer_into_its_namespace() {
    let own = route("c", "web", "[{backendRefs: [{name: orders, namespace: shop, port: 80}]}]");
    let rules = rules_for(&own, "web");
    assert!(
        matches!(&*rules[0].action, Action::Forward(f) if matches!(f.backends[0].target, BackendTarget::Backend(_))),
        "the Service a route is attached to needs no grant"
    );
    let stock = "apiVersion: v1\nkind: Service\nmetadata: {name: stock, namespace: shop}\nspec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}\n---\n";
    let text =
        stock.to_owned() + &route("c", "web", "[{backendRefs: [{name: stock, namespace: shop, port: 80}]}]");
    assert!(cause(&rules_for(&text, "web")[0].action).contains("does not let HTTPRoutes of web refer"));
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: shop}\n\
        spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}], to: [{group: '', kind: Service}]}\n";
    let rules = rules_for(&(text + grant), "web");
    assert!(
        matches!(&*rules[0].action, Action::Forward(f) if matches!(f.backends[0].target, BackendTarget::Backend(_)))
    );
}

#[test]
fn grpc_methods_become_paths_and_stand_before_http() {
    let grpc = route("g", "shop", "[{name: both, matches: [{method: {service: a.B, method: C}}]}, {name: service, matches: [{method: {service: a.B}}]}, {name: method, matches: [{method: {method: C}}]}, {name: all}]")
        .replace("HTTPRoute", "GRPCRoute");
    let rules = rules_for(&(route("h", "shop", "[{name: http}]") + &grpc), "web");
    assert_eq!(written(&rules), ["both", "service", "method", "all", "http"]);
    let paths: Vec<_> = rules.iter().map(|rule| rule.matches.path.clone()).collect();
    assert_eq!(paths[0], Some(PathMatch::Exact("/a.B/C".to_owned())));
    assert_eq!(paths[1], Some(PathMatch::Prefix("/a.B".to_owned())));
    assert_eq!(paths[2], Some(PathMatch::Regex("/[^/]+/C".to_owned())));
    assert_eq!(paths[3], None);
    assert!(rules[3].matches.grpc && !rules[4].matches.grpc);
}

#[test]
fn a_rule_redirects_or_rewrites_and_a_prefix_gives_way_only_where_one_was_matched() {
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: other, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: other, path: {type: ReplaceFullPath, replaceFullPath: /c}}}";
    let backends = "backendRefs: [{name: orders, port: 80}]";
    let rules = format!(
        "[{{name: a, matches: [{{path: {{value: /aaaaaa}}}}], filters: [{redirect}]}},\
        {{name: b, matches: [{{path: {{value: /bbbbb}}}}], filters: [{rewrite}], {backends}}},\
        {{name: c, matches: [{{path: {{value: /cccc}}}}], filters: [{redirect}, {rewrite}]}},\
        {{name: d, matches: [{{path: {{value: /ddd}}}}, {{path: {{type: Exact, value: /dd}}}}], filters: [{redirect}]}},\
        {{name: x, matches: [{{path: {{value: /x}}}}], filters: [{redirect}], {backends}}},\
        {{name: e, matches: [{{path: {{value: /e}}}}], backendRefs: [{{name: orders, port: 80, filters: [{rewrite}]}}]}}]"
    );
    let rules = rules_for(&route("r", "shop", &rules), "web");
    assert_eq!(written(&rules), ["d", "a", "b", "c", "d", "x", "e"]);
    let Action::Redirect(told) = &*rules[1].action else { panic!("{:?}", rules[1]) };
    assert_eq!((told.status, told.path.clone()), (302, Some(PathChange::Prefix("/b".to_owned()))));
    let Action::Forward(forward) = &*rules[2].action else { panic!("{:?}", rules[2]) };
    let rewrite = forward.rewrite.as_ref().unwrap();
    assert_eq!(rewrite.hostname.as_ref().map(ToString::to_string).as_deref(), Some("other"));
    assert_eq!(rewrite.path, Some(PathChange::Full("/c".to_owned())));
    for (rule, wanted) in [
        (3, "rules[2].filters[1] of HTTPRoute shop/r is not carried out beside a RequestRedirect"),
        (
            4,
            "rules[3].filters[0] of HTTPRoute shop/r: replacePrefixMatch takes matches of type PathPrefix alone",
        ),
        (5, "rules[4].backendRefs of HTTPRoute shop/r: a rule with a RequestRedirect sends nothing on"),
        (
            6,
            "filter URLRewrite in rules[5].backendRefs[0].filters[0] of HTTPRoute shop/r: for one backend alone",
        ),
    ] {
        assert!(cause(&rules[rule].action).contains(wanted), "{}", cause(&rules[rule].action));
    }
    let grpc = format!(
        "[{{name: g, filters: [{rewrite}], {backends}}}]",
        rewrite = "{type: URLRewrite, urlRewrite: {hostname: other}}"
    );
    let rules = rules_for(&route("g", "shop", &grpc).replace("HTTPRoute", "GRPCRoute"), "web");
    assert!(
        cause(&rules[0].action).contains("is a filter of HTTPRoutes alone"),
        "{}",
        cause(&rules[0].action)
    );
}
