//! tests/asynchronous/sinks: where dead letters are sent on to, read, refused and found.

use super::*;

const DEAD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: dead, namespace: shop}\n\
    spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}\n---\n";

/// A policy for orders with this sink.
fn sinking(sink: &str) -> String {
    policy("p", &format!("{{targetRefs: [{{name: orders}}], delivery: {{deadLetterSink: {sink}}}}}"))
}

fn sink(text: &str) -> SinkRef {
    read(&format!("{{delivery: {{deadLetterSink: {text}}}}}")).sink.unwrap()
}

#[test]
fn a_sink_is_a_service_of_the_policys_namespace_at_its_root_unless_more_is_written() {
    let short = sink("{ref: {kind: Service, name: dead}}");
    assert_eq!((short.namespace.as_str(), short.name.as_str()), ("shop", "dead"));
    assert_eq!((short.port, short.uri.as_str()), (None, "/"));
    let long = sink(
        "{ref: {apiVersion: v1, kind: Service, name: dead, namespace: ops, port: 81}, uri: '/orders?from=shop'}",
    );
    assert_eq!((long.namespace.as_str(), long.name.as_str()), ("ops", "dead"));
    assert_eq!((long.port, long.uri.as_str()), (Some(81), "/orders?from=shop"));
    assert_eq!(read("{delivery: {retry: 1}}").sink, None);
}

#[test]
fn a_sink_of_another_kind_or_without_a_service_is_refused_by_its_name() {
    let spec = |sink: &str| format!("{{delivery: {{deadLetterSink: {sink}}}}}");
    let rows = [
        (
            "{ref: {kind: Topic, name: dead}}",
            "deadLetterSink.ref.kind: Topic is not implemented yet: write Service",
        ),
        (
            "{ref: {kind: Broker, name: dead}}",
            "deadLetterSink.ref.kind: \"Broker\" is not known: write Service",
        ),
        ("{ref: {name: dead}}", "deadLetterSink.ref.kind: is missing"),
        (
            "{ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: dead}}",
            "deadLetterSink.ref.apiVersion: \"serving.knative.dev/v1\" is not known: write v1",
        ),
        ("{ref: {kind: Service}}", "deadLetterSink.ref.name: is missing"),
        ("{ref: {kind: Service, name: A_b}}", "deadLetterSink.ref.name: \"A_b\" is not a DNS label"),
        ("{ref: {kind: Service, name: dead, port: 0}}", "deadLetterSink.ref.port: 0 is out of range"),
        ("{uri: 'http://dead.example/'}", "deadLetterSink.ref: is missing"),
        (
            "{ref: {kind: Service, name: dead}, uri: 'http://dead.example/'}",
            "deadLetterSink.uri: \"http://dead.example/\" is no path: name the Service under ref",
        ),
        ("{ref: {kind: Service, name: dead}, uri: '//dead.example/'}", "is no path"),
        ("{ref: {kind: Service, name: dead}, uri: '/a b'}", "is no path"),
        ("{ref: {kind: Service, name: dead}, CACerts: x}", "deadLetterSink.CACerts: is no field here"),
    ];
    for (sink, wanted) in rows {
        refused(&[(&spec(sink), wanted)]);
    }
    let long = format!("{{ref: {{kind: Service, name: dead}}, uri: '/{}'}}", "a".repeat(1024));
    refused(&[(&spec(&long), "deadLetterSink.uri: has 1025 characters, 1024 are allowed")]);
}

#[test]
fn a_sink_that_cannot_be_found_is_named_and_the_built_in_dead_letter_holds() {
    let plain = sinking("{ref: {kind: Service, name: dead}}");
    assert_eq!(problems(&format!("{plain}{SERVICE}---\n{DEAD}")), [""; 0]);
    let two = DEAD.replace("[{port: 80}]", "[{name: a, port: 80}, {name: b, port: 81}]");
    let none = DEAD.replace("[{port: 80}]", "[]");
    let far = "apiVersion: v1\nkind: Service\nmetadata: {name: dead, namespace: shop}\nspec: {type: ExternalName, externalName: a.example}\n";
    let third = sinking("{ref: {kind: Service, name: dead, port: 82}}");
    for (policy, dead, wanted) in [
        (&plain, "", "there is no Service shop/dead: the built-in dead letter holds"),
        (&plain, two.as_str(), "Service shop/dead has ports 80, 81: write which one (port)"),
        (&plain, none.as_str(), "Service shop/dead has no port"),
        (&plain, far, "Service shop/dead is an ExternalName"),
        (&third, two.as_str(), "Service shop/dead has no port 82; it has 80, 81"),
    ] {
        let problem = one(&format!("{policy}{SERVICE}---\n{dead}"));
        assert!(problem.contains("spec.delivery.deadLetterSink.ref: "), "{problem}");
        assert!(problem.contains(wanted), "{problem}\n  lacks {wanted}");
    }
}

#[test]
fn a_sink_of_another_namespace_takes_a_grant_there() {
    let policy = sinking("{ref: {kind: Service, name: dead, namespace: ops}}");
    let dead = DEAD.replace("namespace: shop", "namespace: ops");
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: ops}\n\
        spec: {from: [{group: tidegate.dev, kind: AsyncPolicy, namespace: shop}], to: [{group: '', kind: Service, name: dead}]}\n";
    let text = format!("{policy}{SERVICE}---\n{dead}");
    let wanted = "namespace ops does not let AsyncPolicies of shop refer to Service dead: it takes a ReferenceGrant there";
    assert!(one(&text).contains(wanted), "{}", one(&text));
    assert_eq!(problems(&(text.clone() + grant)), [""; 0]);
    for other in [
        grant.replace("kind: AsyncPolicy", "kind: HTTPRoute"),
        grant.replace("name: dead}", "name: other}"),
        grant.replace("namespace: shop}]", "namespace: web}]"),
        grant.replace("name: g, namespace: ops", "name: g, namespace: shop"),
    ] {
        assert!(one(&(text.clone() + &other)).contains(wanted), "{other}");
    }
}
