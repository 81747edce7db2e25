//! certify: the workload's certificate, asked for, renewed at two thirds of its life; anchors reloaded.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use policy::identity::Identity;
use policy::limits;
use policy::wire::v1::CertifyRequest;
use policy::wire::v1::identity_client::IdentityClient;
use tokio::time::sleep;
use transport::errors::chain;
use transport::identity::{Anchors, Credentials, SigningRequest};
use transport::tls::Tls;

use crate::health::Health;
use crate::link::{Backoff, Credential, Link};

/// Keeps [`Tls`] supplied.
pub(crate) struct Certifier {
    pub(crate) identity: Identity,
    pub(crate) anchors: std::path::PathBuf,
    pub(crate) token_file: std::path::PathBuf,
    pub(crate) link: Link,
    pub(crate) tls: Tls,
    pub(crate) health: Arc<Health>,
}

/// The anchors in force and the file they came from.
struct Watched {
    pem: Vec<u8>,
    anchors: Anchors,
}

impl Certifier {
    /// Goes on until it is dropped.
    pub(crate) async fn run(self) {
        let mut watched = self.first_anchors().await;
        let mut backoff = Backoff::new();
        let mut held: Option<Credentials> = None;
        loop {
            let credentials = match self.certify(&watched.anchors).await {
                Ok(credentials) => credentials,
                Err(error) => {
                    let trouble = chain(error.as_ref());
                    tracing::warn!(error = trouble, "no certificate from the controller");
                    self.health.not_certified(trouble);
                    backoff.wait().await;
                    self.refresh(&mut watched, held.as_ref()).await;
                    continue;
                }
            };
            let credentials = held.insert(credentials);
            backoff = Backoff::new();
            tracing::info!(
                identity = %credentials.identity,
                until = %humantime::format_rfc3339_seconds(credentials.not_after),
                "certified"
            );
            self.health.certified(credentials.not_after);
            let renew_at = renew_at(credentials);
            while SystemTime::now() < renew_at {
                sleep(limits::FILE_POLL).await;
                self.refresh(&mut watched, Some(credentials)).await;
            }
        }
    }

    async fn first_anchors(&self) -> Watched {
        loop {
            match read(&self.anchors).await {
                Ok(watched) => return watched,
                Err(error) => self.health.not_certified(chain(error.as_ref())),
            }
            sleep(limits::FILE_POLL).await;
        }
    }

    /// Takes over anchors that changed. Unusable ones are told and the ones before stay.
    async fn refresh(&self, watched: &mut Watched, credentials: Option<&Credentials>) {
        let new = match read(&self.anchors).await {
            Ok(new) if new.pem != watched.pem => new,
            Ok(_) => return,
            Err(error) => {
                return tracing::warn!(error = chain(error.as_ref()), "the anchors are not taken over");
            }
        };
        if let Some(credentials) = credentials
            && let Err(error) = self.tls.install(credentials, &new.anchors)
        {
            return tracing::warn!(error = chain(&error), "the anchors are not taken over");
        }
        tracing::info!(bytes = new.pem.len(), "trust anchors reloaded");
        *watched = new;
    }

    async fn certify(&self, anchors: &Anchors) -> anyhow::Result<Credentials> {
        let token = tokio::fs::read_to_string(&self.token_file)
            .await
            .with_context(|| format!("the token file {} cannot be read", self.token_file.display()))?;
        anyhow::ensure!(
            token.len() <= limits::CERTIFY_BYTES_MAX,
            "the token file {} has more than {} bytes",
            self.token_file.display(),
            limits::CERTIFY_BYTES_MAX
        );
        let request = SigningRequest::generate(self.identity.clone())?;
        let channel = self
            .link
            .channel(Credential::Nothing(anchors.clone()))
            .await
            .with_context(|| format!("the controller {} is not reached", self.link.controller))?;
        let question = CertifyRequest {
            token: token.trim().to_owned(),
            csr: request.csr_der().to_vec(),
            identity: self.identity.to_string(),
        };
        let mut client = IdentityClient::new(channel);
        let answer = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, client.certify(question))
            .await
            .context("the controller did not answer in time")?
            .map_err(|status| anyhow::anyhow!("the controller refuses: {}", status.message()))?
            .into_inner();
        let credentials = request.into_credentials(answer.chain)?;
        self.tls.install(&credentials, anchors)?;
        Ok(credentials)
    }
}

async fn read(path: &Path) -> anyhow::Result<Watched> {
    let pem = tokio::fs::read(path)
        .await
        .with_context(|| format!("the file of trust anchors {} cannot be read", path.display()))?;
    let anchors =
        Anchors::from_pem(&pem).with_context(|| format!("the file of trust anchors {}", path.display()))?;
    Ok(Watched { pem, anchors })
}

fn renew_at(credentials: &Credentials) -> SystemTime {
    let now = SystemTime::now();
    let life = credentials.not_after.duration_since(now).unwrap_or(Duration::ZERO);
    // A little earlier for some than for others, so that a fleet does not ask all at once.
    now + life.mul_f64(limits::LEAF_RENEW_AT * (0.95 + fastrand::f64() * 0.05))
}
