//! tests: the webhook's certificate made, renewed in two steps, and told to the API server.

use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::*;
use crate::issue::{Counts, certificates};
use crate::scripted::Scripted;

const SECRET: &str = "/api/v1/namespaces/tidegate/secrets/tidegate-webhook-tls";
const INJECTOR: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tidegate-injector";
const VALIDATOR: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/tidegate-validator";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn webhook(server: &Scripted) -> WebhookTls {
    let troubles = Arc::new(Troubles::new(Counts::default()));
    let client = server.client();
    let place = (client.clone(), "tidegate", Arc::new(Installation::new(client)));
    WebhookTls::new(place, troubles).unwrap()
}

fn configurations(server: &Scripted) {
    let hook = |name: &str| {
        json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"service": {"name": SERVICE, "namespace": "tidegate"}}})
    };
    for (path, name) in [(INJECTOR, "tidegate-injector"), (VALIDATOR, "tidegate-validator")] {
        let hooks = [hook("a.tidegate.dev"), hook("b.tidegate.dev")];
        server.put(path, json!({"metadata": {"name": name}, "webhooks": hooks}));
    }
}

/// The bundle of every webhook there is.
fn bundles(server: &Scripted) -> Vec<Value> {
    let of = |path| {
        let object = server.get(path).unwrap();
        object["webhooks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hook| hook["clientConfig"]["caBundle"].clone())
            .collect()
    };
    [INJECTOR, VALIDATOR].into_iter().flat_map(|path| -> Vec<Value> { of(path) }).collect()
}

fn authorities(server: &Scripted) -> Vec<String> {
    let text = Material::read(&data(server)).unwrap().authorities().to_owned();
    certificates(&text).unwrap().iter().map(|der| crate::issue::to_pem("CERTIFICATE", der)).collect()
}

fn data(server: &Scripted) -> std::collections::BTreeMap<String, k8s_openapi::ByteString> {
    serde_json::from_value(server.get(SECRET).unwrap()["data"].clone()).unwrap()
}

/// Whether a client that trusts these is content with what is served.
async fn is_trusted(webhook: &WebhookTls, authorities: &[String], at_name: &str) -> bool {
    let mut roots = RootCertStore::empty();
    for der in certificates(&authorities.concat()).unwrap() {
        roots.add(der).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (client, server) = tokio::io::duplex(16 * 1024);
    let accepted = webhook.acceptor().accept(server);
    let name = ServerName::try_from(at_name.to_owned()).unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, client);
    let (accepted, connected) = tokio::join!(accepted, connected);
    accepted.is_ok() && connected.is_ok()
}

const NAME_OF_SERVICE: &str = "tidegate-controller.tidegate.svc";

#[tokio::test]
async fn a_certificate_is_made_served_and_told_to_every_webhook() {
    let server = Scripted::default();
    configurations(&server);
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/tidegate-controller";
    server.put(role, json!({"metadata": {"name": "tidegate-controller", "uid": "7"}}));
    let webhook = webhook(&server);
    assert!(!is_trusted(&webhook, &[ca()], NAME_OF_SERVICE).await, "nothing is served before");
    assert_eq!(webhook.keep(true, SystemTime::now()).await.unwrap(), Due::Nothing);
    let known = authorities(&server);
    assert!(is_trusted(&webhook, &known, NAME_OF_SERVICE).await);
    assert!(!is_trusted(&webhook, &known, "tidegate-controller.other.svc").await);
    assert_eq!(bundles(&server), vec![json!(data(&server)["ca.crt"]); 4]);
    assert_eq!(server.get(SECRET).unwrap()["metadata"]["ownerReferences"][0]["uid"], "7");
    let hook = &server.get(INJECTOR).unwrap()["webhooks"][1];
    assert_eq!(hook["clientConfig"]["service"]["namespace"], "tidegate", "the rest is left alone");
}

fn ca() -> String {
    Material::make("x", SystemTime::now()).unwrap().authorities().to_owned()
}

#[tokio::test]
async fn a_second_replica_serves_the_same_and_writes_nothing() {
    let server = Scripted::default();
    configurations(&server);
    let (first, second) = (webhook(&server), webhook(&server));
    first.keep(false, SystemTime::now()).await.unwrap();
    server.asked();
    second.keep(false, SystemTime::now()).await.unwrap();
    assert_eq!(server.asked(), [format!("GET {SECRET}")]);
    assert!(is_trusted(&second, &authorities(&server), NAME_OF_SERVICE).await);
    assert_eq!(bundles(&server), vec![Value::Null; 4]);
}

#[tokio::test]
async fn a_bundle_that_somebody_wrote_over_is_healed_and_one_in_step_is_not_written() {
    let server = Scripted::default();
    configurations(&server);
    let webhook = webhook(&server);
    webhook.keep(true, SystemTime::now()).await.unwrap();
    server.asked();
    webhook.keep(true, SystemTime::now()).await.unwrap();
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.starts_with("GET")), "{asked:?}");
    configurations(&server);
    webhook.keep(true, SystemTime::now()).await.unwrap();
    assert_eq!(bundles(&server), vec![json!(data(&server)["ca.crt"]); 4]);
}

