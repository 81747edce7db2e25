//! refusals: what this version cannot carry out fails where it stands, and says so.

use anyhow::Result;

use super::ask::{check_shares, count, expect, expect_server};
use super::town::Town;

const WRONG: &str = "error=proxy_configuration_error";

#[test]
fn a_rule_with_a_filter_that_is_not_carried_out_answers_500_and_the_others_go_on() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches: [{ path: { value: /mirror } }]
    filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: echo-v2, port: 80 } } }]
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ path: { value: /both } }]
    filters:
    - { type: RequestRedirect, requestRedirect: { hostname: elsewhere } }
    - { type: URLRewrite, urlRewrite: { hostname: elsewhere } }
  - matches: [{ path: { value: /unknown } }]
    filters:
    - { type: RequestHeaderModifier, requestHeaderModifier: { remove: [x-secret] } }
    - { type: Teleport, teleport: { to: mars } }
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ path: { value: /one-backend } }]
    backendRefs:
    - { name: echo-v1, port: 80, weight: 50 }
    - { name: echo-v2, port: 80, weight: 50, filters: [{ type: URLRewrite, urlRewrite: { hostname: x } }] }
  - backendRefs: [{ name: echo-v1, port: 80 }]";
    town.route("refused", "name: echo", rules)?;
    let cases = [("mirror", "RequestMirror"), ("both", "beside a RequestRedirect"), ("unknown", "Teleport")];
    for client in town.clients() {
        for (path, filter) in cases {
            let url = format!("http://echo/{path}");
            expect(client, &[&url], |reply| reply.is_told(500, &[WRONG, filter, "HTTPRoute shop/refused"]))?;
        }
        expect_server(client, &["http://echo/"], "echo-v1")?;
    }
    let counts = count(&town.client, "http://echo/one-backend", |reply| {
        let told = reply.is_told(500, &[WRONG, "URLRewrite", "backendRefs[1]"]);
        if told { "told".to_owned() } else { format!("{} {}", reply.status, reply.server()) }
    })?;
    check_shares(&counts, &[("200 echo-v1", 0.5), ("told", 0.5)])
}

#[test]
fn a_match_that_is_not_carried_out_lets_nothing_through_to_a_rule_not_meant_for_it() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches:
    - path: { type: Exact, value: /guarded }
      headers: [{ name: version, type: Semver, value: '>2' }]
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ path: { value: / } }]
    backendRefs: [{ name: echo-v2, port: 80 }]";
    town.route("guarded", "name: echo", rules)?;
    expect(&town.client, &["http://echo/guarded"], |reply| reply.is_told(500, &[WRONG, "Semver"]))?;
    expect_server(&town.client, &["http://echo/other"], "echo-v2")
}

#[test]
fn a_path_that_cannot_be_compared_fails_its_own_rule_and_no_other() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches: [{ path: { type: RegularExpression, value: '/broken(' } }]
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ path: { type: Exact, value: /exact } }]
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ path: { value: /longer-than-the-expression } }]
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ path: { value: /short } }]
    backendRefs: [{ name: echo-v2, port: 80 }]";
    town.route("broken", "name: echo", rules)?;
    // What no other rule takes may have been meant for the broken one, and is told so.
    expect(&town.client, &["http://echo/what"], |reply| reply.is_told(500, &[WRONG, "/broken("]))?;
    expect_server(&town.client, &["http://echo/exact"], "echo-v1")?;
    expect_server(&town.client, &["http://echo/longer-than-the-expression"], "echo-v1")?;
    expect_server(&town.client, &["http://echo/short"], "echo-v2")
}
