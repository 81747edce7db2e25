//! matching: by path, header and query parameter, and who comes first.
#![allow(non_snake_case, reason = "the conformance suite's own names")]

use anyhow::{Context, Result};
use lab::until;

use super::ask::{PATIENCE, expect, expect_server};
use super::town::{Town, route};

#[test]
fn MeshHTTPRouteMatching() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches:
    - path: { type: PathPrefix, value: / }
    - headers: [{ name: version, value: one }]
    backendRefs: [{ name: echo-v1, port: 8080 }]
  - matches:
    - path: { type: PathPrefix, value: /v2 }
    - headers: [{ name: version, value: two }]
    backendRefs: [{ name: echo-v2, port: 8080 }]";
    town.route("matching", "name: echo", rules)?;
    let cases: [(&[&str], &str); 9] = [
        (&["http://echo/v2"], "echo-v2"),
        (&["http://echo/v2/example"], "echo-v2"),
        (&["http://echo/v2/"], "echo-v2"),
        (&["-H", "Version: two", "http://echo/"], "echo-v2"),
        (&["-H", "Version: one", "http://echo/"], "echo-v1"),
        (&["http://echo/"], "echo-v1"),
        (&["http://echo/example"], "echo-v1"),
        // A prefix is of path elements, not of letters.
        (&["http://echo/v2example"], "echo-v1"),
        (&["http://echo/foo/v2/example"], "echo-v1"),
    ];
    for client in town.clients() {
        cases.iter().try_for_each(|(args, server)| expect_server(client, args, server))?;
    }
    Ok(())
}

#[test]
fn MeshHTTPRouteQueryParamMatching() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches: [{ queryParams: [{ name: animal, value: whale }] }]
    backendRefs: [{ name: echo-v1, port: 8080 }]
  - matches: [{ queryParams: [{ name: animal, value: dolphin }] }]
    backendRefs: [{ name: echo-v2, port: 8080 }]
  - matches:
    - path: { type: PathPrefix, value: /path1 }
      queryParams: [{ name: animal, value: whale }]
    backendRefs: [{ name: echo-v1, port: 8080 }]
  - matches:
    - headers: [{ name: version, value: one }]
      queryParams: [{ name: animal, value: whale }]
    backendRefs: [{ name: echo-v2, port: 8080 }]
  - matches:
    - path: { type: PathPrefix, value: /path3 }
      queryParams: [{ name: animal, value: shark }]
    - path: { type: PathPrefix, value: /path4 }
      headers: [{ name: version, value: three }]
      queryParams: [{ name: animal, value: kraken }]
    backendRefs: [{ name: echo-v1, port: 8080 }]
  - matches:
    - path: { type: PathPrefix, value: /path5 }
      queryParams: [{ name: animal, value: hydra }]
    backendRefs: [{ name: echo-v1, port: 8080 }]
  - matches: [{ queryParams: [{ name: animal, value: hydra }] }]
    backendRefs: [{ name: echo-v2, port: 8080 }]";
    town.route("query", "name: echo", rules)?;
    let cases: [(&[&str], &str); 10] = [
        (&["http://echo/?animal=whale"], "echo-v1"),
        (&["http://echo/?animal=dolphin"], "echo-v2"),
        (&["http://echo/?animal=whale&otherparam=irrelevant"], "echo-v1"),
        (&["http://echo/?animal=dolphin&color=yellow"], "echo-v2"),
        (&["http://echo/path1?animal=whale"], "echo-v1"),
        (&["-H", "version: one", "http://echo/?animal=whale"], "echo-v2"),
        (&["http://echo/path3?animal=shark"], "echo-v1"),
        (&["-H", "version: three", "http://echo/path4?animal=kraken"], "echo-v1"),
        (&["http://echo/path5?animal=hydra"], "echo-v1"),
        (&["http://echo/?animal=hydra"], "echo-v2"),
    ];
    // 404 where there are rules and none matches; half a match is none.
    let nowhere = [
        "http://echo/?color=blue",
        "http://echo/?animal=dog",
        "http://echo/?animal=whaledolphin",
        "http://echo/",
        "http://echo/?animal=shark",
        "http://echo/path4?animal=kraken",
    ];
    for client in town.clients() {
        cases.iter().try_for_each(|(args, server)| expect_server(client, args, server))?;
        for url in nowhere {
            expect(client, &[url], |reply| reply.is_told(404, &["error=destination_not_found"]))?;
        }
    }
    Ok(())
}

