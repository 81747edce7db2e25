//! peer: another sidecar, or one that pretends to be: TLS with certificates of the mesh's own issuer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use policy::identity::Identity;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use transport::header::{SessionProtocol, TransportHeader};
use transport::identity::{Anchors, SigningRequest};
use transport::io::Io;
use transport::tls::{TRANSPORT_ALPN, Tls, provider};

pub(crate) fn identity(account: &str) -> Identity {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().expect("an identity")
}

/// The issuer of the controller with this state.
pub(crate) fn issuer(state: &Path) -> Issuer<'static, KeyPair> {
    let key = PrivateKeyDer::from_pem_file(state.join("issuer.key")).expect("the issuer's key");
    let issuer = CertificateDer::from_pem_file(state.join("issuer.pem")).expect("the issuer");
    let key = KeyPair::try_from(&key).expect("a key");
    Issuer::from_ca_cert_der(&issuer, key).expect("it can issue")
}

/// A workload's credentials as the controller with this state would sign them.
pub(crate) fn certified(state: &Path, identity: Identity, life: Duration) -> Tls {
    let request = SigningRequest::generate(identity.clone()).expect("a request");
    let leaf = sign(&issuer(state), request.csr_der(), &identity, life);
    let anchors = std::fs::read(state.join("anchors.pem")).expect("the anchors");
    let tls = Tls::new();
    let credentials = request.into_credentials(vec![leaf]).expect("a certificate for the request");
    tls.install(&credentials, &Anchors::from_pem(&anchors).expect("anchors")).expect("it is usable");
    tls
}

/// A certificate of this life for a request.
pub(crate) fn sign(issuer: &Issuer<'_, KeyPair>, csr: &[u8], identity: &Identity, life: Duration) -> Vec<u8> {
    let mut csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).expect("a request");
    let mut params = CertificateParams::new(vec![identity.dns_name()]).expect("a name");
    params.subject_alt_names.push(SanType::URI(identity.spiffe_id().try_into().expect("a URI")));
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + life).into();
    csr.params = params;
    csr.signed_by(issuer).expect("it signs").der().to_vec()
}

/// Connects as `tls` to the workload `account`, with or without the protocol of the header.
pub(crate) async fn connect(
    tls: &Tls,
    address: SocketAddr,
    account: &str,
    with_header: bool,
) -> std::io::Result<Io> {
    let tcp = TcpStream::connect(address).await?;
    tls.connect(Io::tcp(tcp), &identity(account), with_header).await.map_err(std::io::Error::other)
}

/// Connects without a certificate.
pub(crate) async fn anonymous(
    state: &Path,
    address: SocketAddr,
    account: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let anchors = CertificateDer::pem_file_iter(state.join("anchors.pem")).expect("the anchors");
    roots.add_parsable_certificates(anchors.map(|anchor| anchor.expect("an anchor")));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![TRANSPORT_ALPN.to_vec()];
    let name = ServerName::try_from(identity(account).dns_name()).expect("a name");
    let tcp = TcpStream::connect(address).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// The header that asks for HTTP/1 on a port of the application.
pub(crate) fn header(port: u16, name: Option<&str>) -> Vec<u8> {
    let name = name.map(str::to_owned);
    TransportHeader { port, name, session: Some(SessionProtocol::Http1) }.encode()
}
