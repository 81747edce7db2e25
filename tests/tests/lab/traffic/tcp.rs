//! tcp: bytes of no known protocol: server-first, half-closed, reset.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::manifests::Port;
use lab::{Process, until};
use serde_json::Value;

use super::{DIRECT_PORT, Pair, wait_for_count};

const CARRIED: &str = "tidegate_sidecar_tcp_connections_total";
/// How much later than direct a banner may come, each on a fresh connection.
const LATER_MS_MAX: f64 = 5.0;
/// The first banner of fresh sidecars, whose way to each other has to be made first.
const FIRST_MS_MAX: f64 = 50.0;

impl Pair {
    /// Both sidecars carried this many connections as bytes. At the server's there may be more: a
    /// client that speaks just when the server is dialled for it leaves that connection unused.
    fn assert_carried(&self, connections: f64) -> Result<()> {
        for (sidecar, direction) in [(&self.shop_sidecar, "inbound"), (&self.web_sidecar, "outbound")] {
            let labels = [("direction", direction)];
            let carried = wait_for_count(direction, connections, || sidecar.metric(CARRIED, &labels))?;
            let exactly = carried == connections || direction == "inbound";
            ensure!(exactly, "{direction}: {carried} carried instead of {connections}");
            let open = "tidegate_sidecar_tcp_connections_open";
            until("all connections to be closed", Duration::from_secs(5), || {
                Ok((sidecar.metric(open, &labels)? == 0.0).then_some(()))
            })?;
        }
        Ok(())
    }
}

fn banners() -> Result<(Pair, Vec<Process>)> {
    Pair::new(&[Port::new("mail", 25, 2525)], |_, shop| {
        Ok(vec![shop.serve("tcp_banner.py", &["--listen", "0.0.0.0:2525"])?])
    })
}

fn number(said: &Value, name: &str) -> Result<f64> {
    said[name].as_f64().with_context(|| format!("no {name} in {said}"))
}

#[test]
fn a_banner_comes_hardly_later_than_direct() -> Result<()> {
    let (pair, _server) = banners()?;
    let first = pair.web.ask("banner_client.py", &["shop:25", "--count", "1"])?;
    let first_ms = number(&first, "max_ms")?;

    let bare = pair.world.lab.pod("bare", "shop", "bare")?;
    let _bare_server = bare.serve("tcp_banner.py", &["--listen", &format!("0.0.0.0:{DIRECT_PORT}")])?;
    let target = format!("{}:{DIRECT_PORT}", bare.ip());
    let direct = pair.web.ask("banner_client.py", &[&target, "--count", "100"])?;
    let meshed = pair.web.ask("banner_client.py", &["shop:25", "--count", "100"])?;
    println!("first: {first_ms} ms\ndirect: {direct}\nmeshed: {meshed}");

    ensure!(direct["failed"] == 0 && meshed["failed"] == 0 && meshed["banners"] == 100, "{direct} {meshed}");
    let later_ms = number(&meshed, "median_ms")? - number(&direct, "median_ms")?;
    ensure!(later_ms < LATER_MS_MAX, "a banner comes {later_ms} ms later than direct");
    ensure!(first_ms < FIRST_MS_MAX, "the first banner took {first_ms} ms");
    pair.assert_carried(101.0)
}

/// How many Services are asked for the first time.
const SERVICES: u8 = 15;

