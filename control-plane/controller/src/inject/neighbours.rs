//! neighbours: what stands around an object, asked of the API server when it is needed.
//!
//! Not from the index: a pod may come a moment after its namespace's label, before any watch has told,
//! and would run without a sidecar for ever.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use resources::ReviewTarget;
use resources::inject::Surroundings;
use tokio::time::{Instant, timeout};

/// How long the API server may take to answer: it waits for us meanwhile, ten seconds by default.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long the server's version is believed: an upgrade takes longer.
const VERSION_KEPT: Duration = Duration::from_secs(60);
/// Targets of one policy that are looked for; more are let be.
const TARGETS_MAX: usize = 16;

/// Asks the API server.
pub(crate) struct Neighbours {
    client: Client,
    version: Mutex<Option<(Instant, u32)>>,
}

impl Neighbours {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, version: Mutex::default() }
    }

    /// What is known around a pod of `namespace`.
    ///
    /// # Errors
    /// The namespace cannot be read. That the version cannot is no reason to hold up a pod.
    pub(crate) async fn around(&self, namespace: &str) -> Result<Surroundings, String> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let asked = timeout(ANSWER_MAX, namespaces.get_metadata(namespace)).await;
        let told = |why: String| format!("namespace {namespace} cannot be read: {why}");
        let found = asked
            .map_err(|_| told(format!("no answer in {} s", ANSWER_MAX.as_secs())))?
            .map_err(|error| told(error.to_string()))?;
        let metadata = serde_json::to_value(&found.metadata).map_err(|error| told(error.to_string()))?;
        Ok(Surroundings::of_namespace(&metadata, self.server_minor().await))
    }

    async fn server_minor(&self) -> Option<u32> {
        let known = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, minor)) = known
            && at.elapsed() < VERSION_KEPT
        {
            return Some(minor);
        }
        let info = timeout(ANSWER_MAX, self.client.apiserver_version()).await.ok()?.ok()?;
        // Some distributions write `29+`.
        let digits = info.minor.trim_end_matches(|c: char| !c.is_ascii_digit());
        let minor = digits.parse().ok()?;
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), minor));
        Some(minor)
    }

    /// A warning for each of `targets` that is not there. What cannot be looked for is not missed.
    pub(crate) async fn missing(&self, targets: &[ReviewTarget]) -> Vec<String> {
        let mut warnings = Vec::new();
        for target in targets.iter().take(TARGETS_MAX) {
            let kind = match target.kind {
                "Service" => GroupVersionKind::gvk("", "v1", "Service"),
                _ => GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", target.kind),
            };
            let resource = ApiResource::from_gvk(&kind);
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), &target.namespace, &resource);
            let asked = timeout(ANSWER_MAX / 2, api.get_metadata_opt(&target.name)).await;
            if let Ok(Ok(None)) = asked {
                warnings.push(format!(
                    "{}: there is no {} {}/{} yet: nothing is done for it until there is",
                    target.field, target.kind, target.namespace, target.name
                ));
            }
        }
        warnings
    }
}
