//! pod: one network namespace with an address, in which programs run.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::binaries::{app, python};
use crate::network::{address, ip, make_pod, remove, run, up};
use crate::process::Process;
use crate::sidecar::{Sidecar, SidecarOptions};
use crate::{Ground, binaries};

/// How long an application may take to say that it is ready.
const APP_PATIENCE: Duration = Duration::from_secs(10);

/// A pod. A clone is the same pod; its namespace ends with the last.
#[derive(Clone)]
pub struct Pod {
    place: Arc<Place>,
}

struct Place {
    ground: Arc<Ground>,
    name: String,
    namespace: String,
    account: String,
    ns: String,
    ip: Ipv4Addr,
    number: u16,
    wire: Mutex<Option<Process>>,
}

/// What a cable does to each frame, in each direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// How long it is on its way.
    pub delay: Duration,
    /// How likely it is lost, 0..=1.
    pub loss_ratio: f64,
}

impl Pod {
    pub(crate) fn make(ground: &Arc<Ground>, name: &str, namespace: &str, account: &str) -> Result<Self> {
        let (number, ns) = ground.next_pod(name);
        // The handle comes first: its end cleans up what an error leaves half made.
        let place = Place {
            ground: Arc::clone(ground),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            ns,
            ip: address(number),
            number,
            wire: Mutex::default(),
        };
        make_pod(&place.ns, &ground.switch(), number).with_context(|| format!("pod {name}"))?;
        ground.write_hosts(&place.ns)?;
        Ok(Self { place: Arc::new(place) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// The Kubernetes namespace it says it is in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.place.namespace
    }

    /// Its service account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.place.account
    }

    /// Its network namespace.
    #[must_use]
    pub fn ns(&self) -> &str {
        &self.place.ns
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.place.ip
    }

    pub(crate) fn ground(&self) -> &Ground {
        &self.place.ground
    }

    /// A program to be run in it, as root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.ns(), program]);
        command
    }

    /// A program to be run in it under this user and group.
    pub fn command_as(&self, uid: u32, program: &str) -> Command {
        let mut command = self.command("setpriv");
        let uid = uid.to_string();
        command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", program]);
        command
    }

    /// One of our programs, to be run in it.
    ///
    /// # Errors
    /// When it is not built.
    pub fn binary(&self, name: &str, uid: Option<u32>) -> Result<Command> {
        let path = binaries::place(name, &self.ground().path().join("bin"))?;
        let path = path.to_str().context("the temporary folder has a readable name")?;
        Ok(uid.map_or_else(|| self.command(path), |uid| self.command_as(uid, path)))
    }

    /// One of the Python programs in `tests/lab/apps`, to be run in it.
    pub fn app(&self, script: &str) -> Command {
        let mut command = self.command(&python().to_string_lossy());
        command.arg("-u").arg(app(script));
        command
    }

    /// Runs a command made by this pod to its end and gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it printed.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        run(command).with_context(|| format!("in pod {}", self.name()))
    }

    /// Runs a client from `tests/lab/apps` and gives the JSON it printed.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn ask(&self, script: &str, args: &[&str]) -> Result<serde_json::Value> {
        let said = self.run(self.app(script).args(args))?;
        serde_json::from_str(&said).with_context(|| format!("{script} printed {said:?}"))
    }

    /// Starts a command made by this pod, its output in the lab's logs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, label: &str, command: &mut Command) -> Result<Process> {
        let log = self.ground().next_log(self.name(), label);
        Process::spawn(&format!("{label} in pod {}", self.name()), log, command)
    }

    /// Starts a server from `tests/lab/apps` and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it does not; with the end of its log.
    pub fn serve(&self, script: &str, args: &[&str]) -> Result<Process> {
        let label = script.trim_end_matches(".py");
        let mut process = self.spawn(label, self.app(script).args(args))?;
        process.wait_for("ready", APP_PATIENCE)?;
        Ok(process)
    }

    /// Starts a sidecar: redirects the pod's traffic, then waits until the proxy is ready.
    ///
    /// # Errors
    /// When it does not get ready; with the end of its log.
    pub fn sidecar(&self, options: &SidecarOptions) -> Result<Sidecar> {
        Sidecar::start(self, options)
    }

    /// Asks a URL from inside, with GET; gives the status and the body.
    ///
    /// # Errors
    /// When no answer comes within five seconds.
    pub fn get(&self, url: &str) -> Result<(u16, String)> {
        let said =
            self.run(self.command("curl").args(["-sS", "--max-time", "5", "-w", "\n%{http_code}", url]))?;
        let (body, status) = said.rsplit_once('\n').context("curl prints a status")?;
        Ok((status.trim().parse()?, body.to_owned()))
    }

    /// Makes the cable slow and lossy, both ways; frames on their way are lost.
    ///
    /// # Errors
    /// When the kernel has no tap devices, or the cable's program does not get ready.
    pub fn shape(&self, shape: Shape) -> Result<()> {
        self.mend()?;
        let (switch, number) = (self.ground().switch(), self.place.number);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &switch]).arg(python()).arg("-u").arg(app("wire.py"));
        command.args(["--port", &format!("v{number}"), "--tap", &format!("t{number}")]);
        command.args(["--delay-ms", &(shape.delay.as_secs_f64() * 1000.0).to_string()]);
        command.args(["--loss", &shape.loss_ratio.to_string()]);
        let mut wire = self.spawn("wire", &mut command)?;
        wire.wait_for("ready", APP_PATIENCE)?;
        ip(&format!("-n {switch} link set v{number} nomaster"))?;
        ip(&format!("-n {switch} link set t{number} master br0 up"))?;
        *self.wire() = Some(wire);
        Ok(())
    }

    /// Makes the cable an ordinary one again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mend(&self) -> Result<()> {
        let wire = self.wire().take();
        if wire.is_some() {
            drop(wire);
            ip(&format!("-n {} link set v{} master br0", self.ground().switch(), self.place.number))?;
        }
        Ok(())
    }

    fn wire(&self) -> MutexGuard<'_, Option<Process>> {
        self.place.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pulls the cable.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link_down(&self) -> Result<()> {
        ip(&format!("-n {} link set eth0 down", self.ns())).map(drop)
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link_up(&self) -> Result<()> {
        up(self.ns())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.ns);
        self.ground.forget(&self.ns);
    }
}
