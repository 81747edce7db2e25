//! inject: what the injector makes of a pod is what an API server takes.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::world::World;

/// `tidegate inject -`, as a person would run it.
fn tidegate_inject(world: &World, manifest: &Value) -> Result<String> {
    let program = lab::program("tidegate", world.cluster.lab().folder())?;
    let mut command = Command::new(program);
    command.args(["inject", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("its input is ours")?.write_all(manifest.to_string().as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "tidegate inject: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

/// What passes the Pod Security Standard `restricted`, with every kind of probe.
fn restricted_pod() -> Value {
    json!({
        "containers": [{
            "name": "app", "image": "app",
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            "livenessProbe": {"grpc": {"port": 8080}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1000,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}
            }
        }]
    })
}

fn kinds() -> Value {
    let template = json!({"metadata": {"labels": {"app": "orders"}}, "spec": restricted_pod()});
    let selector = json!({"matchLabels": {"app": "orders"}});
    let once = {
        let mut template = template.clone();
        template["spec"]["restartPolicy"] = json!("Never");
        template
    };
    let object = |group: &str, kind: &str, spec: Value| json!({"apiVersion": group, "kind": kind, "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        object("v1", "Pod", restricted_pod()),
        object("apps/v1", "Deployment", json!({"selector": selector, "template": template})),
        object("apps/v1", "StatefulSet", json!({"selector": selector, "serviceName": "orders", "template": template})),
        object("apps/v1", "DaemonSet", json!({"selector": selector, "template": template})),
        object("batch/v1", "Job", json!({"template": once})),
        object("batch/v1", "CronJob", json!({"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": once}}})),
    ]})
}

pub(crate) fn every_kind_injected_is_taken_and_unchanged_by_a_second_time(world: &mut World) -> Result<()> {
    world.shop()?;
    let cluster = &world.cluster;
    cluster.apply(&tidegate_inject(world, &kinds())?)?;
    let pod = cluster.get(&["pod", "orders", "-n", "shop"])?;
    let init = pod["spec"]["initContainers"].as_array().context("it has init containers")?;
    let names: Vec<&str> = init.iter().filter_map(|container| container["name"].as_str()).collect();
    ensure!(names == ["tidegate-redirect", "tidegate-proxy"], "{names:?}");
    ensure!(init[1]["restartPolicy"] == "Always", "it is a native sidecar: {}", init[1]);
    ensure!(pod["spec"]["containers"][0]["name"] == "app", "{pod}");

    let stored = cluster.get(&["pod,deploy,sts,ds,job,cronjob", "orders", "-n", "shop"])?;
    // What stays as it is is printed as it was written: JSON here.
    let again: Value = serde_json::from_str(&tidegate_inject(world, &stored)?)?;
    ensure!(again == stored, "a second injection changed something");
    cluster.kubectl(&["delete", "pod,deploy,sts,ds,job,cronjob", "orders", "-n", "shop", "--now"])?;
    Ok(())
}

pub(crate) fn of_an_injected_pod_only_the_writing_of_the_rules_is_more_than_restricted(
    world: &mut World,
) -> Result<()> {
    world.shop()?;
    let cluster = &world.cluster;
    let warn = "pod-security.kubernetes.io/warn";
    cluster.kubectl(&[
        "label",
        "namespace",
        "shop",
        &format!("{warn}=restricted"),
        &format!("{warn}-version=latest"),
    ])?;
    let said = cluster.apply(&tidegate_inject(world, &kinds())?)?;
    ensure!(said.contains("would violate PodSecurity \"restricted:latest\""), "nothing is said: {said}");
    ensure!(said.contains("container \"tidegate-redirect\""), "{said}");
    for name in ["tidegate-proxy", "\"app\""] {
        ensure!(!said.contains(name), "{name} violates restricted: {said}");
    }
    cluster.kubectl(&["label", "namespace", "shop", &format!("{warn}-"), &format!("{warn}-version-")])?;
    cluster.kubectl(&["delete", "pod,deploy,sts,ds,job,cronjob", "orders", "-n", "shop", "--now"])?;
    Ok(())
}
