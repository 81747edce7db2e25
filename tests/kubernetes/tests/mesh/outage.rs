//! outage: traffic goes on while parts of the cluster are away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes::chart;
use lab::until;
use serde_json::json;

use crate::objects::{self, with_spec};
use crate::queue;
use crate::rollout::{self, Following, wait};
use crate::routes::ROUTES;
use crate::town::{EDGE, PATIENCE, SHOP, Town};

const LEASE: [&str; 4] = ["lease", "tidegate-controller", "-n", chart::NAMESPACE];
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);

/// Ends the client that asks all the while, and looks at what became of its requests.
fn none_failed(town: &Town, client: Following, least: u64) -> Result<()> {
    town.api().kubectl(&["rollout", "restart", "deployment/caller", "-n", SHOP])?;
    let sum = client.figures()?.check(least)?;
    println!("{sum} requests, none failed");
    town.rolled_out(SHOP, "caller")
}

pub(crate) fn traffic_goes_on_while_the_api_server_is_away_for_a_minute(town: &mut Town) -> Result<()> {
    rollout::open(town)?;
    let controller = controllers(town)?;
    let cluster = town.ground.cluster_mut().context("only a cluster of our own is stopped")?;
    cluster.kill("kube-apiserver")?;
    wait(AWAY);
    cluster.start_api_server()?;
    // The client's log cannot be followed without an API server; its pod says at its end what came of all.
    let client = Following::start(town)?;
    none_failed(town, client, 100)?;
    // A change is in force again.
    let mark = json!({"type": "ResponseHeaderModifier",
                      "responseHeaderModifier": {"set": [{"name": "X-Marked", "value": "yes"}]}});
    let rules = json!([{"filters": [mark], "backendRefs": [{"name": "orders", "port": 80}]}]);
    let parents = json!([{"group": "", "kind": "Service", "name": "orders"}]);
    let spec = json!({"parentRefs": parents, "rules": rules});
    town.apply(&[with_spec(ROUTES, "HTTPRoute", (SHOP, "marked"), spec)])?;
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.header("x-marked") == "yes")?;
    town.api().kubectl(&["delete", "httproute", "marked", "-n", SHOP])?;
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.is_of("orders"))?;
    ensure!(controllers(town)? == controller, "the controller was replaced or restarted meanwhile");
    Ok(())
}

/// The names of the controller's pods, and how often each was restarted.
fn controllers(town: &Town) -> Result<Vec<(String, u64)>> {
    let list = town.api().get(&[
        "pods",
        "-n",
        chart::NAMESPACE,
        "-l",
        "app.kubernetes.io/name=tidegate-controller",
    ])?;
    let all = list["items"].as_array().into_iter().flatten();
    let live = all.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(live
        .map(|pod| {
            let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
            (pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), restarts)
        })
        .collect())
}

pub(crate) fn another_replica_takes_over_when_the_one_that_writes_is_killed(town: &mut Town) -> Result<()> {
    rollout::open(town)?;
    let client = Following::start(town)?;
    town.helm("upgrade", &["--set", "controller.replicas=2"])?;
    // A holder is called after its pod, and has a part of its own behind it.
    let holder = || -> Result<String> {
        let lease = town.api().get(&LEASE)?;
        let name = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        Ok(name.split('_').next().unwrap_or_default().to_owned())
    };
    let first = until("somebody to hold the Lease", PATIENCE, || {
        let name = holder()?;
        Ok(controllers(town)?.iter().any(|(pod, _)| *pod == name).then_some(name))
    })?;
    town.api().kubectl(&["delete", "pod", &first, "-n", chart::NAMESPACE, "--force", "--grace-period=0"])?;
    let second = until("another to hold the Lease", PATIENCE, || {
        let name = holder()?;
        Ok((name != first && !name.is_empty()).then_some(name))
    })?;
    println!("the Lease went from {first} to {second}");
    // Proxies hear of changes again, from whomever.
    for namespace in [SHOP] {
        for app in ["web", "orders"] {
            let pod = town.pod(namespace, app)?;
            until(&format!("{pod} to be connected"), PATIENCE, || {
                let connected =
                    town.counted(namespace, &pod, "tidegate_sidecar_controller_connected", &[])?;
                Ok((connected == 1.0).then_some(()))
            })?;
        }
    }
    town.scale(SHOP, "orders", 2)?;
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.is_of("orders"))?;
    town.scale(SHOP, "orders", 1)?;
    town.helm("upgrade", &["--set", "controller.replicas=1"])?;
    none_failed(town, client, 100)
}

pub(crate) fn traffic_goes_to_others_when_a_node_is_cut_off(town: &mut Town) -> Result<()> {
    let mut spread = objects::deployment(SHOP, "spread", &objects::nginx());
    spread["spec"]["replicas"] = json!(2);
    spread["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}}}]);
    // The first node has the control plane; the client must be beside it.
    let mut near = objects::deployment(SHOP, "near", &objects::client());
    near["spec"]["template"]["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-1"});
    town.apply(&[spread, objects::service(SHOP, "spread", "spread"), near])?;
    town.rolled_out(SHOP, "spread")?;
    town.rolled_out(SHOP, "near")?;
    let client = (SHOP, "deploy/near");
    town.expect(client, &["http://spread/"], |reply| reply.is_of("spread"))?;
    let pods = town.pods(SHOP, "spread")?;
    let here = pods.iter().find(|pod| pod["spec"]["nodeName"] == "node-1").context("one is on node-1")?;
    let here = here["metadata"]["name"].as_str().context("a pod has a name")?.to_owned();
    let cluster = town.ground.cluster().context("only a node of our own is cut off")?;
    cluster.cut_off(1)?;
    let result = town
        .expect(client, &["http://spread/"], |reply| reply.status == 200 && reply.header("x-server") == here);
    cluster.join_again(1)?;
    result?;
    // What was cut off is reached again, and hears of changes.
    let web = town.pod(EDGE, "web")?;
    until(&format!("{web} to be connected"), PATIENCE, || {
        let connected = town.counted(EDGE, &web, "tidegate_sidecar_controller_connected", &[])?;
        Ok((connected == 1.0).then_some(()))
    })?;
    town.expect((EDGE, "deploy/web"), &["http://spread.shop/"], |reply| reply.is_of("spread"))?;
    town.api()
        .kubectl(&["delete", "deployment/spread", "deployment/near", "service/spread", "-n", SHOP])
        .map(drop)
}

/// A sidecar's death breaks what is on its way, and nothing more.
pub(crate) fn a_killed_sidecar_is_back_and_carries_traffic_again(town: &mut Town) -> Result<()> {
    let name = town.pod(SHOP, "web")?;
    queue::kill(town, &name)?;
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.is_of("orders"))
}
