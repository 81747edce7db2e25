//! orders: the Service under load, its servers and the client's pod.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::manifests::Port;
use lab::{Controller, Pod, Process, Sidecar, SidecarOptions, until};

use super::load::{APP, Load};
use crate::go::program;
use crate::world::World;

/// Reasons of retries that need no word of the route: nothing was processed, or (`broken`) the method
/// is idempotent. That no order ran twice is counted by the servers.
const HARMLESS: [&str; 3] = ["connect", "refused", "broken"];

/// Service `orders` with three servers, and `web` that asks it.
pub(super) struct Orders {
    pub(super) world: World,
    pub(super) servers: Vec<Server>,
    pub(super) web: Pod,
    pub(super) web_sidecar: Sidecar,
    folder: PathBuf,
    starts: AtomicU32,
}

/// A pod with the application and its sidecar.
pub(super) struct Server {
    pub(super) pod: Pod,
    pub(super) app: Process,
    pub(super) sidecar: Sidecar,
    executed: PathBuf,
}

pub(super) fn ports() -> [Port; 2] {
    [Port::new("http", 80, 8080), Port::new("grpc", 90, 9090).speaking("kubernetes.io/h2c")]
}

/// A sidecar with the log level of `TIDEGATE_LAB_LOG`.
pub(super) fn options(controller: &Controller) -> SidecarOptions {
    let options = SidecarOptions::of(controller);
    match std::env::var("TIDEGATE_LAB_LOG") {
        Ok(level) => options.arg("--log").arg(&level),
        Err(_) => options,
    }
}

impl Orders {
    pub(super) fn new() -> Result<Self> {
        Self::with(World::new()?)
    }

    pub(super) fn with(world: World) -> Result<Self> {
        program(APP)?;
        let folder = world.lab.folder().join("orders");
        std::fs::create_dir(&folder)?;
        let web = world.pod("web", "web", &[])?;
        let starts = AtomicU32::new(0);
        let mut servers = Vec::new();
        for number in 1..=3 {
            let pod = Self::pod(&world, number)?;
            servers.push(start(&world, pod, &folder, &starts)?);
        }
        let pods: Vec<&Pod> = servers.iter().map(|server| &server.pod).collect();
        world.service("orders", 10, &ports(), &pods)?;
        let web_sidecar = web.sidecar(&options(&world.controller))?;
        let orders = Self { world, servers, web, web_sidecar, folder, starts };
        until("an answer of orders", Duration::from_secs(10), || {
            Ok(orders.web.get("http://orders/").ok().filter(|(status, _)| *status == 200).map(drop))
        })?;
        Ok(orders)
    }

    /// The pod `orders-NUMBER`.
    pub(super) fn pod(world: &World, number: u32) -> Result<Pod> {
        world.pod(&format!("orders-{number}"), "orders", &[("http", 8080), ("grpc", 9090)])
    }

    /// Starts application and sidecar in a pod.
    pub(super) fn start(&self, pod: Pod) -> Result<Server> {
        start(&self.world, pod, &self.folder, &self.starts)
    }

    pub(super) fn load(&self, rate: u32) -> Result<Load> {
        Load::start(&self.web, &self.folder, rate)
    }

    /// Puts these servers' pods in the slice, and no others.
    pub(super) fn announce(&self, pods: &[&Pod]) -> Result<()> {
        self.world.endpoints("orders", &ports(), pods)
    }

    /// All ids that were ever carried out.
    pub(super) fn executed(&self) -> Result<String> {
        let mut all = String::new();
        for number in 1..=self.starts.load(Ordering::Relaxed) {
            all += &std::fs::read_to_string(self.folder.join(format!("executed-{number}")))?;
        }
        Ok(all)
    }

    /// Prints what the client's sidecar had to do; fails when it retried what may have been processed.
    pub(super) fn check_retries(&self) -> Result<()> {
        let metrics = self.web_sidecar.metrics()?;
        let of = |name: &str| -> Vec<String> {
            metrics.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
        };
        let retries = of("tidegate_request_retries_total");
        eprintln!("{}", [&retries[..], &of("tidegate_request_errors_total")].concat().join("\n"));
        for line in retries {
            let harmless = HARMLESS.iter().any(|reason| line.contains(&format!("\"{reason}\"")));
            ensure!(harmless || line.ends_with(" 0"), "a retry of another kind: {line}");
        }
        Ok(())
    }

    /// Fails unless the client's sidecar was refused or not let in at all, and asked elsewhere: without
    /// that, what was restarted had not been asked.
    pub(super) fn check_was_refused(&self) -> Result<()> {
        let of = |reason| self.web_sidecar.metric("tidegate_request_retries_total", &[("reason", reason)]);
        let (refused, unreached) = (of("refused")?, of("connect")?);
        ensure!(refused + unreached > 0.0, "no server refused a request: nothing was restarted under load");
        Ok(())
    }
}

fn start(world: &World, pod: Pod, folder: &std::path::Path, starts: &AtomicU32) -> Result<Server> {
    let number = starts.fetch_add(1, Ordering::Relaxed) + 1;
    let executed = folder.join(format!("executed-{number}"));
    let mut command = pod.command(&program(APP)?);
    command.args(["serve", "--name", pod.name(), "--executed"]).arg(&executed);
    let mut app = pod.spawn("app", &mut command)?;
    app.wait_for("ready", Duration::from_secs(10))?;
    let sidecar = pod.sidecar(&options(&world.controller))?;
    Ok(Server { pod, app, sidecar, executed })
}

impl Server {
    /// Waits until it has carried out an order since it was started.
    pub(super) fn wait_for_work(&self) -> Result<()> {
        let what = format!("orders at {}", self.pod.name());
        until(&what, Duration::from_secs(10), || {
            Ok(std::fs::metadata(&self.executed).ok().filter(|file| file.len() > 0).map(drop))
        })
    }

    /// Waits until this client asks it and no other.
    pub(super) fn wait_until_alone(&self, client: &Pod) -> Result<()> {
        let mut in_a_row = 0;
        until("one server to be left", Duration::from_secs(5), || {
            let (status, name) = client.get("http://orders/")?;
            in_a_row = if status == 200 && name.trim() == self.pod.name() { in_a_row + 1 } else { 0 };
            Ok((in_a_row == 10).then_some(()))
        })
    }

    /// Whether orders come to it, by a look at two moments.
    pub(super) fn is_asked(&self) -> Result<bool> {
        let length = || std::fs::metadata(&self.executed).map(|file| file.len());
        let before = length()?;
        super::load::wait(Duration::from_millis(300));
        Ok(length()? > before)
    }

    /// Whether it has begun with this order.
    pub(super) fn has_executed(&self, id: &str) -> Result<bool> {
        Ok(std::fs::read_to_string(&self.executed)?.lines().any(|line| line == id))
    }
}
