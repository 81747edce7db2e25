//! meshes: other meshes that give pods a sidecar here too.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use super::finding::Finding;
use crate::answer::every;

/// How another mesh is known, and how a namespace asks for it.
struct Mesh {
    name: &'static str,
    /// How its injector's webhook configuration begins.
    webhook: &'static str,
    /// The labels and annotations of a namespace that ask for it, and their values; none is any.
    asks: &'static [(&'static str, Option<&'static str>)],
}

const MESHES: [Mesh; 4] = [
    Mesh {
        name: "Istio",
        webhook: "istio-sidecar-injector",
        asks: &[
            ("istio-injection", Some("enabled")),
            ("istio.io/rev", None),
            ("istio.io/dataplane-mode", Some("ambient")),
        ],
    },
    Mesh {
        name: "Linkerd",
        webhook: "linkerd-proxy-injector",
        asks: &[("linkerd.io/inject", Some("enabled"))],
    },
    Mesh {
        name: "Kuma",
        webhook: "kuma-admission",
        asks: &[("kuma.io/sidecar-injection", Some("enabled")), ("kuma.io/sidecar-injection", Some("true"))],
    },
    Mesh {
        name: "Consul",
        webhook: "consul-connect-injector",
        asks: &[("consul.hashicorp.com/connect-inject", Some("true"))],
    },
];

/// The mesh whose sidecar the namespace asks for.
pub(super) fn asked(namespace: &Namespace) -> Option<&'static str> {
    let said = |key: &str| namespace.labels().get(key).or_else(|| namespace.annotations().get(key));
    let asks = |mesh: &&Mesh| {
        let mut asks = mesh.asks.iter();
        asks.any(|(key, value)| said(key).is_some_and(|said| value.is_none_or(|value| said == value)))
    };
    MESHES.iter().find(asks).map(|mesh| mesh.name)
}

/// Looks for their injectors.
pub(crate) async fn look(client: &Client) -> Finding {
    let object = "other meshes";
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut names = Vec::new();
    let looked = every(&webhooks, ListParams::default(), |found: MutatingWebhookConfiguration| {
        names.push(found.name_any());
    });
    match looked.await {
        Ok(()) => others(object, &names),
        Err(error) => Finding::unknown(object, error.to_string()),
    }
}

fn others(object: &str, webhooks: &[String]) -> Finding {
    let is_there = |mesh: &&Mesh| webhooks.iter().any(|name| name.starts_with(mesh.webhook));
    let there: Vec<&str> = MESHES.iter().filter(is_there).map(|mesh| mesh.name).collect();
    if there.is_empty() {
        return Finding::ok(object, "none");
    }
    let said = format!("{} gives pods sidecars here too", there.join(", "));
    Finding::warning(object, said, "a pod can have one: give no namespace the labels of two meshes")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn another_mesh_is_known_by_its_injector_and_its_label() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(others("o", &names(&["tidegate-injector", "cert-manager-webhook"])).level, Level::Ok);
        let found =
            others("o", &names(&["istio-sidecar-injector-1-32", "linkerd-proxy-injector-webhook-config"]));
        assert_eq!(found.says, "Istio, Linkerd gives pods sidecars here too");
        let labelled = |key: &str, value: &str| {
            let namespace = json!({"metadata": {"name": "shop", "labels": {key: value}}});
            asked(&serde_json::from_value(namespace).unwrap())
        };
        assert_eq!(labelled("istio-injection", "enabled"), Some("Istio"));
        assert_eq!(labelled("istio-injection", "disabled"), None);
        assert_eq!(labelled("istio.io/rev", "1-32"), Some("Istio"));
        assert_eq!(labelled("tidegate.dev/inject", "enabled"), None);
    }
}
