//! headers: what the target sees of a message.

use serde_json::json;

use crate::receiver::{Act, Seen};
use crate::shop::{PREFER, Setup, Shop, id_of, json_of};

/// The one request that arrived for a POST with these headers.
async fn arrived(shop: &Shop, headers: &[(&str, &str)]) -> (String, Seen) {
    let id = id_of(&shop.post("/a/b?c=d&e", headers, "the body").await);
    shop.reaches(&id, "Succeeded").await;
    let seen = shop.orders().seen().into_iter().find(|seen| seen.id() == Some(&id));
    (id.clone(), seen.unwrap_or_else(|| panic!("{id} did not arrive as itself")))
}

#[tokio::test]
async fn the_original_request_arrives_without_what_was_meant_for_the_queue() {
    let shop = Setup::of(json!({"callback": {"allowedHosts": ["hooks"], "secretRef": {"name": "hooks"}}}))
        .with(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hooks", "namespace": "shop"},
            "stringData": {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}),
        )
        .start()
        .await;
    let headers = [
        ("prefer", "respond-async, handling=lenient"),
        ("prefer", "return=minimal; x=\"1\", wait=0"),
        ("tidegate-delay", "PT0.01S"),
        ("tidegate-expires", "2999-01-01T00:00:00Z"),
        ("tidegate-key", "k"),
        ("tidegate-callback", "http://hooks/done"),
        ("tidegate-request-id", "forged"),
        ("tidegate-attempt", "99"),
        ("tidegate-enqueued-at", "forged"),
        ("connection", "x-private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "gzip"),
        ("trailer", "x-sum"),
        ("proxy-authorization", "Basic b3VyczpzZWNyZXQ="),
        ("x-kept", "1"),
        ("x-kept", "2"),
        ("content-type", "text/plain"),
    ];
    let (id, seen) = arrived(&shop, &headers).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/a/b?c=d&e"));
    assert_eq!(seen.body, "the body");
    assert_eq!(seen.header("prefer"), Some("handling=lenient, return=minimal; x=\"1\""));
    assert_eq!(seen.header("x-kept"), Some("1, 2"));
    assert_eq!(seen.header("content-type"), Some("text/plain"));
    assert_eq!(seen.header("content-length"), Some("8"));
    for gone in [
        "tidegate-delay",
        "tidegate-not-before",
        "tidegate-expires",
        "tidegate-key",
        "tidegate-callback",
        "connection",
        "x-private",
        "keep-alive",
        "te",
        "trailer",
        "proxy-authorization",
    ] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!((seen.id(), seen.attempt()), (Some(id.as_str()), Some(1)));
    assert_ne!(seen.header("tidegate-enqueued-at"), Some("forged"));
    assert_eq!(seen.header("host"), Some("orders.shop.svc.cluster.local:8080"));
}

#[tokio::test]
async fn without_another_preference_there_is_none() {
    let shop = Shop::with(json!({})).await;
    let (_, seen) =
        arrived(&shop, &[("prefer", "respond-async"), ("tidegate-not-before", "2001-01-01T00:00:00Z")]).await;
    assert_eq!((seen.header("prefer"), seen.header("tidegate-not-before")), (None, None));
}

#[tokio::test]
async fn the_message_says_which_it_is_which_attempt_and_since_when() {
    let shop = Setup::of(json!({}))
        .script(|seen| if seen.nth < 3 { Act::status(500) } else { Act::ok() })
        .start()
        .await;
    let accepted = shop.post("/", &[PREFER], "").await;
    let id = id_of(&accepted);
    shop.reaches(&id, "Succeeded").await;
    let seen = shop.orders().seen();
    let attempts: Vec<_> = seen.iter().map(Seen::attempt).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3)]);
    for seen in &seen {
        assert_eq!(seen.id(), Some(id.as_str()));
        assert_eq!(seen.header("idempotency-key"), Some(id.as_str()), "the id if none came");
        let at = json_of(&accepted)["enqueuedAt"].clone();
        assert_eq!(seen.header("tidegate-enqueued-at"), at.as_str());
    }
}

#[tokio::test]
async fn the_clients_own_key_arrives_as_it_was_sent() {
    let shop = Shop::with(json!({})).await;
    for key in ["mine-1", "\"mine-2\""] {
        let (_, seen) = arrived(&shop, &[PREFER, ("idempotency-key", key)]).await;
        assert_eq!(seen.header("idempotency-key"), Some(key));
    }
}

#[tokio::test]
async fn the_target_sees_the_callers_identity() {
    let shop = Shop::with(json!({})).await;
    let synchronous = shop.post("/synchronous", &[], "").await;
    assert_eq!(synchronous.status, 200);
    let (_, seen) = arrived(&shop, &[PREFER, ("l5d-client-id", "king")]).await;
    let id = seen.header("l5d-client-id").expect("the client is named");
    assert!(id.starts_with("web.shop.serviceaccount.identity."), "{id}");
    assert_eq!(shop.orders().seen_at("/synchronous")[0].header("l5d-client-id"), Some(id));
    let client = [("client", "spiffe://cluster.local/ns/shop/sa/web"), ("tls", "true")];
    assert_eq!(shop.mesh.metric("orders", "tidegate_sidecar_peer_requests_total", &client).await, 2.0);
}

#[tokio::test]
async fn a_delivery_is_a_new_span() {
    // Nobody needs to collect the spans for them to be begun.
    let shop = Setup::of(json!({})).flags(&["--otlp-endpoint", "http://127.0.0.1:9"]).start().await;
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (_, seen) = arrived(&shop, &[PREFER, ("traceparent", sent)]).await;
    let arrived = seen.header("traceparent").expect("a span of its own");
    assert_ne!(arrived, sent, "the enqueuing span has ended");
    let (sent, parts): (Vec<_>, Vec<_>) = (sent.split('-').collect(), arrived.split('-').collect());
    assert_eq!(parts.len(), 4, "{arrived}");
    assert_ne!(parts[2], sent[2], "a span of its own: {arrived}");
}
