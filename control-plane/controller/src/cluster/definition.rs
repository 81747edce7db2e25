//! definition: which versions of a kind the API server serves.

use kube::Client;
use serde::Deserialize;

use super::gathered::Stage;
use super::kind::{DEFINITIONS, Kind};
use super::watching::{Health, health};

/// A CustomResourceDefinition, as far as versions need it: its schema would fill memory.
#[derive(Debug, Deserialize)]
struct Definition {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Spec {
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
}

/// Asks for the definition of `kind`.
///
/// # Errors
/// What is the matter with the API server.
pub(super) async fn look(client: &Client, kind: &Kind) -> Result<Stage, Health> {
    let path = format!("{}/{}", DEFINITIONS.path("v1"), kind.resource());
    let refused = |error: &dyn std::fmt::Display| Health::Refused(error.to_string());
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| refused(&error))?;
    let text = match client.request_text(request).await {
        Ok(text) => text,
        Err(error) => {
            return match health(error) {
                None | Some(Health::NotServed) => Ok(Stage::Absent),
                Some(health) => Err(health),
            };
        }
    };
    let definition: Definition = serde_json::from_str(&text).map_err(|error| refused(&error))?;
    Ok(stage(kind, &definition))
}

fn stage(kind: &Kind, definition: &Definition) -> Stage {
    let served: Vec<&str> = definition
        .spec
        .versions
        .iter()
        .filter(|version| version.served)
        .map(|version| version.name.as_str())
        .collect();
    match kind.versions.iter().find(|version| served.contains(version)) {
        Some(version) => Stage::Listing((*version).to_owned()),
        None if served.is_empty() => Stage::Unreadable("no version".to_owned()),
        None => Stage::Unreadable(served.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::KINDS;
    use super::*;

    #[test]
    fn the_best_version_that_is_served_is_taken() {
        let grants = KINDS.iter().find(|kind| kind.name == "ReferenceGrant").unwrap();
        let stage = |versions: serde_json::Value| {
            let definition = serde_json::json!({"spec": {"versions": versions, "group": "x"}});
            stage(grants, &serde_json::from_value(definition).unwrap())
        };
        let version = |name: &str, served: bool| serde_json::json!({"name": name, "served": served});
        let listing = |name: &str| Stage::Listing(name.to_owned());
        assert_eq!(stage([version("v1beta1", true), version("v1", true)].into()), listing("v1"));
        assert_eq!(stage([version("v1beta1", true), version("v1", false)].into()), listing("v1beta1"));
        let unreadable = Stage::Unreadable("v3, v2".to_owned());
        assert_eq!(stage([version("v3", true), version("v2", true)].into()), unreadable);
    }
}
