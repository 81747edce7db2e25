//! controller: the control plane in a pod of its own, told what to do by files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Lab;
use crate::network::{CLUSTER_NETWORK, POD_NETWORK};
use crate::pod::Pod;
use crate::process::Process;

const PORT: u16 = 8086;
const ADMIN_PORT: u16 = 8087;
const READY_PATIENCE: Duration = Duration::from_secs(15);

/// A running controller.
pub struct Controller {
    /// Its process.
    pub process: Process,
    pod: Pod,
    folder: PathBuf,
    args: Vec<String>,
}

impl Controller {
    pub(crate) fn start(lab: &Lab, args: &[&str]) -> Result<Self> {
        let pod = lab.pod("controller", "tidegate", "controller")?;
        let folder = lab.folder().join("controller");
        for name in ["manifests", "state"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let process = run(&pod, &folder, &args)?;
        let mut controller = Self { process, pod, folder, args };
        controller.wait_ready()?;
        Ok(controller)
    }

    /// Starts it anew on the same files, after its process was ended.
    ///
    /// # Errors
    /// When it does not get ready; with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        let _ = self.process.kill();
        self.process = run(&self.pod, &self.folder, &self.args)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let (pod, url) = (&self.pod, format!("http://{}:{ADMIN_PORT}/ready", self.pod.ip()));
        self.process.until("its /ready to answer 200", READY_PATIENCE, |_| {
            Ok(pod.get(&url).ok().filter(|(status, _)| *status == 200).map(drop))
        })
    }

    /// Where it listens for sidecars, `IP:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{PORT}", self.pod.ip())
    }

    /// Its pod.
    #[must_use]
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The folder of its state: anchors and tokens.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Everything it counts, as text.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.pod.get(&format!("http://{}:{ADMIN_PORT}/metrics", self.pod.ip()))?.1)
    }

    /// Writes a manifest whole or not at all; one of the same name is replaced.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_manifest(&self, name: &str, yaml: &str) -> Result<()> {
        let to = self.manifest(name);
        // Beside the folder that is watched, on the same file system.
        let draft = self.folder.join(format!(".{name}.draft"));
        std::fs::write(&draft, yaml)?;
        std::fs::rename(&draft, &to).with_context(|| to.display().to_string())
    }

    /// Removes a manifest.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn remove_manifest(&self, name: &str) -> Result<()> {
        let path = self.manifest(name);
        std::fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join("manifests").join(format!("{name}.yaml"))
    }
}

fn run(pod: &Pod, folder: &Path, args: &[String]) -> Result<Process> {
    let mut command = pod.binary("tidegate-controller", None)?;
    command.arg("--manifests").arg(folder.join("manifests"));
    command.arg("--state").arg(folder.join("state"));
    command.args(["--listen", &format!("{}:{PORT}", pod.ip())]);
    command.args(["--admin", &format!("{}:{ADMIN_PORT}", pod.ip())]);
    command.args(["--networks", &format!("{POD_NETWORK},{CLUSTER_NETWORK}")]);
    command.args(args);
    pod.spawn("controller", &mut command)
}
