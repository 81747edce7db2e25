//! Two workloads, one issuer, and those who should not be let in.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::identity::SigningRequest;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at > chunk.len() { '=' } else { digit });
        }
    }
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = pem(params.self_signed(&key).unwrap().der());
    Authority { issuer: Issuer::new(params, key), pem }
}

fn identity(account: &str) -> Identity {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

fn sign(authority: &Authority, request: &SigningRequest, named: &Identity, life: Duration) -> Vec<u8> {
    let csr = request.csr_der().to_vec().into();
    let mut csr = rcgen::CertificateSigningRequestParams::from_der(&csr).unwrap();
    let mut params = CertificateParams::new(vec![named.dns_name()]).unwrap();
    params.subject_alt_names.push(SanType::URI(named.spiffe_id().try_into().unwrap()));
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + life).into();
    csr.params = params;
    csr.signed_by(&authority.issuer).unwrap().der().to_vec()
}

fn tls(authority: &Authority, account: &str, anchors: &str) -> Tls {
    let request = SigningRequest::generate(identity(account)).unwrap();
    let leaf = sign(authority, &request, &identity(account), Duration::from_secs(600));
    let credentials = request.into_credentials(vec![leaf]).unwrap();
    let tls = Tls::new();
    tls.install(&credentials, &Anchors::from_pem(anchors.as_bytes()).unwrap()).unwrap();
    tls
}

async fn handshake(
    client: &Tls,
    server: &Tls,
    expected: &str,
) -> (Result<Io, TlsError>, Result<TlsAccepted, TlsError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let expected = identity(expected);
    tokio::join!(client.connect(Io::tcp(tcp), &expected, true), server.accept(Io::tcp(accepted)))
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let issuer = authority();
    let (web, orders) = (tls(&issuer, "web", &issuer.pem), tls(&issuer, "orders", &issuer.pem));
    let (client, server) = handshake(&web, &orders, "orders").await;
    assert!(client.unwrap().is_tls());
    let accepted = server.unwrap();
    assert_eq!((accepted.peer, accepted.has_header), (Some(identity("web")), true));
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused_by_the_client() {
    let issuer = authority();
    let (web, cart) = (tls(&issuer, "web", &issuer.pem), tls(&issuer, "cart", &issuer.pem));
    let (client, server) = handshake(&web, &cart, "orders").await;
    assert!(matches!(client, Err(TlsError::Certificate(_))));
    assert!(server.is_err());
}

#[tokio::test]
async fn a_foreign_issuer_is_refused_until_its_anchor_is_added() {
    let (ours, theirs) = (authority(), authority());
    let both = format!("{}{}", ours.pem, theirs.pem);
    let foreign = tls(&theirs, "web", &both);
    let (_, server) = handshake(&foreign, &tls(&ours, "orders", &ours.pem), "orders").await;
    assert!(matches!(server, Err(TlsError::Certificate(_))));
    let (client, server) = handshake(&foreign, &tls(&ours, "orders", &both), "orders").await;
    assert!(client.is_ok() && server.is_ok());
}

#[tokio::test]
async fn a_proxy_without_a_certificate_says_so() {
    let issuer = authority();
    let (client, _) = handshake(&Tls::new(), &tls(&issuer, "orders", &issuer.pem), "orders").await;
    assert!(matches!(client, Err(TlsError::NotReady)));
}

#[test]
fn a_certificate_for_somebody_else_or_of_another_time_is_not_taken() {
    let issuer = authority();
    let request = SigningRequest::generate(identity("web")).unwrap();
    let leaf = sign(&issuer, &request, &identity("cart"), Duration::from_secs(600));
    assert!(matches!(request.into_credentials(vec![leaf]), Err(IdentityError::Foreign { .. })));
    let request = SigningRequest::generate(identity("web")).unwrap();
    let ended = sign_ended(&issuer, &request);
    assert!(matches!(request.into_credentials(vec![ended]), Err(IdentityError::Time)));
    let request = SigningRequest::generate(identity("web")).unwrap();
    assert!(matches!(request.into_credentials(Vec::new()), Err(IdentityError::Chain)));
}

fn sign_ended(issuer: &Authority, request: &SigningRequest) -> Vec<u8> {
    let csr = request.csr_der().to_vec().into();
    let mut csr = rcgen::CertificateSigningRequestParams::from_der(&csr).unwrap();
    csr.params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    csr.params.not_after = (SystemTime::now() - Duration::from_secs(30)).into();
    csr.signed_by(&issuer.issuer).unwrap().der().to_vec()
}

#[test]
fn anchors_that_are_not_certificates_are_refused_whole() {
    for bad in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(Anchors::from_pem(bad.as_bytes()).is_err(), "{bad:?} passed");
    }
    let good_and_bad = authority().pem + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Anchors::from_pem(good_and_bad.as_bytes()).is_err());
}
