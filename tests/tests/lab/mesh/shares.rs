//! shares: weights, their change while requests flow, and the share of what is not there.
#![allow(non_snake_case, reason = "the conformance suite's own names")]

use anyhow::{Context, Result, ensure};
use lab::Pod;
use serde_json::Value;

use super::ask::{PATIENCE, Reply, check_shares, count, expect};
use super::town::Town;

/// A rule with these weights that says in every response which it is.
fn weights(v1: u32, v2: u32) -> String {
    format!(
        "  - filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{ set: [{{ name: x-weights, value: {v1}-{v2} }}] }}
    backendRefs:
    - {{ name: echo-v1, port: 8080, weight: {v1} }}
    - {{ name: echo-v2, port: 8080, weight: {v2} }}"
    )
}

/// Puts the weights in force and waits until every client sees them. Who answers would tell nothing: the
/// Service's own balancing may well prefer one of its two endpoints.
fn put(town: &Town, clients: &[&Pod], v1: u32, v2: u32) -> Result<()> {
    town.route("weight", "name: echo", &weights(v1, v2))?;
    let word = format!("{v1}-{v2}");
    let told = |reply: &Reply| reply.status == 200 && reply.header("x-weights").as_ref() == Some(&word);
    clients.iter().try_for_each(|client| expect(client, &["http://echo/"], told))
}

fn key(reply: &Reply) -> String {
    format!("{} {} of {}", reply.status, reply.server(), reply.header("x-weights").unwrap_or_default())
}

#[test]
fn MeshHTTPRouteWeight() -> Result<()> {
    let town = Town::new()?;
    put(&town, &town.clients(), 70, 30)?;
    for client in town.clients() {
        let counts = count(client, "http://echo/", key)?;
        check_shares(&counts, &[("200 echo-v1 of 70-30", 0.7), ("200 echo-v2 of 70-30", 0.3)])?;
    }
    Ok(())
}

#[test]
fn weights_change_under_a_connection_that_never_breaks() -> Result<()> {
    let mut town = Town::new()?;
    put(&town, &[&town.client], 1, 0)?;
    let mut steady = town.client.spawn("steady", town.client.app("mesh_steady.py").arg("http://echo/"))?;
    steady.wait_for("200 echo-v1", PATIENCE)?;
    put(&town, &[&town.client], 0, 1)?;
    steady.wait_for("200 echo-v2", PATIENCE)?;
    put(&town, &[&town.client], 30, 70)?;
    let counts = count(&town.client, "http://echo/", key)?;
    check_shares(&counts, &[("200 echo-v1 of 30-70", 0.3), ("200 echo-v2 of 30-70", 0.7)])?;
    let said = stop(&mut steady)?;
    ensure!(said["connections"] == 1, "it connected anew: {said}");
    ensure!(said["answers"].as_object().is_some_and(|answers| answers.len() == 2), "{said}");
    ensure!(town.runs_on()?, "something ended on the way");
    Ok(())
}

/// Ends a steady client and gives what it counted.
fn stop(steady: &mut lab::Process) -> Result<Value> {
    steady.terminate()?;
    steady.wait(PATIENCE)?;
    let log = steady.log();
    let last = log.lines().last().context("it prints what it counted")?;
    serde_json::from_str(last).with_context(|| log.clone())
}

#[test]
fn the_share_of_a_service_that_is_not_there_is_answered_500_and_no_other() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches: [{ path: { value: /all } }]
    backendRefs: [{ name: nowhere, port: 80 }]
  - matches: [{ path: { value: /port } }]
    backendRefs: [{ name: echo-v1, port: 81 }]
  - matches: [{ path: { value: /none } }]
  - matches: [{ path: { value: /zero } }]
    backendRefs: [{ name: echo-v1, port: 80, weight: 0 }]
  - backendRefs:
    - { name: echo-v1, port: 80, weight: 60 }
    - { name: nowhere, port: 80, weight: 40 }";
    town.route("missing", "name: echo", rules)?;
    let wrong = "error=proxy_configuration_error";
    let cases = [("all", "nowhere"), ("port", "81"), ("none", "backend"), ("zero", "backend")];
    for (path, word) in cases {
        let url = format!("http://echo/{path}");
        expect(&town.client, &[&url], |reply| reply.is_told(500, &[wrong, word]))?;
    }
    let counts = count(&town.client, "http://echo/", |reply| {
        let told = reply.is_told(500, &[wrong, "Service shop/nowhere"]);
        if told { "told".to_owned() } else { format!("{} {}", reply.status, reply.server()) }
    })?;
    check_shares(&counts, &[("200 echo-v1", 0.6), ("told", 0.4)])
}
