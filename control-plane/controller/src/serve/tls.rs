//! tls: our own certificate and the anchors in force, renewed while connections go on.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use policy::identity::Identity;
use policy::limits;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;

use crate::issue::Authority;

/// The server's side of TLS.
pub(crate) struct Tls {
    authority: Arc<Authority>,
    identity: Identity,
    lifetime: Duration,
    config: RwLock<Arc<ServerConfig>>,
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
        let config = RwLock::new(config(&authority, &identity, lifetime)?);
        Ok(Self { authority, identity, lifetime, config })
    }

    /// Takes the anchors as they are now, with a new certificate. Connections go on as they are.
    ///
    /// # Errors
    /// As [`Tls::new`]; what was in force stays.
    pub(crate) fn renew(&self) -> anyhow::Result<()> {
        let new = config(&self.authority, &self.identity, self.lifetime)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// After how long [`Tls::renew`] is due.
    pub(crate) fn renew_after(&self) -> Duration {
        self.lifetime.mul_f64(limits::LEAF_RENEW_AT)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn config(
    authority: &Authority,
    identity: &Identity,
    lifetime: Duration,
) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // Certify comes before there is a certificate, so none is demanded here; Watch does.
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()?), provider.clone())
            .allow_unauthenticated()
            .build()
            .context("cannot verify clients with these anchors")?;
    let (certificate, key) = authority.own(identity, SystemTime::now(), lifetime)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not there")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .context("cannot use the certificate just made")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
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
