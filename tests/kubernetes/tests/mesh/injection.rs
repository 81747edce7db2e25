//! injection: pods of every kind get their sidecar, work with it, and end with it.

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::{Value, json};

use crate::objects::{self, with_spec};
use crate::town::{EDGE, PATIENCE, SHOP, Town};

/// The names of a pod's init containers.
fn init(pod: &Value) -> Vec<&str> {
    let all = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    all.filter_map(|container| container["name"].as_str()).collect()
}

/// With mTLS: the server's sidecar counts the client's identity, the server sees it in a header, and the
/// client's sidecar counts the attempt.
pub(crate) fn a_request_goes_through_both_sidecars_and_bears_the_clients_identity(
    town: &mut Town,
) -> Result<()> {
    for namespace in [SHOP, EDGE] {
        let (web, orders) = (town.pod(namespace, "web")?, town.pod(SHOP, "orders")?);
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/web");
        let by = format!("client=\"{identity}\"");
        let peers = "tidegate_sidecar_peer_requests_total";
        let before = town.counted(SHOP, &orders, peers, &[&by])?;
        let own = format!("web.{namespace}.serviceaccount.identity");
        town.expect((namespace, "deploy/web"), &["http://orders.shop/"], |reply| {
            let client = reply.seen("client");
            reply.is_of("orders") && (client == identity || client.starts_with(&own))
        })?;
        let after = town.counted(SHOP, &orders, peers, &[&by])?;
        ensure!(after >= before + 16.0, "{before}, then {after} requests of {identity}");
        let tried =
            town.counted(namespace, &web, "tidegate_request_endpoint_attempts_total", &["success"])?;
        ensure!(tried >= 16.0, "{web} counts {tried} attempts");
    }
    Ok(())
}

