//! delivery: how an AsyncPolicy has its messages delivered: durations, rates and the sink.

use super::{Case, beyond, table};

const KIND: &str = "AsyncPolicy";

pub(super) fn cases() -> Vec<Case> {
    [durations(), waits(), rates(), sinks()].into_iter().flatten().collect()
}

fn durations() -> Vec<Case> {
    let max = |text: &str| format!("{{delivery: {{retryAfterMax: {text}}}}}");
    let right: Vec<String> = [
        "PT0S",
        "'0'",
        "0s",
        "500ms",
        "0.5s",
        "1h30m",
        "1m1h",
        "PT0.5S",
        "PT1H30M10S",
        "P1DT12H",
        "P4W",
        "P30D",
        "720h",
        "PT720H",
        "P1W1DT1H1M1.001S",
        "PT43200M",
        "1.5000000s",
        "PT0.001S",
    ]
    .map(max)
    .to_vec();
    let wrong: Vec<String> = [
        "''",
        "P",
        "PT",
        "P1DT",
        "P1Y",
        "P1M",
        "PT1S1H",
        "PT1H1H",
        "pt1s",
        "PT1s",
        "'30'",
        "30",
        "'-1s'",
        "PT-1S",
        "1d",
        "'1 s'",
        "s",
        "1.s",
        ".5s",
        "1us",
        "0.0001s",
        "PT0.0001S",
        "0.5ms",
        "PT720H0.001S",
        "P31D",
        "P5W",
        "720h1ms",
        "9999999999h",
        "999999999h",
        "PT999999999999999999999S",
        "ü",
        "true",
    ]
    .map(max)
    .to_vec();
    let texts = |list: &[String]| -> Vec<String> { list.to_vec() };
    let (right, wrong) = (texts(&right), texts(&wrong));
    let right: Vec<&str> = right.iter().map(String::as_str).collect();
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    let mut cases = table(KIND, &right, &wrong);
    let fraction = "CEL cannot multiply a fraction of days or weeks into a duration";
    let millis = "that a fraction of minutes or hours is no whole number of milliseconds takes arithmetic";
    cases.extend(beyond(
        KIND,
        &[
            ("{delivery: {maxAge: P30.5D}}", fraction),
            ("{delivery: {maxAge: P0.000001D}}", fraction),
            ("{delivery: {backoffDelay: P0.5D, backoffMax: PT1H}}", fraction),
            ("{delivery: {maxAge: 1.00001m}}", millis),
            ("{delivery: {maxAge: PT1.00000001H}}", millis),
        ],
    ));
    cases
}

fn waits() -> Vec<Case> {
    let right = [
        "{delivery: {}}",
        "{delivery: {retry: 0, backoffPolicy: linear}}",
        "{delivery: {retry: 1000, backoffPolicy: exponential}}",
        "{delivery: {backoffDelay: PT0.01S, backoffMax: 10ms}}",
        "{delivery: {backoffDelay: P30D, backoffMax: 720h}}",
        "{delivery: {backoffMax: PT0.5S}}",
        "{delivery: {backoffDelay: PT5M}}",
        "{delivery: {timeout: 1ms, maxAge: PT1S}}",
        "{delivery: {backoffDelay: P0.5D, backoffMax: P1D}}",
    ];
    let wrong = [
        "{delivery: {retry: -1}}",
        "{delivery: {retry: 1001}}",
        "{delivery: {retry: '3'}}",
        "{delivery: {backoffPolicy: Exponential}}",
        "{delivery: {backoffDelay: 9ms}}",
        "{delivery: {backoffMax: PT0.009S}}",
        "{delivery: {backoffMax: PT0.499S}}",
        "{delivery: {backoffDelay: 301s}}",
        "{delivery: {backoffDelay: 2s, backoffMax: PT1S}}",
        "{delivery: {backoffDelay: P1DT1S, backoffMax: 24h}}",
        "{delivery: {timeout: PT0S}}",
        "{delivery: {maxAge: PT0.999S}}",
        "{delivery: {maxAge: 1000}}",
    ];
    table(KIND, &right, &wrong)
}

fn rates() -> Vec<Case> {
    let right = [
        "{rateLimits: {}}",
        "{rateLimits: {maxConcurrentDispatches: 1, maxBurstSize: 1}}",
        "{rateLimits: {maxConcurrentDispatches: 1000, maxBurstSize: 1000000}}",
        "{rateLimits: {maxDispatchesPerSecond: 0.0001}}",
        "{rateLimits: {maxDispatchesPerSecond: 1000000}}",
        "{rateLimits: {maxDispatchesPerSecond: 0.5}}",
    ];
    let wrong = [
        "{rateLimits: {maxConcurrentDispatches: 0}}",
        "{rateLimits: {maxConcurrentDispatches: 1001}}",
        "{rateLimits: {maxBurstSize: 0}}",
        "{rateLimits: {maxBurstSize: 1000001}}",
        "{rateLimits: {maxDispatchesPerSecond: 0}}",
        "{rateLimits: {maxDispatchesPerSecond: 0.00009}}",
        "{rateLimits: {maxDispatchesPerSecond: 1000000.5}}",
        "{rateLimits: {maxDispatchesPerSecond: '5'}}",
    ];
    table(KIND, &right, &wrong)
}

fn sinks() -> Vec<Case> {
    let sink = |text: &str| format!("{{delivery: {{deadLetterSink: {text}}}}}");
    let to = |uri: &str| sink(&format!("{{ref: {{kind: Service, name: dead}}, uri: {uri}}}"));
    let right = [
        sink("{ref: {kind: Service, name: dead}}"),
        sink("{ref: {apiVersion: v1, kind: Service, name: dead, namespace: ops, port: 1}, uri: '/a?b=c'}"),
        sink("{ref: {kind: Service, name: dead, port: 65535}}"),
        to("/"),
        to(&format!("/{}", "a".repeat(1023))),
        to("\"/a-._~%20!$&'()*+,;=:@/?\""),
    ];
    let wrong = [
        sink("{}"),
        sink("{uri: /}"),
        sink("{ref: {name: dead}}"),
        sink("{ref: {kind: Service}}"),
        sink("{ref: {kind: Topic, name: dead}}"),
        sink("{ref: {apiVersion: v2, kind: Service, name: dead}}"),
        sink("{ref: {kind: Service, name: a.b}}"),
        sink("{ref: {kind: Service, name: dead, namespace: A}}"),
        sink("{ref: {kind: Service, name: dead, port: 0}}"),
        sink("{ref: {kind: Service, name: dead, port: 65536}}"),
        sink("{ref: {kind: Service, name: dead}, CACerts: x}"),
        to("''"),
        to("a"),
        to("//a"),
        to("'/a b'"),
        to("http://a/"),
        to("'/a#b'"),
        to(&format!("/{}", "a".repeat(1024))),
    ];
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}
