//! grpc: shares and headers of a GRPCRoute, called by grpc-python.
#![allow(non_snake_case, reason = "the conformance suite's own names")]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lab::{Pod, until};
use serde_json::Value;

use super::ask::{DRAWS, PATIENCE, check_shares};
use super::town::Town;

const APP: &str = "mesh_grpc.py";

/// Calls until what the client printed is right.
fn expect(client: &Pod, args: &[&str], right: impl Fn(&Value) -> bool) -> Result<()> {
    let args = [&["--call", "echo:7070", "--count", "16"], args].concat();
    let mut last = Value::Null;
    let called = until(&format!("the right answer to {APP} {args:?}"), PATIENCE, || {
        last = client.ask(APP, &args)?;
        Ok(right(&last).then_some(()))
    });
    called.with_context(|| format!("pod {} was last told {last}", client.name()))
}

fn weights(v1: u32, v2: u32) -> String {
    format!(
        "  - backendRefs:
    - {{ name: echo-v1, port: 7070, weight: {v1} }}
    - {{ name: echo-v2, port: 7070, weight: {v2} }}"
    )
}

#[test]
fn MeshGRPCRouteWeight() -> Result<()> {
    let town = Town::grpc(APP)?;
    town.grpc_route("weight", "name: echo, port: 7070", &weights(0, 1))?;
    for client in town.clients() {
        expect(client, &[], |said| said["servers"]["echo-v2"] == 16)?;
    }
    town.grpc_route("weight", "name: echo, port: 7070", &weights(70, 30))?;
    for client in town.clients() {
        expect(client, &[], |said| !said["servers"]["echo-v1"].is_null())?;
        let said = client.ask(APP, &["--call", "echo:7070", "--count", &DRAWS.to_string()])?;
        ensure!(said["codes"]["OK"] == DRAWS, "{said}");
        let counts: BTreeMap<String, u64> = serde_json::from_value(said["servers"].clone())?;
        check_shares(&counts, &[("echo-v1", 0.7), ("echo-v2", 0.3)])?;
    }
    Ok(())
}

/// A rule for one case of the test.
fn rule(case: &str, method: &str, changes: &str, server: &str) -> String {
    format!(
        "  - matches:
    - method: {{ service: lab.Mesh, method: {method} }}
      headers: [{{ name: x-test-case, value: {case} }}]
    filters: [{{ type: RequestHeaderModifier, requestHeaderModifier: {{ {changes} }} }}]
    backendRefs: [{{ name: {server}, port: 7070 }}]"
    )
}

#[test]
fn MeshGRPCRouteRequestHeaderModifier() -> Result<()> {
    let town = Town::grpc(APP)?;
    let rules = [
        rule("set", "Echo", "set: [{ name: X-Header-Set, value: set-overwrites-values }]", "echo-v1"),
        rule("add", "Echo", "add: [{ name: X-Header-Add, value: add-appends-values }]", "echo-v1"),
        rule("remove", "Echo", "remove: [X-Header-Remove]", "echo-v1"),
        rule(
            "multi",
            "EchoTwo",
            "set: [{ name: X-Header-Set-1, value: header-set-1 }, { name: X-Header-Set-2, value: header-set-2 }],
        add: [{ name: X-Header-Add-1, value: header-add-1 }, { name: X-Header-Add-2, value: header-add-2 }],
        remove: [X-Header-Remove-1, X-Header-Remove-2]",
            "echo-v2",
        ),
    ];
    town.grpc_route("headers", "name: echo, port: 7070", &rules.join("\n"))?;
    type Seen = &'static [(&'static str, Option<&'static str>)];
    let cases: [(&str, &str, &str, &[&str], Seen); 4] = [
        (
            "set",
            "Echo",
            "echo-v1",
            &["some-other-header: stays", "x-header-set: goes"],
            &[("some-other-header", Some("stays")), ("x-header-set", Some("set-overwrites-values"))],
        ),
        (
            "add",
            "Echo",
            "echo-v1",
            &["x-header-add: stays"],
            &[("x-header-add", Some("stays,add-appends-values"))],
        ),
        ("remove", "Echo", "echo-v1", &["x-header-remove: goes"], &[("x-header-remove", None)]),
        (
            "multi",
            "EchoTwo",
            "echo-v2",
            &["x-header-set-2: goes", "x-header-add-2: stays", "x-header-remove-2: goes"],
            &[
                ("x-header-set-1", Some("header-set-1")),
                ("x-header-set-2", Some("header-set-2")),
                ("x-header-add-1", Some("header-add-1")),
                ("x-header-add-2", Some("stays,header-add-2")),
                ("x-header-remove-1", None),
                ("x-header-remove-2", None),
            ],
        ),
    ];
    for client in [&town.client, &town.v1, &town.v2] {
        for (case, method, server, sent, seen) in cases {
            let case = format!("x-test-case: {case}");
            let mut args = vec!["--method", method, "--header", case.as_str()];
            args.extend(sent.iter().flat_map(|header| ["--header", header]));
            expect(client, &args, |said| {
                let metadata = &said["last"]["metadata"];
                let right =
                    |(name, value): &(&str, Option<&str>)| joined(&metadata[name]).as_deref() == *value;
                said["servers"][server] == 16 && seen.iter().all(right)
            })?;
        }
    }
    Ok(())
}

fn joined(values: &Value) -> Option<String> {
    let values: Vec<&str> = values.as_array()?.iter().filter_map(Value::as_str).collect();
    Some(values.join(",").replace(", ", ","))
}

#[test]
fn a_grpc_rule_that_cannot_be_carried_out_fails_its_calls_alone() -> Result<()> {
    let town = Town::grpc(APP)?;
    let rules = "  - matches: [{ method: { service: lab.Mesh, method: EchoTwo } }]
    filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: echo-v1, port: 7070 } } }]
    backendRefs: [{ name: echo-v1, port: 7070 }]
  - matches: [{ method: { service: lab.Mesh } }]
    backendRefs: [{ name: echo-v2, port: 7070 }]";
    town.grpc_route("mirror", "name: echo", rules)?;
    expect(&town.client, &["--method", "EchoTwo"], |said| {
        let told = said["last"]["proxy-status"].as_str().unwrap_or_default();
        said["codes"]["INTERNAL"] == 16 && told.contains("RequestMirror")
    })?;
    expect(&town.client, &[], |said| said["servers"]["echo-v2"] == 16)
}
