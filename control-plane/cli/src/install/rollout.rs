//! rollout: waits until the controller runs as it was asked to, and says what keeps it.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use kube::Client;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::CONTROLLER;
use crate::cluster::Kind;

/// Often enough for a person who looks on, seldom enough for the server.
const EVERY: Duration = Duration::from_secs(1);

/// Waits until every replica is of the newest version and available.
///
/// # Errors
/// When that takes longer; with what its pods wait for.
pub(super) async fn wait(client: &Client, namespace: &str, patience: Duration) -> anyhow::Result<()> {
    let kind = Kind::new("apps/v1", "Deployment", Some(namespace));
    let end = Instant::now() + patience;
    let progress = Progress::new();
    loop {
        let deployment = kind.get(client, CONTROLLER).await?;
        let data = deployment.as_ref().map_or(&Value::Null, |found| &found.data);
        let generation = deployment.as_ref().and_then(|found| found.metadata.generation);
        let (text, is_done) = state(data, generation);
        progress.say(&text);
        if is_done {
            return Ok(());
        }
        if Instant::now() >= end {
            let why = reasons(client, namespace).await?;
            bail!(
                "after {} s {text}\n  {}\nthe objects stay; look with kubectl -n {namespace} describe pods",
                patience.as_secs(),
                why.join("\n  ")
            );
        }
        sleep(EVERY).await;
    }
}

/// What a Deployment's status means, as `kubectl rollout status` reads it.
pub(super) fn state(deployment: &Value, generation: Option<i64>) -> (String, bool) {
    let status = &deployment["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let is_seen = generation.is_none_or(|generation| number("observedGeneration") >= generation);
    let ready = if is_seen { number("updatedReplicas").min(number("availableReplicas")) } else { 0 };
    let old = (number("replicas") - number("updatedReplicas")).max(0);
    let is_done = is_seen && ready >= wanted && old == 0;
    let leaving = if old > 0 { format!(", {old} of an older version left") } else { String::new() };
    (format!("{CONTROLLER}: {ready} of {wanted} ready{leaving}"), is_done)
}

/// What each of its pods waits for, in the kubelet's and the scheduler's words.
async fn reasons(client: &Client, namespace: &str) -> anyhow::Result<Vec<String>> {
    let kind = Kind::new("v1", "Pod", Some(namespace));
    let pods = kind.list(client, &format!("app.kubernetes.io/name={CONTROLLER}")).await?;
    let mut all: Vec<String> = pods
        .iter()
        .filter_map(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            reason(&pod.data["status"]).map(|why| format!("pod {name}: {why}"))
        })
        .collect();
    if pods.is_empty() {
        all.push("no pod was made: see the events of the ReplicaSet".to_owned());
    }
    Ok(all)
}

/// Why a pod is not ready.
pub(super) fn reason(status: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for container in status["containerStatuses"].as_array().into_iter().flatten() {
        for state in ["waiting", "terminated"] {
            let state = &container["state"][state];
            if state.is_object() {
                return Some(
                    format!("{} {}", text(&state["reason"]), text(&state["message"])).trim().to_owned(),
                );
            }
        }
    }
    let conditions = status["conditions"].as_array()?;
    let not = conditions.iter().find(|condition| condition["status"] == "False")?;
    Some(
        format!("{}: {} {}", text(&not["type"]), text(&not["reason"]), text(&not["message"]))
            .trim()
            .to_owned(),
    )
}

/// One line that changes where a person looks, a line for each change elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    last: std::cell::RefCell<String>,
}

impl Progress {
    fn new() -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, last: std::cell::RefCell::default() }
    }

    fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        } else if self.last.replace(text.to_owned()) != text {
            println!("waiting  {text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
