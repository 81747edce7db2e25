//! names: Services that are names of the world, followed for as long as DNS says.
//!
//! An ExternalName has no address of the cluster's: the application asks its sidecar as a proxy, and
//! the sidecar looks the name up, at a name server in its own pod that tells what it was asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Pod, Process, Sidecar};
use serde_json::{Value, json};

use crate::rollout::wait;
use crate::world::World;

/// Where a sidecar is asked as a proxy.
const PROXY: &str = "127.0.0.1:4140";
/// Whole seconds, as DNS has them; more than the shortest that a sidecar takes (`DNS_TTL_MIN`, 1 s).
const TTL: Duration = Duration::from_secs(3);
/// The sidecar asks when the TTL has passed; what comes on top is an answer, a request, a look. As long as
/// the TTL and no longer: more would not tell a question that was left out.
const LATE_MAX: Duration = TTL;
const NAME: &str = "moving.example";

/// A client whose sidecar asks a name server of ours; Service `world` is another name for [`NAME`].
struct Names {
    sidecar: Sidecar,
    dns: Process,
    client: Pod,
    zone: PathBuf,
    world: World,
}

/// A server that runs until this is dropped.
struct Server {
    _process: Process,
    _sidecar: Option<Sidecar>,
    _pod: Pod,
}

/// What a client got on one connection.
struct Steady {
    process: Process,
    since: Instant,
}

impl Names {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let zone = world.lab.folder().join("zone.json");
        let client = world.pod("client", "client", &[])?;
        write_zone(&zone, &[])?;
        let mut dns = client.spawn("dns", client.app("dns_zone.py").arg("--zone").arg(&zone))?;
        dns.wait_for("ready", Duration::from_secs(5))?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "world", "namespace": "shop" },
            "spec": { "type": "ExternalName", "externalName": NAME, "ports": [{ "port": 8080 }] },
        });
        world.put("service-world", &service.to_string())?;
        let sidecar = world.sidecar(&client)?;
        Ok(Self { sidecar, dns, client, zone, world })
    }

    /// A server outside the mesh, on an address that is no pod's.
    fn outside(&self, name: &str, last: u8) -> Result<(Server, String)> {
        let pod = self.world.lab.pod(name, "elsewhere", name)?;
        let address = format!("192.0.2.{last}");
        pod.run(pod.command("ip").args(["addr", "add", &format!("{address}/32"), "dev", "eth0"]))?;
        self.client.run(self.client.command("ip").args(["route", "add", &address, "dev", "eth0"]))?;
        let process = pod.serve("http_echo.py", &["--listen", "0.0.0.0:8080", "--name", name])?;
        Ok((Server { _process: process, _sidecar: None, _pod: pod }, address))
    }

    /// A server in a pod of the mesh.
    fn inside(&self, name: &str) -> Result<(Server, String)> {
        let pod = self.world.pod(name, name, &[("http", 8080)])?;
        let address = pod.ip().to_string();
        let process = pod.serve("http_echo.py", &["--listen", "0.0.0.0:8080", "--name", name])?;
        let sidecar = Some(self.world.sidecar(&pod)?);
        Ok((Server { _process: process, _sidecar: sidecar, _pod: pod }, address))
    }

    /// The name has these addresses from now on; with none it does not exist.
    fn lead_to(&self, addresses: &[&str]) -> Result<Instant> {
        write_zone(&self.zone, addresses)?;
        Ok(Instant::now())
    }

    /// Asks the Service all the time, over one connection.
    fn ask(&self) -> Result<Steady> {
        let url = "http://world.shop.svc.cluster.local:8080/";
        let process = self.client.spawn("steady", self.client.app("mesh_steady.py").args([url, PROXY]))?;
        Ok(Steady { process, since: Instant::now() })
    }

    /// Fails when the name server was asked more often than the TTL says.
    fn check_questions(&self, since: Instant) -> Result<()> {
        let log = self.dns.log();
        let periods = since.elapsed().as_secs_f64() / TTL.as_secs_f64();
        let asked = |kind: &str| log.lines().filter(|line| *line == format!("asked {kind} {NAME}")).count();
        let (a, aaaa, all) = (asked("A"), asked("AAAA"), log.lines().count() - 1);
        eprintln!("in {periods:.1} TTLs asked {a} times for A, {aaaa} for AAAA, {all} in all");
        ensure!(a + aaaa == all, "another name was asked for:\n{log}");
        for count in [a, aaaa] {
            // The first, and one for each TTL that has passed.
            #[allow(clippy::cast_precision_loss, reason = "a few questions")]
            let count = count as f64;
            ensure!(count <= 1.0 + periods, "{count} questions in {periods} TTLs:\n{log}");
        }
        ensure!(a >= 1, "the name server was never asked");
        Ok(())
    }
}

