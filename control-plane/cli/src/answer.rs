//! answer: one answer of the API server, in time and in its own words.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use serde::de::DeserializeOwned;

/// The API server answers from its cache or from etcd: one that takes longer is in trouble.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Objects that one answer holds; more come in further answers.
const PAGE: u32 = 500;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// The status of HTTP, where the server refused.
    code: Option<u16>,
    said: String,
}

impl Unanswered {
    /// Whether the user may not.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.code == Some(403)
    }

    /// Whether there is no such object, or no such kind.
    pub(crate) fn is_absent(&self) -> bool {
        self.code == Some(404)
    }
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Unanswered {}

impl From<kube::Error> for Unanswered {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 401 => Self {
                code: Some(401),
                said: "the API server does not know you: are the kubeconfig's credentials still valid?"
                    .to_owned(),
            },
            kube::Error::Api(status) => Self { code: Some(status.code), said: status.message },
            error => {
                let said = format!("the API server does not answer: {:#}", anyhow::Error::new(error));
                Self { code: None, said }
            }
        }
    }
}

/// Waits for an answer. The client's futures are large: it is boxed before it is waited for.
///
/// # Errors
/// When there is none in time, or a refusal.
pub(crate) fn answered<T>(
    asked: impl Future<Output = kube::Result<T>>,
) -> impl Future<Output = Result<T, Unanswered>> {
    let asked = Box::pin(tokio::time::timeout(ANSWER_TIMEOUT, asked));
    async move {
        match asked.await {
            Ok(answer) => answer.map_err(Unanswered::from),
            Err(_) => Err(Unanswered {
                code: None,
                said: format!("the API server does not answer within {} s", ANSWER_TIMEOUT.as_secs()),
            }),
        }
    }
}

/// Looks at every object of a kind, a page at a time, so that no more than what is kept of them is held.
///
/// # Errors
/// As [`answered`].
pub(crate) async fn every<K>(
    api: &Api<K>,
    which: ListParams,
    mut keep: impl FnMut(K),
) -> Result<(), Unanswered>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut page = which.limit(PAGE);
    loop {
        let list = answered(api.list(&page)).await?;
        list.items.into_iter().for_each(&mut keep);
        let Some(next) = list.metadata.continue_.filter(|token| !token.is_empty()) else { return Ok(()) };
        page.continue_token = Some(next);
    }
}
