//! credentials: refused, dropped, or stored so that nobody reads them.

use serde_json::json;

use crate::client::ask;
use crate::mesh::program;
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem};

const SECRET: &str = "correct-horse-battery-staple";

fn carried() -> [(&'static str, String); 2] {
    [("authorization", format!("Bearer {SECRET}")), ("cookie", format!("session={SECRET}"))]
}

#[tokio::test]
async fn credentials_are_refused_by_name_where_the_policy_is_silent() {
    for spec in [json!({}), json!({"credentials": "Refuse"})] {
        let shop = Shop::with(spec.clone()).await;
        for (name, value) in carried() {
            let answer = shop.post("/", &[PREFER, (name, &value)], "").await;
            is_problem(&format!("{spec}, {name}"), &answer, 400, &[name]);
            assert!(!answer.text().contains(SECRET), "{spec}, {name}: {}", answer.text());
            let synchronous = shop.post("/synchronous", &[(name, &value)], "").await;
            assert_eq!(synchronous.status, 200, "{spec}, {name}: {synchronous:?}");
        }
        assert!(shop.orders().seen().iter().all(|seen| seen.id().is_none()));
    }
}

#[tokio::test]
async fn dropped_credentials_do_not_arrive() {
    let shop = Shop::with(json!({"credentials": "Drop"})).await;
    for (name, value) in carried() {
        let id = shop.enqueue("/", &[(name, &value), ("x-kept", "1")]).await;
        shop.reaches(&id, "Succeeded").await;
    }
    for seen in shop.orders().seen() {
        assert_eq!((seen.header("authorization"), seen.header("cookie")), (None, None));
        assert_eq!(seen.header("x-kept"), Some("1"));
    }
}

/// All that an operator or a thief of the files could read, by name.
async fn readable(shop: &Shop, id: &str) -> Vec<(String, Vec<u8>)> {
    let mut readable: Vec<_> = shop
        .files()
        .into_iter()
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap_or_default()))
        .collect();
    readable.push(("the log".into(), shop.mesh.sidecars["web"].log().into_bytes()));
    for path in ["/config".into(), "/metrics".into(), format!("/.tidegate/requests/{id}")] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n");
        let answer = ask(shop.admin(), &head).await.expect("the admin address answers");
        readable.push((path, [answer.head.into_bytes(), answer.body].concat()));
    }
    for command in [vec!["queue", "export"], vec!["queue", "peek"], vec!["dlq", "export"]] {
        let mut told = std::process::Command::new(program("tidegate"));
        told.args(&command).args(["shop/orders-async", "--proxy", &shop.admin().to_string(), "-o", "json"]);
        let told = told.output().expect("the operator's hand is built");
        assert!(told.status.success(), "{command:?}: {}", String::from_utf8_lossy(&told.stderr));
        readable.push((command.join(" "), [told.stdout, told.stderr].concat()));
    }
    readable
}

#[tokio::test]
async fn stored_credentials_arrive_and_nobody_else_reads_them() {
    for outside in [false, true] {
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("key").display().to_string();
        let mut setup =
            Setup::of(json!({"credentials": "Store"})).flags(&["--log", "debug", "--access-log"]).away();
        if outside {
            setup = setup.flags(&["--queue-key-file", &file]);
        }
        let mut shop = setup.plain("orders").start().await;
        let (authorization, cookie) = {
            let [(_, authorization), (_, cookie)] = carried();
            (authorization, cookie)
        };
        let plain = ("x-plain", "for-everybody-to-read");
        let headers = [PREFER, ("authorization", &*authorization), ("cookie", &*cookie), plain];
        let id = id_of(&shop.post("/", &headers, "body").await);
        let before = readable(&shop, &id).await;
        let shows = |bytes: &[u8]| bytes.windows(plain.1.len()).any(|part| part == plain.1.as_bytes());
        assert!(before.iter().any(|(_, bytes)| shows(bytes)), "where they would stand is looked at");
        assert!(before.iter().any(|(name, _)| name.starts_with(&shop.queue.path().display().to_string())));
        // They outlive the sidecar, with the key wherever it lies.
        shop.kill_and_start().await;
        shop.arrive(|_| Act::ok()).await;
        shop.reaches(&id, "Succeeded").await;
        let seen = &shop.orders().seen()[0];
        assert_eq!(seen.header("authorization"), Some(authorization.as_str()), "key outside: {outside}");
        assert_eq!(seen.header("cookie"), Some(cookie.as_str()), "key outside: {outside}");
        let after = readable(&shop, &id).await;
        for (name, bytes) in before.into_iter().chain(after) {
            let found = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
            assert!(!found, "{name} holds the credentials (key outside: {outside})");
        }
        if outside {
            let key = std::fs::metadata(&file).expect("the key lies where it was told");
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(key.permissions().mode() & 0o077, 0, "nobody else reads the key");
            let names: Vec<_> =
                shop.files().into_iter().filter(|path| path.ends_with("credentials.key")).collect();
            assert!(names.is_empty(), "and only there: {names:?}");
        }
    }
}
