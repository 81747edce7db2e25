//! queue: messages outlive the absence of who gets them, and the death and the end of who keeps them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::{Value, json};

use crate::objects::{self, with_spec};
use crate::town::{PATIENCE, SHOP, Town};

/// Messages of each case.
const COUNT: usize = 200;
const POLICY: &str = "tidegate.dev/v1alpha1";

/// The receiver writes a line for each message it gets to its log; the sender has a queue.
fn open(town: &Town) -> Result<()> {
    let mut receiver = objects::running(&["queue", "record", "--file", "/dev/stdout", "--work", "20ms"]);
    receiver["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    receiver["readinessProbe"] = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1});
    let policy = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "inbox"}],
                        "delivery": {"backoffDelay": "PT0.2S", "backoffMax": "PT2S"}});
    town.apply(&[
        objects::service(SHOP, "inbox", "inbox"),
        with_spec(POLICY, "AsyncPolicy", (SHOP, "inbox"), policy),
        objects::deployment(SHOP, "inbox", &receiver),
        objects::deployment(SHOP, "sender", &objects::client()),
    ])?;
    town.rolled_out(SHOP, "inbox")?;
    town.rolled_out(SHOP, "sender")
}

/// Sends messages from the sender's pod until [`COUNT`] were answered 202; their ids. Some bear idempotency
/// keys, which begin with the case's own name: those of another case would be taken for the same messages.
fn send(town: &Town, name: &str, keys: &str) -> Result<BTreeSet<String>> {
    let count = COUNT.to_string();
    let command = [
        "queue",
        "produce",
        "--to",
        "http://inbox/",
        "--name",
        name,
        "--keys",
        keys,
        "--loose",
        "2",
        "--count",
        &count,
        "--accepted",
        "/tmp/accepted",
        "--result",
        "/tmp/result",
    ];
    let said = town.exec(SHOP, "deploy/sender", &command)?;
    let lines = town.exec(SHOP, "deploy/sender", &["cat", "/tmp/accepted"])?;
    let _ = town.exec(SHOP, "deploy/sender", &["rm", "/tmp/accepted"])?;
    let ids: BTreeSet<String> =
        lines.lines().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect();
    ensure!(ids.len() >= COUNT, "{} were taken in: {said}", ids.len());
    Ok(ids)
}

/// The ids of what the receivers that there are have got.
fn received(town: &Town) -> Result<BTreeSet<String>> {
    let said = town.api().kubectl(&["logs", "-n", SHOP, "-l", "app=inbox", "-c", "app", "--tail=-1"])?;
    Ok(said.lines().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect())
}

fn all_arrive(town: &Town, sent: &BTreeSet<String>) -> Result<()> {
    let mut missing = sent.len();
    let arrived = until("every message to arrive", PATIENCE, || {
        missing = sent.difference(&received(town)?).count();
        Ok((missing == 0).then_some(()))
    });
    arrived.with_context(|| format!("{missing} of {} did not: {}", sent.len(), queue_of(town)))
}

/// What the sender's sidecar counts of its queue, for a case that failed.
fn queue_of(town: &Town) -> String {
    let asked = town.pod(SHOP, "sender").and_then(|pod| town.metrics(SHOP, &pod));
    let text = asked.unwrap_or_else(|why| format!("tidegate_queue of nobody: {why:#}"));
    let meant = |line: &&str| line.starts_with("tidegate_queue") && !line.contains("_bucket");
    text.lines().filter(meant).fold(String::new(), |all, line| all + "\n" + line)
}

pub(crate) fn requests_taken_in_while_the_receiver_is_away_arrive_when_it_is_back(
    town: &mut Town,
) -> Result<()> {
    open(town)?;
    town.scale(SHOP, "inbox", 0)?;
    let reply =
        town.ask(SHOP, "deploy/sender", &["-d", "x", "-H", "Prefer: respond-async", "http://inbox/"])?;
    let is_promised = reply.status == 202 && reply.header("location").starts_with("/.tidegate/requests/");
    ensure!(is_promised && reply.header("tidegate-durability") == "local", "{reply:#?}");
    let sent = send(town, "away", "8")?;
    town.scale(SHOP, "inbox", 1)?;
    all_arrive(town, &sent)
}

pub(crate) fn a_sidecar_that_is_killed_with_messages_queued_loses_none(town: &mut Town) -> Result<()> {
    open(town)?;
    town.scale(SHOP, "inbox", 0)?;
    let sent = send(town, "killed", "8")?;
    let name = town.pod(SHOP, "sender")?;
    kill(town, &name)?;
    until("the sidecar to be restarted and ready", PATIENCE, || {
        let status = sidecar(&town.api().get(&["pod", &name, "-n", SHOP])?);
        Ok((status["restartCount"] == 1 && status["ready"] == true).then_some(()))
    })?;
    town.scale(SHOP, "inbox", 1)?;
    all_arrive(town, &sent)
}

/// The status of a pod's sidecar.
fn sidecar(pod: &Value) -> Value {
    let all = pod["status"]["initContainerStatuses"].as_array().into_iter().flatten();
    let mut own = all.filter(|status| status["name"] == "tidegate-proxy");
    own.next().cloned().unwrap_or_default()
}

/// Kills the process of a pod's sidecar on its node.
pub(crate) fn kill(town: &Town, name: &str) -> Result<()> {
    let pod = town.api().get(&["pod", name, "-n", SHOP])?;
    let cluster = town.ground.cluster().context("only on a node of our own a process is killed")?;
    let node = cluster.nodes().iter().find(|node| pod["spec"]["nodeName"] == node.name());
    let id = sidecar(&pod)["containerID"].as_str().context("the sidecar runs")?.to_owned();
    node.context("the pod is on a node")?.kill_container(&id)
}

/// One key: each waits for the one before, and the last for 20 ms times their number.
pub(crate) fn what_is_queued_when_a_pod_is_deleted_is_delivered_before_it_ends(
    town: &mut Town,
) -> Result<()> {
    open(town)?;
    town.scale(SHOP, "inbox", 0)?;
    let sent = send(town, "deleted", "4")?;
    let name = town.pod(SHOP, "sender")?;
    town.scale(SHOP, "inbox", 1)?;
    let before = received(town)?;
    town.api().kubectl(&["delete", "pod", &name, "-n", SHOP, "--wait=true", "--timeout=60s"])?;
    // It is gone: what has not arrived by now never will.
    let missing = sent.difference(&received(town)?).count();
    println!(
        "of {} messages {} were delivered after the pod was told to end",
        sent.len(),
        sent.difference(&before).count()
    );
    ensure!(missing == 0, "{missing} of {} did not arrive before the pod was gone", sent.len());
    close(town)
}

fn close(town: &Town) -> Result<()> {
    let all = ["deployment/inbox", "deployment/sender", "service/inbox", "asyncpolicy/inbox"];
    town.api().kubectl(&[&["delete", "-n", SHOP, "--wait=false"], &all[..]].concat()).map(drop)
}
