//! sidecar: the proxy beside a pod's application, and the redirection before it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::controller::Controller;
use crate::pod::Pod;
use crate::process::Process;
use crate::until::until;

/// The user the sidecar runs as; what it sends is not redirected.
pub const SIDECAR_UID: u32 = 2102;
const ADMIN_PORT: u16 = 4191;
const READY_PATIENCE: Duration = Duration::from_secs(15);

/// How a sidecar is started.
#[derive(Clone, Debug, Default)]
pub struct SidecarOptions {
    /// Where the controller listens, `IP:PORT`.
    pub controller: String,
    /// The file with the anchors.
    pub anchors: std::path::PathBuf,
    /// The folder with the tokens, `NAMESPACE.ACCOUNT.token`.
    pub tokens: std::path::PathBuf,
    /// The account, when it is not the pod's.
    pub account: Option<String>,
    /// The namespace, when it is not the pod's.
    pub namespace: Option<String>,
    /// More arguments of the proxy.
    pub args: Vec<String>,
    /// More arguments of the redirection, such as `--skip-inbound-ports`.
    pub redirect_args: Vec<String>,
    /// More of the proxy's environment.
    pub envs: Vec<(String, String)>,
}

impl SidecarOptions {
    /// A sidecar that listens to this controller.
    #[must_use]
    pub fn of(controller: &Controller) -> Self {
        Self {
            controller: controller.address(),
            anchors: controller.state().join("anchors.pem"),
            tokens: controller.state().join("tokens"),
            ..Self::default()
        }
    }

    /// With one more argument of the proxy.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }
}

/// A running sidecar.
pub struct Sidecar {
    /// Its process.
    pub process: Process,
    pod: Pod,
    command: Command,
}

impl Sidecar {
    pub(crate) fn start(pod: &Pod, options: &SidecarOptions) -> Result<Self> {
        pod.run(pod.binary("tidegate-proxy", None)?.arg("redirect").args(&options.redirect_args))
            .context("the redirection")?;
        let account = options.account.as_deref().unwrap_or(pod.account());
        let namespace = options.namespace.as_deref().unwrap_or(pod.namespace());
        let token = options.tokens.join(format!("{namespace}.{account}.token"));
        for file in [&options.anchors, &token] {
            make_readable(file, pod.ground().path())?;
        }
        let mut command = pod.binary("tidegate-proxy", Some(SIDECAR_UID))?;
        command.args(["--controller", &options.controller]);
        command.arg("--anchors").arg(&options.anchors);
        command.arg("--token-file").arg(&token);
        command.args(["--namespace", namespace, "--service-account", account, "--pod", pod.name()]);
        command.args(["--admin", &format!("0.0.0.0:{ADMIN_PORT}")]);
        command.args(&options.args).envs(options.envs.iter().cloned());
        let process = pod.spawn("sidecar", &mut command)?;
        let mut sidecar = Self { process, pod: pod.clone(), command };
        sidecar.wait_ready(READY_PATIENCE)?;
        Ok(sidecar)
    }

    /// Kills it if it still runs, and starts it anew with the same arguments; it is not waited for. The
    /// redirection stays as it is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.pod.spawn("sidecar", &mut self.command)?;
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends or the time runs out; with the end of its log.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let pod = &self.pod;
        self.process.until("its /ready to answer 200", patience, |_| {
            Ok(admin(pod, "ready").ok().filter(|(status, _)| *status == 200).map(drop))
        })
    }

    /// Everything it counts, as text.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        let (status, text) = admin(&self.pod, "metrics")?;
        anyhow::ensure!(status == 200, "/metrics answers {status}");
        Ok(text)
    }

    /// The sum of the samples of this name that have all these labels; 0 without any.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(sum(&self.metrics()?, name, labels))
    }
}

fn admin(pod: &Pod, path: &str) -> Result<(u16, String)> {
    // By loopback: to its own address, the sidecar would carry the question and refuse it.
    pod.get(&format!("http://127.0.0.1:{ADMIN_PORT}/{path}"))
}

/// Sums samples of the Prometheus text format.
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (inside, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        // A comma before each, so that `b="1"` is not found in `ab="1"`.
        let inside = format!(",{inside}");
        let all = wanted.iter().all(|pair| inside.contains(&format!(",{pair}")));
        value.split_whitespace().next().filter(|_| all)?.parse::<f64>().ok()
    });
    samples.sum()
}

/// Waits for a file of the controller's and opens it, and the folders to it, to the sidecar's user.
fn make_readable(file: &Path, stop: &Path) -> Result<()> {
    until(&file.display().to_string(), READY_PATIENCE, || Ok(file.is_file().then_some(())))?;
    std::fs::set_permissions(file, Permissions::from_mode(0o644))?;
    for folder in file.ancestors().skip(1).take_while(|folder| *folder != stop && folder.starts_with(stop)) {
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let text =
            "# TYPE a counter\na_total{x=\"1\",xy=\"2\"} 3\na_total{x=\"2\",y=\"1\"} 4\nb 5\na_total_x 9\n";
        assert_eq!(sum(text, "a_total", &[]), 7.0);
        assert_eq!(sum(text, "a_total", &[("x", "1")]), 3.0);
        assert_eq!(sum(text, "a_total", &[("y", "2")]), 0.0);
        assert_eq!(sum(text, "b", &[]), 5.0);
        assert_eq!(sum(text, "c", &[]), 0.0);
    }
}
