//! observed: every attempt has its line in the access log, those that fail too.

use serde_json::{Value, json};

use crate::mesh::until;
use crate::receiver::Act;
use crate::shop::{Setup, Shop};

/// The line of an attempt at this path.
async fn line(shop: &Shop, path: &str) -> Value {
    let look = || async {
        let log = shop.mesh.sidecars["web"].log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // Its acceptance has one too, with 202.
        lines.rfind(|line| line["path"] == path && line["status"] != 202)
    };
    until(&format!("a line about {path}"), look, Option::is_some).await.unwrap_or_default()
}

#[tokio::test]
async fn an_attempt_that_fails_has_a_line_in_the_access_log() {
    let mut shop = Setup::of(json!({"delivery": {"retry": 0, "timeout": "PT0.3S"}}))
        .flags(&["--access-log"])
        .plain("orders")
        .away()
        .start()
        .await;
    let id = shop.enqueue("/away", &[]).await;
    let away = line(&shop, "/away").await;
    assert_eq!((&away["status"], &away["direction"]), (&json!(502), &json!("outbound")), "{away}");
    assert!(away["proxy_status"].as_str().unwrap().contains("connection_refused"), "{away}");
    shop.arrive(|seen| if seen.path == "/late" { Act::held() } else { Act::ok() }).await;
    shop.reaches(&id, "Succeeded").await;
    let id = shop.enqueue("/late", &[]).await;
    shop.reaches(&id, "DeadLettered").await;
    let late = line(&shop, "/late").await;
    assert_eq!((&late["status"], &late["complete"]), (&json!(504), &json!(false)), "{late}");
    assert!(late["proxy_status"].as_str().unwrap().contains("http_response_timeout"), "{late}");
}
