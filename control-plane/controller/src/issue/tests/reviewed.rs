//! reviewed: tokens that the API server knows, and those that it does not.

use base64::Engine as _;
use serde_json::{Value, json};

use super::*;
use crate::scripted::Scripted;

const AUDIENCE: &str = "identity.tidegate.dev";

fn reviews(server: &Scripted, metrics: &Metrics) -> Reviews {
    Reviews::new(server.client(), AUDIENCE.to_owned(), metrics.identity.clone())
}

fn good(user: &str) -> Value {
    json!({"authenticated": true, "audiences": [AUDIENCE], "user": {"username": user,
        "extra": {"authentication.kubernetes.io/pod-name": ["orders-0"]}}})
}

/// What a token says of itself, as one of the API server's does.
fn token(claims: &Value) -> String {
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("signature of it"))
}

async fn refusal(server: &Scripted, token: &str) -> (Status, String) {
    let metrics = Metrics::new();
    let status = reviews(server, &metrics).owner(token).await.unwrap_err();
    for part in token.split('.') {
        assert!(!status.message().contains(part), "a part of the token stands in {:?}", status.message());
    }
    (status, metrics.text())
}

#[tokio::test]
async fn the_service_account_and_the_pod_of_a_token_are_those_the_api_server_names() {
    let (server, metrics) = (Scripted::default(), Metrics::new());
    server.answer(good("system:serviceaccount:shop:orders.v2"));
    let owner = reviews(&server, &metrics).owner("t").await.unwrap();
    let account = ("shop".to_owned(), "orders.v2".to_owned());
    assert_eq!(owner, Owner { account, pod: Some("orders-0".to_owned()) });
    assert_eq!(server.asked(), ["POST /apis/authentication.k8s.io/v1/tokenreviews"]);
    let counted = "tidegate_controller_token_reviews_total{outcome=\"Accepted\"} 1";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

#[tokio::test]
async fn an_identity_that_is_not_the_token_owners_is_refused_with_both_names() {
    let (server, metrics) = (Scripted::default(), Arc::new(Metrics::new()));
    server.answer(good("system:serviceaccount:shop:orders"));
    let state = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open(state.path(), "cluster.local").unwrap());
    let domain = (Domain::new("cluster.local").unwrap(), Duration::from_secs(3600));
    let owners = Owners::Cluster(Box::new(reviews(&server, &metrics)));
    let certifier = Certifier::new(authority, owners, domain, metrics);
    let status = certifier.answer(&request("t", "web")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("/sa/web") && status.message().contains("/sa/orders"));
    assert!(certifier.answer(&request("t", "orders")).await.is_ok());
}

#[tokio::test]
async fn a_token_of_another_audience_is_told_which_is_wanted_and_how_to_project_it() {
    let server = Scripted::default();
    server.answer(json!({"authenticated": false, "error": "invalid bearer token"}));
    let (status, text) = refusal(&server, &token(&json!({"aud": ["https://kubernetes"]}))).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    for part in ["https://kubernetes", AUDIENCE, "serviceAccountToken"] {
        assert!(status.message().contains(part), "{:?} lacks {part}", status.message());
    }
    assert!(text.contains("{outcome=\"Audience\"} 1"));
}

#[tokio::test]
async fn a_server_that_did_not_look_at_audiences_has_proven_nothing() {
    let server = Scripted::default();
    server.answer(json!({"authenticated": true, "user": {"username": "system:serviceaccount:shop:orders"}}));
    let (status, _) = refusal(&server, "t0ken").await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains(AUDIENCE));
}

#[tokio::test]
async fn an_expired_a_strange_and_a_persons_token_are_refused_with_the_reason() {
    let server = Scripted::default();
    server.answer(json!({"authenticated": false, "error": "pod \"orders-0\" is gone"}));
    let (status, _) = refusal(&server, &token(&json!({"aud": AUDIENCE, "exp": 1}))).await;
    assert!(status.message().contains("run out"), "{}", status.message());
    let (status, text) = refusal(&server, "gArbage").await;
    assert!(status.message().contains("pod \"orders-0\" is gone"), "{}", status.message());
    assert!(text.contains("{outcome=\"Refused\"} 1"));

    server.answer(good("jane"));
    let (status, text) = refusal(&server, "t0ken").await;
    assert!(status.message().contains("not a service account's"), "{}", status.message());
    assert!(text.contains("{outcome=\"Account\"} 1"));
}

#[tokio::test]
async fn a_reason_that_quotes_the_token_is_not_passed_on() {
    let server = Scripted::default();
    server.answer(json!({"authenticated": false, "error": "what is s3cret?"}));
    let (status, _) = refusal(&server, "s3cret").await;
    assert!(status.message().contains("it gives no reason"), "{}", status.message());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_or_forbids_is_unavailable_and_names_what_lacks() {
    let server = Scripted::default();
    server.refuse("POST", 403, "tokenreviews is forbidden");
    let (status, text) = refusal(&server, "t0ken").await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("may not create a TokenReview"), "{}", status.message());
    assert!(text.contains("{outcome=\"Unavailable\"} 1"));

    server.fall_silent();
    let (status, _) = refusal(&server, "t0ken").await;
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_are_refused_at_once() {
    let (server, metrics) = (Scripted::default(), Metrics::new());
    server.fall_silent();
    let reviews = Arc::new(reviews(&server, &metrics));
    let waiting: Vec<_> = (0..limits::TOKEN_REVIEWS_WAITING_MAX)
        .map(|_| {
            let reviews = reviews.clone();
            tokio::spawn(async move { reviews.owner("t0ken").await.unwrap_err().code() })
        })
        .collect();
    while reviews.places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(reviews.owner("t0ken").await.unwrap_err().code(), Code::ResourceExhausted);
    for one in waiting {
        assert_eq!(one.await.unwrap(), Code::Unavailable);
    }
    assert!(reviews.owner("t0ken").await.is_err_and(|status| status.code() == Code::Unavailable));
}
