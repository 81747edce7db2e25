//! kind: what is watched, and what one of its objects says.

use std::sync::{Arc, LazyLock};

use resources::{Located, Object, ObjectId, Problem, read_object};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Where objects of a cluster stand, in the place of a file.
pub(super) static PLACE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("kubernetes"));

/// One kind of object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// `HTTPRoute`.
    pub(crate) name: &'static str,
    /// `gateway.networking.k8s.io`; empty for the core.
    pub(crate) group: &'static str,
    /// `httproutes`.
    pub(crate) plural: &'static str,
    /// The versions that are read, the best first.
    pub(crate) versions: &'static [&'static str],
    /// Which of them are of interest.
    pub(crate) select: Select,
    /// Who brings it.
    pub(crate) origin: Origin,
}

/// Which objects of a kind are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Select {
    /// All.
    All,
    /// Those with these fields.
    Fields(&'static str),
    /// Those with these labels.
    Labels(&'static str),
    /// Of all, no more than what they are called.
    Metadata,
}

/// Who brings a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Kubernetes: it is always there.
    Kubernetes,
    /// The Gateway API, which may come later, or never.
    GatewayApi,
    /// We, by our chart.
    Tidegate,
}

const GATEWAY: &str = "gateway.networking.k8s.io";
const GATEWAY_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha2"];

const fn core(name: &'static str, plural: &'static str, select: Select) -> Kind {
    Kind { name, group: "", plural, versions: &["v1"], select, origin: Origin::Kubernetes }
}

const fn gateway(name: &'static str, plural: &'static str) -> Kind {
    let (group, versions, origin) = (GATEWAY, GATEWAY_VERSIONS, Origin::GatewayApi);
    Kind { name, group, plural, versions, select: Select::All, origin }
}

const fn ours(name: &'static str, plural: &'static str) -> Kind {
    let (group, versions, origin) = ("tidegate.dev", &["v1alpha1"], Origin::Tidegate);
    Kind { name, group, plural, versions, select: Select::All, origin }
}

/// Every kind that becomes an object.
pub(crate) static KINDS: [Kind; 11] = [
    core("Namespace", "namespaces", Select::All),
    // A pod that has run its course has given its address back.
    core("Pod", "pods", Select::Fields("status.phase!=Succeeded,status.phase!=Failed")),
    core("Service", "services", Select::All),
    Kind {
        name: "EndpointSlice",
        group: "discovery.k8s.io",
        plural: "endpointslices",
        versions: &["v1"],
        // A slice without serves no Service.
        select: Select::Labels("kubernetes.io/service-name"),
        origin: Origin::Kubernetes,
    },
    gateway("HTTPRoute", "httproutes"),
    gateway("GRPCRoute", "grpcroutes"),
    gateway("ReferenceGrant", "referencegrants"),
    ours("AccessPolicy", "accesspolicies"),
    ours("AsyncPolicy", "asyncpolicies"),
    ours("BackendPolicy", "backendpolicies"),
    ours("MeshTrust", "meshtrusts"),
];

/// The kinds' own definitions, by which the others come and go.
pub(crate) static DEFINITIONS: Kind = Kind {
    name: "CustomResourceDefinition",
    group: "apiextensions.k8s.io",
    plural: "customresourcedefinitions",
    versions: &["v1"],
    select: Select::Metadata,
    origin: Origin::Kubernetes,
};

/// Secrets are never listed: those that policies name are read one by one.
pub(crate) static SECRETS: Kind = core("Secret", "secrets", Select::All);

impl Kind {
    /// Where the API server has it, `/apis/discovery.k8s.io/v1/endpointslices`.
    pub(super) fn path(&self, version: &str) -> String {
        match self.group {
            "" => format!("/api/{version}/{}", self.plural),
            group => format!("/apis/{group}/{version}/{}", self.plural),
        }
    }

    /// What its definition and its permissions are called, `httproutes.gateway.networking.k8s.io`.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The kind whose definition has this name.
    pub(super) fn defined_by(name: &str) -> Option<&'static Self> {
        let (plural, group) = name.split_once('.')?;
        KINDS
            .iter()
            .find(|kind| kind.origin != Origin::Kubernetes && kind.plural == plural && kind.group == group)
    }

    pub(crate) fn is_cluster_wide(&self) -> bool {
        matches!(self.name, "Namespace" | "MeshTrust" | "CustomResourceDefinition")
    }
}

/// An object as the API server writes it, without what nobody here reads: it would fill memory while
/// a list of many is read.
#[derive(Debug, Clone)]
pub(super) struct Raw(Value);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
            if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|name, _| name.starts_with("tidegate.dev/"));
            }
        }
        Ok(Self(value))
    }
}

/// A version of an object that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Which of its specs that is.
    pub(crate) generation: i64,
    /// Why it cannot be used.
    pub(crate) problem: Problem,
}

/// What an object says.
#[derive(Debug)]
pub(super) enum Said {
    /// It can be used.
    Good(Box<Located<Object>>),
    /// It cannot.
    Bad(Refused),
    /// It is there, which is all that is asked.
    There,
}

impl Raw {
    /// Which object it is; `None` when it does not say, as no API server writes.
    pub(super) fn id(&self, kind: &Kind) -> Option<ObjectId> {
        let meta = self.0.get("metadata")?;
        let text = |key: &str| meta.get(key).and_then(Value::as_str).map(str::to_owned);
        let namespace = if kind.is_cluster_wide() { String::new() } else { text("namespace")? };
        Some(ObjectId { kind: kind.name, namespace, name: text("name")? })
    }

    /// The version of the whole cluster at which it became what it is.
    pub(super) fn resource_version(&self) -> Option<&str> {
        self.0.get("metadata")?.get("resourceVersion")?.as_str()
    }

    /// Reads it as one of `kind`.
    pub(super) fn read(mut self, kind: &Kind, version: &str) -> Said {
        if kind.select == Select::Metadata {
            return Said::There;
        }
        // Items of a list do not say what they are.
        if let Some(fields) = self.0.as_object_mut() {
            let api =
                if kind.group.is_empty() { version.to_owned() } else { format!("{}/{version}", kind.group) };
            fields.insert("apiVersion".to_owned(), api.into());
            fields.insert("kind".to_owned(), kind.name.into());
        }
        match read_object(&PLACE, &self.0) {
            Ok(Some(object)) => Said::Good(Box::new(object)),
            Ok(None) => Said::There,
            Err(problem) => {
                let generation = self.0["metadata"]["generation"].as_i64().unwrap_or(0);
                Said::Bad(Refused { generation, problem })
            }
        }
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    metadata: PageMeta,
    /// Its objects; an API server writes null for a list without any CRD.
    #[serde(default, deserialize_with = "or_none")]
    pub(super) items: Vec<Raw>,
}

fn or_none<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Vec<Raw>, D::Error> {
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    more: String,
}

impl Page {
    /// Where the next page begins, if there is one.
    pub(super) fn more(&self) -> Option<&str> {
        Some(self.metadata.more.as_str()).filter(|more| !more.is_empty())
    }

    /// The version of the cluster that it shows.
    pub(super) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_whose_items_are_null_is_empty() {
        let page: Page =
            serde_json::from_str(r#"{"metadata": {"resourceVersion": "7"}, "items": null}"#).unwrap();
        assert!(page.items.is_empty() && page.more().is_none());
    }
}
