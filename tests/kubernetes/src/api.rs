//! api: a cluster as its users see it, through `kubectl` and `helm`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use lab::Pod;
use serde_json::Value;

use crate::programs;

/// Letters of a manifest that an error shows: enough for one object.
const SHOWN_MAX: usize = 2000;

/// A cluster's API server, asked as the user of one kubeconfig.
#[derive(Clone)]
pub struct Api {
    kubeconfig: PathBuf,
    /// Where Helm keeps what it remembers; never the home of whoever runs the tests.
    home: PathBuf,
    /// The pod of the lab it is reached from; none where this machine itself reaches it.
    from: Option<Pod>,
}

impl Api {
    pub(crate) fn new(kubeconfig: PathBuf, home: PathBuf, from: Option<Pod>) -> Self {
        Self { kubeconfig, home, from }
    }

    /// What the clients read to find the server and to prove themselves.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A program that is to talk to this cluster: `KUBECONFIG` is set, and it runs where the server is
    /// reached.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command =
            self.from.as_ref().map_or_else(|| Command::new(program), |pod| pod.command(program));
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs `kubectl` and gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        ended(self.tool("kubectl")?.args(args))
    }

    /// Runs `helm` and gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = self.tool("helm")?;
        for (name, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.home.join(folder));
        }
        ended(command.args(args))
    }

    /// Starts `kubectl` with nothing to read, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, args: &[&str], stdout: Stdio) -> Result<Child> {
        let mut command = self.tool("kubectl")?;
        command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::inherit());
        command.spawn().with_context(|| format!("{command:?} cannot be started"))
    }

    /// An object, or a list of them, as the API server has it now.
    ///
    /// # Errors
    /// When there is none; with what `kubectl` said.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let said = self.kubectl(&[&["get", "-o", "json"], args].concat())?;
        serde_json::from_str(&said).with_context(|| format!("kubectl get {args:?} printed {said:?}"))
    }

    /// Applies objects, in YAML or JSON, on the server.
    ///
    /// # Errors
    /// When one is refused; with what the server said of it.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.feed(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifest)
    }

    /// Runs `kubectl` on objects given to its input, in YAML or JSON.
    ///
    /// # Errors
    /// When it fails; with what it said and the objects.
    pub fn feed(&self, args: &[&str], manifest: &str) -> Result<String> {
        let out = self.tell(args, manifest)?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        let of: String = manifest.chars().take(SHOWN_MAX).collect();
        ensure!(out.status.success(), "kubectl {args:?}: {said}\nof\n{of}");
        Ok(said)
    }

    /// Runs `kubectl` with this input; how it ended is the caller's to judge.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn tell(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut command = self.tool("kubectl")?;
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?} cannot be started"))?;
        let mut stdin = child.stdin.take().context("its input is ours")?;
        // Answers may fill their pipe before the input is read whole.
        let out = std::thread::scope(|scope| {
            let written = scope.spawn(move || stdin.write_all(input.as_bytes()));
            let out = child.wait_with_output();
            let _ = written.join();
            out
        });
        out.with_context(|| format!("{command:?} was not waited for"))
    }

    fn tool(&self, name: &str) -> Result<Command> {
        let (program, first) = programs::tool(name)?;
        let mut command = self.command(&program);
        command.args(first);
        if name == "kubectl" {
            // Clusters have one address, one after another; what the last one had is no news of this one.
            command.arg("--cache-dir").arg(self.home.join("kubectl"));
        }
        Ok(command)
    }
}

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails; the error holds what it printed.
pub(crate) fn ended(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    let said = || String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).trim().to_owned();
    ensure!(out.status.success(), "{command:?}: {}\n{}", out.status, said());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
