//! stop: a server's sidecar told to end while a slow request is under way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Pod, Process, until};

use super::orders::{Orders, Server, options};

const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_slow_stop_finishes_what_is_under_way() -> Result<()> {
    let mut orders = Orders::new()?;
    // Another client, which has no connection to the server until it stops.
    let other = orders.world.pod("other", "web", &[])?;
    let other_sidecar = other.sidecar(&options(&orders.world.controller))?;
    let mut server = orders.servers.remove(0);
    orders.announce(&[&server.pod])?;
    server.wait_until_alone(&orders.web)?;

    let mut slow = ask_slowly(&orders, &server, "slow", 6000)?;
    server.sidecar.process.terminate()?;
    let draining = until("/ready to say draining", PATIENCE, || {
        let answer = server.pod.get("http://127.0.0.1:4191/ready")?;
        Ok((answer.0 != 200).then_some(answer))
    })?;
    ensure!(draining.0 == 503 && draining.1.contains("draining"), "/ready answers {draining:?}");
    let late = other.get("http://orders/")?;
    ensure!(late.0 == 200, "a new connection is not served while draining: {late:?}");
    ensure!(slow.is_running()?, "the slow request ended too early:\n{}", slow.log());
    slow.wait(2 * PATIENCE)?;
    ensure!(slow.log().trim() == "200", "the slow request got:\n{}", slow.log());
    let since = Instant::now();
    let ended = server.sidecar.process.wait(Duration::from_secs(30))?;
    eprintln!("the sidecar ended {} ms after its last request", since.elapsed().as_millis());
    ensure!(ended.success() && since.elapsed() < PATIENCE, "it ended {ended} after {:?}", since.elapsed());
    drop(other_sidecar);

    let mut server = orders.servers.remove(0);
    orders.announce(&[&server.pod])?;
    server.wait_until_alone(&orders.web)?;
    let mut cut = ask_slowly(&orders, &server, "cut", 18_000)?;
    server.sidecar.process.terminate()?;
    server.sidecar.process.wait_for("draining", PATIENCE)?;
    let since = Instant::now();
    server.sidecar.process.terminate()?;
    // Long before the slow request would end by itself.
    server.sidecar.process.wait(PATIENCE)?;
    eprintln!("the second SIGTERM ended it after {} ms", since.elapsed().as_millis());
    cut.wait(PATIENCE)?;
    ensure!(cut.log().trim() != "200", "the request that was cut got an answer");
    Ok(())
}

/// A POST that takes `ms`, under way when this returns.
fn ask_slowly(orders: &Orders, server: &Server, id: &str, ms: u32) -> Result<Process> {
    let web: &Pod = &orders.web;
    let mut curl = web.command("curl");
    curl.args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"]);
    curl.args(["-H", &format!("x-order: {id}"), &format!("http://orders/?ms={ms}")]);
    let slow = web.spawn(id, &mut curl)?;
    until("the slow request", PATIENCE, || Ok(server.has_executed(id)?.then_some(())))
        .context("it never arrived")?;
    Ok(slow)
}
