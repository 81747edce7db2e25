//! before: whether a cluster takes Tidegate, and whether the user may put it there.

use std::process::ExitCode;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::finding::{Finding, Report};
use super::mesh::working;
use super::{controller, definitions, meshes, rights};
use crate::answer::{answered, every};
use crate::install;
use crate::operate::Output;

/// Native sidecars are on by default from here on.
const MINOR_LEAST: u32 = 29;

/// Looks at everything an installation into `namespace` needs.
///
/// # Errors
/// When the API server does not answer at all.
pub(super) async fn check(client: &Client, namespace: &str, output: Output) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(output);
    let server = working(output, "API server", server(client)).await?;
    report.tell("Cluster", vec![server, meshes::look(client).await, definitions::gateway(client).await]);
    let made = made(namespace)?;
    report.tell("Permissions", working(output, "permissions", rights::look(client, &made)).await);
    report.tell("What is there", vec![working(output, "installations", present(client)).await]);
    report.end()
}

/// Whether the API server answers, and is new enough.
///
/// # Errors
/// When it does not.
pub(crate) async fn server(client: &Client) -> anyhow::Result<Finding> {
    let version = answered(client.apiserver_version()).await?;
    Ok(of_version(&version.git_version, &version.major, &version.minor))
}

/// Some servers say `29+`.
fn of_version(version: &str, major: &str, minor: &str) -> Finding {
    let object = "API server";
    let number = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>();
    match number {
        Ok(number) if major == "1" && number < MINOR_LEAST => Finding::failed(
            object,
            format!("is Kubernetes {version}: it has no native sidecars"),
            format!("upgrade the cluster to 1.{MINOR_LEAST} or newer"),
        ),
        _ => Finding::ok(object, format!("Kubernetes {version}")),
    }
}

/// All that an installation makes; Helm keeps its releases in Secrets.
fn made(namespace: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects = install::in_namespace(namespace)?;
    objects.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace}}));
    Ok(objects)
}

/// An installation that is there already.
async fn present(client: &Client) -> Finding {
    let object = "Tidegate";
    let deployments: Api<Deployment> = Api::all(client.clone());
    let which = ListParams::default().fields(&format!("metadata.name={}", controller::NAME));
    let mut found = Vec::new();
    let looked = every(&deployments, which, |deployment: Deployment| {
        let version = deployment.labels().get(definitions::OF_VERSION).cloned();
        found.push((deployment.namespace().unwrap_or_default(), version));
    });
    if let Err(error) = looked.await {
        return Finding::unknown(object, error.to_string());
    }
    let Some((namespace, version)) = found.first() else {
        return Finding::ok(object, "is not installed yet");
    };
    let version = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    let said = format!("is installed{version} in namespace {namespace}: a cluster has one");
    Finding::warning(object, said, format!("upgrade it there; tidegate check --namespace {namespace}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_server_without_native_sidecars_is_refused() {
        let level = |minor: &str| of_version("v", "1", minor).level;
        assert_eq!(
            (level("28"), level("28+"), level("29"), level("36")),
            (Level::Failed, Level::Failed, Level::Ok, Level::Ok,)
        );
    }

    #[test]
    fn rights_are_asked_for_all_that_is_installed_where_it_is_installed() {
        let made = made("mesh").unwrap();
        let has = |kind: &str| made.iter().any(|object| object["kind"] == kind);
        assert!(has("Secret") && has("Deployment") && has("CustomResourceDefinition"), "{made:#?}");
        assert!(made.iter().all(|object| object["metadata"]["namespace"] != "tidegate"), "{made:#?}");
    }
}
