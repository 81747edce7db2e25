//! tests: files in, objects and problems out.

mod asynchronous;
mod samples;

use std::time::Duration;

use policy::snapshot::{Access, Protocol};

use super::*;

fn one_problem(text: &str) -> String {
    let (objects, problems) = parse_file("a.yaml", text);
    assert!(objects.is_empty(), "{objects:?}");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

fn objects(text: &str) -> Vec<Located<Object>> {
    let (objects, problems) = parse_file("a.yaml", text);
    assert_eq!(problems, []);
    objects
}

fn ours(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, fd00::1]
  ports: [{port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}, {name: dns, port: 53, protocol: UDP}]
";

#[test]
fn a_bad_document_is_named_by_its_line_and_hurts_no_other() {
    let text = format!(
        "# shop\n---\n{SERVICE}---\nkind: [\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{}}\n---\n{SERVICE}"
    );
    let (objects, problems) = parse_file("a.yaml", &text);
    assert_eq!(objects.iter().map(|o| o.line).collect::<Vec<_>>(), [3, 17]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].to_string().starts_with("a.yaml:1"), "{}", problems[0]);
    assert_eq!(problems[1].to_string(), "a.yaml:13: Namespace: metadata.name: is missing");
}

#[test]
fn text_that_is_no_yaml_still_says_whose_it_is() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: orders\n  namespace: shop\nspec: {a: [}\n";
    let problem = one_problem(text);
    assert!(problem.starts_with("a.yaml:6: Service shop/orders: this document is not YAML: "), "{problem}");
}

#[test]
fn kinds_of_others_are_skipped_and_slips_in_ours_are_not() {
    let (objects, problems) = parse_file(
        "a.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
    );
    assert!(objects.is_empty() && problems.is_empty(), "{problems:?}");
    for (api, kind) in [
        ("tidegate.dev/v1", "BackendPolicy"),
        ("tidegate.io/v1alpha1", "AccessPolicy"),
        ("v1alpha1", "MeshTrust"),
        ("tidegate.dev/v1alpha1", "AccesPolicy"),
        ("gateway.networking.k8s.io/v2", "HTTPRoute"),
    ] {
        one_problem(&format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n"));
    }
}

#[test]
fn a_service_is_read_with_its_tcp_ports_and_addresses() {
    let Object::Service(service) = &objects(SERVICE)[0].value else { panic!() };
    assert_eq!(service.addresses.len(), 2);
    assert_eq!(service.ports.len(), 1);
    assert_eq!(service.ports[0].target, PortRef::Name("http".to_owned()));
}

#[test]
fn a_pod_is_read_with_account_ports_probes_and_addresses() {
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: orders-0, namespace: shop, labels: {app: orders}, annotations: {tidegate.dev/inject: enabled}}
spec:
  serviceAccountName: orders
  unknown: {a: 1}
  containers:
  - name: app
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /ready, port: http}}
    livenessProbe: {exec: {command: [true]}}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
";
    let Object::Pod(pod) = &objects(text)[0].value else { panic!() };
    assert_eq!((pod.service_account.as_str(), pod.addresses.len()), ("orders", 1));
    assert_eq!(pod.resolve(&pod.containers[0].probes[0].port), Some(8080));
}

#[test]
fn endpoint_conditions_that_are_absent_mean_ready() {
    let text = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-1, namespace: shop, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1]}
- {addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}, targetRef: {kind: Pod, name: p}}
ports: [{name: http, port: 8080}]
";
    let Object::EndpointSlice(slice) = &objects(text)[0].value else { panic!() };
    assert!(slice.endpoints[0].ready && slice.endpoints[0].serving);
    assert!(!slice.endpoints[1].ready && slice.endpoints[1].serving && slice.endpoints[1].terminating);
    assert_eq!(slice.endpoints[1].pod.as_deref(), Some("p"));
}

#[test]
fn a_route_keeps_what_it_does_not_know() {
    let text = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: orders, port: 80}]
  hostnames: [a]
  rules:
  - matches: [{path: {type: Fuzzy, value: x}, headers: [{name: A, value: b}]}]
    filters: [{type: RequestMirror, requestMirror: {}}, {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-A, value: b}]}}]
    backendRefs: [{name: orders, port: 80}]
    timeouts: {request: 10s, backendRequest: 0s}
    retry: {attempts: 3, codes: [503], backoff: 100ms}
    sessionPersistence: {a: b}
