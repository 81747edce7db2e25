//! redirects: clients that are told to go elsewhere, and backends that see another address.
#![allow(non_snake_case, reason = "the conformance suite's own names")]

use anyhow::Result;
use serde_json::Value;

use super::ask::{Reply, expect};
use super::town::Town;

/// A rule for this path that tells its clients to go elsewhere.
fn elsewhere(path: &str, redirect: &str) -> String {
    format!(
        "  - matches: [{{ path: {{ type: PathPrefix, value: {path} }} }}]
    filters: [{{ type: RequestRedirect, requestRedirect: {{ {redirect} }} }}]"
    )
}

/// Puts the rules in force, and asks each URL for its status and location from everywhere.
fn check(rules: &[(&str, &str)], cases: &[(&str, u16, &str)]) -> Result<()> {
    let town = Town::new()?;
    let rules: Vec<String> = rules.iter().map(|(path, redirect)| elsewhere(path, redirect)).collect();
    town.route("elsewhere", "name: echo", &rules.join("\n"))?;
    for client in town.clients() {
        for (url, status, location) in cases {
            expect(client, &[url], |reply| {
                reply.status == *status
                    && reply.header("location").as_deref() == Some(*location)
                    && reply.server().is_empty()
            })?;
        }
    }
    Ok(())
}

#[test]
fn MeshHTTPRouteRedirectHostAndStatus() -> Result<()> {
    let rules = [
        ("/hostname-redirect", "hostname: example.org"),
        ("/host-and-status", "hostname: example.org, statusCode: 301"),
    ];
    let cases = [
        ("http://echo/hostname-redirect", 302, "http://example.org/hostname-redirect"),
        ("http://echo/host-and-status", 301, "http://example.org/host-and-status"),
        ("http://echo/host-and-status?a=1&b=2", 301, "http://example.org/host-and-status?a=1&b=2"),
    ];
    check(&rules, &cases)
}

#[test]
fn MeshHTTPRouteRedirectPath() -> Result<()> {
    let prefix = "path: { type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix }";
    let full = "path: { type: ReplaceFullPath, replaceFullPath: /full-path-replacement }";
    let (full_and_host, prefix_and_host) =
        (format!("hostname: example.org, {full}"), format!("hostname: example.org, {prefix}"));
    let rules = [
        ("/original-prefix", prefix),
        ("/full", full),
        ("/path-and-host", &prefix_and_host),
        ("/full-path-and-host", &full_and_host),
    ];
    let cases = [
        ("http://echo/original-prefix/lemon", 302, "http://echo/replacement-prefix/lemon"),
        ("http://echo/full/path/original", 302, "http://echo/full-path-replacement"),
        ("http://echo/path-and-host/lemon", 302, "http://example.org/replacement-prefix/lemon"),
        ("http://echo/full-path-and-host/path", 302, "http://example.org/full-path-replacement"),
    ];
    check(&rules, &cases)
}

#[test]
fn MeshHTTPRouteRedirectPort() -> Result<()> {
    let rules = [
        ("/port", "port: 8083"),
        ("/port-and-host", "port: 8083, hostname: example.org"),
        ("/port-and-host-and-status", "port: 8083, hostname: example.org, statusCode: 301"),
    ];
    let cases = [
        ("http://echo/port", 302, "http://echo:8083/port"),
        ("http://echo/port-and-host", 302, "http://example.org:8083/port-and-host"),
        ("http://echo/port-and-host-and-status", 301, "http://example.org:8083/port-and-host-and-status"),
        // The port that was asked stays where none is written.
        ("http://echo:8080/port-and-host", 302, "http://example.org:8083/port-and-host"),
    ];
    check(&rules, &cases)
}

#[test]
fn MeshHTTPRouteSchemeRedirect() -> Result<()> {
    let rules = [
        ("/scheme", "scheme: https"),
        ("/scheme-and-host", "scheme: https, hostname: example.org"),
        ("/scheme-and-port", "scheme: https, port: 8443"),
        ("/host", "hostname: example.org"),
    ];
    let cases = [
        ("http://echo/scheme", 302, "https://echo/scheme"),
        ("http://echo:8080/scheme", 302, "https://echo/scheme"),
        ("http://echo/scheme-and-host", 302, "https://example.org/scheme-and-host"),
        ("http://echo/scheme-and-port", 302, "https://echo:8443/scheme-and-port"),
        ("http://echo:8080/host", 302, "http://example.org:8080/host"),
    ];
    check(&rules, &cases)
}

fn status(code: u16) -> Result<()> {
    let redirect = format!("hostname: example.org, statusCode: {code}");
    check(&[("/moved", &redirect)], &[("http://echo/moved", code, "http://example.org/moved")])
}

#[test]
fn MeshHTTPRoute303Redirect() -> Result<()> {
    status(303)
}

#[test]
fn MeshHTTPRoute307Redirect() -> Result<()> {
    status(307)
}

#[test]
fn MeshHTTPRoute308Redirect() -> Result<()> {
    status(308)
}

#[test]
fn MeshHTTPRouteRewritePath() -> Result<()> {
    let town = Town::new()?;
    let rule = |path: &str, rewrite: &str| {
        format!(
            "  - matches: [{{ path: {{ type: PathPrefix, value: {path} }} }}]
    filters:
    - {{ type: RequestHeaderModifier, requestHeaderModifier: {{ set: [{{ name: X-Rule, value: {path} }}] }} }}
    - {{ type: URLRewrite, urlRewrite: {{ {rewrite} }} }}
    backendRefs: [{{ name: echo-v1, port: 80 }}]"
        )
    };
    let rules = [
        rule("/prefix/one", "path: { type: ReplacePrefixMatch, replacePrefixMatch: /one }"),
        rule("/strip", "path: { type: ReplacePrefixMatch, replacePrefixMatch: / }"),
        rule("/full/one", "path: { type: ReplaceFullPath, replaceFullPath: /one }"),
        rule("/host", "hostname: one.example.org"),
    ];
    town.route("rewrite", "name: echo", &rules.join("\n"))?;
    let cases = [
        ("http://echo/prefix/one/two", "/one/two", "echo", "/prefix/one"),
        ("http://echo/prefix/one/two?a=1", "/one/two?a=1", "echo", "/prefix/one"),
        ("http://echo/strip/three", "/three", "echo", "/strip"),
        ("http://echo/strip", "/", "echo", "/strip"),
        ("http://echo/full/one/two", "/one", "echo", "/full/one"),
        ("http://echo/host/x", "/host/x", "one.example.org", "/host"),
    ];
    let is = |reply: &Reply, path: &str, host: &str, rule: &str| {
        let echo: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        reply.status == 200
            && reply.server() == "echo-v1"
            && echo["path"] == path
            && reply.seen("host").as_deref() == Some(host)
            && reply.seen("x-rule").as_deref() == Some(rule)
    };
    for client in town.clients() {
        for (url, path, host, rule) in cases {
            expect(client, &[url], |reply| is(reply, path, host, rule))?;
        }
    }
    Ok(())
}
