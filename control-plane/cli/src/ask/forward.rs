//! forward: the admin port of a pod, reached through the API server.
//!
//! A port-forward ends at the pod's loopback, which is whom the admin port lets operate. So a right to
//! `pods/portforward` is the right to operate the queues of that pod; no port of ours is opened for it.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::FutureExt as _;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Portforwarder;
use kube::client::UpgradeConnectionError;
use kube::{Api, Client};

use super::{Answer, Question, exchange};

/// How long the API server may take to reach the pod's node.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// What went wrong in the pod is said beside the stream, a moment before or after that ends.
const LAST_WORD_TIMEOUT: Duration = Duration::from_millis(500);
/// What the guard of an admin port takes: an address, or this.
const HOST: &str = "localhost";

/// A port inside a pod.
#[derive(Clone)]
pub(crate) struct PodPort {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl fmt::Display for PodPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

/// An open connection; its task ends with it.
struct Forward(Portforwarder);

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PodPort {
    /// Asks, over a connection of its own.
    ///
    /// # Errors
    /// When the pod is not reached, with what would help; when there is no whole answer.
    pub(super) async fn ask(&self, question: &Question) -> anyhow::Result<Answer> {
        let mut forward = self.open().await?;
        let stream = forward.0.take_stream(self.port).context("the API server gave no stream")?;
        let trouble = forward.0.take_error(self.port).context("the API server gave no stream")?;
        let mut trouble = pin!(trouble.fuse());
        let answer = tokio::select! {
            biased;
            Some(said) = &mut trouble => return Err(self.unheard(&said)),
            answer = exchange(stream, HOST, question) => answer,
        };
        let Err(error) = answer else { return answer };
        match tokio::time::timeout(LAST_WORD_TIMEOUT, trouble).await {
            Ok(Some(said)) => Err(self.unheard(&said)),
            _ => Err(error.context("the connection through the API server was lost: ask again")),
        }
    }

    async fn open(&self) -> anyhow::Result<Forward> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        match tokio::time::timeout(OPEN_TIMEOUT, pods.portforward(&self.name, &[self.port])).await {
            Ok(Ok(forward)) => Ok(Forward(forward)),
            Ok(Err(kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)))) => {
                bail!("{}", self.refused(status))
            }
            Ok(Err(error)) => Err(anyhow!(error).context("the API server opens no connection to it")),
            Err(_) => bail!(
                "the API server opens no connection to it within {} s: is its node there?",
                OPEN_TIMEOUT.as_secs()
            ),
        }
    }

    /// What the server's refusal to forward means, and what helps.
    fn refused(&self, status: StatusCode) -> String {
        let Self { namespace, name, .. } = self;
        match status.as_u16() {
            401 => {
                "the API server does not know you: are the kubeconfig's credentials still valid?".to_owned()
            }
            403 => format!(
                "you may not create pods/portforward in namespace {namespace}: a Role there with \
                 {{apiGroups: [\"\"], resources: [pods/portforward], verbs: [create, get]}} lets you"
            ),
            404 => format!("there is no pod {name} in namespace {namespace} any more"),
            400 => "it is not running yet".to_owned(),
            code => format!(
                "the API server answers {code} and opens no connection to it: is the kubelet of its node there?"
            ),
        }
    }

    /// What kubelet says when nobody listens.
    fn unheard(&self, said: &str) -> anyhow::Error {
        anyhow!("nobody answers on its port {}: does its sidecar run? {}", self.port, said.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    use crate::scripted;

    #[tokio::test]
    async fn a_refusal_to_forward_names_the_right_that_is_missing() {
        let client = scripted::client(|path| match path {
            "/api/v1/namespaces/shop/pods/web-0/portforward?&ports=4191" => (403, serde_json::json!({})),
            other => panic!("{other} is not asked for"),
        });
        let pod = PodPort { client, namespace: "shop".to_owned(), name: "web-0".to_owned(), port: 4191 };
        let error = pod.ask(&Question::new(Method::GET, "/queues")).await.err().unwrap().to_string();
        assert!(error.contains("pods/portforward in namespace shop"), "{error}");
        assert!(error.contains("verbs: [create, get]"), "{error}");
    }
}
