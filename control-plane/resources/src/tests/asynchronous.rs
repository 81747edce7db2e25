//! asynchronous: AsyncPolicies and the Secrets they name, read and refused.

use std::time::Duration;

use policy::limits;
use policy::queue::{Backoff, Credentials, Delivery, Durability, GrpcAck, Mode, RateLimits};

use super::*;

mod secrets;
mod sinks;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn policy(name: &str, spec: &str) -> String {
    ours("AsyncPolicy", spec).replace("name: p,", &format!("name: {name},")) + "---\n"
}

fn read(spec: &str) -> AsyncPolicy {
    let objects = objects(&policy("p", spec));
    let Object::AsyncPolicy(policy) = &objects[0].value else { panic!() };
    policy.clone()
}

fn secret(fields: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: key, namespace: shop}}\n{fields}\n---\n")
}

fn signing_key(fields: &str) -> Result<String, SigningKeyError> {
    let objects = objects(&secret(fields));
    let Object::Secret(secret) = &objects[0].value else { panic!() };
    secret.signing_key.clone().map(|key| key.reveal().to_owned())
}

fn problems(text: &str) -> Vec<String> {
    validate_all(&objects(text)).iter().map(ToString::to_string).collect()
}

fn one(text: &str) -> String {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orders, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: orders, port: 80}]
  rules:
  - {name: create, filters: [{type: ExtensionRef, extensionRef: {group: tidegate.dev, kind: AsyncPolicy, name: p}}]}
  - {name: other, filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: AsyncPolicy, name: p}}]}
---
";

#[test]
fn an_empty_policy_has_the_defaults_of_the_contract() {
    let policy = read("{}");
    let says = &policy.says;
    assert_eq!(&*says.name, "shop/p");
    assert_eq!((says.mode, says.durability), (Mode::Preferred, Durability::Local));
    assert_eq!(says.methods, ["POST", "PUT", "PATCH", "DELETE"]);
    assert_eq!((says.queue_bytes_max, says.queue_messages_max), (256 << 20, 100_000));
    assert_eq!((says.body_bytes_max, says.ordering_header.as_deref()), (4 << 20, Some("tidegate-key")));
    assert_eq!((&says.delivery, &says.rate), (&Delivery::default(), &RateLimits::default()));
    assert_eq!((says.idempotency_required, says.idempotency_window), (false, Duration::from_secs(86_400)));
    assert_eq!((says.result_ttl, says.result_bytes_max), (Duration::from_secs(3600), 256 << 10));
    assert!(says.callback_hosts.is_empty() && says.callback_secret.is_none());
    assert_eq!((says.credentials, says.grpc_ack, says.paused), (Credentials::Refuse, None, false));
    assert!(policy.targets.is_empty() && policy.callback_secret.is_none());
}

