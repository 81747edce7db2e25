//! rights: whether the user may make what an installation makes.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;

use super::finding::Finding;
use crate::answer::answered;
use crate::cluster::Kind;
use crate::operate::AT_ONCE;

/// What an installation does with its objects.
const VERBS: [&str; 2] = ["create", "patch"];

/// Asks the server for the rights over the kinds of these objects, each in its place.
pub(crate) async fn look(client: &Client, objects: &[Value]) -> Vec<Finding> {
    let kind = |object: &Value| {
        let Kind { resource, namespace } = Kind::of(object);
        (resource.group, resource.plural, namespace)
    };
    let kinds: BTreeSet<_> = objects.iter().map(kind).collect();
    let asked = kinds.iter().flat_map(|kind| VERBS.map(|verb| (kind, verb)));
    let asked = asked.map(|((group, plural, namespace), verb)| {
        let attributes = ResourceAttributes {
            group: Some(group.clone()),
            resource: Some(plural.clone()),
            namespace: namespace.clone(),
            verb: Some(verb.to_owned()),
            ..Default::default()
        };
        may(client, attributes)
    });
    let findings: Vec<Finding> =
        stream::iter(asked).buffered(AT_ONCE).filter_map(|finding| async { finding }).collect().await;
    if findings.is_empty() {
        return vec![Finding::ok("you", format!("may make all {} kinds of object", kinds.len()))];
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scripted;

    #[tokio::test]
    async fn what_the_user_may_not_is_named_once_with_its_place() {
        let client = scripted::client(|path| {
            assert_eq!(path, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews?");
            (201, json!({"metadata": {}, "spec": {}, "status": {"allowed": false}}))
        });
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
                                "metadata": {"name": "a", "namespace": "tidegate"}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tidegate"}});
        let findings = look(&client, &[deployment.clone(), namespace, deployment]).await;
        let says: Vec<&str> = findings.iter().map(|finding| finding.says.as_str()).collect();
        assert_eq!(
            says,
            [
                "may not create namespaces in the whole cluster",
                "may not patch namespaces in the whole cluster",
                "may not create deployments in namespace tidegate",
                "may not patch deployments in namespace tidegate",
            ]
        );
    }
}
