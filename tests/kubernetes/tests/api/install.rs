//! install: what Helm and `tidegate install` put into a cluster, and that nothing of it stays.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kubernetes::{Api, chart, image};
use lab::until;
use serde_json::{Value, json};

use crate::webhook::told;
use crate::world::{PATIENCE, World};

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
    let api = world.api().clone();
    api.kubectl(&["create", "namespace", chart::NAMESPACE])?;
    api.apply(SQUARE)?;
    let before = everything(&api)?;

    // Helm itself keeps the kinds, unless it is told otherwise.
    let folder = chart::folder();
    let all = ["tidegate", &folder, "--namespace", chart::NAMESPACE, "--set", "crds.keep=false"];
    api.helm(&[&["install"], &all[..]].concat())?;
    controller_makes_what_its_role_owns(world, "helm-1")?;
    controller_may_do_its_work_and_no_more(&api)?;

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
    only_what_was_there(&api, &before)?;
    api.kubectl(&["delete", "namespace", "--ignore-not-found", chart::NAMESPACE, "square"]).map(drop)
}

pub(crate) fn tidegate_installs_and_leaves_no_trace(world: &mut World) -> Result<()> {
    world.leave()?;
    let api = world.api().clone();
    api.apply(SQUARE)?;
    let before = everything(&api)?;

    let (is_well, printed) = run(world, &["install", "--dry-run", "--image", image::TIDEGATE])?;
    ensure!(is_well && everything(&api)? == before, "--dry-run failed or changed something: {printed}");

    let (is_well, said) =
        run(world, &["install", "--image", image::TIDEGATE, "--replicas", "2", "--wait", "0s"])?;
    ensure!(is_well, "{said}");
    let deployment = api.get(&["deployment/tidegate-controller", "-n", chart::NAMESPACE])?;
    ensure!(deployment["spec"]["replicas"] == 2, "{deployment}");
    // What is printed is for others to apply, such as a repository of manifests.
    let how = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--field-manager=tidegate"];
    api.feed(&[&how[..], &["-f", "-"]].concat(), &printed)?;
    controller_makes_what_its_role_owns(world, "install-1")?;

    let (is_well, said) = run(world, &["upgrade-check"])?;
    ensure!(is_well && said.contains("all of version"), "{said}");

    // Nobody answers for the webhook any more, and it looks as if somebody had.
    api.apply(
        &json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "square", "annotations": {"tidegate.dev/injected": "0.1.0"},
                     "labels": {"tidegate.dev/inject": "disabled"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]}})
        .to_string(),
    )?;
    let (is_well, said) = run(world, &["uninstall", "--purge-crds"])?;
    ensure!(!is_well && said.contains("square/web") && said.contains("nothing was changed"), "{said}");
    api.kubectl(&["delete", "pod", "web", "--namespace", "square", "--now"])?;

    let (is_well, said) = run(world, &["uninstall", "--purge-crds"])?;
    ensure!(is_well, "{said}");
    only_what_was_there(&api, &before)?;
    api.kubectl(&["delete", "namespace", "--ignore-not-found", chart::NAMESPACE, "square"]).map(drop)
}

/// Whether our command line ended well, and what it said.
fn run(world: &World, args: &[&str]) -> Result<(bool, String)> {
    let out = world.tidegate(args)?;
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    Ok((out.status.success(), said))
}

/// A namespace whose pods ask for sidecars.
const SQUARE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: square, labels: {tidegate.dev/inject: enabled}}
";

/// What the controller makes at run time is there, and each of it owned by the role of the installation, so
/// that Kubernetes removes it after that. As its pods do, the controller ends before anything is taken out.
fn controller_makes_what_its_role_owns(world: &mut World, name: &str) -> Result<()> {
    world.namespace = chart::NAMESPACE;
    let (_pod, mut process) = world.controller(name)?;
    world.serves(&mut process)?;
    told(world)?;
    let role = world.cluster.get(&["clusterrole/tidegate-controller"])?["metadata"]["uid"].clone();
    for (object, namespace) in [
        ("secret/tidegate-issuer", chart::NAMESPACE),
        ("secret/tidegate-webhook-tls", chart::NAMESPACE),
        ("lease/tidegate-controller", chart::NAMESPACE),
        ("configmap/tidegate-anchors", "square"),
    ] {
        let made = process.until(&format!("{object} in {namespace}"), PATIENCE, |_| {
            Ok(world.cluster.get(&[object, "-n", namespace]).ok())
        })?;
        let owners = &made["metadata"]["ownerReferences"];
        ensure!(role.is_string() && owners[0]["uid"] == role, "{object} belongs to {owners}, not to {role}");
    }
    Ok(())
}

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
        "get    rbac.authorization.k8s.io clusterroles . tidegate-controller",
        "update coordination.k8s.io leases tidegate tidegate-controller",
    ] {
        ensure!(may(api, allowed)?, "the controller may not {allowed}");
    }
    for refused in [
        "get    . secrets square .",
        "list   . secrets tidegate .",
        "get    . secrets tidegate another",
        "patch  . configmaps square another",
        "get    rbac.authorization.k8s.io clusterroles . cluster-admin",
        "patch  rbac.authorization.k8s.io clusterroles . tidegate-controller",
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
    // Kubernetes gives these to every namespace, a moment after it was made.
    let given = ["\"kube-root-ca.crt\"", "\"default\""];
    let is_meant = |name: &String| !given.iter().any(|given| name.ends_with(given));
    Ok(items.iter().map(name).filter(is_meant).collect())
}

fn only_what_was_there(api: &Api, before: &BTreeSet<String>) -> Result<()> {
    let mut left = BTreeSet::new();
    let waited = until("all that was installed to be gone", Duration::from_secs(60), || {
        left = everything(api)?.difference(before).cloned().collect();
        Ok(left.is_empty().then_some(()))
    });
    waited.with_context(|| format!("left: {left:#?}"))
}
