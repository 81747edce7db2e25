//! post: a pod that sends messages, pods that get them, and a queue on a disk between them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lab::manifests::Port;
use lab::{Pod, Process, Sidecar, SidecarOptions, until};
use serde_json::Value;

use super::ledger::Ledger;
use super::programs::{APP, Run};
use crate::go::program;
use crate::world::World;

const APP_PATIENCE: Duration = Duration::from_secs(10);

/// `web` sends to the Service `orders`.
pub(super) struct Post {
    pub(super) world: World,
    pub(super) web: Pod,
    pub(super) sidecar: Sidecar,
    pub(super) receivers: Vec<Receiver>,
    folder: PathBuf,
    options: SidecarOptions,
    /// Where its queue is.
    pub(super) disk: PathBuf,
}

/// A pod that gets messages.
pub(super) struct Receiver {
    pub(super) pod: Pod,
    pub(super) app: Process,
    pub(super) sidecar: Sidecar,
}

/// Nanoseconds since 1970, as the programs write them.
pub(super) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn ports() -> [Port; 1] {
    [Port::new("http", 80, 8080)]
}

fn options(world: &World) -> SidecarOptions {
    let options = SidecarOptions::of(&world.controller);
    match std::env::var("TIDEGATE_LAB_LOG") {
        Ok(level) => options.arg("--log").arg(&level),
        Err(_) => options,
    }
}

/// An AsyncPolicy for `orders`; `spec` is flow YAML without its braces.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: AsyncPolicy
metadata: {{ name: orders-async, namespace: shop }}
spec: {{ targetRefs: [{{ group: '', kind: Service, name: orders }}], {spec} }}
"
    )
}

impl Post {
    /// With one receiver whose recorder has these arguments. `spec` is what the policy says, `args` are of
    /// the sidecar with the queue.
    pub(super) fn new(spec: &str, record: &[&str], args: &[&str]) -> Result<Self> {
        program(APP)?;
        let world = World::new()?;
        let folder = world.lab.folder().join("post");
        std::fs::create_dir(&folder)?;
        world.put("policy", &policy(spec))?;
        let receiver = start_receiver(&world, "orders-1", &folder, record)?;
        world.service("orders", 10, &ports(), &[&receiver.pod])?;
        let web = world.pod("web", "web", &[])?;
        let ip = web.ip().to_string();
        let options = ["--pod-ip", &ip].iter().chain(args).fold(options(&world), |all, arg| all.arg(arg));
        let disk = world.lab.disk()?;
        let sidecar = start_sidecar(&web, &options, &disk)?;
        let post = Self { world, web, sidecar, receivers: vec![receiver], folder, options, disk };
        until("an answer of orders", Duration::from_secs(10), || {
            Ok(post.web.get("http://orders/").ok().filter(|(status, _)| *status == 200).map(drop))
        })?;
        Ok(post)
    }

    /// One more receiver, in the slice from now on.
    pub(super) fn add_receiver(&mut self, name: &str, record: &[&str]) -> Result<()> {
        self.receivers.push(start_receiver(&self.world, name, &self.folder, record)?);
        self.announce(true)
    }

    /// Puts the receivers in the slice, or takes them out.
    pub(super) fn announce(&self, there: bool) -> Result<()> {
        let pods: Vec<&Pod> = self.receivers.iter().filter(|_| there).map(|receiver| &receiver.pod).collect();
        self.world.endpoints("orders", &ports(), &pods)
    }

    /// Puts another policy in force.
    pub(super) fn put_policy(&self, spec: &str) -> Result<()> {
        self.world.put("policy", &policy(spec))
    }

    /// Kills the sidecar of `web` and starts it on another directory.
    pub(super) fn move_to(&mut self, disk: &Path) -> Result<()> {
        self.sidecar.process.kill()?;
        self.sidecar = start_sidecar(&self.web, &self.options, disk)?;
        Ok(())
    }

    /// Starts a producer. Its name begins the names of its messages.
    pub(super) fn produce(&self, name: &str, args: &[&str]) -> Result<Run> {
        let (sent, accepted) = (self.file("sent"), self.file("accepted"));
        let (sent, accepted) = (sent.to_string_lossy(), accepted.to_string_lossy());
        let own = ["produce", "--to", "http://orders/", "--name", name, "--sent", &sent];
        let all = [&own[..], &["--accepted", &accepted], args].concat();
        Run::start(&self.web, &all, self.file(&format!("produced-{name}")))
    }

