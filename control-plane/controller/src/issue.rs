//! issue: certificates for whoever holds a workload's token.
//!
//! ```text
//!   token ──► whose is it?      files of standalone mode, or the API server's TokenReview
//!   csr   ──► authority signs   its issuer from a directory, or from Secret tidegate-issuer
//!   leaf, and what stands between it and the anchors ──► proxy
//! ```

mod authority;
mod counts;
mod directory;
mod expiry;
mod issuer;
mod pem;
mod review;
mod secret;
#[cfg(test)]
mod tests;
mod tokens;
mod troubles;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::identity::Identity;
use policy::limits;
use policy::name::{Domain, Label};
use policy::wire::v1;
use tonic::{Request, Response, Status};

pub(crate) use authority::Authority;
pub(crate) use counts::Counts;
pub(crate) use expiry::Expiry;
pub(crate) use issuer::{end, parse, valid};
pub(crate) use pem::{certificates, to_pem};
pub(crate) use review::Reviews;
pub(crate) use secret::IssuerSecret;
pub(crate) use tokens::Tokens;
pub(crate) use troubles::Troubles;

use crate::index::Named;
use crate::metrics::Metrics;
use authority::SignError;

/// Serves `Certify`.
pub(crate) struct Certifier {
    authority: Arc<Authority>,
    owners: Owners,
    trust_domain: Domain,
    lifetime: Duration,
    metrics: Arc<Metrics>,
}

/// Who knows whose a token is.
pub(crate) enum Owners {
    /// The files of standalone mode.
    Files(Arc<Tokens>),
    /// The API server.
    Cluster(Box<Reviews>),
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The service account.
    account: Named,
    /// The pod that it is bound to.
    pod: Option<String>,
}

impl Owners {
    async fn owner(&self, token: &str) -> Result<Owner, Status> {
        match self {
            Self::Files(tokens) => {
                let account = tokens.owner(token).ok_or_else(|| {
                    Status::unauthenticated(
                        "the token is of no workload known here: is the pod in the manifests?",
                    )
                })?;
                Ok(Owner { account, pod: None })
            }
            Self::Cluster(reviews) => reviews.owner(token).await,
        }
    }
}

impl Certifier {
    pub(crate) fn new(
        authority: Arc<Authority>,
        owners: Owners,
        (trust_domain, lifetime): (Domain, Duration),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { authority, owners, trust_domain, lifetime, metrics }
    }

    /// Answers one request. Neither the token nor any part of it stands in an answer or a log.
    async fn answer(&self, request: &v1::CertifyRequest) -> Result<v1::CertifyResponse, Status> {
        if request.token.len() > limits::CERTIFY_BYTES_MAX || request.csr.len() > limits::CERTIFY_BYTES_MAX {
            return Err(Status::invalid_argument("the token or the certificate request is too long"));
        }
        let claimed: Identity =
            request.identity.parse().map_err(|_| Status::invalid_argument("the identity is not one"))?;
        let Owner { account: (namespace, account), pod } = self.owners.owner(request.token.trim()).await?;
        let owner = Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: Label::new(&namespace).map_err(|error| Status::internal(error.to_string()))?,
            service_account: Domain::new(&account).map_err(|error| Status::internal(error.to_string()))?,
        };
        if claimed != owner {
            return Err(Status::permission_denied(format!(
                "the token is not that of {claimed}: the controller knows its owner as {owner}"
            )));
        }
        let now = SystemTime::now();
        let leaf =
            self.authority.sign(&request.csr, &owner, now, self.lifetime).map_err(|error| match error {
                SignError::Request(error) => {
                    Status::invalid_argument(format!("the certificate request is not usable: {error}"))
                }
                SignError::Issuer(error) => {
                    Status::unavailable(format!("no certificate is signed: {error:#}"))
                }
            })?;
        self.metrics.certificates_issued.inc();
        tracing::info!(identity = %owner, pod, "certificate issued");
        let not_after = leaf.not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let chain = leaf.chain.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(v1::CertifyResponse { chain, not_after })
    }
}

#[tonic::async_trait]
impl v1::identity_server::Identity for Certifier {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let request = request.into_inner();
        self.answer(&request).await.map(Response::new).inspect_err(|status| {
            self.metrics.certificates_refused.inc();
            // Only what reads as an identity: anything else may be a secret in the wrong field.
            let claimed = request.identity.parse::<Identity>().ok();
            tracing::warn!(code = ?status.code(), ?claimed, reason = status.message(), "certificate refused");
        })
    }
}
