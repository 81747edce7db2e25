//! programs: the producer, the recorder and the asker, run in pods.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Pod, Process};
use serde_json::Value;

use crate::go::program;

/// The folder of all three.
pub(super) const APP: &str = "queue";
/// A request of theirs takes at most 10 s.
const END_PATIENCE: Duration = Duration::from_secs(15);
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A running producer or asker, whose end brings figures.
pub(super) struct Run {
    pub(super) process: Process,
    result: PathBuf,
}

impl Run {
    /// Starts one in a pod: its arguments, and the file for its figures.
    pub(super) fn start(pod: &Pod, args: &[&str], result: PathBuf) -> Result<Self> {
        let mut command = pod.command(&program(APP)?);
        let _ = std::fs::remove_file(&result);
        command.args(args).arg("--result").arg(&result);
        let mut process = pod.spawn(args.first().context("there is a word")?, &mut command)?;
        process.wait_for("ready", START_PATIENCE)?;
        Ok(Self { process, result })
    }

    /// Tells it to end, and gives its figures.
    pub(super) fn finish(mut self) -> Result<Value> {
        ensure!(self.process.is_running()?, "it ended early:\n{}", self.process.log_tail());
        self.process.terminate()?;
        self.ended(END_PATIENCE)
    }

    /// Waits for its own end, and gives its figures.
    pub(super) fn ended(mut self, patience: Duration) -> Result<Value> {
        let status = self.process.wait(patience)?;
        ensure!(status.success(), "{status}:\n{}", self.process.log_tail());
        Ok(serde_json::from_str(&std::fs::read_to_string(&self.result)?)?)
    }
}

/// A figure of a result.
pub(super) fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or(f64::NAN)
}
