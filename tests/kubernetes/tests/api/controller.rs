//! controller: a running controller, and what it shows of itself.

use anyhow::{Context, Result, ensure};
use lab::{Pod, Process, until};
use serde_json::Value;

use crate::world::{PATIENCE, World};

const ADMIN: &str = "http://127.0.0.1:8087";

/// A controller that is ready.
pub(crate) struct Controller {
    pub(crate) process: Process,
    pub(crate) pod: Pod,
}

impl Controller {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(world: &World, name: &str) -> Result<Self> {
        let (pod, mut process) = world.controller(name)?;
        let url = format!("{ADMIN}/ready");
        process.until("its /ready to answer 200", PATIENCE, |_| {
            Ok(pod.get(&url).ok().filter(|(status, _)| *status == 200).map(drop))
        })?;
        Ok(Self { process, pod })
    }

    fn ask(&self, path: &str) -> Result<String> {
        let (status, body) = self.pod.get(&format!("{ADMIN}{path}"))?;
        ensure!(status == 200, "{path} answers {status}: {body}");
        Ok(body)
    }

    /// What it shows.
    pub(crate) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("/status")?)?)
    }

    /// Whether it counts this line.
    pub(crate) fn counts(&self, line: &str) -> Result<bool> {
        Ok(self.ask("/metrics")?.lines().any(|counted| counted == line))
    }

    /// Waits until its status is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let found = until(what, PATIENCE, || {
            last = self.status()?;
            Ok(wanted(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("{last:#}\n{}", self.process.log_tail()))
    }
}

/// Whether a problem of `status` says this.
pub(crate) fn says(status: &Value, text: &str) -> bool {
    status["problems"].as_array().is_some_and(|all| all.iter().any(|one| one.to_string().contains(text)))
}

/// How many objects of a kind are in force.
pub(crate) fn count(status: &Value, kind: &str) -> u64 {
    status["objects"][kind].as_u64().unwrap_or(0)
}

/// Whether it is the one that writes.
pub(crate) fn leads(status: &Value) -> bool {
    status["leader"]["here"] == true
}
