//! webhook: the API server asks the controller, by the configurations of the chart.

use anyhow::{Context, Result, ensure};
use lab::{Pod, until};
use serde_json::{Value, json};

use crate::corpus::{Case, Verdict, cases};
use crate::crds::server_accepts;
use crate::world::{PATIENCE, World};

const KINDS: [(&str, &str); 2] = [
    ("MutatingWebhookConfiguration", "tidegate-injector"),
    ("ValidatingWebhookConfiguration", "tidegate-validator"),
];

/// Waits until both configurations hold what the Secret holds.
pub(crate) fn told(world: &World) -> Result<()> {
    for (kind, name) in KINDS {
        until(&format!("the bundle of {name}"), PATIENCE, || {
            let secret = world.cluster.get(&["secret", "tidegate-webhook-tls", "-n", world.namespace]);
            let object = world.cluster.get(&[kind, name])?;
            let made = secret.map(|secret| secret["data"]["ca.crt"].clone()).unwrap_or_default();
            let webhooks = object["webhooks"].as_array().context("it has webhooks")?;
            let all = webhooks.iter().all(|webhook| webhook["clientConfig"]["caBundle"] == made);
            Ok((made.is_string() && all).then_some(()))
        })?;
    }
    Ok(())
}

/// Leads the Service's port for the webhook to the controller, as kube-proxy would on the control plane.
fn lead(world: &World, controller: &Pod) -> Result<()> {
    let service = world.cluster.get(&["service", "tidegate-controller", "-n", world.namespace])?;
    let address = service["spec"]["clusterIP"].as_str().context("it has an address")?;
    // By lines: nft takes no brace that closes a chain on the line of a rule.
    let table = format!(
        "table ip webhook {{
           chain output {{
             type nat hook output priority -100
             ip daddr {address} tcp dport 443 dnat to {}:8443
           }}
         }}",
        controller.ip()
    );
    let control = world.cluster.control();
    control.run(control.command("nft").arg(table)).map(drop)
}

pub(crate) fn a_pod_gets_its_sidecar_and_a_policy_its_review_when_the_api_server_asks(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-hook")?;
    world.define()?;
    world.shop()?;
    world.cluster.apply(&world.render(&["templates/service.yaml", "templates/injection.yaml"])?)?;
    let (controller, mut process) = world.controller("hook-1")?;
    world.serves(&mut process)?;
    lead(world, &controller)?;
    world.cluster.apply(&world.render(&["templates/webhooks.yaml"])?)?;
    told(world)?;

    let pod = |labels: Value| {
        let meta = json!({"name": "asked", "namespace": "shop", "labels": labels});
        let spec = json!({"containers": [{"name": "app", "image": "app"}]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}).to_string()
    };
    let dry = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    // The API server reads its webhooks a moment after they are written.
    let made = |labels: Value| -> Result<Value> {
        let out = world.api().tell(&dry, &pod(labels))?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(serde_json::from_slice(&out.stdout)?)
    };
    let injected = until("an injected pod", PATIENCE, || {
        let said = made(json!({}))?;
        Ok(said["spec"]["initContainers"].is_array().then_some(said))
    })?;
    let init = injected["spec"]["initContainers"].as_array().context("it has init containers")?;
    let names: Vec<&str> = init.iter().filter_map(|one| one["name"].as_str()).collect();
    ensure!(names == ["tidegate-redirect", "tidegate-proxy"], "{names:?}");
    let said = made(json!({"tidegate.dev/inject": "disabled"}))?;
    ensure!(said["spec"]["initContainers"].is_null(), "it said no: {said:#}");
    reviewed(world)?;
    let metrics = controller.get("http://127.0.0.1:8087/metrics")?.1;
    let counted = "tidegate_controller_admissions_total{webhook=\"inject\",outcome=\"injected\"}";
    ensure!(metrics.contains(counted), "{counted} is missing in {metrics}");
    world.cluster.kubectl(&["delete", KINDS[0].0, KINDS[0].1])?;
    world.cluster.kubectl(&["delete", KINDS[1].0, KINDS[1].1]).map(drop)
}

/// What the API server's own rules let in is refused by the webhook, and nothing else is.
fn reviewed(world: &World) -> Result<()> {
    let named = |(i, case)| (format!("case-{i:03}"), case);
    let cases: Vec<_> = cases().into_iter().enumerate().map(named).collect();
    let (accepted, refusals) = server_accepts(&world.cluster, &cases)?;
    for (name, case) in &cases {
        let wanted = case.verdict == Verdict::Accepted;
        ensure!(accepted.contains(name) == wanted, "{}: {refusals}", case.document(name));
    }
    // The words of a webhook come without the name of the object.
    let by = "admission webhook \"validate.tidegate.dev\" denied the request";
    let denied = refusals.lines().filter(|line| line.contains(by)).count();
    let is_beyond = |case: &Case| matches!(case.verdict, Verdict::RefusedByTheReaderAlone(_));
    let beyond = cases.iter().filter(|(_, case)| is_beyond(case)).count();
    ensure!(beyond > 0 && denied == beyond, "{denied} of {beyond} are denied by the webhook: {refusals}");
    Ok(())
}

pub(crate) fn the_webhooks_certificate_is_made_and_its_bundle_told_and_healed(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-webhook")?;
    let configurations = world.render(&["templates/webhooks.yaml"])?;
    world.cluster.apply(&configurations)?;
    let (_controller, mut process) = world.controller("webhook-1")?;
    world.serves(&mut process)?;
    told(world)?;
    for (kind, name) in KINDS {
        world.cluster.kubectl(&["delete", kind, name])?;
    }
    // What somebody who replaces them does: the whole objects anew, without a bundle.
    world.cluster.apply(&configurations)?;
    told(world)?;
    for (kind, name) in KINDS {
        world.cluster.kubectl(&["delete", kind, name])?;
    }
    Ok(())
}
