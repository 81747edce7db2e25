//! tests: which policy a request meets.

use policy::queue::{AsyncPolicy, GrpcAck};
use policy::route::{Action, RouteKind, Rule};
use policy::snapshot::{Destination, DestinationKey, ServicePolicy};

use crate::index::Index;
use crate::index::tests::{SHOP, index};

const HTTP_ROUTE: &str = "group: gateway.networking.k8s.io, kind: HTTPRoute";

/// An AsyncPolicy of namespace shop.
fn async_policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1\nkind: AsyncPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n---\n"
    )
}

fn on_service(name: &str) -> String {
    async_policy(name, "targetRefs: [{kind: Service, name: orders}]")
}

fn on_route(name: &str) -> String {
    async_policy(name, &format!("targetRefs: [{{{HTTP_ROUTE}, name: r}}]"))
}

fn on_rule(name: &str) -> String {
    async_policy(name, &format!("targetRefs: [{{{HTTP_ROUTE}, name: r, sectionName: create}}]"))
}

/// A route `r` to orders with a rule `create`, which has `filters`, and a rule `read`.
fn route(filters: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: orders}}], rules: [\
         {{name: create, matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}], filters: [{filters}], backendRefs: [{{name: orders, port: 80}}]}}, \
         {{name: read, backendRefs: [{{name: orders, port: 80}}]}}]}}\n---\n"
    )
}

fn extension(name: &str) -> String {
    format!("{{type: ExtensionRef, extensionRef: {{group: tidegate.dev, kind: AsyncPolicy, name: {name}}}}}")
}

fn service_for(index: &Index, key: &str, client: &str) -> ServicePolicy {
    match index.lookup(&key.parse::<DestinationKey>().unwrap(), client).0 {
        Destination::Service(policy) => policy,
        other => panic!("{other:?}"),
    }
}

fn orders(objects: &str) -> ServicePolicy {
    service_for(&index(&format!("{SHOP}{objects}")), "orders.shop.svc:80", "web")
}

fn own(rule: &Rule) -> Option<&AsyncPolicy> {
    match &*rule.action {
        Action::Forward(forward) => forward.asynchronous.as_deref(),
        Action::Redirect(redirect) => panic!("{redirect:?}"),
        Action::Fail { cause } => panic!("{cause}"),
    }
}

/// Each rule with its policy.
fn policies(policy: &ServicePolicy) -> Vec<(&str, &str)> {
    let name = |rule| own(rule).map_or("none", |policy: &AsyncPolicy| &*policy.name);
    policy.rules.iter().map(|rule| (&*rule.name.rule, name(rule))).collect()
}

fn cause(rule: &Rule) -> &str {
    match &*rule.action {
        Action::Fail { cause } => cause,
        Action::Forward(_) | Action::Redirect(_) => panic!("it is carried out"),
    }
}

#[test]
fn a_service_without_rules_has_its_policy_by_name_and_by_address_and_a_pod_has_none() {
    let index = index(&(SHOP.to_owned() + &on_service("s")));
    for key in ["orders.shop.svc:80", "10.96.0.1:80", "orders.shop.svc:5432"] {
        let policy = service_for(&index, key, "web");
        assert_eq!(policy.asynchronous.as_ref().map(|policy| &*policy.name), Some("shop/s"), "{key}");
    }
    assert_eq!(service_for(&index, "10.0.0.1:8080", "web").asynchronous, None);
    assert_eq!(orders("").asynchronous, None);
}

#[test]
fn rules_inherit_the_policy_of_their_service() {
    let policy = orders(&(on_service("s") + &route("")));
    assert_eq!(policies(&policy), [("create", "shop/s"), ("create", "shop/s"), ("read", "shop/s")]);
    assert_eq!(policy.asynchronous, None, "it stands in the rules");
}

#[test]
fn a_routes_policy_goes_before_its_services() {
    let policy = orders(&(on_service("s") + &on_route("t") + &route("")));
    assert_eq!(policies(&policy), [("create", "shop/t"), ("create", "shop/t"), ("read", "shop/t")]);
}

#[test]
fn a_rules_policy_goes_before_its_routes() {
    let policy = orders(&(on_service("s") + &on_route("t") + &on_rule("u") + &route("")));
    assert_eq!(policies(&policy), [("create", "shop/u"), ("create", "shop/u"), ("read", "shop/t")]);
    let policy = orders(&(on_rule("u") + &route("")));
    assert_eq!(policies(&policy), [("create", "shop/u"), ("create", "shop/u"), ("read", "none")]);
}

#[test]
fn a_rules_own_filter_goes_before_all() {
    let all = on_service("s") + &on_route("t") + &on_rule("u") + &async_policy("v", "");
    let policy = orders(&(all + &route(&extension("v"))));
    assert_eq!(policies(&policy), [("create", "shop/v"), ("create", "shop/v"), ("read", "shop/t")]);
}

#[test]
fn of_two_policies_for_one_target_the_older_holds_then_the_first_by_name() {
    let holds = |objects: &str| orders(objects).asynchronous.unwrap().name.to_string();
    let both = on_service("b") + &on_service("a");
    assert_eq!(holds(&both), "shop/a");
    let dated = |time: &str| format!("name: b, creationTimestamp: '{time}',");
    assert_eq!(holds(&both.replace("name: b,", &dated("2020-01-01T00:00:00Z"))), "shop/b");
    let both_dated = both
        .replace("name: b,", &dated("2020-01-02T00:00:00Z"))
        .replace("name: a,", "name: a, creationTimestamp: '2020-01-01T00:00:00Z',");
    assert_eq!(holds(&both_dated), "shop/a");
}

