//! bundle: the API server told whom to trust when it calls our webhooks.

use std::fmt::Debug;

use k8s_openapi::ByteString;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::asked::{FIELD_MANAGER, ask};

/// The configuration that has pods injected.
pub(crate) const INJECTOR: &str = "tidegate-injector";
/// The configuration that has our own kinds checked.
pub(crate) const VALIDATOR: &str = "tidegate-validator";

/// A configuration that names webhooks.
pub(super) trait Configuration:
    Resource<Scope = ClusterResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send
{
    /// The object's name.
    const NAME: &str;

    /// Each webhook's name and how it is called.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    const NAME: &str = INJECTOR;

    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    const NAME: &str = VALIDATOR;

    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

/// Writes `bundle` into every webhook of the configuration that says something else. One that is not
/// installed is left alone.
///
/// # Errors
/// What the API server has against it.
pub(super) async fn write<K: Configuration>(client: &Client, bundle: &str) -> anyhow::Result<()> {
    let api: Api<K> = Api::all(client.clone());
    let object = format!("{} {}", K::kind(&()), K::NAME);
    let Some(found) = ask(format!("get {object}"), api.get_opt(K::NAME)).await? else { return Ok(()) };
    let wanted = ByteString(bundle.as_bytes().to_vec());
    let others: Vec<_> = found
        .webhooks()
        .into_iter()
        .filter(|(_, called)| called.ca_bundle.as_ref() != Some(&wanted))
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": wanted}}))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    // A strategic merge finds each webhook by its name and leaves all else of it as it is.
    let patch = Patch::Strategic(json!({"webhooks": others}));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    ask(format!("patch {object}"), api.patch(K::NAME, &params, &patch)).await?;
    tracing::info!(object, webhooks = others.len(), "the API server is told whom to trust");
    Ok(())
}
