//! inject: the API server asks, and pods get their sidecars.
//!
//! Two questions come over HTTPS as AdmissionReview v1: `/inject` gives pods their sidecars
//! ([`resources::inject`] decides, purely), `/validate` looks at an object of our kinds, or a route,
//! before it is stored. Neither changes anything but its answer, so a dry run is a run.
//!
//! ```text
//! listen → (TLS, HTTP/1 or 2, bounded) → review → inject   ← settings (file, followed), surroundings (API)
//!                                               → validate ← what a policy is for (API)
//! ```
//!
//! What cannot be decided (no settings, no answer from the API) is a 500: whether pods then start
//! without a sidecar or not at all is for the configuration's `failurePolicy` to say. A no is an answer,
//! with the reason, and stands where the user looks: on their terminal for a pod of their own, in the
//! events of the ReplicaSet or Job for a pod of a controller.

mod counts;
mod listen;
mod neighbours;
mod review;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, Operation};
use resources::inject::{Surroundings, Unchanged, Verdict, inject};
use serde_json::Value;
use tokio::net::TcpListener;

pub(crate) use counts::Admissions;
use counts::{Hook, Outcome};
pub(crate) use listen::Acceptor;
use listen::serve;
use neighbours::Neighbours;
use review::{allowed, denied, patched, warned};
use settings::LiveSettings;

/// Answers the API server.
pub(crate) struct Webhook {
    settings: LiveSettings,
    neighbours: Neighbours,
    admissions: Admissions,
}

type Asked = AdmissionRequest<DynamicObject>;

impl Webhook {
    /// With the settings of `injection`, or the built-in ones.
    pub(crate) async fn open(
        injection: Option<PathBuf>,
        client: kube::Client,
        admissions: Admissions,
    ) -> Arc<Self> {
        let settings = LiveSettings::open(injection).await;
        Arc::new(Self { settings, neighbours: Neighbours::new(client), admissions })
    }

    /// Answers on `listener` until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, acceptor: Acceptor) {
        tokio::join!(self.settings.follow(), serve(listener, acceptor, self.clone()));
    }

    /// Gives the pod of a request its sidecar.
    ///
    /// # Errors
    /// Why nobody can say what is to become of it.
    async fn inject(&self, request: &Asked) -> Result<AdmissionResponse, String> {
        let answer = self.decide(request).await;
        let outcome = match &answer {
            Ok((outcome, _)) => *outcome,
            Err(_) => Outcome::undecided,
        };
        self.admissions.count(Hook::inject, outcome);
        answer.map(|(_, response)| response)
    }

    async fn decide(&self, request: &Asked) -> Result<(Outcome, AdmissionResponse), String> {
        let is_new_pod = request.operation == Operation::Create
            && request.kind.kind == "Pod"
            && request.sub_resource.as_deref().unwrap_or_default().is_empty();
        let Some(pod) = value(request).filter(|_| is_new_pod) else {
            return Ok((Outcome::unchanged, allowed(request)));
        };
        let settings = self.settings.now()?;
        let around = match request.namespace.as_deref() {
            Some(namespace) => self.neighbours.around(namespace).await?,
            None => Surroundings::default(),
        };
        let (name, namespace) = (name(request, &pod), request.namespace.as_deref().unwrap_or_default());
        Ok(match inject(&pod, &around, &settings) {
            Verdict::Injected { pod: injected, warnings } => {
                tracing::debug!(namespace, name, "a pod gets its sidecar");
                (Outcome::injected, patched(request, (&pod, &injected), warnings)?)
            }
            Verdict::LeftOut { pod: marked, why } => {
                tracing::info!(namespace, name, why, "a pod runs without a sidecar");
                let warning = format!("this pod runs without a sidecar: {why}");
                (Outcome::left_out, patched(request, (&pod, &marked), vec![warning])?)
            }
            Verdict::Refused(why) => {
                tracing::info!(namespace, name, why, "a pod is refused");
                (Outcome::refused, denied(request, &why))
            }
            Verdict::Unchanged(Unchanged::Already) => (Outcome::already, allowed(request)),
            Verdict::Unchanged(_) => (Outcome::unchanged, allowed(request)),
        })
    }

    /// Looks at an object before it is stored.
    async fn validate(&self, request: &Asked) -> AdmissionResponse {
        let Some(object) = value(request) else { return allowed(request) };
        let grace = self.settings.now().map_or(policy::limits::DRAIN_GRACE, |settings| settings.drain_grace);
        let review = resources::review(&object, grace);
        if let Some(why) = review.refused {
            self.admissions.count(Hook::validate, Outcome::refused);
            return denied(request, &why);
        }
        let mut warnings = review.warnings;
        warnings.extend(self.neighbours.missing(&review.targets).await);
        let outcome = if warnings.is_empty() { Outcome::unchanged } else { Outcome::warned };
        self.admissions.count(Hook::validate, outcome);
        warned(request, warnings)
    }
}

/// The object as it was sent; its namespace is the request's where it names none.
fn value(request: &Asked) -> Option<Value> {
    let mut value = serde_json::to_value(request.object.as_ref()?).ok()?;
    if let Some(namespace) = &request.namespace
        && value["metadata"].is_object()
        && value["metadata"]["namespace"].is_null()
    {
        value["metadata"]["namespace"] = namespace.clone().into();
    }
    Some(value)
}

/// A pod of a controller has no name yet.
fn name(request: &Asked, pod: &Value) -> String {
    let meta = &pod["metadata"];
    let given = Some(request.name.as_str()).filter(|name| !name.is_empty());
    given.or(meta["name"].as_str()).or(meta["generateName"].as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
