//! controller: the real program, pinned to one core, and what it takes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::api::Api;
use crate::feed::anchors;
use crate::plan::Plan;

/// How long it may take to read the mesh.
const PATIENCE: Duration = Duration::from_secs(120);
/// Clock ticks a second, as /proc counts them on Linux.
const TICKS: f64 = 100.0;

/// A controller that runs; killed when dropped.
pub(crate) struct Controller {
    child: Child,
    pub(crate) address: SocketAddr,
    /// PEM of whom proxies trust.
    pub(crate) anchors: String,
}

impl Controller {
    /// Starts it on `api` and waits until it is ready and has written what proxies trust.
    pub(crate) async fn start(plan: &Plan, api: &Api, directory: &Path) -> anyhow::Result<Self> {
        let kubeconfig = directory.join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig().to_string())?;
        let (address, admin, webhook) = (free_address()?, free_address()?, free_address()?);
        let child = Command::new("taskset")
            .args(["-c", &plan.cpu.to_string()])
            .arg(&plan.controller)
            .args(["--kubernetes", "--listen", &address.to_string(), "--admin", &admin.to_string()])
            .args(["--webhook", &webhook.to_string(), "--log", "error"])
            .env("KUBECONFIG", &kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", plan.controller.display()))?;
        let mut controller = Self { child, address, anchors: String::new() };
        let end = Instant::now() + PATIENCE;
        while controller.anchors.is_empty() || !is_ready(admin).await {
            anyhow::ensure!(Instant::now() < end, "the controller is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
            controller.anchors = anchors(api).unwrap_or_default();
        }
        Ok(controller)
    }

    /// Resident memory.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Processor time since its start.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()?))?;
        let rest = stat.rsplit_once(')').context("stat without a name")?.1;
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|t| t.parse().unwrap_or(0)).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the controller has ended")
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn is_ready(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(admin).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    };
    ask.await.unwrap_or(false)
}