#[test]
fn every_field_of_a_policy_is_read() {
    let policy = read(
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders, sectionName: create}, \
          {group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders}, {kind: Service, name: orders}], \
          mode: Spill, methods: [POST, QUERY], durability: Memory, queue: {maxBytes: 1.5Gi, maxMessages: 7}, \
          maxBodyBytes: 65536, ordering: {key: 'header:X-Customer'}, \
          delivery: {retry: 0, backoffPolicy: linear, backoffDelay: PT0.25S, backoffMax: 90s, timeout: 1m30s, \
          retryAfterMax: PT0S, maxAge: 72h}, \
          rateLimits: {maxConcurrentDispatches: 3, maxDispatchesPerSecond: 0.5, maxBurstSize: 9, key: 'header:X-Tenant'}, \
          idempotency: {required: true, window: PT10M}, result: {ttl: 0s, maxBytes: 0}, \
          callback: {allowedHosts: ['*.Shop.svc', mail], secretRef: {name: orders-callback}}, \
          credentials: Store, grpc: {ack: EmptyMessage}, paused: true}",
    );
    let says = &policy.says;
    let name = || "orders".parse().unwrap();
    assert_eq!(
        policy.targets,
        [
            AsyncTarget::Rule(name(), "create".to_owned()),
            AsyncTarget::Route(name()),
            AsyncTarget::Service("orders".parse().unwrap())
        ]
    );
    assert_eq!((says.mode, says.durability), (Mode::Spill, Durability::Memory));
    assert_eq!(says.methods, ["POST", "QUERY"]);
    assert_eq!((says.queue_bytes_max, says.queue_messages_max, says.body_bytes_max), (1536 << 20, 7, 65_536));
    assert_eq!(says.ordering_header.as_deref(), Some("x-customer"));
    let seconds = Duration::from_secs;
    let delivery = Delivery {
        retry: 0,
        backoff: Backoff::Linear,
        backoff_delay: Duration::from_millis(250),
        backoff_max: seconds(90),
        timeout: seconds(90),
        retry_after_max: Duration::ZERO,
        age_max: seconds(72 * 3600),
        sink: None,
    };
    assert_eq!(says.delivery, delivery);
    let rate = RateLimits {
        concurrent_max: 3,
        per_second: Some(0.5),
        burst_max: 9,
        key_header: Some("x-tenant".to_owned()),
    };
    assert_eq!(says.rate, rate);
    assert_eq!((says.idempotency_required, says.idempotency_window), (true, seconds(600)));
    assert_eq!((says.result_ttl, says.result_bytes_max), (Duration::ZERO, 0));
    assert_eq!(says.callback_hosts, ["*.shop.svc", "mail"]);
    assert_eq!(policy.callback_secret.as_ref().map(|name| name.as_str()), Some("orders-callback"));
    assert_eq!(
        (says.credentials, says.grpc_ack, says.paused),
        (Credentials::Store, Some(GrpcAck::EmptyMessage), true)
    );
}

#[track_caller]
fn refused(cases: &[(&str, &str)]) {
    for (spec, wanted) in cases {
        let problem = one_problem(&policy("p", spec));
        assert!(problem.starts_with("a.yaml:1: AsyncPolicy shop/p: spec"), "{problem}");
        assert!(problem.contains(wanted), "{problem}\n  lacks {wanted}");
    }
}

#[test]
fn a_field_that_is_not_known_is_refused_by_its_path() {
    refused(&[
        ("{retries: 3}", "spec.retries: is no field here"),
        ("{queue: {maxByte: 1}}", "spec.queue.maxByte: is no field here"),
        ("{ordering: {keys: a}}", "spec.ordering.keys: is no field here"),
        ("{delivery: {retries: 3}}", "spec.delivery.retries: is no field here"),
        ("{rateLimits: {perSecond: 3}}", "spec.rateLimits.perSecond: is no field here"),
        ("{idempotency: {ttl: PT1S}}", "spec.idempotency.ttl: is no field here"),
        ("{result: {window: PT1S}}", "spec.result.window: is no field here"),
        ("{callback: {hosts: []}}", "spec.callback.hosts: is no field here"),
        ("{grpc: {reply: Empty}}", "spec.grpc.reply: is no field here"),
        (
            "{targetRefs: [{kind: Service, name: a, namespace: b}]}",
            "spec.targetRefs[0].namespace: is no field",
        ),
    ]);
}

#[test]
fn what_comes_later_is_refused_by_its_name() {
    refused(&[
        ("{durability: Broker}", "spec.durability: Broker is not implemented yet: write Local or Memory"),
        ("{grpc: {ack: Operation}}", "spec.grpc.ack: Operation is not implemented yet: write EmptyMessage"),
        (
            "{targetRefs: [{kind: Service, name: orders, sectionName: http}]}",
            "spec.targetRefs[0].sectionName: an AsyncPolicy for one port alone (sectionName) is not implemented",
        ),
    ]);
}

