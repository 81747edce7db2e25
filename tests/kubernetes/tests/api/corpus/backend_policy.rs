//! backend_policy: how Services are used.

use super::{Case, items, table};

const KIND: &str = "BackendPolicy";

pub(super) fn cases() -> Vec<Case> {
    [targets(), protocols(), numbers()].into_iter().flatten().collect()
}

fn targets() -> Vec<Case> {
    let refs = |count| format!("{{targetRefs: [{}]}}", items(count, |i| format!("{{name: s{i}}}")));
    let right = ["{targetRefs: [{group: '', kind: Service, name: orders}]}", &refs(1), &refs(16)];
    let wrong = [
        &refs(17),
        "{}",
        "{targetRefs: []}",
        "{targetRefs: [{name: a}, {name: a}]}",
        "{targetRefs: [{kind: Service}]}",
        "{targetRefs: [{kind: HTTPRoute, name: a}]}",
        "{targetRefs: [{group: apps, name: a}]}",
        "{targetRefs: [{group: core, name: a}]}",
        "{targetRefs: [{name: a.b}]}",
        "{targetRefs: [{name: a, sectionName: http}]}",
        "{targetRefs: [a]}",
    ];
    table(KIND, &right, &wrong)
}

fn protocols() -> Vec<Case> {
    let protocol = |map: &str| format!("{{targetRefs: [{{name: a}}], protocol: {map}}}");
    let many = |count| protocol(&format!("{{{}}}", items(count, |i| format!("'{}': HTTP", i + 1))));
    let right = [
        protocol("{'1': HTTP, '80': HTTP2, '443': TLS, '65535': Opaque}"),
        protocol("{8080: HTTP}"),
        protocol("{}"),
        many(64),
    ];
    let wrong = [
        many(65),
        protocol("{'0': HTTP}"),
        protocol("{'65536': HTTP}"),
        protocol("{'080': HTTP}"),
        protocol("{'+80': HTTP}"),
        protocol("{http: HTTP}"),
        protocol("{'80': http}"),
        protocol("{'80': GRPC}"),
        protocol("[HTTP]"),
    ];
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}

fn numbers() -> Vec<Case> {
    let with = |field: &str| format!("{{targetRefs: [{{name: a}}], {field}}}");
    let right = [
        "loadBalancing: {}",
        "loadBalancing: {algorithm: PeakEWMA}",
        "retry: {}",
        "retry: {maxBodyBytes: 0, budget: {percent: 0, interval: 1s, minPerSecond: 0}}",
        "retry: {maxBodyBytes: 8388608, budget: {percent: 100, interval: 1h, minPerSecond: 1000000}}",
        "retry: {budget: {interval: 3600s}}",
        "retry: {budget: {interval: 1m30s500ms}}",
        "limits: {maxInFlight: 1, queue: 0}",
        "limits: {maxInFlight: 4294967295, queue: 4294967295}",
    ]
    .map(with);
    let wrong = [
        "loadBalancing: {algorithm: RingHash}",
        "loadBalancing: {algorithm: LeastRequest}",
        "loadBalancing: {zone: Prefer}",
        "breaker: {}",
        "retry: {maxBodyBytes: -1}",
        "retry: {maxBodyBytes: 8388609}",
        "retry: {maxBodyBytes: 1Mi}",
        "retry: {budget: {percent: -1}}",
        "retry: {budget: {percent: 101}}",
        "retry: {budget: {percent: 2.5}}",
        "retry: {budget: {interval: 999ms}}",
        "retry: {budget: {interval: 1h1ms}}",
        "retry: {budget: {interval: PT10S}}",
        "retry: {budget: {interval: 1.5s}}",
        "retry: {budget: {interval: 100000s}}",
        "retry: {budget: {interval: 1s1s1s1s1s}}",
        "retry: {budget: {interval: 10}}",
        "retry: {budget: {minPerSecond: 1000001}}",
        "limits: {maxInFlight: 0}",
        "limits: {maxInFlight: 4294967296}",
        "limits: {queue: -1}",
        "limits: {queue: 4294967296}",
        "limits: {maxWait: 1}",
    ]
    .map(with);
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}
