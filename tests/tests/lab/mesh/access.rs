//! access: who is let in, changed while requests flow.

use anyhow::{Result, ensure};
use lab::Pod;

use super::ask::{ask_once, expect, expect_server};
use super::town::Town;

/// An AccessPolicy for the pods of `echo-v1`.
fn policy(rest: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: AccessPolicy
metadata: {{ name: guard, namespace: shop }}
spec:
  selector: {{ matchLabels: {{ app: echo-v1 }} }}
{rest}
"
    )
}

fn put(town: &Town, rest: &str) -> Result<()> {
    town.world.put("guard", &policy(rest))
}

fn expect_denied(pod: &Pod, url: &str) -> Result<()> {
    expect(pod, &[url], |reply| reply.is_told(403, &["tidegate", "error=http_request_denied"]))
}

#[test]
fn identities_are_let_in_and_shut_out_while_everything_runs() -> Result<()> {
    let mut town = Town::new()?;
    let other = town.world.pod("other", "other", &[])?;
    let _sidecar = town.world.sidecar(&other)?;
    let url = "http://echo-v1/";
    expect_server(&town.client, &[url], "echo-v1")?;

    put(&town, "  default: Deny")?;
    expect_denied(&town.client, url)?;
    expect_denied(&other, url)?;
    // The other pods of the namespace are not meant.
    expect_server(&town.client, &["http://echo-v2/"], "echo-v2")?;
    let taken = town.taken(&town.v1, "/secret")?;
    ensure!(ask_once(&town.client, &["http://echo-v1/secret"])?.status == 403, "/secret is open");
    ensure!(town.taken(&town.v1, "/secret")? == taken, "the server saw what was denied");

    put(&town, "  rules: [{ from: [{ serviceAccount: { name: client } }] }]")?;
    expect_server(&town.client, &[url], "echo-v1")?;
    expect_denied(&other, url)?;

    put(&town, "  rules: [{ from: [{ identity: 'spiffe://cluster.local/ns/shop/sa/other' }] }]")?;
    expect_server(&other, &[url], "echo-v1")?;
    expect_denied(&town.client, url)?;

    // A pod that asks its own Service is no exception, in either direction.
    expect_denied(&town.v1, url)?;
    put(&town, "  rules: [{ from: [{ serviceAccount: { name: echo-v1 } }] }]")?;
    expect_server(&town.v1, &[url], "echo-v1")?;
    expect_denied(&other, url)?;

    put(&town, "  ports: [8080]\n  rules: [{ from: [{ serviceAccount: { name: other } }] }]")?;
    expect_server(&town.client, &[url], "echo-v1")?;
    expect_denied(&town.client, "http://echo-v1:8080/")?;
    expect_server(&other, &["http://echo-v1:8080/"], "echo-v1")?;

    put(&town, "  default: Allow")?;
    expect_server(&town.client, &["http://echo-v1:8080/"], "echo-v1")?;
    put(&town, "  default: Deny")?;
    expect_denied(&other, url)?;
    town.world.remove("guard")?;
    for client in [&town.client, &other] {
        expect_server(client, &[url], "echo-v1")?;
    }
    ensure!(town.runs_on()?, "something ended on the way");
    Ok(())
}

#[test]
fn pods_without_a_sidecar_are_let_in_by_their_network_alone() -> Result<()> {
    let town = Town::new()?;
    // Nobody answers for it: it has an address and no identity.
    let stranger = town.world.lab.pod("stranger", "elsewhere", "stranger")?;
    let url = format!("http://{}:8080/", town.v1.ip());
    put(&town, "  rules: [{ from: [{ serviceAccount: { name: client } }] }]")?;
    expect_denied(&stranger, &url)?;
    expect_server(&town.client, &["http://echo-v1:8080/"], "echo-v1")?;

    let network =
        |network: &str| format!("  rules: [{{ from: [{{ network: {network}, unauthenticated: true }}] }}]");
    put(&town, &network(&format!("{}/32", stranger.ip())))?;
    expect_server(&stranger, &[&url], "echo-v1")?;
    put(&town, &network("192.0.2.0/24"))?;
    expect_denied(&stranger, &url)?;
    put(&town, &network("10.77.0.0/16"))?;
    expect_server(&stranger, &[&url], "echo-v1")
}
