//! process: one program in a pod, its log, and its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::network::signal;
use crate::until::until;

/// Lines of a log that an error shows.
const TAIL_LINES: usize = 30;

/// A running program. It is killed when this is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    pub(crate) fn spawn(name: &str, log: PathBuf, command: &mut Command) -> Result<Self> {
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name}: {command:?} cannot be started"))?;
        Ok(Self { child, log, name: name.to_owned() })
    }

    /// Its process number: the program's own, since `ip netns exec` and `setpriv` become it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with all that it printed.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that it printed until now.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The end of what it printed, for an error.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Waits until its log holds this text.
    ///
    /// # Errors
    /// When it ends first, or the time runs out; with the end of its log.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Result<()> {
        self.until(&format!("{text:?} in its log"), patience, |process| {
            Ok(process.log().contains(text).then_some(()))
        })
    }

    /// Asks until an answer comes, as long as the program runs.
    ///
    /// # Errors
    /// When it ends first, or the time runs out; with the end of its log.
    pub fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let answer = until(what, patience, || {
            if let Some(answer) = ask(self)? {
                return Ok(Some(answer));
            }
            match self.child.try_wait()? {
                Some(status) => bail!("it ended: {status}"),
                None => Ok(None),
            }
        });
        answer.with_context(|| format!("{}, whose log ends with:\n{}\n", self.name, self.log_tail()))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal("TERM")
    }

    /// Sends any signal, by its name without `SIG`.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended already: {status}", self.name);
        }
        signal(name, &self.pid().to_string())
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; with the end of its log.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let status = until(&format!("the end of {}", self.name), patience, || Ok(self.child.try_wait()?));
        status.with_context(|| format!("its log ends with:\n{}\n", self.log_tail()))
    }

    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib =
            line.and_then(|rest| rest.split_whitespace().next()).context("it has no memory any more")?;
        Ok(kib.parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
