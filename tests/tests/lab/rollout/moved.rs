//! moved: an address that one workload gives up and another takes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Pod, manifests};

use super::load::{APP, wait_until};
use super::orders::{Orders, options};
use crate::go::program;

const RATE: u32 = 1000;
/// How long after it left the slice an address is used again.
const REUSED_AFTER: Duration = Duration::from_secs(1);

#[test]
fn an_endpoint_removed_gets_no_request_when_its_address_is_given_to_another() -> Result<()> {
    let mut orders = Orders::new()?;
    let mut load = orders.load(RATE)?;
    for server in &orders.servers {
        server.wait_for_work()?;
    }
    let mut old = orders.servers.remove(0);
    let pods: Vec<&Pod> = orders.servers.iter().map(|server| &server.pod).collect();
    orders.announce(&pods)?;
    let reused = Instant::now() + REUSED_AFTER;
    old.app.terminate()?;
    wait_until(reused);
    // What of the old workload is left by now is cut. A connection on which nobody has said anything yet
    // keeps a server in Go for five seconds, and a slow machine keeps it too.
    drop((old.app, old.sidecar));

    let pod = old.pod;
    let manifest = manifests::pod(&pod, &[("app", "stranger")], &[("http", 8080)]);
    let manifest =
        manifest.replace("\"serviceAccountName\": \"orders\"", "\"serviceAccountName\": \"stranger\"");
    orders.world.put(&format!("pod-{}", pod.name()), &manifest)?;
    let counts = orders.world.lab.folder().join("stranger-counts");
    let mut command = pod.command(&program(APP)?);
    let mut stranger =
        pod.spawn("stranger", command.args(["serve", "--name", "stranger", "--counts"]).arg(&counts))?;
    stranger.wait_for("ready", Duration::from_secs(10))?;
    let mut options = options(&orders.world.controller);
    options.account = Some("stranger".to_owned());
    let sidecar = pod.sidecar(&options)?;
    load.run_for(Duration::from_secs(5))?;

    let outcome = load.finish()?;
    let counted = std::fs::read_to_string(&counts)?;
    let accepted =
        sidecar.metric("tidegate_transport_connections_accepted_total", &[("direction", "inbound")])?;
    eprintln!(
        "the stranger counts {} (connections, requests), its sidecar {accepted} connections",
        counted.trim()
    );
    let lost = outcome.check();
    orders.check_retries()?;
    ensure!(counted.trim() == "0 0", "the stranger got connections and requests: {counted}");
    ensure!(accepted == 0.0, "the stranger's sidecar got {accepted} connections");
    outcome.check_orders(&orders.executed()?)?;
    lost
}