#[tokio::test]
async fn a_renewal_is_known_to_the_api_server_before_it_is_served_and_the_old_one_after() {
    let server = Scripted::default();
    configurations(&server);
    let webhook = webhook(&server);
    let begin = SystemTime::now();
    webhook.keep(true, begin).await.unwrap();
    let old = authorities(&server);
    assert_eq!(webhook.keep(true, begin + DAY * 59).await.unwrap(), Due::Nothing);

    let due = begin + DAY * 60;
    assert_eq!(webhook.keep(true, due).await.unwrap(), Due::Stage);
    assert_eq!(webhook.keep(true, due).await.unwrap(), Due::Nothing);
    let both = authorities(&server);
    assert_eq!(both[1..], old);
    assert_eq!(bundles(&server), vec![json!(data(&server)["ca.crt"]); 4]);
    assert!(is_trusted(&webhook, &old, NAME_OF_SERVICE).await, "the old one is still served");

    let settled = due + limits::WEBHOOK_SETTLE;
    assert_eq!(webhook.keep(true, settled).await.unwrap(), Due::Promote);
    assert_eq!(webhook.keep(true, settled).await.unwrap(), Due::Nothing);
    assert_eq!(authorities(&server), both, "whoever is late is still trusted");
    let end = webhook.not_after().unwrap().duration_since(due).unwrap();
    assert!(end > limits::WEBHOOK_LIFETIME - Duration::from_secs(2), "{end:?}");
    assert!(!data(&server).contains_key("next.key"));

    let again = settled + DAY * 60;
    assert_eq!(webhook.keep(true, again).await.unwrap(), Due::Stage);
    assert_eq!(authorities(&server).len(), 2, "the oldest is forgotten");
    assert_eq!(authorities(&server)[1], both[0]);
}

#[tokio::test]
async fn a_renewal_waits_until_the_api_server_can_be_told() {
    let server = Scripted::default();
    configurations(&server);
    let webhook = webhook(&server);
    let begin = SystemTime::now();
    webhook.keep(true, begin).await.unwrap();
    webhook.keep(true, begin + DAY * 60).await.unwrap();
    server.refuse("PATCH", 403, "forbidden");
    let late = begin + DAY * 61;
    let error = webhook.keep(true, late).await.unwrap_err();
    assert!(
        error.to_string().contains("may not patch MutatingWebhookConfiguration tidegate-injector"),
        "{error}"
    );
    assert!(data(&server).contains_key("next.key"), "not promoted");
    server.allow();
    assert_eq!(webhook.keep(true, late).await.unwrap(), Due::Promote);
}

#[tokio::test]
async fn what_has_run_out_or_is_broken_is_made_anew_but_not_what_somebody_else_put_there() {
    let server = Scripted::default();
    let webhook = webhook(&server);
    webhook.keep(true, SystemTime::now() - DAY * 100).await.unwrap();
    assert_eq!(webhook.keep(true, SystemTime::now()).await.unwrap(), Due::Remake);
    assert_eq!(webhook.keep(true, SystemTime::now()).await.unwrap(), Due::Nothing);
    let made = server.get(SECRET).unwrap();
    assert!(is_trusted(&webhook, &authorities(&server), NAME_OF_SERVICE).await);

    let mut broken = made.clone();
    broken["data"]["tls.key"] = json!("bm9uc2Vuc2U=");
    server.put(SECRET, broken.clone());
    assert!(webhook.keep(false, SystemTime::now()).await.is_err());
    assert_eq!(webhook.keep(true, SystemTime::now()).await.unwrap(), Due::Remake);
    assert_eq!(webhook.keep(true, SystemTime::now()).await.unwrap(), Due::Nothing);

    broken["metadata"]["labels"] = json!({});
    server.put(SECRET, broken);
    let error = format!("{:#}", webhook.keep(true, SystemTime::now()).await.unwrap_err());
    assert!(error.contains("Secret tidegate/tidegate-webhook-tls cannot be used: delete it"), "{error}");
    assert!(
        is_trusted(&webhook, &authorities_of(&webhook), NAME_OF_SERVICE).await,
        "the last good is served"
    );
}

fn authorities_of(webhook: &WebhookTls) -> Vec<String> {
    vec![webhook.served.lock().as_ref().unwrap().0.authorities().to_owned()]
}
