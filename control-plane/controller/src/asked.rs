//! asked: one request to the API server about one object that we keep, and what its refusal means.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt};
use policy::limits;
use serde::de::DeserializeOwned;

/// The name by which the API server knows what we wrote.
pub(crate) const FIELD_MANAGER: &str = "tidegate-controller";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What every object carries that the controller makes.
pub(crate) fn labels() -> BTreeMap<String, String> {
    let labels = [("app.kubernetes.io/part-of", "tidegate"), (MANAGED_BY, FIELD_MANAGER)];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Whether the controller made it, by its labels.
pub(crate) fn is_ours(object: &impl ResourceExt) -> bool {
    object.labels().get(MANAGED_BY).is_some_and(|by| by == FIELD_MANAGER)
}

/// Why the API server did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Refusal {
    doing: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// It did not answer in time.
    Late,
    /// It answered, or could not be reached.
    Error(Box<kube::Error>),
}

impl Refusal {
    /// Whether it may do the same later on: it is away or busy, nothing is wrong with us.
    pub(crate) fn is_passing(&self) -> bool {
        match &self.cause {
            Cause::Late => true,
            Cause::Error(error) => match &**error {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                _ => true,
            },
        }
    }

    /// Whether it says so with this code of HTTP.
    pub(crate) fn has_code(&self, code: u16) -> bool {
        matches!(&self.cause, Cause::Error(error) if matches!(&**error, kube::Error::Api(status) if status.code == code))
    }

    /// Whether the namespace is about to go, so that nothing is made in it any more.
    pub(crate) fn is_about_an_ending_namespace(&self) -> bool {
        let Cause::Error(error) = &self.cause else { return false };
        let kube::Error::Api(status) = &**error else { return false };
        status.code == 404 || (status.code == 403 && status.message.contains("being terminated"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = &self.doing;
        match &self.cause {
            Cause::Late => {
                let patience = limits::CLUSTER_REQUEST_TIMEOUT.as_secs();
                write!(f, "cannot {doing}: the API server did not answer within {patience} s")
            }
            Cause::Error(error) => match &**error {
                kube::Error::Api(status) if status.code == 401 => write!(
                    f,
                    "cannot {doing}: the API server does not know who asks ({}); give the controller a token \
                     or a certificate of this cluster, by its service account or KUBECONFIG",
                    status.message
                ),
                kube::Error::Api(status) if status.code == 403 => write!(
                    f,
                    "may not {doing}: {}; give the controller's service account the permission, as the \
                     chart's roles do",
                    status.message
                ),
                // Of all that we keep the namespace alone may be missing where something is made.
                kube::Error::Api(status)
                    if status.code == 404 && status.message.starts_with("namespaces ") =>
                {
                    write!(f, "cannot {doing}: {}; --namespace names the controller's own", status.message)
                }
                kube::Error::Api(status) => write!(f, "cannot {doing}: {}", status.message),
                error => write!(f, "cannot {doing}: {error}"),
            },
        }
    }
}

impl std::error::Error for Refusal {}

/// Waits for an answer, and no longer than [`limits::CLUSTER_REQUEST_TIMEOUT`].
///
/// # Errors
/// What the API server has against `doing`, which reads like "get Secret x/y".
pub(crate) async fn ask<T>(
    doing: impl Into<String>,
    question: impl Future<Output = kube::Result<T>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(limits::CLUSTER_REQUEST_TIMEOUT, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Refusal { doing: doing.into(), cause: Cause::Error(Box::new(error)) }),
        Err(_) => Err(Refusal { doing: doing.into(), cause: Cause::Late }),
    }
}

/// Says each time that one object changed. Where it cannot be watched it says nothing: whoever waits
/// looks again after [`limits::CLUSTER_POLL`] anyway.
pub(crate) fn changes<K>(api: Api<K>, name: &'static str) -> impl Stream<Item = ()> + Send + Unpin
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let seen = watcher::watch_object(api, name).default_backoff();
    Box::pin(seen.filter_map(move |seen| async move {
        if let Err(error) = &seen {
            tracing::debug!(name, %error, "is not watched now");
        }
        seen.ok().map(|_| ())
    }))
}

/// How an object of a namespace is called in errors.
pub(crate) fn named<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
    namespace: &str,
    name: &str,
) -> String {
    format!("{} {namespace}/{name}", K::kind(&()))
}