";
    let Object::HttpRoute(route) = &objects(text)[0].value else { panic!() };
    let rule = &route.rules[0];
    assert!(route.parents[0].is_service());
    assert_eq!(rule.matches[0].path, PathSpec::Unknown("Fuzzy".to_owned()));
    assert_eq!(rule.filters[0], Filter::Unknown("RequestMirror".to_owned()));
    assert_eq!(rule.timeouts, Timeouts { request: Some(Duration::from_secs(10)), backend_request: None });
    assert_eq!(rule.retry.as_ref().unwrap().backoff, Some(Duration::from_millis(100)));
    assert_eq!(rule.backends[0].weight, 1);
}

#[test]
fn a_backend_policy_is_read_whole() {
    let spec = "{targetRefs: [{group: '', kind: Service, name: orders}], protocol: {'8080': HTTP, 9092: Opaque}, loadBalancing: {algorithm: PeakEWMA}, retry: {budget: {percent: 20, interval: 10s, minPerSecond: 10}, maxBodyBytes: 262144}, limits: {maxInFlight: 2000, queue: 500}}";
    let objects = objects(&ours("BackendPolicy", spec));
    let Object::BackendPolicy(policy) = &objects[0].value else { panic!() };
    assert_eq!(policy.protocol[&8080], Protocol::Http);
    assert_eq!(policy.protocol[&9092], Protocol::Opaque);
    assert_eq!(policy.budget.unwrap().percent, Some(20));
    assert_eq!((policy.in_flight_max, policy.queue_max), (Some(2000), Some(500)));
}

#[test]
fn our_own_kinds_refuse_fields_by_name() {
    let target = "targetRefs: [{kind: Service, name: orders}]";
    for (kind, spec, wanted) in [
        ("BackendPolicy", format!("{{{target}, retires: {{}}}}"), "spec.retires: is no field here"),
        (
            "BackendPolicy",
            format!("{{{target}, breaker: {{}}}}"),
            "spec.breaker: BackendPolicy breaker is not implemented yet",
        ),
        (
            "BackendPolicy",
            format!("{{{target}, loadBalancing: {{zone: Prefer}}}}"),
            "spec.loadBalancing.zone: loadBalancing.zone is not implemented yet",
        ),
        (
            "BackendPolicy",
            format!("{{{target}, loadBalancing: {{algorithm: RingHash}}}}"),
            "RingHash is not implemented yet",
        ),
        ("BackendPolicy", format!("{{{target}, protocol: {{'70000': HTTP}}}}"), "spec.protocol.70000: "),
        (
            "BackendPolicy",
            format!("{{{target}, retry: {{maxBodyBytes: 8388609}}}}"),
            "spec.retry.maxBodyBytes: 8388609 is out of range",
        ),
        (
            "BackendPolicy",
            format!("{{{target}, limits: {{maxInFlight: 0}}}}"),
            "spec.limits.maxInFlight: 0 is out of range",
        ),
        (
            "BackendPolicy",
            format!("{{{target}, retry: {{budget: {{percent: 101}}}}}}"),
            "spec.retry.budget.percent: 101 is out of range",
        ),
        (
            "AccessPolicy",
            "{selector: {}, default: Audit}".to_owned(),
            "spec.default: Audit is not implemented yet",
        ),
        (
            "AccessPolicy",
            "{selector: {}, rules: [{from: [{identity: '*'}], to: {}}]}".to_owned(),
            "spec.rules[0].to: rules[].to (methods, paths) is not implemented yet",
        ),
        (
            "AccessPolicy",
            "{selector: {}, rules: [{from: [{network: 10.0.0.0/8}]}]}".to_owned(),
            "spec.rules[0].from[0].network: a network of authenticated peers is not implemented yet: add unauthenticated: true",
        ),
        ("AccessPolicy", "{rules: []}".to_owned(), "spec.selector: is missing"),
        ("Topic", "{}".to_owned(), "kind: Topic is not implemented yet"),
        ("MeshTrust", "{anchors: [x]}".to_owned(), "spec.anchors[0]: is not a certificate"),
    ] {
        let problem = one_problem(&ours(kind, &spec));
        assert!(problem.contains(wanted), "{problem}\n  lacks {wanted}");
    }
}