pub(crate) fn pods_of_a_stateful_set_have_sidecars_and_are_reached_by_their_names(
    town: &mut Town,
) -> Result<()> {
    let mut set = objects::deployment(SHOP, "db", &objects::nginx());
    set["kind"] = json!("StatefulSet");
    set["spec"] = json!({"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                         "podManagementPolicy": "Parallel", "template": objects::template("db", &objects::nginx())});
    let mut service = objects::service(SHOP, "db", "db");
    service["spec"]["clusterIP"] = json!("None");
    service["spec"]["ports"] = json!([{"name": "http", "port": 8080, "appProtocol": "http"}]);
    town.apply(&[service, set])?;
    town.rolled_out(SHOP, "statefulset/db")?;
    for name in ["db-0", "db-1"] {
        let pod = town.api().get(&["pod", name, "-n", SHOP])?;
        ensure!(init(&pod) == ["tidegate-redirect", "tidegate-proxy"], "{:?}", init(&pod));
        let url = format!("http://{name}.db.shop:8080/");
        town.expect((SHOP, "deploy/web"), &[&url], |reply| {
            reply.header("x-server") == name && !reply.seen("client").is_empty()
        })?;
    }
    town.api().kubectl(&["delete", "statefulset/db", "service/db", "-n", SHOP, "--wait=false"]).map(drop)
}

pub(crate) fn a_job_and_a_cron_job_have_the_network_and_end_with_their_sidecars(
    town: &mut Town,
) -> Result<()> {
    let ask = objects::running(&["curl", "-sS", "--fail", "--max-time", "20", "http://orders/"]);
    let mut template = objects::template("once", &ask);
    template["spec"]["restartPolicy"] = json!("Never");
    let job = json!({"backoffLimit": 0, "template": template});
    let cron = json!({"schedule": "0 3 29 2 *", "jobTemplate": {"spec": job}});
    town.apply(&[
        with_spec("batch/v1", "Job", (SHOP, "once"), job),
        with_spec("batch/v1", "CronJob", (SHOP, "seldom"), cron),
    ])?;
    town.api().kubectl(&["create", "job", "-n", SHOP, "now", "--from=cronjob/seldom"])?;
    for name in ["once", "now"] {
        let ended = until(&format!("the end of job {name}"), PATIENCE, || {
            let job = town.api().get(&["job", name, "-n", SHOP])?;
            ensure!(job["status"]["failed"].as_u64().unwrap_or(0) == 0, "it failed: {}", job["status"]);
            Ok((job["status"]["succeeded"] == 1).then_some(()))
        });
        ended.with_context(|| format!("job {name}"))?;
        let said = town.api().kubectl(&["logs", "-n", SHOP, &format!("job/{name}"), "-c", "app"])?;
        ensure!(said.contains("default.shop.serviceaccount"), "the server saw nobody it knows: {said}");
    }
    town.api().kubectl(&["delete", "job/once", "job/now", "cronjob/seldom", "-n", SHOP]).map(drop)
}

pub(crate) fn a_pod_on_its_nodes_network_is_refused_when_it_asks_and_runs_without_when_its_namespace_does(
    town: &mut Town,
) -> Result<()> {
    let mut pod = objects::pod(SHOP, "host", &objects::client());
    pod["spec"]["hostNetwork"] = json!(true);
    town.apply(&[pod.clone()])?;
    let made = town.api().get(&["pod", "host", "-n", SHOP])?;
    let why = made["metadata"]["annotations"]["tidegate.dev/not-injected"].as_str().unwrap_or_default();
    ensure!(init(&made).is_empty() && why.contains("hostNetwork"), "{:?} {why:?}", init(&made));
    town.api().kubectl(&["delete", "pod", "host", "-n", SHOP, "--now", "--wait=false"])?;
    pod["metadata"]["name"] = json!("asks");
    pod["metadata"]["labels"]["tidegate.dev/inject"] = json!("enabled");
    refused(town, &pod, &["hostNetwork"])
}

pub(crate) fn an_annotation_that_cannot_be_honoured_refuses_the_pod_and_names_itself(
    town: &mut Town,
) -> Result<()> {
    let mut pod = objects::pod(SHOP, "wrong", &objects::client());
    pod["metadata"]["annotations"] = json!({"tidegate.dev/proxy-workers": "many"});
    refused(town, &pod, &["tidegate.dev/proxy-workers", "many"])?;

    let mut deployment = objects::deployment(SHOP, "wrong", &objects::client());
    deployment["spec"]["template"]["metadata"]["annotations"] = pod["metadata"]["annotations"].clone();
    town.apply(&[deployment])?;
    let told = until("an event of it", PATIENCE, || {
        let events = town.api().kubectl(&["get", "events", "-n", SHOP, "-o", "json"])?;
        let told = events.contains("FailedCreate") && events.contains("tidegate.dev/proxy-workers");
        Ok(told.then_some(()))
    });
    town.api().kubectl(&["delete", "deployment", "wrong", "-n", SHOP])?;
    told
}

fn refused(town: &Town, pod: &Value, words: &[&str]) -> Result<()> {
    let told = town.api().apply(&pod.to_string()).err().context("it is taken")?;
    let told = format!("{told:#}");
    let told = told.split("\nof\n").next().unwrap_or_default();
    ensure!(words.iter().all(|word| told.contains(word)), "{told}");
    Ok(())
}

/// The pod as it was stored is created again, by another name.
pub(crate) fn a_second_injection_changes_nothing(town: &mut Town) -> Result<()> {
    let first = town.api().get(&["pod", &town.pod(SHOP, "web")?, "-n", SHOP])?;
    let mut again = json!({"apiVersion": "v1", "kind": "Pod", "spec": first["spec"], "metadata": {
        "name": "again", "namespace": SHOP, "annotations": first["metadata"]["annotations"],
        "labels": {"app": "again"}}});
    town.apply(&[again.clone()])?;
    let made = town.api().get(&["pod", "again", "-n", SHOP])?;
    town.api().kubectl(&["delete", "pod", "again", "-n", SHOP, "--now", "--wait=false"])?;
    for field in ["initContainers", "containers", "volumes"] {
        ensure!(made["spec"][field] == again["spec"][field].take(), "{field}: {:#}", made["spec"][field]);
    }
    Ok(())
}

/// What the kubelet asks has no identity.
pub(crate) fn probes_reach_an_application_that_lets_nobody_in(town: &mut Town) -> Result<()> {
    let orders = town.pod(SHOP, "orders")?;
    let policy = json!({"selector": {"matchLabels": {"app": "orders"}}, "default": "Deny", "rules": []});
    town.apply(&[with_spec("tidegate.dev/v1alpha1", "AccessPolicy", (SHOP, "nobody"), policy)])?;
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.status == 403)?;
    // Both probes are asked each second, and three failures have a consequence.
    crate::rollout::wait(std::time::Duration::from_secs(5));
    let pod = town.api().get(&["pod", &orders, "-n", SHOP])?;
    town.api().kubectl(&["delete", "accesspolicy", "nobody", "-n", SHOP])?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["ready"] == true && status["restartCount"] == 0, "{status:#}");
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.is_of("orders"))
}