/// The first connection to a Service: nothing of it is remembered, its destination has to be asked of the
/// controller, and nobody said what it speaks. The sidecars have talked to each other before.
#[test]
fn the_first_banner_of_a_service_never_asked_before_comes_hardly_later_than_direct() -> Result<()> {
    let port = [Port::new("mail", 25, 2525)];
    let (pair, _server) = Pair::new(&port, |world, shop| {
        for number in 0..SERVICES {
            world.service(&format!("mail-{number}"), 100 + number, &port, &[shop])?;
        }
        Ok(vec![shop.serve("tcp_banner.py", &["--listen", "0.0.0.0:2525"])?])
    })?;
    let bare = pair.world.lab.pod("bare", "shop", "bare")?;
    let _bare_server = bare.serve("tcp_banner.py", &["--listen", &format!("0.0.0.0:{DIRECT_PORT}")])?;
    let cold = number(&pair.web.ask("banner_client.py", &["shop:25", "--count", "1"])?, "max_ms")?;

    // Each beside a direct one, so that both meet the same machine.
    let direct = format!("{}:{DIRECT_PORT}", bare.ip());
    let mut targets = Vec::new();
    for number in 0..SERVICES {
        targets.extend([format!("mail-{number}:25"), direct.clone()]);
    }
    let targets: Vec<&str> = targets.iter().map(String::as_str).chain(["--count", "1"]).collect();
    let said = pair.web.ask("banner_client.py", &targets)?;
    ensure!(said["failed"] == 0, "{said}");
    let (mut first, mut straight) = (Vec::new(), Vec::new());
    for (target, times) in said["ms"].as_object().context("what each took")? {
        let to = if *target == direct { &mut straight } else { &mut first };
        to.extend(times.as_array().context("times")?.iter().filter_map(Value::as_f64));
    }
    ensure!(first.len() == straight.len() && first.len() == usize::from(SERVICES), "{said}");
    let (first_ms, direct_ms) = (median(&mut first), median(&mut straight));
    println!(
        "first connection to each of {SERVICES} Services: median {first_ms} ms {first:?}, direct {direct_ms} ms {straight:?}; \
         of cold sidecars {cold} ms"
    );
    let later_ms = first_ms - direct_ms;
    ensure!(later_ms < LATER_MS_MAX, "a Service's first banner comes {later_ms:.3} ms later than direct");
    pair.assert_carried(1.0 + f64::from(SERVICES))
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
fn an_echo_behind_a_banner_is_whole() -> Result<()> {
    let (pair, _server) = banners()?;
    // The client half-closes behind its bytes and reads to the end.
    let said = pair.web.ask("banner_client.py", &["shop:25", "--count", "5", "--bytes", "1048576"])?;
    ensure!(said["failed"] == 0 && said["banners"] == 5, "{said}");
    pair.assert_carried(5.0)?;
    let received = wait_for_count("bytes", 5.0 * 1_048_576.0, || {
        pair.shop_sidecar.metric("tidegate_sidecar_tcp_received_bytes_total", &[("direction", "inbound")])
    })?;
    ensure!(received == 5.0 * 1_048_576.0, "{received} bytes counted");
    Ok(())
}

fn ends() -> Result<(Pair, Vec<Process>)> {
    Pair::new(&[Port::new("ends", 7000, 7000)], |_, shop| {
        Ok(vec![shop.serve("tcp_ends.py", &["serve", "0.0.0.0:7000"])?])
    })
}

#[test]
fn a_half_close_passes_in_each_direction() -> Result<()> {
    let (pair, mut servers) = ends()?;
    let said = pair.web.ask("tcp_ends.py", &["count", "shop:7000", "--bytes", "300000"])?;
    ensure!(said["answer"] == "300000 end" && said["then"] == "end", "{said}");
    let said = pair.web.ask("tcp_ends.py", &["first", "shop:7000", "--bytes", "200000"])?;
    ensure!(said["answer"] == "bye" && said["then"] == "end", "{said}");
    servers[0].wait_for("first saw 200000 end", Duration::from_secs(5))?;
    pair.assert_carried(2.0)
}

#[test]
fn a_reset_passes_in_each_direction() -> Result<()> {
    let (pair, mut servers) = ends()?;
    let said = pair.web.ask("tcp_ends.py", &["reset", "shop:7000"])?;
    ensure!(said["answer"] == "now" && said["then"] == "ECONNRESET", "{said}");
    let said = pair.web.ask("tcp_ends.py", &["watch", "shop:7000"])?;
    ensure!(said["answer"] == "yes", "{said}");
    servers[0].wait_for("watch saw 0 ", Duration::from_secs(5))?;
    let log = servers[0].log();
    ensure!(log.contains("watch saw 0 ECONNRESET"), "the client's reset arrived as another end: {log}");
    pair.assert_carried(2.0)
}