#[test]
fn a_word_that_is_none_of_a_fields_names_them() {
    refused(&[
        ("{mode: Sometimes}", "spec.mode: \"Sometimes\" is not known: write Preferred, Spill or Always"),
        ("{durability: Disk}", "spec.durability: \"Disk\" is not known: write Local or Memory"),
        ("{credentials: Keep}", "spec.credentials: \"Keep\" is not known: write Refuse, Drop or Store"),
        ("{grpc: {ack: Empty}}", "spec.grpc.ack: \"Empty\" is not known: write EmptyMessage"),
        ("{grpc: {}}", "spec.grpc.ack: is missing"),
        (
            "{delivery: {backoffPolicy: cubic}}",
            "spec.delivery.backoffPolicy: \"cubic\" is not known: write exponential or linear",
        ),
        ("{paused: 'no'}", "spec.paused: true or false is expected here"),
        (
            "{rateLimits: {key: source}}",
            "spec.rateLimits.key: \"source\" is not known: write destination or \"header:NAME\"",
        ),
        ("{ordering: {key: destination}}", "spec.ordering.key: \"destination\" is not known"),
        ("{ordering: {key: 'header:'}}", "spec.ordering.key: \"header:\" is not known: write"),
        ("{ordering: {key: 'header:a b'}}", "spec.ordering.key: \"header:a b\" is not known: write"),
        ("{ordering: {key: 'header:Authorization'}}", "spec.ordering.key: authorization holds a credential"),
        ("{ordering: {}}", "spec.ordering.key: is missing"),
    ]);
}

#[test]
fn a_number_out_of_range_is_told_with_the_range() {
    refused(&[
        ("{maxBodyBytes: 17Mi}", "spec.maxBodyBytes: 17Mi is out of range: 1 to 16Mi is allowed"),
        ("{maxBodyBytes: 0}", "spec.maxBodyBytes: 0 is out of range"),
        ("{maxBodyBytes: 4MB}", "spec.maxBodyBytes: \"4MB\" is not a number of bytes"),
        ("{maxBodyBytes: -1}", "spec.maxBodyBytes: text is expected here, not the number -1"),
        (
            "{queue: {maxBytes: 1Mi}}",
            "spec.queue.maxBytes: 1Mi is a quota smaller than one message: maxBodyBytes is 4Mi",
        ),
        (
            "{maxBodyBytes: 2Ki, queue: {maxBytes: 1Ki}}",
            "spec.queue.maxBytes: 1Ki is a quota smaller than one message: maxBodyBytes is 2Ki",
        ),
        ("{queue: {maxMessages: 0}}", "spec.queue.maxMessages: 0 is out of range"),
        ("{queue: {maxMessages: 2000001}}", "spec.queue.maxMessages: 2000001 is out of range: 1 to 2000000"),
        ("{delivery: {retry: 1001}}", "spec.delivery.retry: 1001 is out of range: 0 to 1000 is allowed"),
        (
            "{rateLimits: {maxConcurrentDispatches: 0}}",
            "spec.rateLimits.maxConcurrentDispatches: 0 is out of",
        ),
        ("{rateLimits: {maxConcurrentDispatches: 1001}}", "1001 is out of range: 1 to 1000 is allowed"),
        (
            "{rateLimits: {maxDispatchesPerSecond: 0}}",
            "maxDispatchesPerSecond: is no number in range: 0.0001 to",
        ),
        ("{rateLimits: {maxDispatchesPerSecond: -5}}", "maxDispatchesPerSecond: is no number in range"),
        ("{rateLimits: {maxDispatchesPerSecond: fast}}", "maxDispatchesPerSecond: is no number in range"),
        ("{rateLimits: {maxDispatchesPerSecond: 1e9}}", "maxDispatchesPerSecond: is no number in range"),
        ("{rateLimits: {maxBurstSize: 0}}", "spec.rateLimits.maxBurstSize: 0 is out of range"),
        ("{result: {maxBytes: 5Mi}}", "spec.result.maxBytes: 5Mi is out of range: 0 to 4Mi is allowed"),
    ]);
}