impl Steady {
    /// Waits until this is what is answered.
    fn wait_for(&mut self, answer: &str) -> Result<()> {
        self.process.wait_for(answer, 3 * TTL)
    }

    /// How often each answer came, all on one connection.
    fn finish(mut self) -> Result<Value> {
        self.process.terminate()?;
        self.process.wait(Duration::from_secs(5))?;
        let log = self.process.log();
        let last: Value = serde_json::from_str(log.lines().last().context("it says what came")?)?;
        eprintln!("{last}");
        ensure!(last["connections"] == 1, "the connection did not stay: {last}");
        Ok(last["answers"].clone())
    }
}

/// Whole or not at all: it is read at every question.
fn write_zone(zone: &Path, addresses: &[&str]) -> Result<()> {
    let mut names = json!({});
    if !addresses.is_empty() {
        names[NAME] = json!({ "ttl": TTL.as_secs(), "a": addresses });
    }
    let draft = zone.with_extension("draft");
    std::fs::write(&draft, json!({ "negative_ttl": TTL.as_secs(), "names": names }).to_string())?;
    Ok(std::fs::rename(&draft, zone)?)
}

fn only(answers: &Value, expected: &[&str]) -> Result<()> {
    let keys: Vec<&str> = answers.as_object().context("an object")?.keys().map(String::as_str).collect();
    ensure!(keys == expected, "answers {answers}");
    Ok(())
}

fn in_time(what: &str, changed: Instant) -> Result<()> {
    let after = changed.elapsed();
    eprintln!("{what} after {after:.1?}");
    ensure!(after <= TTL + LATE_MAX, "{what} only after {after:.1?}");
    Ok(())
}

#[test]
fn a_name_that_moves_is_followed_when_its_ttl_has_passed_and_no_request_fails() -> Result<()> {
    let mut names = Names::new()?;
    let (one, first) = names.outside("one", 1)?;
    let (_two, second) = names.outside("two", 2)?;
    names.lead_to(&[&first])?;
    let mut steady = names.ask()?;
    steady.wait_for("200 one")?;
    wait(3 * TTL);

    let changed = names.lead_to(&[&second])?;
    steady.wait_for("200 two")?;
    in_time("the name had moved", changed)?;
    // Whoever lost the name may go.
    drop(one);
    wait(TTL);
    names.check_questions(steady.since)?;

    // A name server that is silent, and one that knows nothing any more, take no address away.
    names.lead_to(&[])?;
    wait(2 * TTL);
    names.check_questions(steady.since)?;
    names.dns.kill()?;
    wait(2 * TTL);
    ensure!(names.sidecar.process.is_running()?, "{}", names.sidecar.process.log_tail());
    only(&steady.finish()?, &["200 one", "200 two"])
}

#[test]
fn a_name_that_moves_into_the_mesh_within_it_and_out_again_is_followed_on_the_same_connection() -> Result<()>
{
    let names = Names::new()?;
    let (_before, before) = names.outside("before", 1)?;
    let (_one, one) = names.inside("one")?;
    let (_two, two) = names.inside("two")?;
    names.lead_to(&[&before])?;
    let mut steady = names.ask()?;
    steady.wait_for("200 before")?;
    for (address, answer) in [(&one, "200 one"), (&two, "200 two")] {
        let changed = names.lead_to(&[address])?;
        steady.wait_for(answer)?;
        in_time(answer, changed)?;
    }
    // What the controller says of the pod holds for the name, without a question to DNS.
    names.world.remove("pod-two")?;
    steady.wait_for("503 tidegate; error=destination_not_found")?;
    names.lead_to(&[&before])?;
    wait(2 * TTL);
    names.check_questions(steady.since)?;
    let log = steady.process.log();
    ensure!(log.trim_end().ends_with("200 before"), "the name has not moved out:\n{log}");
    let answers = steady.finish()?;
    let right = |answer: &String| answer.starts_with("200 ") || answer.contains("destination_not_found");
    ensure!(answers.as_object().is_some_and(|answers| answers.keys().all(right)), "answers {answers}");
    Ok(())
}

#[test]
fn a_name_that_does_not_exist_is_told_so_and_found_when_it_exists_and_the_negative_ttl_has_passed()
-> Result<()> {
    let names = Names::new()?;
    let (_server, address) = names.outside("late", 1)?;
    let mut steady = names.ask()?;
    steady.wait_for("503 tidegate; error=")?;
    steady.wait_for(&format!("{NAME} has no address: the name does not exist"))?;
    wait(3 * TTL);
    names.check_questions(steady.since)?;

    let changed = names.lead_to(&[&address])?;
    steady.wait_for("200 late")?;
    in_time("the name was found", changed)?;
    wait(TTL);
    names.check_questions(steady.since)?;
    let answers = steady.finish()?;
    ensure!(answers.as_object().is_some_and(|answers| answers.len() == 2), "answers {answers}");
    Ok(())
}