#[test]
fn an_access_policy_denies_where_nothing_else_is_written() {
    let spec = "{selector: {matchLabels: {app: orders}}, ports: [http, 9090], rules: [{from: [{serviceAccount: {name: web}}, {identity: 'spiffe://cluster.local/ns/edge/sa/*'}, {network: 10.0.0.0/8, unauthenticated: true}]}]}";
    let objects = objects(&ours("AccessPolicy", spec));
    let Object::AccessPolicy(policy) = &objects[0].value else { panic!() };
    assert_eq!(policy.default, Access::Deny);
    assert_eq!(policy.ports, [PortRef::Name("http".to_owned()), PortRef::Number(9090)]);
    assert_eq!(policy.rules[0].from.len(), 3);
}

#[test]
fn two_policies_for_one_service_are_both_named() {
    let spec = "{targetRefs: [{name: orders}]}";
    let text = format!(
        "{}---\n{}",
        ours("BackendPolicy", spec),
        ours("BackendPolicy", spec).replace("name: p,", "name: q,")
    );
    let problems = validate_all(&objects(&text));
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "a.yaml:6: BackendPolicy shop/q: spec.targetRefs[0]: Service shop/orders has BackendPolicy shop/p \
         (a.yaml:1) already, which holds for it: merge the two"
    );
}

#[test]
fn duplicates_and_bad_expressions_are_found() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: [{matches: [{path: {type: RegularExpression, value: '/(a'}}]}]}\n";
    let problems = validate_all(&objects(&format!("{route}---\n{SERVICE}---\n{SERVICE}")));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].to_string().contains("Service shop/orders: stands at a.yaml:6 already"),
        "{}",
        problems[0]
    );
    assert!(
        problems[1].to_string().contains("spec.rules[0].matches[0].path: \"/(a\" is not a regular"),
        "{}",
        problems[1]
    );
}

#[test]
fn two_access_policies_on_one_port_are_named_and_one_for_all_ports_is_not() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: o, namespace: shop}\nspec: {containers: [{ports: [{name: http, containerPort: 8080}]}]}\n";
    let policy = |name: &str, ports: &str| {
        ours("AccessPolicy", &format!("{{selector: {{}}, ports: {ports}}}"))
            .replace("name: p,", &format!("name: {name},"))
    };
    let text =
        [pod.to_owned(), policy("a", "[http]"), policy("b", "[8080]"), policy("c", "[]")].join("---\n");
    let problems = validate_all(&objects(&text));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].to_string().contains(
        "AccessPolicy shop/b: spec.selector: selects port 8080 of pod shop/o as AccessPolicy shop/a"
    ));
}

#[test]
fn a_redirection_and_a_rewrite_are_read_and_what_no_url_can_hold_is_refused() {
    let with = |filter: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{parentRefs: [{{kind: Service, group: '', name: orders}}], rules: [{{filters: [{filter}]}}]}}\n"
        )
    };
    let first = |filter: &str| {
        let Object::HttpRoute(route) = &objects(&with(filter))[0].value else { panic!() };
        route.rules[0].filters[0].clone()
    };
    let told =
        first("{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, statusCode: 308}}");
    let Filter::Redirect(told) = told else { panic!("{told:?}") };
    assert_eq!((told.status, told.scheme, told.port), (308, Some(policy::route::Scheme::Https), Some(8443)));
    let later = "{type: URLRewrite, urlRewrite: {path: {type: ReplaceLater, replaceLater: a}}}";
    assert_eq!(first(later), Filter::Unknown("URLRewrite with path of type \"ReplaceLater\"".to_owned()));
    let status = "{type: RequestRedirect, requestRedirect: {statusCode: 304}}";
    assert_eq!(first(status), Filter::Unknown("RequestRedirect with statusCode 304".to_owned()));
    let scheme = "{type: RequestRedirect, requestRedirect: {scheme: ftp}}";
    assert_eq!(first(scheme), Filter::Unknown("RequestRedirect with scheme \"ftp\"".to_owned()));
    for (filter, wanted) in [
        ("{type: RequestRedirect, requestRedirect: {hostname: 'a b'}}", "a b"),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: 'a?b'}}}",
            "is no path: it begins with",
        ),
    ] {
        let problems = one_problem(&with(filter));
        assert!(problems.contains(wanted), "{filter}: {problems}");
    }
}
