//! live: what is wrong on the disk leaves in force what was right, and is told.

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::Value;

use super::ask::{PATIENCE, ask, expect_server};
use super::town::{Town, route};

/// What the controller says is wrong.
fn problems(town: &Town) -> Result<Vec<Value>> {
    let pod = town.world.controller.pod();
    let (status, body) = pod.get(&format!("http://{}:8087/status", pod.ip()))?;
    ensure!(status == 200, "/status answers {status}: {body}");
    let value: Value = serde_json::from_str(&body)?;
    Ok(value["problems"].as_array().context("/status has a list of problems")?.clone())
}

/// Waits for a problem with this file, line, object and field.
fn expect_problem(town: &Town, file: &str, line: u64, object: &str, field: Option<&str>) -> Result<()> {
    let mut last = Vec::new();
    let found = until(&format!("a problem at {file}:{line}"), PATIENCE, || {
        last = problems(town)?;
        let right = |problem: &&Value| {
            let name = problem["file"].as_str().unwrap_or_default();
            name.rsplit('/').next().is_some_and(|name| name.starts_with(file))
                && problem["line"] == line
                && problem["object"] == object
                && problem["field"].as_str() == field
                && problem["message"].as_str().is_some_and(|message| !message.is_empty())
        };
        Ok(last.iter().find(right).map(drop))
    });
    found.with_context(|| format!("the controller says {last:#?}"))
}

fn to(server: &str) -> String {
    format!("  - backendRefs: [{{ name: {server}, port: 80 }}]")
}

#[test]
fn what_is_wrong_in_a_file_is_told_by_line_and_field_and_everything_else_stays_in_force() -> Result<()> {
    let mut town = Town::new()?;
    town.route("whole", "name: echo", &to("echo-v1"))?;
    expect_server(&town.client, &["http://echo/"], "echo-v1")?;
    ensure!(problems(&town)?.is_empty(), "{:?}", problems(&town)?);

    let text = "# A file with two documents, of which the second is wrong.
apiVersion: v1
kind: Service
metadata: { name: beside, namespace: shop }
spec: { ports: [{ port: 80 }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: beside, namespace: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: echo }]
  rules: [{ backendRefs: [{ name: echo-v2, port: eighty }] }]
";
    town.world.put("beside", text)?;
    let field = Some("spec.rules[0].backendRefs[0].port");
    expect_problem(&town, "beside", 7, "HTTPRoute shop/beside", field)?;
    let text = "kind: Service\nmetadata:\n  namespace: shop\n  name: torn\nspec: { ports: [\n";
    town.world.put("not-yaml", text)?;
    expect_problem(&town, "not-yaml", 5, "Service shop/torn", None)?;
    // Our own kinds are read strictly: a field that would be ignored is wrong.
    let policy = "apiVersion: tidegate.dev/v1alpha1
kind: AccessPolicy
metadata: { name: strict, namespace: shop }
spec: { selector: { matchLabels: { app: echo-v1 } }, defualt: Deny }
";
    town.world.put("strict", policy)?;
    expect_problem(&town, "strict", 1, "AccessPolicy shop/strict", Some("spec.defualt"))?;
    expect_server(&town.client, &["http://echo/"], "echo-v1")?;
    let metrics = town.world.controller.metrics()?;
    ensure!(metrics.contains("tidegate_controller_problems 3"), "{metrics}");

    // A file that becomes wrong leaves what it said last in force, for those who come later too.
    let wrong = route("HTTPRoute", "shop", "whole", "name: echo", "  - matches: all");
    town.world.put("route-whole", &wrong)?;
    expect_problem(&town, "route-whole", 1, "HTTPRoute shop/whole", Some("spec.rules[0].matches"))?;
    let late = town.world.pod("late", "late", &[])?;
    let _sidecar = town.world.sidecar(&late)?;
    for client in [&town.client, &late] {
        for reply in ask(client, &["http://echo/?[1-16]"])? {
            ensure!(reply.server() == "echo-v1", "{reply:#?}");
        }
    }

    // Put right, it is in force, and no problem is left.
    town.route("whole", "name: echo", &to("echo-v2"))?;
    ["beside", "not-yaml", "strict"].iter().try_for_each(|name| town.world.remove(name))?;
    for client in [&town.client, &late] {
        expect_server(client, &["http://echo/"], "echo-v2")?;
    }
    until("no problem to be left", PATIENCE, || Ok(problems(&town)?.is_empty().then_some(())))?;
    ensure!(town.runs_on()?, "something ended on the way");
    Ok(())
}
