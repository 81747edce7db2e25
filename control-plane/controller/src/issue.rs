//! issue: certificates for whoever holds a workload's token.

mod authority;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::identity::Identity;
use policy::limits;
use policy::name::{Domain, Label};
use policy::wire::v1;
use tonic::{Request, Response, Status};

pub(crate) use authority::Authority;
pub(crate) use tokens::Tokens;

use crate::metrics::Metrics;

/// Serves `Certify`.
pub(crate) struct Certifier {
    authority: Arc<Authority>,
    tokens: Arc<Tokens>,
    trust_domain: Domain,
    lifetime: Duration,
    metrics: Arc<Metrics>,
}

impl Certifier {
    pub(crate) fn new(
        authority: Arc<Authority>,
        tokens: Arc<Tokens>,
        (trust_domain, lifetime): (Domain, Duration),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { authority, tokens, trust_domain, lifetime, metrics }
    }

    /// Answers one request. Neither the token nor any part of it stands in an answer or a log.
    fn answer(&self, request: &v1::CertifyRequest) -> Result<v1::CertifyResponse, Status> {
        if request.token.len() > limits::CERTIFY_BYTES_MAX || request.csr.len() > limits::CERTIFY_BYTES_MAX {
            return Err(Status::invalid_argument("the token or the certificate request is too long"));
        }
        let (namespace, account) = self.tokens.owner(request.token.trim()).ok_or_else(|| {
            Status::unauthenticated("the token is of no workload known here: is the pod in the manifests?")
        })?;
        let owner = Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: Label::new(&namespace).map_err(|error| Status::internal(error.to_string()))?,
            service_account: Domain::new(&account).map_err(|error| Status::internal(error.to_string()))?,
        };
        let claimed: Identity =
            request.identity.parse().map_err(|_| Status::invalid_argument("the identity is not one"))?;
        if claimed != owner {
            return Err(Status::permission_denied(format!("the token is not that of {claimed}")));
        }
        let now = SystemTime::now();
        let leaf = self.authority.sign(&request.csr, &owner, now, self.lifetime).map_err(|error| {
            Status::invalid_argument(format!("the certificate request is not usable: {error}"))
        })?;
        self.metrics.certificates_issued.inc();
        tracing::info!(identity = %owner, "certificate issued");
        let not_after = now + self.lifetime;
        let not_after = not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(v1::CertifyResponse { chain: vec![leaf], not_after })
    }
}

#[tonic::async_trait]
impl v1::identity_server::Identity for Certifier {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let request = request.into_inner();
        self.answer(&request).map(Response::new).inspect_err(|status| {
            self.metrics.certificates_refused.inc();
            // Only what reads as an identity: anything else may be a secret in the wrong field.
            let claimed = request.identity.parse::<Identity>().ok();
            tracing::warn!(code = ?status.code(), ?claimed, reason = status.message(), "certificate refused");
        })
    }
}
