//! tls: our own certificate and the anchors in force, renewed while connections go on.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use policy::identity::Identity;
use policy::limits;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig, ServerConnection};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;

use crate::issue::Authority;

/// The server's side of TLS.
pub(crate) struct Tls {
    authority: Arc<Authority>,
    identity: Identity,
    lifetime: Duration,
    current: RwLock<Current>,
}

/// What connections are accepted with.
struct Current {
    config: Arc<ServerConfig>,
    /// The same certificate for connections to other replicas.
    client: Arc<ClientConfig>,
    not_after: SystemTime,
}

impl Tls {
    /// With a certificate for `identity`.
    ///
    /// # Errors
    /// When no certificate can be made or no anchor is usable.
    pub(crate) fn new(
        authority: Arc<Authority>,
        identity: Identity,
        lifetime: Duration,
    ) -> anyhow::Result<Self> {
        let current = RwLock::new(config(&authority, &identity, lifetime)?);
        Ok(Self { authority, identity, lifetime, current })
    }

    /// Takes the anchors as they are now, with a new certificate. Connections go on as they are.
    ///
    /// # Errors
    /// As [`Tls::new`]; what was in force stays.
    pub(crate) fn renew(&self) -> anyhow::Result<()> {
        let new = config(&self.authority, &self.identity, self.lifetime)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Keeps it young, and in step with the issuer and the anchors, until it is dropped.
    pub(crate) async fn run(&self) {
        let mut anchors = self.authority.anchors();
        let mut pause = self.renew_after(SystemTime::now());
        loop {
            tokio::select! {
                Ok(()) = anchors.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.renew() {
                Ok(()) => self.renew_after(SystemTime::now()),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "cannot renew our own certificate");
                    limits::CONTROL_BACKOFF_MAX
                }
            };
        }
    }

    /// After how long [`Tls::renew`] is due; the issuer's end may have cut the certificate's life short.
    fn renew_after(&self, now: SystemTime) -> Duration {
        let end = self.current.read().unwrap_or_else(PoisonError::into_inner).not_after;
        end.duration_since(now).unwrap_or_default().mul_f64(limits::LEAF_RENEW_AT).max(limits::FILE_POLL)
    }

    /// Whom our certificate names.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For connections to whoever has our own identity.
    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.current.read().unwrap_or_else(PoisonError::into_inner).client.clone())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.read().unwrap_or_else(PoisonError::into_inner).config.clone())
    }
}

fn config(authority: &Authority, identity: &Identity, lifetime: Duration) -> anyhow::Result<Current> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(authority.roots()?);
    // Certify comes before there is a certificate, so none is demanded here; Watch does.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("cannot verify clients with these anchors")?;
    let (leaf, key) = authority.own(identity, SystemTime::now(), lifetime)?;
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not there")?
        .with_root_certificates(roots)
        .with_client_auth_cert(leaf.chain.clone(), key.clone_key())
        .context("cannot use the certificate just made")?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not there")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(leaf.chain, key)
        .context("cannot use the certificate just made")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Current { config: Arc::new(config), client: Arc::new(client), not_after: leaf.not_after })
}

/// Whom the client's certificate names, which rustls has verified. The first SPIFFE ID counts; a
/// certificate without one names nobody.
pub(super) fn peer_identity(connection: &ServerConnection) -> Option<Identity> {
    let leaf = connection.peer_certificates()?.first()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    uris.next()?.parse().ok()
}
