//! shares: weights, their change while requests flow, and the share of what is not there.
#![allow(non_snake_case, reason = "the conformance suite's own names")]

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::Value;

use super::ask::{PATIENCE, check_shares, count, expect, expect_server};
use super::town::Town;

fn weights(v1: u32, v2: u32) -> String {
    format!(
        "  - backendRefs:
    - {{ name: echo-v1, port: 8080, weight: {v1} }}
    - {{ name: echo-v2, port: 8080, weight: {v2} }}"
    )
}

#[test]
fn MeshHTTPRouteWeight() -> Result<()> {
    let town = Town::new()?;
    // One side alone shows that the route is in force; then the weights that are measured.
    town.route("weight", "name: echo", &weights(0, 1))?;
    for client in town.clients() {
        expect_server(client, &["http://echo/"], "echo-v2")?;
    }
    town.route("weight", "name: echo", &weights(70, 30))?;
    for client in town.clients() {
        sees_first(&town, client)?;
        let counts = count(client, "http://echo/", |reply| format!("{} {}", reply.status, reply.server()))?;
        check_shares(&counts, &[("200 echo-v1", 0.7), ("200 echo-v2", 0.3)])?;
    }
    Ok(())
}

/// Waits until a client is answered by `echo-v1` at all: what was in force before never is.
fn sees_first(town: &Town, client: &lab::Pod) -> Result<()> {
    until(&format!("{} to be in the draw", town.v1.name()), PATIENCE, || {
        let replies = super::ask::ask(client, &["http://echo/?[1-16]"])?;
        Ok(replies.iter().any(|reply| reply.server() == "echo-v1").then_some(()))
    })
}

#[test]
fn weights_change_under_a_connection_that_never_breaks() -> Result<()> {
    let mut town = Town::new()?;
    town.route("weight", "name: echo", &weights(1, 0))?;
    expect_server(&town.client, &["http://echo/"], "echo-v1")?;
    let mut steady = town.client.spawn("steady", town.client.app("mesh_steady.py").arg("http://echo/"))?;
    steady.wait_for("200 echo-v1", PATIENCE)?;
    town.route("weight", "name: echo", &weights(0, 1))?;
    steady.wait_for("200 echo-v2", PATIENCE)?;
    expect_server(&town.client, &["http://echo/"], "echo-v2")?;
    town.route("weight", "name: echo", &weights(30, 70))?;
    sees_first(&town, &town.client)?;
    let counts = count(&town.client, "http://echo/", |reply| format!("{} {}", reply.status, reply.server()))?;
    check_shares(&counts, &[("200 echo-v1", 0.3), ("200 echo-v2", 0.7)])?;
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
