//! brought: an issuer in a Secret, made here or by somebody else, and what happens when it changes.

use std::time::UNIX_EPOCH;

use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, IsCa, Issuer, KeyUsagePurpose, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::*;
use crate::installation::Installation;
use crate::issue::pem::to_pem;
use crate::scripted::Scripted;

const PATH: &str = "/api/v1/namespaces/tidegate/secrets/tidegate-issuer";
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Brought {
    server: Scripted,
    secret: IssuerSecret,
}

fn rig() -> Brought {
    let server = Scripted::default();
    let troubles = Arc::new(Troubles::new(Counts::default()));
    let client = server.client();
    let place = (client.clone(), "tidegate", Arc::new(Installation::new(client)));
    let secret = IssuerSecret::new(place, "cluster.local", DAY, troubles);
    Brought { server, secret }
}

/// A certificate with its key, which may sign others.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

fn ca(name: &str, above: Option<&Ca>, life: Duration, key: KeyPair) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    issuer::valid(&mut params, SystemTime::now(), life);
    sign(params, above, key)
}

fn sign(params: CertificateParams, above: Option<&Ca>, key: KeyPair) -> Ca {
    let signed = match above {
        Some(above) => params.signed_by(&key, &Issuer::from_params(&above.params, &above.key)),
        None => params.self_signed(&key),
    };
    let pem = to_pem("CERTIFICATE", signed.unwrap().der());
    Ca { params, key, pem }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn object(fields: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> = fields
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(ByteString(text.as_bytes().to_vec()))))
        .collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tidegate-issuer"}, "data": data})
}

fn key_pem(ca: &Ca) -> String {
    to_pem("PRIVATE KEY", &ca.key.serialize_der())
}

fn sign_one(authority: &Authority) -> issuer::Leaf {
    let identity = "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap();
    authority.sign(&request("", "orders").csr, &identity, SystemTime::now(), DAY).unwrap()
}

async fn trouble(rig: &Brought, object: Value) -> String {
    rig.server.put(PATH, object);
    let error = rig.secret.open().await.err().expect("it cannot be used");
    let text = format!("{error:#}");
    assert!(text.contains("Secret tidegate/tidegate-issuer"), "{text}");
    assert!(text.contains("never written over"), "{text}");
    text
}

