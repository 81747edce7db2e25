//! tests: each part against older, newer and the same.

use kube::api::DynamicObject;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::{Weight, certificate, controller, crd, now, proxies};

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("it is an object")
}

#[test]
fn a_controller_is_compared_by_number() {
    assert_eq!(controller(Some(env!("CARGO_PKG_VERSION"))).weight, Weight::Well);
    assert_eq!(controller(Some("0.0.9")).weight, Weight::ToDo);
    let newer = controller(Some("0.10.0"));
    assert_eq!(newer.weight, Weight::InTheWay);
    assert!(newer.remedy.contains("0.10.0"), "{newer:?}");
    assert_eq!(controller(None).weight, Weight::ToDo);
}

fn definition(versions: &[&str], stored: &[&str]) -> Value {
    let versions: Vec<Value> = versions.iter().map(|name| json!({"name": name})).collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
           "metadata": {"name": "x"}, "spec": {"versions": versions}, "status": {"storedVersions": stored}})
}

#[test]
fn a_stored_version_that_goes_is_in_the_way() {
    let wanted = definition(&["v1"], &[]);
    let found = crd("x", &wanted, Some(&object(definition(&["v1alpha1", "v1"], &["v1alpha1", "v1"]))));
    assert_eq!((found.weight, found.said.as_str()), (Weight::InTheWay, "objects are stored as v1alpha1"));
    let older = crd(
        "x",
        &definition(&["v1alpha1", "v1"], &[]),
        Some(&object(definition(&["v1alpha1"], &["v1alpha1"]))),
    );
    assert_eq!((older.weight, older.said.as_str()), (Weight::ToDo, "does not serve v1"));
    assert_eq!(crd("x", &wanted, Some(&object(definition(&["v1"], &["v1"])))).weight, Weight::Well);
    assert_eq!(crd("x", &wanted, None).weight, Weight::ToDo);
}

#[test]
fn sidecars_of_another_version_are_counted() {
    let pods =
        [("shop/web", "0.1.0"), ("shop/orders", "0.0.9")].map(|(pod, of)| (pod.to_owned(), of.to_owned()));
    let found = proxies(&pods, Some("0.1.0"));
    assert_eq!(found.said, "1 pod not of 0.1.0, the first shop/orders");
    assert_eq!(proxies(&pods[..1], Some("0.1.0")).weight, Weight::Well);
}

/// A Secret whose certificate began and ends so many days from now.
fn secret(begin: i64, end: i64) -> DynamicObject {
    let mut params = CertificateParams::default();
    let day = |days: i64| {
        rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_secs(u64::try_from(now() + days * 86_400).expect("it is after 1970"))
    };
    params.not_before = day(begin);
    params.not_after = day(end);
    let key = KeyPair::generate().expect("a key is made");
    let made = params.self_signed(&key).expect("a certificate is signed");
    let base64 =
        |bytes: &[u8]| serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).expect("it is text");
    let der = base64(made.der()).as_str().expect("it is text").to_owned();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
    object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
                  "data": {"tls.crt": base64(pem.as_bytes())}}))
}

#[test]
fn a_certificate_is_judged_by_what_is_left_of_its_life() {
    let weight = |begin, end| certificate("tidegate-webhook-tls", Some(&secret(begin, end))).weight;
    assert_eq!(weight(-10, 20), Weight::Well);
    assert_eq!(weight(-24, 6), Weight::ToDo);
    assert_eq!(weight(-30, -1), Weight::InTheWay);
    // Years: a month before its end.
    assert_eq!(weight(-3000, 40), Weight::Well);
    assert_eq!(weight(-3000, 20), Weight::ToDo);
    assert_eq!(certificate("tidegate-issuer", None).weight, Weight::ToDo);
    let broken = object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}}));
    assert_eq!(certificate("tidegate-issuer", Some(&broken)).weight, Weight::InTheWay);
}
