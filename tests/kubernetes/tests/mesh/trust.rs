//! trust: anchors change under load.

use anyhow::{Context, Result, ensure};
use kubernetes::chart;
use lab::until;

use crate::rollout::{self, Following, wait};
use crate::town::{PATIENCE, SHOP, Town};

/// A rotation's first half: a new anchor is added, and reaches every pod without a restart.
pub(crate) fn an_anchor_that_is_added_reaches_every_pod_and_no_request_fails(town: &mut Town) -> Result<()> {
    rollout::open(town)?;
    let client = Following::start(town)?;
    let sample = std::fs::read_to_string(chart::repository("manifests/samples/mesh-trust.yaml"))?;
    let (anchors, web) = (|| anchors(town), town.pod(SHOP, "web")?);
    let before = anchors()?;
    ensure!(before == 1, "{before} anchors before any was added");
    town.api().apply(&sample)?;
    until("the ConfigMap to hold two anchors", PATIENCE, || Ok((anchors()? == 2).then_some(())))?;
    // The kubelet looks each minute, or when something of the pod changes.
    town.api().kubectl(&["annotate", "pod", &web, "-n", SHOP, "tidegate.test/look=now", "--overwrite"])?;
    wait(std::time::Duration::from_secs(5));
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.is_of("orders"))?;
    town.api().kubectl(&["delete", "meshtrust", "--all"])?;
    until("the ConfigMap to hold one anchor", PATIENCE, || Ok((anchors()? == 1).then_some(())))?;
    town.api().kubectl(&["rollout", "restart", "deployment/caller", "-n", SHOP])?;
    let sum = client.figures()?.check(50)?;
    println!("{sum} requests while an anchor came and went, none failed");
    town.rolled_out(SHOP, "caller")?;
    rollout::close(town)
}

/// How many anchors the shop's ConfigMap has.
fn anchors(town: &Town) -> Result<usize> {
    let map = town.api().get(&["configmap", "tidegate-anchors", "-n", SHOP])?;
    let text = map["data"]["anchors.pem"].as_str().context("it holds anchors.pem")?;
    Ok(text.matches("BEGIN CERTIFICATE").count())
}
