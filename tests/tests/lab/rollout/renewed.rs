//! renewed: certificates that end and anchors that come and go, under load.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Sidecar, until};
use serde_json::json;

use super::orders::Orders;
use crate::world::World;

const RATE: u32 = 1000;
/// The shortest that the controller allows.
const LIFETIME: &str = "1m";
/// A sidecar renews at two thirds of its certificate's life and looks at the anchors every few
/// seconds; after this no certificate of the beginning is valid any more.
const LOADED: Duration = Duration::from_secs(65);
const EXPIRY: &str = "tidegate_sidecar_certificate_expiry_timestamp_seconds";

#[test]
fn a_leaf_renewed_and_an_anchor_added_and_removed_under_load_cost_nothing() -> Result<()> {
    let orders = Orders::with(World::with(&["--leaf-lifetime", LIFETIME])?)?;
    let before = expiries(&orders)?;
    let anchors = orders.world.controller.state().join("anchors.pem");
    let mut load = orders.load(RATE)?;
    load.run_for(LOADED / 5)?;

    let other = make_anchor(orders.world.lab.folder())?;
    orders.world.put(
        "trust",
        &json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "MeshTrust",
            "metadata": { "name": "default" }, "spec": { "anchors": [other] },
        })
        .to_string(),
    )?;
    wait_for_anchors(&orders, &anchors, 2, 1)?;
    let mode = std::fs::metadata(&anchors)?.permissions().mode();
    ensure!(mode & 0o044 == 0o044, "the sidecar's user cannot read the anchors any more: mode {mode:o}");
    load.run_for(LOADED * 2 / 5)?;
    orders.world.remove("trust")?;
    wait_for_anchors(&orders, &anchors, 1, 2)?;
    load.run_for(LOADED * 2 / 5)?;

    let after = expiries(&orders)?;
    let outcome = load.finish()?;
    eprintln!("certificates ended at {before:?}, now at {after:?}");
    let lost = outcome.check();
    orders.check_retries()?;
    ensure!(before.iter().zip(&after).all(|(before, after)| after > before), "a certificate was not renewed");
    outcome.check_orders(&orders.executed()?)?;
    lost
}

fn sidecars(orders: &Orders) -> impl Iterator<Item = &Sidecar> {
    orders.servers.iter().map(|server| &server.sidecar).chain([&orders.web_sidecar])
}

fn expiries(orders: &Orders) -> Result<Vec<f64>> {
    sidecars(orders).map(|sidecar| sidecar.metric(EXPIRY, &[])).collect()
}

/// Waits until the file holds `count` anchors and every sidecar has taken a change over for the
/// `times`th time.
fn wait_for_anchors(orders: &Orders, file: &Path, count: usize, times: usize) -> Result<()> {
    let patience = Duration::from_secs(20);
    until(&format!("{count} anchors"), patience, || {
        let there = std::fs::read_to_string(file)?.matches("BEGIN CERTIFICATE").count();
        Ok((there == count).then_some(()))
    })?;
    until("the sidecars to take the anchors over", patience, || {
        let taken =
            |sidecar: &Sidecar| sidecar.process.log().matches("trust anchors reloaded").count() >= times;
        Ok(sidecars(orders).all(taken).then_some(()))
    })
}

/// The certificate of an issuer that is not ours, PEM.
fn make_anchor(folder: &Path) -> Result<String> {
    let (key, pem) = (folder.join("other.key"), folder.join("other.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl
        .args(["-days", "2", "-subj", "/CN=another issuer"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&pem);
    let said = openssl.output()?;
    ensure!(said.status.success(), "{openssl:?}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(std::fs::read_to_string(pem)?)
}
