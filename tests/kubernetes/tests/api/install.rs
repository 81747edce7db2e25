//! install: what Helm and `tidegate install` put into a cluster, and that nothing of it stays.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kubernetes::{Api, chart, image};
use lab::until;
use serde_json::{Value, json};

use crate::world::World;

const CONTROLLER: &str = "system:serviceaccount:tidegate:tidegate-controller";
const HA: &str = "charts/tidegate/values-ha.yaml";
/// Everything that is off by default.
const SWITCHES: &str = "podMonitor.enabled=true,dashboard.enabled=true,networkPolicy.enabled=true,\
                        podDisruptionBudget.enabled=true,controller.callbackSecretNamespaces={square},\
                        image.pullSecrets[0].name=registry,proxy.image=proxy:1";

pub(crate) fn api_server_takes_all_that_the_chart_can_render(world: &mut World) -> Result<()> {
    world.leave()?;
    let api = world.api();
    api.apply(&pod_monitors())?;
    let ha = chart::repository(HA).display().to_string();
    for namespace in [chart::NAMESPACE, "square"] {
        api.kubectl(&["create", "namespace", namespace])?;
    }
    for args in [&[][..], &["--values", &ha], &["--values", &ha, "--set", SWITCHES]] {
        let rendered = chart::render(args)?;
        let how = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        api.feed(&how, &rendered).with_context(|| format!("with {args:?}"))?;
    }
    api.kubectl(&["delete", "namespace", chart::NAMESPACE, "square"])?;
    api.kubectl(&["delete", "customresourcedefinition", "podmonitors.monitoring.coreos.com"])?;
    Ok(())
}

/// As much of the Prometheus operator's kind as lets one be applied.
fn pod_monitors() -> String {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
           "metadata": {"name": "podmonitors.monitoring.coreos.com"},
           "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced",
                    "names": {"kind": "PodMonitor", "plural": "podmonitors"},
                    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
    .to_string()
}

pub(crate) fn helm_installs_upgrades_and_leaves_no_trace(world: &mut World) -> Result<()> {
    world.leave()?;
    let api = world.api();
    api.kubectl(&["create", "namespace", chart::NAMESPACE])?;
    api.kubectl(&["create", "namespace", "square"])?;
    let before = everything(api)?;

    // Helm itself keeps the kinds, unless it is told otherwise.
    let folder = chart::folder();
    let all = ["tidegate", &folder, "--namespace", chart::NAMESPACE, "--set", "crds.keep=false"];
    api.helm(&[&["install"], &all[..]].concat())?;
    make_what_the_controller_makes(api)?;
    controller_may_do_its_work_and_no_more(api)?;

    api.helm(&[&["upgrade"], &all[..], &["--set", "controller.log=debug"]].concat())?;
    let bundles = "jsonpath={.webhooks[*].clientConfig.caBundle}";
    let kept = api.kubectl(&["get", "mutatingwebhookconfiguration/tidegate-injector", "-o", bundles])?;
    ensure!(kept.split_whitespace().count() == 2, "the upgrade took a caBundle: {kept:?}");
    let log =
        api.kubectl(&["get", "deployment/tidegate-controller", "-n", chart::NAMESPACE, "-o", "yaml"])?;
    ensure!(log.contains("debug"), "the upgrade changed nothing: {log}");

    let said = world.tidegate(&["install"])?;
    let told = String::from_utf8_lossy(&said.stderr);
    ensure!(!said.status.success() && told.contains("use helm upgrade"), "{told}");
    let said = world.tidegate(&["uninstall"])?;
    let told = String::from_utf8_lossy(&said.stderr);
    ensure!(!said.status.success() && told.contains("helm uninstall tidegate -n tidegate"), "{told}");

    api.helm(&["uninstall", "tidegate", "--namespace", chart::NAMESPACE, "--wait"])?;
    only_what_was_there(api, &before)?;
    api.kubectl(&["delete", "namespace", "--ignore-not-found", chart::NAMESPACE, "square"]).map(drop)
}

pub(crate) fn tidegate_installs_and_leaves_no_trace(world: &mut World) -> Result<()> {
    world.leave()?;
    let api = world.api();
    api.kubectl(&["create", "namespace", "square"])?;
    let before = everything(api)?;
    let run = |args: &[&str]| -> Result<(bool, String)> {
        let out = world.tidegate(args)?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        Ok((out.status.success(), said))
    };

    let (is_well, printed) = run(&["install", "--dry-run", "--image", image::TIDEGATE])?;
    ensure!(is_well && everything(api)? == before, "--dry-run failed or changed something: {printed}");

    let (is_well, said) = run(&["install", "--image", image::TIDEGATE, "--replicas", "2", "--wait", "0s"])?;
    ensure!(is_well, "{said}");
    let deployment = api.get(&["deployment/tidegate-controller", "-n", chart::NAMESPACE])?;
    ensure!(deployment["spec"]["replicas"] == 2, "{deployment}");
    // What is printed is for others to apply, such as a repository of manifests.
    let how = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--field-manager=tidegate"];
    api.feed(&[&how[..], &["-f", "-"]].concat(), &printed)?;
    make_what_the_controller_makes(api)?;

    let (is_well, said) = run(&["upgrade-check"])?;
    ensure!(!is_well && said.contains("tls.crt holds no certificate"), "{said}");

    api.apply(
        &json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "square", "annotations": {"tidegate.dev/injected": "0.1.0"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]}})
        .to_string(),
    )?;
    let (is_well, said) = run(&["uninstall", "--purge-crds"])?;
    ensure!(!is_well && said.contains("square/web") && said.contains("nothing was changed"), "{said}");
    api.kubectl(&["delete", "pod", "web", "--namespace", "square", "--now"])?;

    let (is_well, said) = run(&["uninstall", "--purge-crds"])?;
    ensure!(is_well, "{said}");
    only_what_was_there(api, &before)?;
    api.kubectl(&["delete", "namespace", "--ignore-not-found", chart::NAMESPACE, "square"]).map(drop)
}