#[test]
fn a_filter_that_cannot_be_carried_out_fails_its_rule_alone() {
    for (filters, wanted) in [
        (extension("gone"), "rules[0].filters[0] of HTTPRoute shop/r: there is no AsyncPolicy shop/gone"),
        (
            format!("{}, {}", extension("s"), extension("s")),
            "rules[0].filters[1] of HTTPRoute shop/r names a second AsyncPolicy",
        ),
        (
            extension("s").replace("tidegate.dev", "example.com"),
            "filter type \"ExtensionRef\" in rules[0].filters[0] of HTTPRoute shop/r is not carried out",
        ),
        (
            extension("s").replace("kind: AsyncPolicy", "kind: BackendPolicy"),
            "filter type \"ExtensionRef\" in rules[0].filters[0] of HTTPRoute shop/r is not carried out",
        ),
    ] {
        let policy = orders(&(on_service("s") + &route(&filters)));
        assert!(cause(&policy.rules[0]).contains(wanted), "{}", cause(&policy.rules[0]));
        assert_eq!(own(&policy.rules[2]).map(|policy| &*policy.name), Some("shop/s"));
    }
    let on_backend = route("").replace("port: 80}", &format!("port: 80, filters: [{}]}}", extension("s")));
    let policy = orders(&(on_service("s") + &on_backend));
    let shown = format!("{:?}", policy.rules[0].action);
    assert!(shown.contains("an AsyncPolicy for one backend alone is not carried out"), "{shown}");
}

#[test]
fn a_grpc_rule_carries_its_services_policy_and_not_that_of_an_http_route_of_its_name() {
    let grpc = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r, namespace: shop}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: orders}], rules: [{name: create, backendRefs: [{name: orders, port: 80}]}]}\n---\n";
    let service = async_policy("s", "targetRefs: [{kind: Service, name: orders}], grpc: {ack: EmptyMessage}");
    let policy = orders(&(service + &on_rule("u") + &route("") + grpc));
    assert_eq!(policy.rules[0].name.kind, RouteKind::Grpc);
    let own = own(&policy.rules[0]).unwrap();
    assert_eq!((&*own.name, own.grpc_ack), ("shop/s", Some(GrpcAck::EmptyMessage)));
    assert_eq!(policies(&policy)[1], ("create", "shop/u"));
}

#[test]
fn a_consumers_rules_inherit_from_the_service_and_policies_of_their_own_namespace_go_before() {
    let consumer = route("")
        .replace("name: r, namespace: shop", "name: r, namespace: web")
        .replace("kind: Service, name: orders}", "kind: Service, name: orders, namespace: shop}");
    let objects = format!("{SHOP}{}{}{consumer}", on_service("s"), on_route("t"));
    let policy = service_for(&index(&objects), "orders.shop.svc:80", "web");
    assert_eq!(policies(&policy)[0], ("create", "shop/s"), "shop/t holds for shop/r, not for web/r");
    let objects = objects + &on_route("c").replace("namespace: shop", "namespace: web");
    let policy = service_for(&index(&objects), "orders.shop.svc:80", "web");
    assert_eq!(policies(&policy)[0], ("create", "web/c"));
}

#[test]
fn a_secret_makes_callbacks_possible_and_without_it_the_policy_holds_without_them() {
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let policy = async_policy(
        "s",
        "targetRefs: [{kind: Service, name: orders}], callback: {allowedHosts: [mail], secretRef: {name: key}}",
    );
    let secret = |namespace: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: key, namespace: {namespace}}}\nstringData: {{secret: {value}}}\n"
        )
    };
    let with = orders(&(policy.clone() + &secret("shop", KEY))).asynchronous.unwrap();
    assert_eq!(with.callback_hosts, ["mail"]);
    assert_eq!(with.callback_secret.as_ref().unwrap().reveal(), KEY);
    for objects in [policy.clone(), policy.clone() + &secret("web", KEY), policy + &secret("shop", "short")] {
        let without = orders(&objects).asynchronous.unwrap();
        assert!(without.callback_hosts.is_empty() && without.callback_secret.is_none(), "{objects}");
        assert_eq!(&*without.name, "shop/s");
    }
}

#[test]
fn a_sink_is_found_at_its_services_port_and_one_that_is_not_there_leaves_the_built_in_dead_letter() {
    let policy = |sink: &str| {
        let sink = format!("delivery: {{deadLetterSink: {sink}}}");
        async_policy("s", &format!("targetRefs: [{{kind: Service, name: orders}}], {sink}"))
    };
    let found = |objects: &str| orders(objects).asynchronous.unwrap().delivery.sink.clone();
    let dead = "apiVersion: v1\nkind: Service\nmetadata: {name: dead, namespace: ops}\nspec: {clusterIP: 10.96.0.8, ports: [{port: 81}]}\n---\n";
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: ops}\n\
        spec: {from: [{group: tidegate.dev, kind: AsyncPolicy, namespace: shop}], to: [{group: '', kind: Service}]}\n";
    let far = policy("{ref: {kind: Service, name: dead, namespace: ops}, uri: /d}");
    let sink = found(&format!("{far}{dead}{grant}")).unwrap();
    assert_eq!((sink.service.to_string().as_str(), sink.uri.as_str()), ("dead.ops.svc:81", "/d"));
    let near = found(&policy("{ref: {kind: Service, name: orders, port: 5432}}")).unwrap();
    assert_eq!((near.service.to_string().as_str(), near.uri.as_str()), ("orders.shop.svc:5432", "/"));
    for objects in [
        format!("{far}{dead}"),
        format!("{far}{grant}"),
        policy("{ref: {kind: Service, name: orders}}"),
        policy("{ref: {kind: Service, name: far}}"),
    ] {
        assert_eq!(found(&objects), None, "{objects}");
    }
}
