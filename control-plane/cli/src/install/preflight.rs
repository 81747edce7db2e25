//! preflight: what would keep an installation from working, all of it, before anything is changed.

use kube::Client;
use kube::api::DynamicObject;
use serde_json::Value;

use super::CONTROLLER;
use crate::check::finding::{Finding, Level};
use crate::check::{before, meshes, rights};
use crate::cluster::Kind;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What has to go first; with the remedy.
    pub(super) obstacles: Vec<String>,
    /// What one should know.
    pub(super) warnings: Vec<String>,
}

impl Found {
    /// What does not work is an obstacle, and what could not be looked at. Another mesh is none: a pod that
    /// both would inject is refused by name.
    pub(super) fn take(&mut self, finding: &Finding) {
        match finding.level {
            Level::Ok => {}
            Level::Warning => self.warnings.push(finding.sentence()),
            Level::Unknown | Level::Failed => self.obstacles.push(finding.sentence()),
        }
    }
}

/// Looks at a cluster into which these objects are to be put.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn look(client: &Client, namespace: &str, objects: &[Value]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let server = before::server(client).await?;
    let all = rights::look(client, objects).await.into_iter().chain([server, meshes::look(client).await]);
    all.for_each(|finding| found.take(&finding));
    let kind = Kind::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
    if let Some(binding) = kind.get(client, CONTROLLER).await? {
        found.obstacles.extend(somebody_elses(&binding, namespace));
    }
    Ok(found)
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
