//! tests: tokens in, certificates out.

mod brought;
mod reviewed;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use tonic::Code;
use x509_parser::extensions::GeneralName;

use super::*;

struct Rig {
    certifier: Certifier,
    token: String,
}

fn rig(state: &Path) -> Rig {
    let authority = Arc::new(Authority::open(state, "cluster.local").unwrap());
    authority.set_anchors(&[]).unwrap();
    let tokens = Arc::new(Tokens::open(state).unwrap());
    tokens.ensure(&[("shop".to_owned(), "orders".to_owned())].into()).unwrap();
    let token = std::fs::read_to_string(state.join("tokens/shop.orders.token")).unwrap();
    let domain = (Domain::new("cluster.local").unwrap(), Duration::from_secs(3600));
    Rig {
        certifier: Certifier::new(authority, Owners::Files(tokens), domain, Arc::new(Metrics::new())),
        token,
    }
}

async fn ask(rig: &Rig, token: &str, account: &str) -> Result<v1::CertifyResponse, Status> {
    rig.certifier.answer(&request(token, account)).await
}

/// Asks for more than it gets.
fn request(token: &str, account: &str) -> v1::CertifyRequest {
    let key = KeyPair::generate().unwrap();
    let csr =
        CertificateParams::new(vec!["evil.example".to_owned()]).unwrap().serialize_request(&key).unwrap();
    v1::CertifyRequest {
        token: token.to_owned(),
        csr: csr.der().to_vec(),
        identity: format!("spiffe://cluster.local/ns/shop/sa/{account}"),
    }
}

#[tokio::test]
async fn a_leaf_carries_the_dns_name_then_the_spiffe_id_and_nothing_the_request_asked_for() {
    let state = tempfile::tempdir().unwrap();
    let rig = rig(state.path());
    let answer = ask(&rig, &rig.token, "orders").await.unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&answer.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(
        names.value.general_names,
        [
            GeneralName::DNSName("orders.shop.serviceaccount.identity.linkerd.cluster.local"),
            GeneralName::URI("spiffe://cluster.local/ns/shop/sa/orders"),
        ]
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !leaf.is_ca());
    assert_eq!(leaf.validity().not_after.timestamp(), i64::try_from(answer.not_after).unwrap());
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 3620);
}

#[tokio::test]
async fn a_token_that_is_not_known_and_a_foreign_identity_are_refused_without_a_word_of_the_token() {
    let state = tempfile::tempdir().unwrap();
    let rig = rig(state.path());
    let wrong = "0".repeat(64);
    let status = ask(&rig, &wrong, "orders").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(!status.message().contains(&wrong));
    let status = ask(&rig, &rig.token, "web").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("spiffe://cluster.local/ns/shop/sa/web"));
    assert!(!status.message().contains(&rig.token));
}

#[tokio::test]
async fn state_is_reused_and_secrets_are_for_the_owner_alone() {
    let state = tempfile::tempdir().unwrap();
    let first = rig(state.path());
    let read = |name: &str| std::fs::read_to_string(state.path().join(name)).unwrap();
    let before = (read("issuer.pem"), read("issuer.key"), first.token.clone());
    let second = rig(state.path());
    assert_eq!((read("issuer.pem"), read("issuer.key"), second.token.clone()), before);
    assert_eq!(read("anchors.pem"), before.0);
    for secret in ["issuer.key", "tokens/shop.orders.token"] {
        let mode = std::fs::metadata(state.path().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert!(ask(&second, &before.2, "orders").await.is_ok());
}

#[test]
fn anchors_of_mesh_trust_stand_after_the_issuer_and_survive_a_restart() {
    let (state, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::open(other.path(), "other").unwrap();
    let extra = std::fs::read_to_string(other.path().join("issuer.pem")).unwrap();
    let authority = Authority::open(state.path(), "cluster.local").unwrap();
    assert!(authority.set_anchors(&["nonsense".to_owned(), extra]).unwrap());
    assert_eq!(authority.roots().unwrap().len(), 2);
    assert_eq!(Authority::open(state.path(), "cluster.local").unwrap().roots().unwrap().len(), 2);
    assert!(authority.set_anchors(&[]).unwrap());
    assert_eq!(authority.roots().unwrap().len(), 1);
}

#[test]
fn the_token_of_an_account_without_pods_does_not_count() {
    let state = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(state.path()).unwrap();
    let orders = ("shop".to_owned(), "orders".to_owned());
    tokens.ensure(&[orders.clone()].into()).unwrap();
    let token = std::fs::read_to_string(state.path().join("tokens/shop.orders.token")).unwrap();
    assert_eq!(tokens.owner(&token), Some(orders.clone()));
    tokens.ensure(&[].into()).unwrap();
    assert_eq!(tokens.owner(&token), None);
    tokens.ensure(&[orders.clone()].into()).unwrap();
    assert_eq!(tokens.owner(&token), Some(orders));
}