#[tokio::test]
async fn an_issuer_is_made_once_and_read_from_then_on() {
    let rig = rig();
    let first = rig.secret.open().await.unwrap();
    let made = rig.server.get(PATH).unwrap();
    assert_eq!(made["type"], "kubernetes.io/tls");
    let second = rig.secret.open().await.unwrap();
    assert_eq!(*first.anchors().borrow(), *second.anchors().borrow());
    assert_eq!(rig.server.get(PATH).unwrap(), made);
    assert_eq!(sign_one(&first).chain.len(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_made_belongs_to_the_role_and_one_that_was_brought_does_not() {
    let rig = rig();
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/tidegate-controller";
    rig.server.put(role, json!({"metadata": {"name": "tidegate-controller", "uid": "7"}}));
    rig.secret.open().await.unwrap();
    assert_eq!(rig.server.get(PATH).unwrap()["metadata"]["ownerReferences"][0]["uid"], "7");

    let own = ca("theirs", None, DAY * 365, key());
    rig.server.put(PATH, object(&[("tls.crt", &own.pem), ("tls.key", &key_pem(&own))]));
    let brought = rig.server.get(PATH);
    let authority = Arc::new(rig.secret.open().await.unwrap());
    rig.secret.follow(&authority, &mut None, SystemTime::now()).await.unwrap();
    assert_eq!(rig.server.get(PATH), brought);
}

#[tokio::test]
async fn who_comes_second_reads_the_issuer_of_the_first() {
    let rig = rig();
    // It was not there when asked for, and is there when it is to be made.
    let other = ca("other", None, DAY * 365, key());
    rig.server.put(PATH, object(&[("tls.crt", &other.pem), ("tls.key", &key_pem(&other))]));
    rig.server.miss_once(PATH);
    let authority = rig.secret.open().await.unwrap();
    assert_eq!(**authority.anchors().borrow(), *other.pem);
    let asked = rig.server.asked();
    assert!(asked.iter().any(|asked| asked.starts_with("POST")), "{asked:?}");
}

#[tokio::test]
async fn a_chain_with_intermediates_goes_with_every_leaf_and_its_root_is_the_anchor() {
    let rig = rig();
    let root = ca("root", None, DAY * 3650, key());
    let middle = ca("middle", Some(&root), DAY * 365, key());
    let own = ca("issuer", Some(&middle), DAY * 90, key());
    let chain = format!("{}{}", own.pem, middle.pem);
    rig.server.put(PATH, object(&[("tls.crt", &chain), ("tls.key", &key_pem(&own)), ("ca.crt", &root.pem)]));
    let authority = rig.secret.open().await.unwrap();
    assert_eq!(**authority.anchors().borrow(), *root.pem);
    let leaf = sign_one(&authority);
    let sent: String = leaf.chain[1..].iter().map(|one| to_pem("CERTIFICATE", one)).collect();
    assert_eq!(sent, chain);

    // Without ca.crt the last one of the chain is what is trusted.
    rig.server.put(PATH, object(&[("tls.crt", &chain), ("tls.key", &key_pem(&own))]));
    let authority = rig.secret.open().await.unwrap();
    assert_eq!(**authority.anchors().borrow(), *middle.pem);
    assert_eq!(sign_one(&authority).chain.len(), 2);
}

#[tokio::test]
async fn a_key_of_rsa_signs_too() {
    let rig = rig();
    let own = ca("rsa", None, DAY * 365, KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    rig.server.put(PATH, object(&[("tls.crt", &own.pem), ("tls.key", &key_pem(&own)), ("ca.crt", &own.pem)]));
    let authority = rig.secret.open().await.unwrap();
    assert_eq!(sign_one(&authority).chain.len(), 1);
}

#[tokio::test]
async fn a_leaf_does_not_outlive_its_issuer() {
    let rig = rig();
    let own = ca("short", None, Duration::from_secs(3600), key());
    rig.server.put(PATH, object(&[("tls.crt", &own.pem), ("tls.key", &key_pem(&own))]));
    let authority = rig.secret.open().await.unwrap();
    let leaf = sign_one(&authority);
    assert!(leaf.not_after <= authority.issuer_end());
    assert!(leaf.not_after + Duration::from_secs(5) > authority.issuer_end());
}

#[tokio::test]
async fn what_is_wrong_with_an_issuer_is_said_with_the_secret_and_the_remedy() {
    let rig = rig();
    let (own, other) = (ca("a", None, DAY * 365, key()), ca("b", None, DAY * 365, key()));
    let own_key = key_pem(&own);
    let missing = trouble(&rig, object(&[("tls.crt", &own.pem)])).await;
    assert!(missing.contains("tls.key is missing"), "{missing}");
    let foreign = trouble(&rig, object(&[("tls.crt", &own.pem), ("tls.key", &key_pem(&other))])).await;
    assert!(foreign.contains("does not belong"), "{foreign}");
    let broken = trouble(&rig, object(&[("tls.crt", &own.pem), ("tls.key", "s3cret")])).await;
    assert!(broken.contains("not a private key") && !broken.contains("s3cret"), "{broken}");
    let orphan =
        trouble(&rig, object(&[("tls.crt", &own.pem), ("tls.key", &own_key), ("ca.crt", &other.pem)])).await;
    assert!(orphan.contains("not trusted by its own anchors"), "{orphan}");

    let mut params = CertificateParams::default();
    issuer::valid(&mut params, SystemTime::now(), DAY);
    let leaf = sign(params, None, key());
    let plain = trouble(&rig, object(&[("tls.crt", &leaf.pem), ("tls.key", &key_pem(&leaf))])).await;
    assert!(plain.contains("isCA: true"), "{plain}");

    let mut params = own.params.clone();
    issuer::valid(&mut params, UNIX_EPOCH + DAY * 365, DAY);
    let old = sign(params, None, key());
    let ended = trouble(&rig, object(&[("tls.crt", &old.pem), ("tls.key", &key_pem(&old))])).await;
    assert!(ended.contains("run out"), "{ended}");
}

#[tokio::test]
async fn a_permission_that_is_missing_names_itself() {
    let rig = rig();
    rig.server.refuse(&format!("GET {PATH}"), 403, "secrets is forbidden");
    let error = format!("{:#}", rig.secret.open().await.err().unwrap());
    assert!(error.contains("may not get Secret tidegate/tidegate-issuer"), "{error}");
    assert!(error.contains("give the controller's service account the permission"), "{error}");
}

#[tokio::test]
async fn another_issuer_signs_from_then_on_and_the_former_ones_certificates_are_trusted_as_long_as_they_live()
{
    let rig = rig();
    let authority = rig.secret.open().await.unwrap();
    let before = authority.anchors().borrow().to_string();
    let mut last = None;
    let now = SystemTime::now();
    rig.secret.follow(&authority, &mut last, now).await.unwrap();

    let next = ca("next", None, DAY * 365, key());
    rig.server.put(PATH, object(&[("tls.crt", &next.pem), ("tls.key", &key_pem(&next))]));
    let mut seen = authority.anchors();
    rig.secret.follow(&authority, &mut last, now).await.unwrap();
    assert!(seen.has_changed().unwrap());
    assert_eq!(**seen.borrow_and_update(), format!("{}{before}", next.pem));

    rig.secret.follow(&authority, &mut last, now + DAY - Duration::from_secs(1)).await.unwrap();
    assert!(!seen.has_changed().unwrap());
    rig.secret.follow(&authority, &mut last, now + DAY).await.unwrap();
    assert_eq!(**authority.anchors().borrow(), *next.pem);
}

#[tokio::test]
async fn a_bad_or_a_missing_secret_leaves_the_issuer_in_memory_in_force() {
    let rig = rig();
    let authority = rig.secret.open().await.unwrap();
    let mut last = None;
    let now = SystemTime::now();
    rig.secret.follow(&authority, &mut last, now).await.unwrap();
    let good = rig.server.get(PATH).unwrap();
    rig.server.put(PATH, object(&[("tls.crt", "nonsense"), ("tls.key", "nonsense")]));
    assert!(rig.secret.follow(&authority, &mut last, now).await.is_err());
    rig.server.remove(PATH);
    let gone = rig.secret.follow(&authority, &mut last, now).await.unwrap_err();
    assert!(gone.to_string().contains("is gone"), "{gone}");
    sign_one(&authority);
    rig.server.put(PATH, good);
    rig.secret.follow(&authority, &mut last, now).await.unwrap();
    assert_eq!(authority.roots().unwrap().len(), 1);
}
