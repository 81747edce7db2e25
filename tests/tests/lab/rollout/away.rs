//! away: the controller killed under load, and back again on the same state.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::manifests::Port;
use lab::{Pod, until};

use super::orders::Orders;

const RATE: u32 = 1000;
/// Longer than every wait and backoff of a request and of the stream.
const AWAY: Duration = Duration::from_secs(60);
/// The time a destination never seen waits for the controller, 3 s, and what curl adds.
const UNKNOWN_WAIT_SECONDS: std::ops::Range<f64> = 2.5..4.5;

#[test]
fn the_controller_away_for_a_minute_under_load_costs_nothing() -> Result<()> {
    let mut orders = Orders::new()?;
    // `web` has asked nothing of this Service yet.
    orders.world.service("returns", 11, &[Port::new("http", 80, 8080)], &[&orders.servers[0].pod])?;
    let mut load = orders.load(RATE)?;
    for server in &orders.servers {
        server.wait_for_work()?;
    }
    orders.world.controller.process.kill()?;
    load.run_for(AWAY / 2)?;
    let (status, seconds, head) = ask(&orders.web, "http://returns/")?;
    eprintln!("a destination never seen: {status} after {seconds} s: {}", head.trim());
    ensure!(status == 503 && UNKNOWN_WAIT_SECONDS.contains(&seconds), "{status} after {seconds} s");
    ensure!(head.contains("tidegate; error="), "no proxy-status: {head}");
    let gone = orders.servers.remove(0);
    let pods: Vec<&Pod> = orders.servers.iter().map(|server| &server.pod).collect();
    orders.announce(&pods)?;
    load.run_for(AWAY / 2)?;
    ensure!(gone.is_asked()?, "the change arrived without a controller");

    orders.world.controller.restart()?;
    let patience = Duration::from_secs(15);
    until("an answer of the destination never seen", patience, || {
        Ok(orders.web.get("http://returns/").ok().filter(|(status, _)| *status == 200).map(drop))
    })?;
    until("the change made meanwhile", patience, || Ok((!gone.is_asked()?).then_some(())))?;
    let outcome = load.finish()?;
    let lost = outcome.check();
    orders.check_retries()?;
    outcome.check_orders(&orders.executed()?)?;
    lost
}

/// GET with status, seconds and the line `proxy-status`.
fn ask(pod: &Pod, url: &str) -> Result<(u16, f64, String)> {
    let mut curl = pod.command("curl");
    curl.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w"]);
    curl.arg("%{http_code} %{time_total} %header{proxy-status}").arg(url);
    let said = pod.run(&mut curl)?;
    let mut words = said.splitn(3, ' ');
    let mut next = || words.next().context("curl says what it was told to");
    Ok((next()?.parse()?, next()?.parse()?, next()?.to_owned()))
}
