//! async_policy: what an AsyncPolicy takes in; its delivery stands apart.

use super::{Case, beyond, items, table};

const KIND: &str = "AsyncPolicy";
const ROUTE: &str = "group: gateway.networking.k8s.io, kind: HTTPRoute";

pub(super) fn cases() -> Vec<Case> {
    let parts = [plain(), targets(), methods(), bytes(), keys(), callbacks()];
    parts.into_iter().flatten().collect()
}

fn plain() -> Vec<Case> {
    let right = [
        "{}",
        "{mode: Preferred, durability: Local, credentials: Refuse}",
        "{mode: Spill, durability: Memory, credentials: Drop}",
        "{mode: Always, credentials: Store, paused: true, grpc: {ack: EmptyMessage}}",
        "{mode: null, queue: null, targetRefs: null}",
        "{idempotency: {required: true, window: PT1S}}",
    ];
    let wrong = [
        "{mode: preferred}",
        "{mode: 1}",
        "{durability: Broker}",
        "{credentials: Keep}",
        "{paused: 'true'}",
        "{grpc: {}}",
        "{grpc: {ack: Operation}}",
        "{moed: Always}",
        "{queue: {maxByte: 1Mi}}",
        "{idempotency: {required: maybe}}",
        "{idempotency: {window: 999ms}}",
        "[]",
    ];
    table(KIND, &right, &wrong)
}

fn targets() -> Vec<Case> {
    let refs = |count| format!("{{targetRefs: [{}]}}", items(count, |i| format!("{{name: s{i}}}")));
    let rules =
        format!("{{targetRefs: [{{{ROUTE}, name: r}}, {{{ROUTE}, name: r, sectionName: a}}, {{name: r}}]}}");
    let domain = format!("{{targetRefs: [{{{ROUTE}, name: a.b-c.d, sectionName: x.y}}]}}");
    let twice = format!(
        "{{targetRefs: [{{{ROUTE}, name: r, sectionName: a}}, {{{ROUTE}, name: r, sectionName: a}}]}}"
    );
    let section = format!("{{targetRefs: [{{{ROUTE}, name: r, sectionName: A_b}}]}}");
    let empty = format!("{{targetRefs: [{{{ROUTE}, name: r, sectionName: ''}}]}}");
    let long = format!("{{targetRefs: [{{name: {}}}]}}", "a".repeat(63));
    let longer = format!("{{targetRefs: [{{name: {}}}]}}", "a".repeat(64));
    let right = [
        "{targetRefs: []}",
        "{targetRefs: [{group: '', kind: Service, name: orders}]}",
        &rules,
        &domain,
        &refs(16),
        &long,
    ];
    let wrong = [
        &refs(17),
        &twice,
        &section,
        &empty,
        &longer,
        "{targetRefs: [{name: a}, {name: a}]}",
        "{targetRefs: [{name: a}, {group: '', kind: Service, name: a}]}",
        "{targetRefs: [{kind: HTTPRoute, name: a}]}",
        "{targetRefs: [{group: gateway.networking.k8s.io, name: a}]}",
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: a}]}",
        "{targetRefs: [{group: core, kind: Service, name: a}]}",
        "{targetRefs: [{name: a, sectionName: http}]}",
        "{targetRefs: [{name: a, port: 80}]}",
        "{targetRefs: [{kind: Service}]}",
        "{targetRefs: [{name: A_b}]}",
        "{targetRefs: [{name: a.b}]}",
        "{targetRefs: {name: a}}",
    ];
    table(KIND, &right, &wrong)
}

fn methods() -> Vec<Case> {
    let named = |count: usize| {
        let letter = |i: usize| char::from(b'A' + u8::try_from(i % 26).expect("below 26"));
        format!("{{methods: [{}]}}", items(count, |i| format!("{}{}", letter(i / 26), letter(i))))
    };
    let long = format!("{{methods: [{}]}}", "A".repeat(32));
    let longer = format!("{{methods: [{}]}}", "A".repeat(33));
    let right = ["{methods: [POST]}", "{methods: [QUERY, M-SEARCH]}", &named(64), &long];
    let wrong = [
        &named(65),
        &longer,
        "{methods: []}",
        "{methods: [POST, POST]}",
        "{methods: [post]}",
        "{methods: ['']}",
        "{methods: [CONNECT]}",
        "{methods: [POST, TRACE]}",
        "{methods: POST}",
    ];
    table(KIND, &right, &wrong)
}