    /// Sends this many messages as fast as it goes.
    pub(super) fn fill(&self, name: &str, count: u32, args: &[&str]) -> Result<Value> {
        let count = count.to_string();
        let all = [&["--count", &count][..], args].concat();
        self.produce(name, &all)?.ended(Duration::from_secs(180))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// How many deliveries arrived until now.
    pub(super) fn deliveries(&self) -> Result<usize> {
        Ok(std::fs::read_to_string(self.file("delivered")).unwrap_or_default().lines().count())
    }

    /// How many messages wait, those under way included.
    pub(super) fn depth(&self) -> Result<f64> {
        self.sidecar.metric("tidegate_queue_messages", &[])
    }

    /// Waits until nothing waits any more.
    pub(super) fn wait_until_drained(&self, patience: Duration) -> Result<()> {
        until("the queue to be empty", patience, || Ok((self.depth()? == 0.0).then_some(())))
            .with_context(|| format!("{:?} wait; {:#}", self.depth(), self.queues().unwrap_or_default()))
    }

    /// What the admin port says of the queues.
    pub(super) fn queues(&self) -> Result<Value> {
        let mut overview = self.admin("queues")?;
        for queue in overview["queues"].as_array_mut().into_iter().flatten() {
            queue["history"].take();
        }
        Ok(overview)
    }

    /// What lies in the dead letter.
    pub(super) fn dead_letters(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for queue in self.queues()?["queues"].as_array().into_iter().flatten() {
            let name = queue["name"].as_str().context("a queue has a name")?;
            let page = self.admin(&format!("queues/messages?part=dead&limit=1000&queue={name}"))?;
            all.extend(page["messages"].as_array().context("a page has messages")?.iter().cloned());
        }
        Ok(all)
    }

    fn admin(&self, path: &str) -> Result<Value> {
        let (status, text) = self.web.get(&format!("http://127.0.0.1:4191/{path}"))?;
        ensure!(status == 200, "/{path} answers {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Status, head and body of a POST that prefers to be asynchronous.
    pub(super) fn post(&self, headers: &[&str], body: &str) -> Result<(u16, String)> {
        let mut curl = self.web.command("curl");
        curl.args(["-sS", "--max-time", "5", "-i", "-H", "prefer: respond-async", "-d", body]);
        headers.iter().for_each(|header| {
            curl.args(["-H", *header]);
        });
        let said = self.web.run(curl.args(["-w", "\n%{http_code}", "http://orders/"]))?;
        let (text, status) = said.rsplit_once('\n').context("curl prints a status")?;
        Ok((status.parse()?, text.to_ascii_lowercase()))
    }

    /// All that was written down.
    pub(super) fn ledger(&self) -> Result<Ledger> {
        Ledger::read(&self.folder, self.dead_letters()?)
    }

    /// Prints what the sidecars of `web` complained of, each complaint once with its count.
    pub(super) fn print_complaints(&self) -> Result<()> {
        let mut counts = std::collections::BTreeMap::<String, u32>::new();
        for entry in std::fs::read_dir(self.world.lab.folder().join("logs"))? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with("-web-sidecar.log") {
                for line in plain(&String::from_utf8_lossy(&std::fs::read(&path)?)).lines() {
                    let serious = ["WARN", "ERROR", "panicked"].iter().find_map(|word| line.find(word));
                    if let Some(at) = serious {
                        let words = line[at..].chars().filter(|c| !c.is_ascii_digit()).take(160).collect();
                        *counts.entry(words).or_default() += 1;
                    }
                }
            }
        }
        for (complaint, count) in counts.iter().take(20) {
            eprintln!("{count:>5} x {complaint}");
        }
        Ok(())
    }
}

fn start_sidecar(web: &Pod, options: &SidecarOptions, disk: &Path) -> Result<Sidecar> {
    let disk = disk.to_str().context("the target folder has a readable name")?;
    web.sidecar(&options.clone().arg("--queue-directory").arg(disk))
}

fn start_receiver(world: &World, name: &str, folder: &Path, record: &[&str]) -> Result<Receiver> {
    let pod = world.pod(name, "orders", &[("http", 8080)])?;
    let app = start_app(&pod, folder, record)?;
    let sidecar = pod.sidecar(&options(world))?;
    Ok(Receiver { pod, app, sidecar })
}

/// Starts a recorder; all of a cluster write into one file.
pub(super) fn start_app(pod: &Pod, folder: &Path, record: &[&str]) -> Result<Process> {
    let mut command = pod.command(&program(APP)?);
    command.args(["record", "--file"]).arg(folder.join("delivered")).args(record);
    let mut app = pod.spawn("recorder", &mut command)?;
    app.wait_for("ready", APP_PATIENCE)?;
    Ok(app)
}

/// A log without the colours of a terminal.
pub(super) fn plain(log: &str) -> String {
    let mut parts = log.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}
