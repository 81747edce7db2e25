//! before: whether a cluster takes Tidegate, and whether the user may put it there.

use std::process::ExitCode;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};

use super::finding::{Finding, Report};
use super::mesh::working;
use super::{controller, definitions, meshes};
use crate::answer::{answered, every};
use crate::operate::{AT_ONCE, Output};
use crate::print::count;

/// Native sidecars are on by default from here on.
const MINOR_LEAST: u32 = 29;

/// What an installation makes: group, kind, and whether it lies in the namespace.
const MADE: [(&str, &str, bool); 13] = [
    ("", "namespaces", false),
    ("", "configmaps", true),
    // Helm keeps its releases in them.
    ("", "secrets", true),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("apps", "deployments", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", false),
];

/// Looks at everything an installation into `namespace` needs.
///
/// # Errors
/// When the API server does not answer at all.
pub(super) async fn check(client: &Client, namespace: &str, output: Output) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(output);
    let server = working(output, "API server", server(client)).await?;
    report.tell("Cluster", vec![server, meshes::look(client).await, definitions::gateway(client).await]);
    report.tell("Permissions", working(output, "permissions", permissions(client, namespace)).await);
    report.tell("What is there", vec![working(output, "installations", present(client)).await]);
    report.end()
}

/// Whether the API server answers, and is new enough.
///
/// # Errors
/// When it does not.
pub(super) async fn server(client: &Client) -> anyhow::Result<Finding> {
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

/// Whether the user may make everything.
async fn permissions(client: &Client, namespace: &str) -> Vec<Finding> {
    let asked = MADE.iter().flat_map(|made| ["create", "patch"].map(|verb| (made, verb)));
    let asked = asked.map(|((group, resource, is_inside), verb)| {
        let attributes = ResourceAttributes {
            group: Some((*group).to_owned()),
            resource: Some((*resource).to_owned()),
            namespace: is_inside.then(|| namespace.to_owned()),
            verb: Some(verb.to_owned()),
            ..Default::default()
        };
        may(client, attributes)
    });
    let findings: Vec<Finding> =
        stream::iter(asked).buffered(AT_ONCE).filter_map(|finding| async { finding }).collect().await;
    if findings.is_empty() {
        return vec![Finding::ok("you", format!("may make all {}", count(MADE.len(), "kind of object")))];
    }
    findings
}

/// None when the user may.
async fn may(client: &Client, attributes: ResourceAttributes) -> Option<Finding> {
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    let place = match &attributes.namespace {
        Some(namespace) => format!("in namespace {namespace}"),
        None => "in the whole cluster".to_owned(),
    };
    let what = format!("{} {} {place}", said(&attributes.verb), said(&attributes.resource));
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    match answered(reviews.create(&PostParams::default(), &review)).await {
        Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => None,
        Ok(_) => {
            Some(Finding::failed("you", format!("may not {what}"), "ask whoever administrates the cluster"))
        }
        Err(error) => Some(Finding::unknown(what, error.to_string())),
    }
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
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;
    use crate::scripted;

    #[test]
    fn a_server_without_native_sidecars_is_refused() {
        let level = |minor: &str| of_version("v", "1", minor).level;
        assert_eq!(
            (level("28"), level("28+"), level("29"), level("36")),
            (Level::Failed, Level::Failed, Level::Ok, Level::Ok,)
        );
    }

    #[tokio::test]
    async fn what_the_user_may_not_is_named_with_its_place() {
        let client = scripted::client(|path| {
            assert_eq!(path, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews?");
            (201, json!({"metadata": {}, "spec": {}, "status": {"allowed": false}}))
        });
        let findings = permissions(&client, "tidegate").await;
        assert_eq!(findings.len(), 2 * MADE.len());
        let says: Vec<&str> = findings.iter().map(|finding| finding.says.as_str()).collect();
        assert!(says.contains(&"may not create namespaces in the whole cluster"), "{says:?}");
        assert!(says.contains(&"may not patch deployments in namespace tidegate"), "{says:?}");
    }
}
