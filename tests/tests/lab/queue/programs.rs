//! programs: the producer, the recorder and the asker, run in pods.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Pod, Process};
use serde_json::Value;

/// A request of theirs takes at most 10 s.
const END_PATIENCE: Duration = Duration::from_secs(15);
const START_PATIENCE: Duration = Duration::from_secs(5);

/// The program, built at the first use.
pub(super) fn program() -> Result<String> {
    static BUILT: OnceLock<Result<String, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("lab-go").join("queue");
    let mut go = Command::new("go");
    go.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".").current_dir(lab::app("queue"));
    let said = go.output().context("the queue's programs are in Go, and there is no `go` here")?;
    ensure!(said.status.success(), "{go:?}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(program.to_str().context("the target folder has a readable name")?.to_owned())
}

/// A running producer or asker, whose end brings figures.
pub(super) struct Run {
    pub(super) process: Process,
    result: PathBuf,
}

impl Run {
    /// Starts one in a pod: its arguments, and the file for its figures.
    pub(super) fn start(pod: &Pod, args: &[&str], result: PathBuf) -> Result<Self> {
        let mut command = pod.command(&program()?);
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