/// What a controller makes at run time, made with its own rights and owned as it owns them: by its role, so
/// that Kubernetes removes them after it.
fn make_what_the_controller_makes(api: &Api) -> Result<()> {
    let role = api.get(&["clusterrole/tidegate-controller"])?;
    let owner = json!([{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                        "name": "tidegate-controller", "uid": role["metadata"]["uid"]}]);
    let object = |kind: &str, version: &str, namespace: &str, name: &str| {
        json!({"apiVersion": version, "kind": kind,
               "metadata": {"name": name, "namespace": namespace, "ownerReferences": owner}})
    };
    let mut objects = vec![
        object("Secret", "v1", chart::NAMESPACE, "tidegate-issuer"),
        object("Secret", "v1", chart::NAMESPACE, "tidegate-webhook-tls"),
        object("Lease", "coordination.k8s.io/v1", chart::NAMESPACE, "tidegate-controller"),
        object("ConfigMap", "v1", "square", "tidegate-anchors"),
    ];
    for secret in &mut objects[..2] {
        secret["type"] = json!("kubernetes.io/tls");
        secret["stringData"] = json!({"tls.crt": "none", "tls.key": "none"});
    }
    for object in objects {
        api.feed(&["create", "--as", CONTROLLER, "-f", "-"], &object.to_string())?;
    }
    let bundle = json!([0, 1].map(|at| {
        json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": BUNDLE})
    }));
    let target = ["mutatingwebhookconfiguration", "tidegate-injector", "--type=json"];
    api.kubectl(&[&["patch", "--as", CONTROLLER], &target[..], &["-p", &bundle.to_string()]].concat())?;
    Ok(())
}

/// The API server wants PEM there, and looks no closer than that it is a certificate.
const BUNDLE: &str = include_str!("bundle.txt");

fn controller_may_do_its_work_and_no_more(api: &Api) -> Result<()> {
    // Verb, group, resource, namespace, name; nothing where all are meant.
    for allowed in [
        "watch  . pods . .",
        "watch  discovery.k8s.io endpointslices . .",
        "patch  tidegate.dev asyncpolicies/status square .",
        "patch  gateway.networking.k8s.io httproutes/status square .",
        "create authentication.k8s.io tokenreviews . .",
        "patch  . configmaps square tidegate-anchors",
        "get    . secrets tidegate tidegate-issuer",
        "update coordination.k8s.io leases tidegate tidegate-controller",
    ] {
        ensure!(may(api, allowed)?, "the controller may not {allowed}");
    }
    for refused in [
        "get    . secrets square .",
        "list   . secrets tidegate .",
        "get    . secrets tidegate another",
        "patch  . configmaps square another",
        "create . pods square .",
        "create . pods/exec square .",
        "patch  admissionregistration.k8s.io mutatingwebhookconfigurations . another",
        "update tidegate.dev asyncpolicies square .",
    ] {
        ensure!(!may(api, refused)?, "the controller may {refused}");
    }
    Ok(())
}

/// Asks the server, not `kubectl auth can-i`, which knows only kinds that are there.
fn may(api: &Api, what: &str) -> Result<bool> {
    let words: Vec<&str> = what.split_whitespace().map(|word| if word == "." { "" } else { word }).collect();
    let &[verb, group, resource, namespace, name] = &words[..] else { bail!("{what:?} has not five words") };
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": CONTROLLER, "resourceAttributes": {"verb": verb, "group": group, "resource": resource,
                 "subresource": subresource, "namespace": namespace, "name": name}}});
    let said = api.feed(&["create", "-o", "json", "-f", "-"], &review.to_string())?;
    let answer: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    answer["status"]["allowed"].as_bool().with_context(|| format!("no answer in {said}"))
}

/// The name of every object there is, but for those that come and go by themselves.
fn everything(api: &Api) -> Result<BTreeSet<String>> {
    let kinds = api.kubectl(&["api-resources", "--verbs=list", "--output=name"])?;
    let kinds: Vec<&str> = kinds.split_whitespace().filter(|kind| !kind.starts_with("events")).collect();
    let list = api.get(&[&kinds.join(","), "--all-namespaces"])?;
    let items = list["items"].as_array().context("a list has items")?;
    let name = |item: &Value| {
        let meta = &item["metadata"];
        format!("{} {} {}", item["kind"], meta["namespace"], meta["name"])
    };
    Ok(items.iter().map(name).collect())
}

fn only_what_was_there(api: &Api, before: &BTreeSet<String>) -> Result<()> {
    let mut left = BTreeSet::new();
    let waited = until("all that was installed to be gone", Duration::from_secs(60), || {
        left = everything(api)?.difference(before).cloned().collect();
        Ok(left.is_empty().then_some(()))
    });
    waited.with_context(|| format!("left: {left:#?}"))
}