#[test]
fn a_duration_out_of_range_is_told_in_iso_8601() {
    refused(&[
        (
            "{delivery: {timeout: 0s}}",
            "spec.delivery.timeout: PT0S is out of range: PT0.001S to PT720H is allowed",
        ),
        ("{delivery: {timeout: 30}}", "spec.delivery.timeout: text is expected here, not the number 30"),
        ("{delivery: {timeout: soon}}", "spec.delivery.timeout: \"soon\" is not a duration: write \"PT30S\""),
        ("{delivery: {maxAge: 31d}}", "two days are \"48h\"); PT1S to PT720H is allowed"),
        ("{delivery: {timeout: P1Y}}", "spec.delivery.timeout: \"P1Y\" is not a duration"),
        (
            "{delivery: {backoffDelay: 1ms}}",
            "spec.delivery.backoffDelay: PT0.001S is out of range: PT0.01S to",
        ),
        (
            "{delivery: {backoffDelay: 10m}}",
            "spec.delivery: backoffDelay (PT10M) is longer than backoffMax (PT5M)",
        ),
        ("{delivery: {maxAge: 0s}}", "spec.delivery.maxAge: PT0S is out of range: PT1S to PT720H"),
        ("{delivery: {maxAge: P31D}}", "spec.delivery.maxAge: PT744H is out of range"),
        ("{delivery: {retryAfterMax: 721h}}", "spec.delivery.retryAfterMax: PT721H is out of range: PT0S to"),
        ("{idempotency: {window: 0s}}", "spec.idempotency.window: PT0S is out of range: PT1S to PT720H"),
        ("{result: {ttl: 10000h}}", "spec.result.ttl: PT10000H is out of range: PT0S to PT720H"),
    ]);
}

#[test]
fn methods_are_upper_case_tokens_and_never_connect() {
    refused(&[
        ("{methods: []}", "spec.methods: is empty: name one, or remove it"),
        ("{methods: [post]}", "spec.methods[0]: \"post\" is not a method"),
        ("{methods: ['PO ST']}", "spec.methods[0]: \"PO ST\" is not a method"),
        ("{methods: ['']}", "spec.methods[0]: \"\" is not a method"),
        ("{methods: [POST, CONNECT]}", "spec.methods[1]: CONNECT is never taken in as a message"),
        ("{methods: [TRACE]}", "spec.methods[0]: TRACE is never taken in as a message"),
        ("{methods: [POST, POST]}", "spec.methods[1]: POST stands there already"),
    ]);
}

#[test]
fn a_target_is_a_service_or_an_http_route_under_its_own_group() {
    let what = "cannot be a target: write kind Service (group \"\") or HTTPRoute";
    refused(&[
        ("{targetRefs: [{kind: HTTPRoute, name: a}]}", what),
        ("{targetRefs: [{group: gateway.networking.k8s.io, kind: Service, name: a}]}", what),
        ("{targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: a}]}", what),
        ("{targetRefs: [{kind: Service}]}", "spec.targetRefs[0].name: is missing"),
        ("{targetRefs: [{name: a}, {name: a}]}", "spec.targetRefs[1]: stands there already"),
        ("{targetRefs: [{name: A_b}]}", "spec.targetRefs[0].name: \"A_b\" is not a DNS label"),
    ]);
}

