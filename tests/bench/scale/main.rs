//! scale: what ten thousand proxies cost a controller, and how soon they know of a change.
//!
//! A real controller, pinned to one core, watches a mesh at a fed API ([`api`]); simulated proxies, each with a connection of
//! its own over TLS, speak the real stream to it: hello, subscribe, acknowledge. They say what they
//! hold as proxies do and look no deeper into documents than a mark that each change leaves, for on a
//! small machine what they spend is missing elsewhere. Measured are resident memory for each proxy, the
//! time from a change to the last proxy that needs it, and what comes again after a reconnect.
//!
//! ```sh
//! cargo build --release -p controller --bins && cargo build --release -p tests --example scale
//! target/release/examples/scale               # --help: how many of what
//! ```

mod api;
mod controller;
mod feed;
mod load;
mod plan;
mod race;
mod swarm;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use api::Api;
use controller::Controller;
use plan::Plan;
use race::Race;
use swarm::Swarm;

/// The controller settles this long before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// Without a status written for so long, all are.
const QUIET: Duration = Duration::from_secs(5);
/// How long the last proxies may take after the last change.
const PATIENCE: Duration = Duration::from_secs(60);
/// Proxies that reconnect.
const RECONNECTED: usize = 1000;

fn main() -> anyhow::Result<()> {
    let plan = Arc::new(Plan::read(std::env::args().skip(1))?);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(plan))
}

async fn run(plan: Arc<Plan>) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let api = Api::start().await?;
    feed::fill(&api, &plan);
    let begun = Instant::now();
    let controller = Controller::start(&plan, &api, directory.path()).await?;
    let loaded = begun.elapsed();
    tokio::time::sleep(SETTLE).await;
    let empty = controller.resident_kib()?;

    let race = Arc::new(Race::new(&plan));
    let (begun, cpu) = (Instant::now(), controller.cpu()?);
    let mut swarm = Swarm::connect(&plan, &controller, race.clone()).await?;
    let connected = begun.elapsed();
    let connect_cpu = controller.cpu()? - cpu;
    tokio::time::sleep(SETTLE).await;
    let full = controller.resident_kib()?;
    let written = all_written(&api).await;
    let each = |kib: u64| kib.saturating_sub(empty) as f64 / plan.proxies as f64;
    let mut report = json!({
        "proxies": plan.proxies, "services": plan.services, "endpoints": plan.endpoints(),
        "needs": plan.needs, "ready_s": loaded.as_secs_f64(), "connect_s": connected.as_secs_f64(),
        "connect_cpu_s": connect_cpu.as_secs_f64(), "kib_without": empty, "kib_with": full,
        "kib_each": each(full), "statuses": api.statuses(), "statuses_written_s": written.as_secs_f64(),
    });
    eprintln!("{report:#}");

    let mut rates = Vec::new();
    for rate in &plan.rates {
        rates.push(measure(&plan, *rate, &api, &controller, &race).await?);
        eprintln!("{:#}", rates[rates.len() - 1]);
    }
    report["rates"] = rates.into();
    tokio::time::sleep(SETTLE).await;
    report["kib_each_after_changes"] = each(controller.resident_kib()?).into();
    let again = swarm.reconnect(RECONNECTED.min(plan.proxies)).await?;
    report["reconnect"] =
        json!({ "proxies": again.proxies, "documents": again.documents, "bytes": again.bytes });
    println!("{report:#}");
    Ok(())
}

/// How long it takes until all statuses are written: what that costs is not what is measured.
async fn all_written(api: &Api) -> Duration {
    let begun = Instant::now();
    let (mut count, mut last) = (api.statuses(), begun);
    while last.elapsed() < QUIET {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if api.statuses() != count {
            (count, last) = (api.statuses(), Instant::now());
        }
    }
    last - begun
}

/// Changes at one rate, each of another Service than the one before.
async fn measure(
    plan: &Plan,
    rate: u32,
    api: &Api,
    controller: &Controller,
    race: &Race,
) -> anyhow::Result<serde_json::Value> {
    let changes = rate * plan.seconds;
    let (cpu, begun, before) = (controller.cpu()?, Instant::now(), race.counts());
    let mut late = Duration::ZERO;
    for change in 0..changes {
        let due = begun + Duration::from_secs_f64(f64::from(change) / f64::from(rate));
        tokio::time::sleep_until(due.into()).await;
        late = late.max(due.elapsed());
        let (service, mark) = race.begin();
        feed::change(api, plan, service, mark);
        tokio::task::yield_now().await;
    }
    let spent = begun.elapsed();
    let end = Instant::now() + PATIENCE;
    while race.is_running() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cpu = controller.cpu()? - cpu;
    let (times, counts) = (race.finish(), race.counts());
    let at =
        |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).map(Duration::as_secs_f64);
    Ok(json!({
        "rate": rate, "changes": changes, "finished": times.len(), "fed_in_s": spent.as_secs_f64(),
        "feeder_late_s": late.as_secs_f64(), "p50_s": at(50), "p99_s": at(99), "max_s": at(100),
        "answers": counts.answers - before.answers, "bytes": counts.bytes - before.bytes,
        "controller_cpu_s": cpu.as_secs_f64(), "whole_s": begun.elapsed().as_secs_f64(),
    }))
}
