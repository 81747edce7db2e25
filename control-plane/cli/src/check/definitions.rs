//! definitions: the kinds that Tidegate brings, and the Gateway API's, as the cluster has them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt as _};

use super::finding::Finding;
use crate::answer::answered;

/// The group of our kinds.
pub(super) const GROUP: &str = "tidegate.dev";
/// The version that this program knows.
pub(super) const VERSION: &str = "v1alpha1";
/// What stands on every object of an installation.
pub(super) const OF_VERSION: &str = "app.kubernetes.io/version";
/// This program's own.
pub(super) const OURS: &str = env!("CARGO_PKG_VERSION");

/// Looks at our kinds.
pub(super) async fn ours(client: &Client) -> Vec<Finding> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut findings = Vec::new();
    for definition in resources::crds() {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let object = format!("CustomResourceDefinition {name}");
        findings.push(match answered(definitions.get_opt(&name)).await {
            Ok(Some(definition)) => ours_is(object, &definition),
            Ok(None) => Finding::failed(
                object,
                "is not there",
                "tidegate install, or helm upgrade with crds.install=true",
            ),
            Err(error) => Finding::unknown(object, error.to_string()),
        });
    }
    findings
}

fn ours_is(object: String, definition: &CustomResourceDefinition) -> Finding {
    let versions = &definition.spec.versions;
    let served: Vec<&str> =
        versions.iter().filter(|version| version.served).map(|version| version.name.as_str()).collect();
    let remedy = "bring the definitions to the controller's version: tidegate install, or helm upgrade";
    if !served.contains(&VERSION) {
        let said = format!("serves {}, this tidegate knows {VERSION}", served.join(", "));
        return Finding::failed(object, said, remedy);
    }
    if !is_established(definition) {
        return Finding::failed(
            object,
            "is not established: another definition has its names",
            format!("kubectl describe crd {}", definition.name_any()),
        );
    }
    match definition.labels().get(OF_VERSION) {
        Some(version) if version != OURS => {
            Finding::warning(object, format!("is of version {version}, this tidegate of {OURS}"), remedy)
        }
        _ => Finding::ok(object, format!("serves {}", served.join(", "))),
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Looks at the Gateway API's kinds: without them there are no routes, and all else works.
pub(super) async fn gateway(client: &Client) -> Finding {
    let object = "Gateway API";
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    match answered(definitions.get_opt("httproutes.gateway.networking.k8s.io")).await {
        Ok(Some(definition)) => gateway_is(object, &definition),
        Ok(None) => Finding::ok(object, "is not installed: HTTPRoute and GRPCRoute can be added at any time"),
        Err(error) => Finding::unknown(object, error.to_string()),
    }
}

fn gateway_is(object: &str, definition: &CustomResourceDefinition) -> Finding {
    let bundle = definition.annotations().get("gateway.networking.k8s.io/bundle-version");
    let bundle = bundle.map_or("an unknown version", String::as_str);
    let is_served = definition.spec.versions.iter().any(|version| version.name == "v1" && version.served);
    if is_served {
        return Finding::ok(object, format!("{bundle}, HTTPRoute v1 is served"));
    }
    let said = format!("{bundle} does not serve HTTPRoute v1: routes are not read");
    Finding::warning(object, said, "install the Gateway API's CRDs of version 1.0 or newer")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::Level;
    use super::*;

    fn definition(version: &str, label: &str, established: &str) -> CustomResourceDefinition {
        let names = json!({"kind": "AsyncPolicy", "plural": "asyncpolicies"});
        let versions = json!([{"name": version, "served": true, "storage": true}]);
        let conditions = json!([{"type": "Established", "status": established}]);
        let labels = if label.is_empty() { Value::Null } else { json!({ OF_VERSION: label }) };
        serde_json::from_value(json!({
            "metadata": {"name": "asyncpolicies.tidegate.dev", "labels": labels},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": versions},
            "status": {"conditions": conditions, "acceptedNames": names, "storedVersions": [version]},
        }))
        .unwrap()
    }

    #[test]
    fn a_definition_must_serve_the_version_that_is_known() {
        let level = |version, label, established| {
            ours_is("crd".to_owned(), &definition(version, label, established)).level
        };
        assert_eq!(level(VERSION, OURS, "True"), Level::Ok);
        assert_eq!(level(VERSION, "", "True"), Level::Ok, "applied by hand");
        assert_eq!(level(VERSION, "9.9.9", "True"), Level::Warning);
        assert_eq!(level("v1beta7", OURS, "True"), Level::Failed);
        assert_eq!(level(VERSION, OURS, "False"), Level::Failed);
    }

    #[test]
    fn a_gateway_api_without_v1_is_told() {
        let finding = gateway_is("Gateway API", &definition("v1beta1", "", "True"));
        assert!(finding.says.contains("an unknown version does not serve HTTPRoute v1"), "{finding:?}");
    }
}
