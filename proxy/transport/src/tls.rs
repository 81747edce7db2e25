//! tls: who the peer is, proven on every connection.
//!
//! TLS 1.3 alone, with the provider aws-lc-rs. Both sides send certificates. The server takes a
//! client without one (policy decides what it may do) but refuses a certificate that the anchors do
//! not vouch for. The client checks the chain and that it names the endpoint's identity. Sessions
//! are never resumed: a resumed one would outlive the certificate, or the anchor, that it was
//! checked against, and pooled connections leave nothing to win.

use std::io;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use policy::identity::Identity;
use policy::limits;
use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::time::timeout;

use crate::detect::ClientHello;
use crate::identity::{Anchors, Credentials, IdentityError, identity_of};
use crate::io::{Io, Rewound};

/// The ALPN of a connection that begins with a transport header.
pub const TRANSPORT_ALPN: &[u8] = b"transport.l5d.io/v1";

/// The one crypto provider of the process.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// Makes the provider's first use happen now: seeding its random generator and its first key
/// exchange would otherwise cost the first handshake about 45 ms.
pub fn warm_up() {
    let provider = provider();
    let mut seed = [0; 32];
    // What fails here fails again, and is told, at the first handshake.
    let _ = provider.secure_random.fill(&mut seed);
    for group in &provider.kx_groups {
        let _ = group.start();
    }
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate has been given to this workload yet.
    #[error("this proxy has no certificate yet")]
    NotReady,
    /// The handshake was not finished in time.
    #[error("the TLS handshake took longer than {:?}", limits::HANDSHAKE_TIMEOUT)]
    Timeout,
    /// The peer's certificate is not the one that was expected: expired, foreign or forged.
    #[error("the peer's certificate is refused")]
    Certificate(#[source] io::Error),
    /// The peer refused ours, or does not speak TLS 1.3, or went away.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The other side did not agree to the transport header.
    #[error("the peer does not speak {}", String::from_utf8_lossy(TRANSPORT_ALPN))]
    Alpn,
}

struct Ready {
    identity: Identity,
    dns_name: String,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    client_with_header: Arc<ClientConfig>,
}

/// The TLS of one workload: its certificate and anchors, replaced while it runs.
#[derive(Clone, Default)]
pub struct Tls {
    ready: Arc<ArcSwapOption<Ready>>,
}

/// A TLS connection taken in.
pub struct TlsAccepted {
    /// Its bytes.
    pub io: Io,
    /// Whom the client's certificate names; `None` without one.
    pub peer: Option<Identity>,
    /// Whether it begins with a transport header.
    pub has_header: bool,
}

impl Tls {
    /// Without a certificate: nothing is accepted or connected until [`Tls::install`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is a certificate.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load().is_some()
    }

    /// Uses `credentials` and `anchors` for every connection from now on. Open connections stay.
    ///
    /// # Errors
    /// [`IdentityError::Unusable`]; what was installed before stays.
    pub fn install(&self, credentials: &Credentials, anchors: &Anchors) -> Result<(), IdentityError> {
        self.ready.store(Some(Arc::new(Ready::new(credentials, anchors)?)));
        Ok(())
    }

    /// Whether a ClientHello asks for this workload rather than for the application's own TLS.
    #[must_use]
    pub fn is_meant(&self, hello: &ClientHello) -> bool {
        let ready = self.ready.load();
        ready.as_ref().is_some_and(|ready| hello.server_name.as_deref() == Some(ready.dns_name.as_str()))
    }

    /// Whom this workload's own certificate names.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.ready.load().as_ref().map(|ready| ready.identity.clone())
    }

    /// Takes the server's part of a handshake.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is gone then.
    pub async fn accept(&self, io: Io) -> Result<TlsAccepted, TlsError> {
        let ready = self.ready.load_full().ok_or(TlsError::NotReady)?;
        let plain = io.into_plain().map_err(|_| TlsError::Handshake(nested()))?;
        let accept = tokio_rustls::TlsAcceptor::from(ready.server.clone()).accept(plain);
        let tls = timeout(limits::HANDSHAKE_TIMEOUT, accept)
            .await
            .map_err(|_| TlsError::Timeout)?
            .map_err(TlsError::of)?;
        let (_, session) = tls.get_ref();
        let peer = session.peer_certificates().and_then(|chain| chain.first()).and_then(identity_of);
        let has_header = session.alpn_protocol() == Some(TRANSPORT_ALPN);
        Ok(TlsAccepted { io: Io::server(tls), peer, has_header })
    }

    /// Takes the client's part of a handshake with the workload `peer`.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is gone then.
    pub async fn connect(&self, io: Io, peer: &Identity, with_header: bool) -> Result<Io, TlsError> {
        let ready = self.ready.load_full().ok_or(TlsError::NotReady)?;
        let config = if with_header { &ready.client_with_header } else { &ready.client };
        let tls = shake_hands(io, config.clone(), peer).await?;
        if with_header && tls.get_ref().1.alpn_protocol() != Some(TRANSPORT_ALPN) {
            return Err(TlsError::Alpn);
        }
        Ok(Io::client(tls))
    }
}

/// Takes the client's part of a handshake without a certificate of our own: only to ask for one.
///
/// # Errors
/// [`TlsError`]; the connection is gone then.
pub async fn connect_without_certificate(io: Io, peer: &Identity, anchors: &Anchors) -> Result<Io, TlsError> {
    let config = anonymous(anchors.roots.clone()).map_err(|error| TlsError::of(io::Error::other(error)))?;
    let tls = shake_hands(io, Arc::new(config), peer).await?;
    Ok(Io::client(tls))
}

/// The client's part of a handshake with the workload `peer`.
async fn shake_hands(
    io: Io,
    config: Arc<ClientConfig>,
    peer: &Identity,
) -> Result<tokio_rustls::client::TlsStream<Rewound>, TlsError> {
    let plain = io.into_plain().map_err(|_| TlsError::Handshake(nested()))?;
    let name = ServerName::try_from(peer.dns_name())
        .map_err(|error| TlsError::Certificate(io::Error::other(error)))?;
    let connect = tokio_rustls::TlsConnector::from(config).connect(name, plain);
    timeout(limits::HANDSHAKE_TIMEOUT, connect).await.map_err(|_| TlsError::Timeout)?.map_err(TlsError::of)
}

/// What every client asks of a server: TLS 1.3, and a certificate that leads to `roots`.
fn proving(roots: Arc<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier))
}

fn anonymous(roots: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let mut config = proving(roots)?.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn nested() -> io::Error {
    io::Error::other("the connection is already TLS of the mesh")
}

impl TlsError {
    fn of(error: io::Error) -> Self {
        let certificate = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref())
            .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
        if certificate { Self::Certificate(error) } else { Self::Handshake(error) }
    }
}

impl Ready {
    fn new(credentials: &Credentials, anchors: &Anchors) -> Result<Self, IdentityError> {
        let roots = anchors.roots.clone();
        let client = client(credentials, roots.clone()).map_err(IdentityError::Unusable)?;
        let mut client_with_header = client.clone();
        client_with_header.alpn_protocols = vec![TRANSPORT_ALPN.to_vec()];
        Ok(Self {
            dns_name: credentials.identity.dns_name(),
            identity: credentials.identity.clone(),
            server: Arc::new(server(credentials, roots).map_err(IdentityError::Unusable)?),
            client: Arc::new(client),
            client_with_header: Arc::new(client_with_header),
        })
    }
}

fn client(credentials: &Credentials, roots: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let mut config =
        proving(roots)?.with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server(credentials: &Credentials, roots: Arc<RootCertStore>) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![TRANSPORT_ALPN.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