#[test]
fn MeshHTTPRouteNamedRule() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - name: named-rule
    matches: [{ path: { type: PathPrefix, value: /named } }]
    backendRefs: [{ name: echo-v1, port: 8080 }]
  - matches: [{ path: { type: PathPrefix, value: /unnamed } }]
    backendRefs: [{ name: echo-v2, port: 8080 }]";
    town.route("named", "name: echo, port: 80", rules)?;
    for client in town.clients() {
        // Only the route refuses a path: what is counted below is counted under it.
        expect(client, &["http://echo/"], |reply| reply.is_told(404, &["error=destination_not_found"]))?;
        expect_server(client, &["http://echo/named"], "echo-v1")?;
        expect_server(client, &["http://echo/unnamed"], "echo-v2")?;
    }
    // The name is for people, who meet it in the metrics.
    let metric = "tidegate_request_responses_total";
    let labels = [("route", "named"), ("rule", "named-rule")];
    // A response is counted once its sender is through with it, which may be after curl has all of it.
    let counted = until("16 responses of the rule by its name", PATIENCE, || {
        Ok((town.sidecars[2].metric(metric, &labels)? >= 16.0).then_some(()))
    });
    counted.with_context(|| town.sidecars[2].metrics().unwrap_or_default())
}

/// A rule that answers with its own name.
fn told(name: &str, matches: &str) -> String {
    format!(
        "  - matches: [{{ {matches} }}]
    filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{ set: [{{ name: x-rule, value: {name} }}] }}
    backendRefs: [{{ name: echo-v1, port: 80 }}]"
    )
}

#[test]
fn the_rule_that_says_most_comes_first_wherever_it_is_written() -> Result<()> {
    let town = Town::new()?;
    let path = |kind: &str, value: &str| format!("path: {{ type: {kind}, value: {value} }}");
    let header = |name: &str| format!("{{ name: {name}, value: yes }}").replace("yes", "'yes'");
    let prefix = path("PathPrefix", "/a");
    // From the least to the most telling, so that the order of writing would be wrong every time.
    let rules = [
        told("any", &path("PathPrefix", "/")),
        told("prefix", &prefix),
        told("query", &format!("{prefix}, queryParams: [{}]", header("q"))),
        told("queries", &format!("{prefix}, queryParams: [{}, {}]", header("q"), header("r"))),
        told("header", &format!("{prefix}, headers: [{}]", header("h"))),
        told("headers", &format!("{prefix}, headers: [{}, {}]", header("h"), header("i"))),
        told("method", &format!("{prefix}, method: PUT")),
        told("longer", &path("PathPrefix", "/a/b")),
        told("exact", &path("Exact", "/a/b")),
        told("first", &path("Exact", "/tie")),
        told("second", &path("Exact", "/tie")),
    ];
    town.route("order", "name: echo", &rules.join("\n"))?;
    // Of two routes that say as much the older comes first, then the one that is first by name.
    let routes = [
        ("b-young", "2024-01-02T00:00:00Z", "/age"),
        ("a-younger", "2024-01-03T00:00:00Z", "/age"),
        ("d-twin", "2024-01-01T00:00:00Z", "/name"),
        ("c-twin", "2024-01-01T00:00:00Z", "/name"),
    ];
    for (name, created, value) in routes {
        let manifest = route("HTTPRoute", "shop", name, "name: echo", &told(name, &path("Exact", value)));
        let dated = format!("name: {name}, creationTimestamp: '{created}', namespace");
        town.world
            .put(&format!("route-{name}"), &manifest.replace(&format!("name: {name}, namespace"), &dated))?;
    }
    let every = ["-H", "h: yes", "-H", "i: yes"];
    let cases: [(&[&str], &str, &str); 14] = [
        (&[], "/age", "b-young"),
        (&[], "/name", "c-twin"),
        (&["-X", "PUT", every[0], every[1], every[2], every[3]], "/a/b?q=yes&r=yes", "exact"),
        (&["-X", "PUT", every[0], every[1], every[2], every[3]], "/a/b/c?q=yes&r=yes", "longer"),
        (&["-X", "PUT", every[0], every[1], every[2], every[3]], "/a?q=yes&r=yes", "method"),
        (&every, "/a?q=yes&r=yes", "headers"),
        (&["-H", "h: yes"], "/a?q=yes&r=yes", "header"),
        (&[], "/a?q=yes&r=yes", "queries"),
        (&[], "/a/x?q=yes", "query"),
        (&[], "/a/x?q=no", "prefix"),
        (&["-H", "h: no"], "/a/", "prefix"),
        (&[], "/ab", "any"),
        (&[], "/tie", "first"),
        (&[], "/tie/x", "any"),
    ];
    for (args, path, rule) in cases {
        let url = format!("http://echo{path}");
        expect(&town.client, &[args, &[url.as_str()]].concat(), |reply| {
            reply.status == 200 && reply.header("x-rule").as_deref() == Some(rule)
        })?;
    }
    Ok(())
}
