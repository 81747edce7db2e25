//! processes: the programs of the demo, started, watched and always ended.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::StatusCode;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::ask;

/// How long a program may take to become ready; each takes well under a second.
const READY_TIMEOUT: Duration = Duration::from_secs(8);
/// The pause between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(15);
/// How long a polite end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of a program's log that are shown when it failed.
const TAIL_LINES: usize = 12;

/// Everything that runs; killed when dropped.
pub(crate) struct Processes {
    programs: PathBuf,
    folder: TempDir,
    children: BTreeMap<String, Child>,
}

impl Processes {
    /// Nothing runs yet; the programs are in `programs`, else beside this one.
    ///
    /// # Errors
    /// When a program is missing, or there is no place for temporary files.
    pub(crate) fn new(programs: Option<PathBuf>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let beside = || own.parent().unwrap_or(Path::new(".")).to_owned();
        let programs = programs.unwrap_or_else(beside);
        for name in ["tidegate-controller", "tidegate-proxy"] {
            ensure!(
                programs.join(name).is_file(),
                "{name} is not in {}: build it with `cargo build --release`, or say where it is with --bin-dir",
                programs.display()
            );
        }
        let folder = tempfile::Builder::new().prefix("tidegate-demo-").tempdir();
        let folder = folder.context("cannot make a temporary directory")?;
        Ok(Self { programs, folder, children: BTreeMap::new() })
    }

    /// A path in the temporary directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts one of our programs under a name of its own.
    pub(crate) fn start(&mut self, name: &str, program: &str, arguments: &[String]) -> anyhow::Result<()> {
        let path = match program {
            "tidegate" => std::env::current_exe().context("cannot tell where this program is")?,
            other => self.programs.join(other),
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(name));
        let log = log.context("cannot open a log file")?;
        let child = Command::new(&path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("cannot open a log file")?)
            .stderr(log)
            // Ctrl-C is ours to hear: we end them.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        self.children.insert(name.to_owned(), child);
        Ok(())
    }

    /// Waits until a program answers `path` of `address` with 200.
    ///
    /// # Errors
    /// When it has ended, with the end of its log; when it takes too long, with what it said last.
    pub(crate) async fn ready(&mut self, name: &str, address: SocketAddr, path: &str) -> anyhow::Result<()> {
        let end = Instant::now() + READY_TIMEOUT;
        loop {
            let said = match ask::get(address, path).await {
                Ok(answer) if answer.status == StatusCode::OK => return Ok(()),
                Ok(answer) => answer.text().split_whitespace().collect::<Vec<_>>().join(" "),
                Err(error) => format!("{error:#}"),
            };
            self.none_ended()?;
            if Instant::now() > end {
                let seconds = READY_TIMEOUT.as_secs();
                bail!("the {name} was not ready within {seconds} s: {said}{}", self.tail(name));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// # Errors
    /// When a program ended that should run, with the end of its log.
    pub(crate) fn none_ended(&mut self) -> anyhow::Result<()> {
        let mut ended = None;
        for (name, child) in &mut self.children {
            if let Some(status) = child.try_wait().context("cannot look after a child")? {
                ended.get_or_insert((name.clone(), status));
            }
        }
        let Some((name, status)) = ended else { return Ok(()) };
        bail!("the {name} ended by itself ({status}){}", self.tail(&name))
    }

    /// Ends a workload politely: it finishes what it was asked.
    ///
    /// # Errors
    /// When it does not end; it is killed then.
    pub(crate) async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(mut child) = self.children.remove(name) else { return Ok(()) };
        drop(child.stdin.take());
        match tokio::time::timeout(STOP_TIMEOUT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => bail!("the {name} ended badly ({status}){}", self.tail(name)),
            Ok(Err(error)) => Err(error).context("cannot wait for a child"),
            Err(_) => bail!("the {name} did not end within {} s", STOP_TIMEOUT.as_secs()),
        }
    }

    /// Ends a program as a crash does: SIGKILL, and nothing of it goes on.
    pub(crate) async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(mut child) = self.children.remove(name) else { return Ok(()) };
        child.kill().await.with_context(|| format!("cannot kill the {name}"))
    }

    /// Ends all.
    pub(crate) async fn end(&mut self) {
        for child in self.children.values_mut() {
            // One that has ended already is what is wanted.
            let _ = child.kill().await;
        }
        self.children.clear();
    }

    /// Where a program writes its log.
    fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{}.log", name.replace(' ', "-")))
    }

    /// The end of a program's log, to be put behind a sentence.
    pub(crate) fn tail(&self, name: &str) -> String {
        let log = std::fs::read(self.log(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if last.is_empty() {
            return String::new();
        }
        format!("\n  the end of its log:\n    {}", last.join("\n    "))
    }
}

/// # Errors
/// Names an address that is taken.
pub(crate) fn all_free(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    for address in addresses {
        TcpListener::bind(address).with_context(|| {
            format!("{address} is not free: does another demo run? `ss -ltnp` shows who has it")
        })?;
    }
    Ok(())
}
