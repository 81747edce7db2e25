//! rollout: clients and servers are replaced under load, and no request fails.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::objects::{self, with_spec};
use crate::town::{SHOP, Town};

const WAYS: [&str; 3] = ["h1", "h2", "grpc"];
/// Requests per second, of all three protocols together.
const RATE: &str = "150";

/// Servers that end well, two of them, and a client that asks by the clock and says at its end what came
/// of it.
pub(crate) fn open(town: &Town) -> Result<()> {
    let mut server = objects::running(&["load", "serve", "--http", ":8080", "--grpc", ":9090"]);
    server["ports"] =
        json!([{"name": "http", "containerPort": 8080}, {"name": "grpc", "containerPort": 9090}]);
    server["readinessProbe"] = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1});
    let mut servers = objects::deployment(SHOP, "busy", &server);
    servers["spec"]["replicas"] = json!(2);
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"},
                       {"name": "grpc", "port": 90, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}]);
    let service =
        with_spec("v1", "Service", (SHOP, "busy"), json!({"selector": {"app": "busy"}, "ports": ports}));
    town.apply(&[servers, service])?;
    town.rolled_out(SHOP, "busy")?;
    let ask = ["load", "client", "--http", "busy:80", "--grpc", "busy:90", "--rate", RATE];
    town.apply(&[objects::deployment(SHOP, "caller", &objects::running(&ask))])?;
    town.rolled_out(SHOP, "caller")
}

pub(crate) fn close(town: &Town) -> Result<()> {
    let all = ["deployment/busy", "deployment/caller", "service/busy"];
    town.api().kubectl(&[&["delete", "-n", SHOP, "--wait=false"], &all[..]].concat()).map(drop)
}

/// The log of a client that is to end, read to its end.
pub(crate) struct Following {
    child: std::process::Child,
}

impl Following {
    /// Reads on what the client's pod says.
    pub(crate) fn start(town: &Town) -> Result<Self> {
        let pod = town.pod(SHOP, "caller")?;
        let child = town.api().start(&["logs", "-n", SHOP, &pod, "-c", "app", "--follow"], Stdio::piped())?;
        Ok(Self { child })
    }

    /// Its figures, once it has ended.
    pub(crate) fn figures(self) -> Result<Figures> {
        let said = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let at = said.find("\n{").with_context(|| format!("the client said no figures: {said}"))?;
        Ok(Figures(serde_json::from_str(&said[at..]).with_context(|| said[at..].to_owned())?))
    }
}

/// What a client says at its end.
pub(crate) struct Figures(Value);

impl Figures {
    /// Fails when a request did, or when there were fewer than so many of a protocol; the sum of all.
    pub(crate) fn check(&self, least: u64) -> Result<u64> {
        let mut sum = 0;
        for way in WAYS {
            let of = &self.0[way];
            let (sent, failed) = (of["sent"].as_u64().unwrap_or(0), of["failed"].as_u64().unwrap_or(0));
            println!(
                "  {way}: {sent} sent, {failed} failed, p99 {} ms, {} asked again",
                of["p99_ms"], of["asked_again"]
            );
            ensure!(
                failed == 0,
                "{way}: {failed} of {sent} failed: {}, first {:#}",
                of["kinds"],
                of["failures"][0]
            );
            ensure!(sent >= least, "{way}: only {sent} were sent");
            sum += sent;
        }
        Ok(sum)
    }
}

pub(crate) fn no_request_fails_while_servers_and_clients_are_replaced_under_load(
    town: &mut Town,
) -> Result<()> {
    open(town)?;
    let mut sum = 0;
    for _ in 0..2 {
        let client = Following::start(town)?;
        wait(Duration::from_secs(2));
        town.api().kubectl(&["rollout", "restart", "deployment/busy", "-n", SHOP])?;
        town.rolled_out(SHOP, "busy")?;
        wait(Duration::from_secs(2));
        town.api().kubectl(&["rollout", "restart", "deployment/caller", "-n", SHOP])?;
        town.rolled_out(SHOP, "caller")?;
        sum += client.figures()?.check(100)?;
    }
    println!("{sum} requests through two rollouts of the servers and two of the client, none failed");
    Ok(())
}

/// Lets time pass that is the case's own: the load's duration, the outage's.
#[allow(clippy::disallowed_methods, reason = "no runtime runs here; the time itself is what is tested")]
pub(crate) fn wait(time: Duration) {
    std::thread::sleep(time);
}
