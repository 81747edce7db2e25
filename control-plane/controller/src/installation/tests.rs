//! tests: an owner that is there, is not, is forbidden, comes later, and goes.

use serde_json::json;

use super::*;
use crate::scripted::Scripted;

const PATH: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/tidegate-controller";

fn role(server: &Scripted, uid: &str) {
    server.put(PATH, json!({"metadata": {"name": NAME, "uid": uid}}));
}

async fn uid(installation: &Installation) -> Option<String> {
    let mut references = installation.owner().await.unwrap()?;
    let reference = references.pop()?;
    assert_eq!(references, [], "one owner alone");
    assert_eq!((reference.kind.as_str(), reference.name.as_str()), ("ClusterRole", NAME));
    assert_eq!(reference.api_version, "rbac.authorization.k8s.io/v1");
    Some(reference.uid)
}

#[tokio::test]
async fn what_is_made_names_the_role_as_it_is_now() {
    let server = Scripted::default();
    let installation = Installation::new(server.client());
    role(&server, "first");
    assert_eq!(uid(&installation).await.as_deref(), Some("first"));
    role(&server, "put back");
    assert_eq!(uid(&installation).await.as_deref(), Some("put back"));
}

#[tokio::test]
async fn outside_of_the_chart_nobody_owns_what_is_made() {
    let server = Scripted::default();
    let installation = Installation::new(server.client());
    assert_eq!(uid(&installation).await, None);
    server.refuse("GET", 403, "forbidden");
    assert_eq!(uid(&installation).await, None);
    assert_eq!(installation.seen(), Seen::Missing);
    server.allow();
    role(&server, "installed later");
    assert_eq!(uid(&installation).await.as_deref(), Some("installed later"));
}

#[tokio::test]
async fn an_api_server_that_is_away_is_asked_again_and_does_not_make_orphans() {
    let server = Scripted::default();
    let installation = Installation::new(server.client());
    role(&server, "one");
    server.refuse("GET", 503, "away");
    assert!(installation.owner().await.unwrap_err().is_passing());
    server.allow();
    assert_eq!(uid(&installation).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn nothing_is_made_any_more_once_the_owner_is_gone() {
    let server = Scripted::default();
    let installation = Installation::new(server.client());
    role(&server, "one");
    uid(&installation).await;
    server.remove(PATH);
    let told = installation.owner().await.unwrap_err().to_string();
    assert!(told.contains("cannot get ClusterRole tidegate-controller, the owner of what is made"), "{told}");
    server.refuse("GET", 403, "the binding is gone");
    let told = installation.owner().await.unwrap_err().to_string();
    assert!(told.contains("may not get ClusterRole tidegate-controller"), "{told}");
}
