//! load: requests by the clock, and what became of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Pod, Process};
use serde_json::Value;

use crate::go::program;

/// The folder of the client and the servers.
pub(super) const APP: &str = "load";
/// The client gives up a request after 10 s; its end needs no longer.
const END_PATIENCE: Duration = Duration::from_secs(20);
const WAYS: [&str; 3] = ["h1", "h2", "grpc"];
/// What was asked for less often than this was not the load.
const OFFERED_RATIO_MIN: f64 = 0.95;
/// Of HTTP/1.1 and HTTP/2 every other request is a POST; all of gRPC is.
const POST_RATIO: std::ops::RangeInclusive<f64> = 0.45..=0.55;
/// How far behind its schedule the client may send 99 of 100 requests, and any at all. A starved client
/// asks in bursts, and proves nothing of a mesh under a steady load.
const LATE_P99_MS_MAX: f64 = 20.0;
const LATE_MS_MAX: f64 = 500.0;

/// A running client.
pub(super) struct Load {
    process: Process,
    folder: PathBuf,
    rate: u32,
}

impl Load {
    /// Starts asking `orders` from this pod, `rate` times per second in all.
    pub(super) fn start(pod: &Pod, folder: &Path, rate: u32) -> Result<Self> {
        let mut command = pod.command(&program(APP)?);
        command.args(["client", "--http", "orders:80", "--grpc", "orders:90", "--rate", &rate.to_string()]);
        command.arg("--result").arg(folder.join("load.json"));
        command.arg("--acknowledged").arg(folder.join("acknowledged"));
        let mut process = pod.spawn("load", &mut command)?;
        process.wait_for("ready", Duration::from_secs(5))?;
        Ok(Self { process, folder: folder.to_owned(), rate })
    }

    /// Lets it go on for this long.
    pub(super) fn run_for(&mut self, time: Duration) -> Result<()> {
        wait(time);
        ensure!(self.process.is_running()?, "the load ended early:\n{}", self.process.log_tail());
        Ok(())
    }

    /// Ends the schedule, waits for what is under way, and reads what came of it.
    pub(super) fn finish(mut self) -> Result<Outcome> {
        self.process.terminate()?;
        self.process.wait(END_PATIENCE)?;
        let text = std::fs::read_to_string(self.folder.join("load.json"))?;
        let acknowledged = std::fs::read_to_string(self.folder.join("acknowledged"))?;
        Ok(Outcome { result: serde_json::from_str(&text)?, acknowledged, rate: self.rate })
    }
}

/// What came of a load.
pub(super) struct Outcome {
    result: Value,
    acknowledged: String,
    rate: u32,
}

impl Outcome {
    /// Fails when any request did, or when a library of the client asked twice; prints the numbers.
    pub(super) fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for way in WAYS {
            let of = &self.result[way];
            eprintln!(
                "{way:>5}: {} sent at {:.0}/s, {} orders, {} failed {}, {} asked again, from when due p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.0} ms, sent late p99 {:.1} max {:.0} ms",
                of["sent"],
                of["rate"].as_f64().unwrap_or(0.0),
                of["orders"],
                of["failed"],
                of["kinds"],
                of["asked_again"],
                number(of, "p50_ms"),
                number(of, "p99_ms"),
                number(of, "p999_ms"),
                number(of, "max_ms"),
                number(of, "late_p99_ms"),
                number(of, "late_max_ms"),
            );
            if of["failed"] != 0 || of["asked_again"] != 0 || of["sent"] == 0 {
                wrong.push(format!("{way}: {} failed, first {:#}", of["failed"], of["failures"][0]));
            }
        }
        ensure!(wrong.is_empty(), "requests were lost:\n{}", wrong.join("\n"));
        Ok(())
    }

    /// Fails unless the load was what it is said to be: its rate, its half of orders, by the clock.
    pub(super) fn check_offered(&self) -> Result<()> {
        let rate: f64 = WAYS.iter().map(|way| number(&self.result[way], "rate")).sum();
        eprintln!("offered {rate:.0} requests/s of {}", self.rate);
        ensure!(rate >= OFFERED_RATIO_MIN * f64::from(self.rate), "only {rate:.0}/s of {} sent", self.rate);
        for way in WAYS {
            let of = &self.result[way];
            let posts = number(of, "orders") / number(of, "sent");
            let is_half = if way == "grpc" { posts == 1.0 } else { POST_RATIO.contains(&posts) };
            ensure!(is_half, "{way}: {posts:.3} of the requests are orders");
            let (usual, most) = (number(of, "late_p99_ms"), number(of, "late_max_ms"));
            let in_time = usual <= LATE_P99_MS_MAX && most <= LATE_MS_MAX;
            ensure!(in_time, "{way}: the client itself was late, p99 {usual:.1} max {most:.0} ms");
        }
        Ok(())
    }

    /// Fails unless the servers carried out each acknowledged order, and each once.
    pub(super) fn check_orders(&self, executed: &str) -> Result<()> {
        let mut times: HashMap<&str, u32> = HashMap::new();
        for id in executed.lines() {
            *times.entry(id).or_default() += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).take(10).collect();
        let missing: Vec<_> =
            self.acknowledged.lines().filter(|id| !times.contains_key(id)).take(10).collect();
        let orders = self.acknowledged.lines().count();
        eprintln!("{orders} orders answered, {} carried out", times.len());
        ensure!(twice.is_empty(), "carried out more than once: {twice:?}");
        ensure!(missing.is_empty(), "answered, but not carried out: {missing:?}");
        ensure!(orders > 0 && orders == times.len(), "some were carried out and not answered");
        Ok(())
    }
}

fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or(0.0)
}

/// Lets time pass that is the test's own: the load's duration, the lag of a cluster.
#[allow(clippy::disallowed_methods, reason = "no runtime runs here; the time itself is what is tested")]
pub(crate) fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// As [`wait`], up to an instant.
pub(super) fn wait_until(at: Instant) {
    wait(at.saturating_duration_since(Instant::now()));
}
