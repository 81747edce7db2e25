//! access_policy: who may reach pods.

use super::{Case, items, table};

const KIND: &str = "AccessPolicy";

pub(super) fn cases() -> Vec<Case> {
    [selectors(), ports(), rules(), sources()].into_iter().flatten().collect()
}

fn selectors() -> Vec<Case> {
    let labels = |map: &str| format!("{{selector: {{matchLabels: {map}}}}}");
    let many = |count| labels(&format!("{{{}}}", items(count, |i| format!("l{i}: x"))));
    let right = [
        "{selector: {}}".to_owned(),
        "{selector: {}, default: Deny}".to_owned(),
        "{selector: {}, default: Allow}".to_owned(),
        labels("{}"),
        labels("{app: orders, app.kubernetes.io/name: a_b.C, empty: ''}"),
        labels(&format!("{{{}: {}}}", "a".repeat(63), "b".repeat(63))),
        many(64),
    ];
    let wrong = [
        "{}".to_owned(),
        "{selector: {matchExpressions: []}}".to_owned(),
        "{selector: {}, default: Audit}".to_owned(),
        "{selector: {}, default: deny}".to_owned(),
        "{selector: {}, targetRefs: []}".to_owned(),
        labels("{app: 1}"),
        labels("{app: 'a b'}"),
        labels("{app: '-a'}"),
        labels("{'a b': c}"),
        labels("{'/a': c}"),
        labels("{'-a': c}"),
        labels(&format!("{{{}: c}}", "a".repeat(64))),
        labels(&format!("{{a: {}}}", "b".repeat(64))),
        many(65),
    ];
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}

fn ports() -> Vec<Case> {
    let ports = |list: &str| format!("{{selector: {{}}, ports: {list}}}");
    let many = |count| ports(&format!("[{}]", items(count, |i| (i + 1).to_string())));
    let right = [
        ports("[]"),
        ports("[1, 65535, '1', '8080', '65535', http, a1, x-y, 80a]"),
        ports("[abcdefghijklmno]"),
        many(64),
    ];
    let wrong = [
        ports("[0]"),
        ports("[65536]"),
        ports("[-1]"),
        ports("[1.5]"),
        ports("['0']"),
        ports("['65536']"),
        ports("['123456']"),
        ports("['']"),
        ports("[HTTP]"),
        ports("[a_b]"),
        ports("['-a']"),
        ports("['1-1']"),
        ports("[abcdefghijklmnop]"),
        ports("[true]"),
        ports("http"),
        many(65),
    ];
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}

fn rules() -> Vec<Case> {
    let rules = |list: &str| format!("{{selector: {{}}, rules: {list}}}");
    let rule = "{from: [{identity: '*'}]}";
    let many = |count| rules(&format!("[{}]", items(count, |_| rule.to_owned())));
    let sources = |count| {
        rules(&format!("[{{from: [{}]}}]", items(count, |i| format!("{{serviceAccount: {{name: a{i}}}}}"))))
    };
    let right = [rules("[]"), rules(&format!("[{rule}]")), many(64), sources(64)];
    let wrong = [
        rules("[{}]"),
        rules("[{from: []}]"),
        rules("[{from: [{identity: '*'}], to: {}}]"),
        rules("[{from: [{identity: '*'}], rateLimit: {}}]"),
        many(65),
        sources(65),
    ];
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}

fn sources() -> Vec<Case> {
    let from = |source: &str| format!("{{selector: {{}}, rules: [{{from: [{source}]}}]}}");
    let right = [
        "{serviceAccount: {name: web}}",
        "{serviceAccount: {name: web.v2, namespace: edge}}",
        "{serviceAccount: {name: web}, unauthenticated: false}",
        "{identity: '*'}",
        "{identity: 'spiffe://cluster.local/ns/edge/sa/web'}",
        "{identity: 'spiffe://cluster.local/ns/edge/sa/*'}",
        "{identity: 'spiffe://cluster.local/*'}",
        "{network: 10.0.0.0/8, unauthenticated: true}",
        "{network: 10.0.0.1/8, unauthenticated: true}",
        "{network: 0.0.0.0/0, unauthenticated: true}",
        "{network: 'fd00::/8', unauthenticated: true}",
    ]
    .map(from);
    let wrong = [
        "{}",
        "{unauthenticated: true}",
        "{serviceAccount: {}}",
        "{serviceAccount: {name: A}}",
        "{serviceAccount: {name: a, namespace: a.b}}",
        "{serviceAccount: {name: a}, identity: '*'}",
        "{serviceAccount: {name: a}, network: 10.0.0.0/8, unauthenticated: true}",
        "{serviceAccount: {name: a}, unauthenticated: true}",
        "{identity: '*', network: 10.0.0.0/8, unauthenticated: true}",
        "{identity: web}",
        "{identity: ''}",
        "{identity: 'spiffe://d/ns/edge/sa/web*'}",
        "{identity: 'spiffe://d/ns/A/sa/b'}",
        "{identity: 'spiffe://d/ns/a/sa/b/c'}",
        "{network: 10.0.0.0/8}",
        "{network: 10.0.0.0/8, unauthenticated: false}",
        "{network: 10.0.0.0, unauthenticated: true}",
        "{network: 10.0.0.0/33, unauthenticated: true}",
        "{network: 010.0.0.0/8, unauthenticated: true}",
        "{network: '::ffff:10.0.0.0/104', unauthenticated: true}",
        "{namespace: edge}",
    ]
    .map(from);
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}
