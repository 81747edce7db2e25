//! preflight: what would keep an installation from working, all of it, before anything is changed.

use std::collections::BTreeSet;

use anyhow::Context as _;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::Value;

use super::CONTROLLER;
use crate::cluster::{Kind, told};

/// Native sidecars are on by default from here on.
const MINOR_LEAST: u32 = 29;
/// By what the injectors of other meshes are known.
const OTHERS: [(&str, &str); 4] = [
    ("istio-sidecar-injector", "Istio"),
    ("linkerd-proxy-injector", "Linkerd"),
    ("kuma-admission", "Kuma"),
    ("consul-connect-injector", "Consul"),
];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What has to go first; with the remedy.
    pub(super) obstacles: Vec<String>,
    /// What one should know.
    pub(super) warnings: Vec<String>,
}

/// Looks at a cluster into which these objects are to be put.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn look(client: &Client, namespace: &str, objects: &[Value]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let version = client.apiserver_version().await.map_err(told)?;
    found.obstacles.extend(too_old(&version.major, &version.minor));
    found.obstacles.extend(missing_rights(client, objects).await?);
    let kind = Kind::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
    if let Some(binding) = kind.get(client, CONTROLLER).await? {
        found.obstacles.extend(somebody_elses(&binding, namespace));
    }
    let kind = Kind::new("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", None);
    let names = kind.list(client, "").await?.into_iter().filter_map(|webhook| webhook.metadata.name);
    found.warnings.extend(other_meshes(&names.collect::<Vec<_>>()));
    Ok(found)
}

/// Some servers say `29+`.
pub(super) fn too_old(major: &str, minor: &str) -> Option<String> {
    let number: u32 = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    (major == "1" && number < MINOR_LEAST).then(|| {
        format!(
            "the server is Kubernetes {major}.{minor}, sidecars need 1.{MINOR_LEAST}: upgrade the cluster"
        )
    })
}

/// An installation that is not to be changed by hand: Helm's, or one in another namespace.
pub(super) fn somebody_elses(binding: &DynamicObject, namespace: &str) -> Option<String> {
    let helm = |key: &str| {
        let annotations = binding.metadata.annotations.as_ref()?;
        annotations.get(&format!("meta.helm.sh/{key}")).cloned()
    };
    if let (Some(release), Some(at)) = (helm("release-name"), helm("release-namespace")) {
        return Some(format!(
            "Helm has installed Tidegate as release {release} in namespace {at}: use helm upgrade"
        ));
    }
    let at = binding.data["subjects"][0]["namespace"].as_str()?;
    (at != namespace).then(|| {
        format!(
            "Tidegate is installed in namespace {at}, and a cluster has one: name it with --namespace {at}"
        )
    })
}

/// Another mesh is no obstacle: a pod that both would inject is refused by name.
pub(super) fn other_meshes(webhooks: &[String]) -> Vec<String> {
    let of = |(name, mesh): &(&str, &str)| {
        webhooks.iter().any(|webhook| webhook.starts_with(name)).then(|| {
            format!(
                "{mesh} injects pods here too: a pod can have one sidecar, so a namespace one mesh's label"
            )
        })
    };
    OTHERS.iter().filter_map(of).collect()
}

async fn missing_rights(client: &Client, objects: &[Value]) -> anyhow::Result<Vec<String>> {
    let mut asked = BTreeSet::new();
    let mut missing = Vec::new();
    for kind in objects.iter().map(Kind::of) {
        for verb in ["create", "patch"] {
            let what = (kind.resource.group.clone(), kind.resource.plural.clone(), kind.namespace.clone());
            if asked.insert((verb, what)) && !may(client, &kind, verb).await? {
                let place = kind.namespace.as_ref().map_or_else(
                    || "in the whole cluster".to_owned(),
                    |namespace| format!("in namespace {namespace}"),
                );
                missing.push(format!(
                    "you may not {verb} {} {place}: ask whoever administrates the cluster",
                    kind.resource.plural
                ));
            }
        }
    }
    Ok(missing)
}

/// Whether the user may do this to the objects of a kind.
async fn may(client: &Client, kind: &Kind, verb: &str) -> anyhow::Result<bool> {
    let attributes = ResourceAttributes {
        group: Some(kind.resource.group.clone()),
        namespace: kind.namespace.clone(),
        resource: Some(kind.resource.plural.clone()),
        verb: Some(verb.to_owned()),
        ..Default::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.map_err(told)?;
    Ok(answer.status.context("the server reviewed no access")?.allowed)
}