fn bytes() -> Vec<Case> {
    let right = [
        "{maxBodyBytes: 1}",
        "{maxBodyBytes: '0.3'}",
        "{maxBodyBytes: 16Mi}",
        "{maxBodyBytes: 16777216}",
        "{maxBodyBytes: 1.5Mi}",
        "{maxBodyBytes: '100k'}",
        "{queue: {maxBytes: 4Mi}}",
        "{maxBodyBytes: 65536, queue: {maxBytes: 64Ki}}",
        "{queue: {maxBytes: 4611686018427387904}}",
        "{queue: {maxBytes: 1Ti, maxMessages: 1}}",
        "{queue: {maxMessages: 2000000}}",
        "{result: {maxBytes: 0, ttl: PT0S}}",
        "{result: {maxBytes: 4Mi, ttl: P30D}}",
    ];
    let wrong = [
        "{maxBodyBytes: 0}",
        "{maxBodyBytes: '0'}",
        "{maxBodyBytes: -1}",
        "{maxBodyBytes: 16777217}",
        "{maxBodyBytes: '16777216.5'}",
        "{maxBodyBytes: 17Mi}",
        "{maxBodyBytes: '1e6'}",
        "{maxBodyBytes: 1K}",
        "{maxBodyBytes: 4MB}",
        "{maxBodyBytes: '4 Mi'}",
        "{maxBodyBytes: '.5Mi'}",
        "{maxBodyBytes: ''}",
        "{maxBodyBytes: true}",
        "{maxBodyBytes: 1000m}",
        "{queue: {maxBytes: 4194303}}",
        "{maxBodyBytes: 64Ki, queue: {maxBytes: 65535}}",
        "{maxBodyBytes: 2Mi, queue: {maxBytes: 1Mi}}",
        "{queue: {maxBytes: 4611686018427387905}}",
        "{queue: {maxBytes: '99999999999999999Ti'}}",
        "{queue: {maxMessages: 0}}",
        "{queue: {maxMessages: 2000001}}",
        "{queue: {maxMessages: 1.5}}",
        "{queue: {maxMessages: '7'}}",
        "{result: {maxBytes: 4194305}}",
        "{result: {ttl: P31D}}",
    ];
    table(KIND, &right, &wrong)
}

fn keys() -> Vec<Case> {
    let long = format!("{{ordering: {{key: 'header:{}'}}}}", "a".repeat(128));
    let longer = format!("{{ordering: {{key: 'header:{}'}}}}", "a".repeat(129));
    let right = [
        "{ordering: {key: 'header:X-Customer'}}",
        "{ordering: {key: \"header:a!#$%&'*+.^_`|~-9\"}}",
        &long,
        "{rateLimits: {key: destination}}",
        "{rateLimits: {key: 'header:X-Tenant'}}",
    ];
    let wrong = [
        &longer,
        "{ordering: {}}",
        "{ordering: {key: X-Customer}}",
        "{ordering: {key: 'header:'}}",
        "{ordering: {key: 'header:a b'}}",
        "{ordering: {key: 'Header:a'}}",
        "{ordering: {key: destination}}",
        "{ordering: {key: 'header:Authorization'}}",
        "{ordering: {key: 'header:COOKIE'}}",
        "{rateLimits: {key: 'header:Proxy-Authorization'}}",
        "{rateLimits: {key: source}}",
    ];
    table(KIND, &right, &wrong)
}

fn callbacks() -> Vec<Case> {
    let callback = |hosts: &str| format!("{{callback: {{allowedHosts: {hosts}, secretRef: {{name: key}}}}}}");
    let many = |count| callback(&format!("[{}]", items(count, |i| format!("h{i}.example"))));
    let right = [&callback("['*.shop.svc', EXAMPLE.com, a]"), &many(64)];
    let wrong = [
        &many(65),
        &callback("[]"),
        &callback("['*']"),
        &callback("['*.']"),
        &callback("['a.*.b']"),
        &callback("['a:80']"),
        &callback("['https://a']"),
        "{callback: {}}",
        "{callback: {allowedHosts: [a]}}",
        "{callback: {secretRef: {name: a}}}",
        "{callback: {allowedHosts: [a], secretRef: {}}}",
        "{callback: {allowedHosts: [a], secretRef: {name: A_b}}}",
        "{callback: {allowedHosts: [a], secretRef: {name: a, key: b}}}",
    ];
    let right: Vec<&str> = right.into_iter().map(String::as_str).collect();
    let mut cases = table(KIND, &right, &wrong);
    let host = callback(&format!("[{}a]", "a.".repeat(127)));
    cases
        .extend(beyond(KIND, &[(&host, "a name has 253 characters at most, the two of \"*.\" not counted")]));
    cases
}