#[test]
fn a_target_that_is_not_there_is_named() {
    let spec = |target: &str| policy("p", &format!("{{targetRefs: [{target}]}}"));
    let route = "group: gateway.networking.k8s.io, kind: HTTPRoute";
    let there = format!("{SERVICE}---\n{ROUTE}");
    assert_eq!(
        one(&(spec("{name: order}") + &there)),
        "a.yaml:1: AsyncPolicy shop/p: spec.targetRefs[0]: there is no Service shop/order: the policy does nothing for it"
    );
    let text = spec(&format!("{{{route}, name: other}}")) + &there;
    assert!(one(&text).contains("spec.targetRefs[0]: there is no HTTPRoute shop/other: "), "{}", one(&text));
    let text = spec(&format!("{{{route}, name: orders, sectionName: delete}}")) + &there;
    assert!(one(&text).contains("there is no rule \"delete\" of HTTPRoute shop/orders: "), "{}", one(&text));
    for target in [
        "{name: orders}",
        &format!("{{{route}, name: orders}}"),
        &format!("{{{route}, name: orders, sectionName: create}}"),
    ] {
        assert_eq!(problems(&(spec(target) + &there)), [""; 0]);
    }
    let far = "apiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: shop}\nspec: {type: ExternalName, externalName: a.example}\n";
    assert!(one(&(spec("{name: far}") + far)).contains("Service shop/far is an ExternalName"));
}

#[test]
fn a_filter_names_a_policy_of_the_routes_namespace_or_the_rule_answers_500() {
    assert_eq!(problems(&(policy("p", "{}") + ROUTE)), [""; 0]);
    let problem = one(ROUTE);
    assert!(
        problem.contains("HTTPRoute shop/orders: spec.rules[0].filters[0]: there is no AsyncPolicy shop/p: the rule answers 500"),
        "{problem}"
    );
    let Object::HttpRoute(route) = &objects(ROUTE)[0].value else { panic!() };
    assert_eq!(route.rules[0].filters, [Filter::Asynchronous("p".to_owned())]);
    assert_eq!(route.rules[1].filters, [Filter::Unknown("ExtensionRef".to_owned())]);
}

#[test]
fn a_policy_that_nothing_names_and_that_names_nothing_is_told() {
    let problem = one(&policy("p", "{targetRefs: []}"));
    assert!(
        problem.contains("spec.targetRefs: names nothing, and no route's filter names this policy"),
        "{problem}"
    );
}

#[test]
fn of_two_policies_for_one_target_the_older_holds_then_the_first_by_name() {
    let spec = "{targetRefs: [{name: orders}]}";
    let text = policy("b", spec) + &policy("a", spec) + SERVICE;
    assert_eq!(
        one(&text),
        "a.yaml:1: AsyncPolicy shop/b: spec.targetRefs[0]: Service shop/orders has AsyncPolicy shop/a (a.yaml:6) \
         already, which holds for it: merge the two"
    );
    let dated = |time: &str| format!("name: b, creationTimestamp: '{time}',");
    let older = text.replace("name: b,", &dated("2020-01-01T00:00:00Z"));
    assert!(
        one(&older)
            .contains("AsyncPolicy shop/a: spec.targetRefs[0]: Service shop/orders has AsyncPolicy shop/b")
    );
    // What names more of a route contradicts nothing.
    let route = "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders}]}";
    let text = policy("p", spec) + &policy("q", route) + SERVICE + "---\n" + ROUTE;
    assert_eq!(problems(&text), [""; 0]);
}

#[test]
fn the_bounds_of_the_contract_are_those_of_the_limits() {
    let spec = format!(
        "{{maxBodyBytes: {}, queue: {{maxBytes: {}, maxMessages: {}}}, delivery: {{retry: {}}}, \
          rateLimits: {{maxConcurrentDispatches: {}}}, result: {{maxBytes: {}}}}}",
        limits::MESSAGE_BODY_BYTES_CAP,
        limits::MESSAGE_BODY_BYTES_CAP,
        limits::QUEUE_MESSAGES_CAP,
        limits::DELIVERY_RETRY_CAP,
        limits::DISPATCHES_CONCURRENT_CAP,
        limits::RESULT_BYTES_CAP
    );
    assert_eq!(read(&spec).says.delivery.retry, limits::DELIVERY_RETRY_CAP);
}
