//! broken: what an operator can do wrong. A clear error, and synchronous traffic goes on.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::Answer;
use crate::mesh::{OUTBOUND, host, program, until};
use crate::python;
use crate::receiver::Act;
use crate::shop::{PREFER, Setup, Shop, id_of, is_problem, policy, retry_after, send};

/// An asynchronous request is refused with these words, a synchronous one is served.
async fn is_refused(row: &str, shop: &Shop, words: &[&str]) {
    let answer = shop.post("/asynchronous", &[PREFER], "body").await;
    is_problem(row, &answer, 503, words);
    retry_after(row, &answer);
    assert_eq!(answer.header("location"), None, "{row}");
    let synchronous = shop.post("/synchronous", &[], "body").await;
    assert_eq!(synchronous.status, 200, "{row}: {synchronous:?} {}", synchronous.text());
}

fn database(shop: &Shop) -> PathBuf {
    shop.queue.path().join("messages.db")
}

/// A shop whose queue holds messages, and whose sidecar is gone: stopped, or killed.
async fn stopped(messages: usize, killed: bool) -> (Shop, Vec<String>) {
    let setup = Setup::of(json!({})).flags(&["--drain-grace", "500ms"]);
    let mut shop = setup.plain("orders").away().start().await;
    let mut ids = Vec::new();
    for number in 0..messages {
        ids.push(shop.enqueue(&format!("/{number}"), &[]).await);
    }
    if !killed {
        shop.mesh.sidecars["web"].signal("-TERM");
        shop.mesh.sidecars.get_mut("web").unwrap().ended().await;
    }
    drop(shop.mesh.sidecars.remove("web"));
    shop.arrive(|_| Act::ok()).await;
    (shop, ids)
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
    file.seek(SeekFrom::Start(at)).expect("it can be sought in");
    file.write_all(bytes).expect("it can be written");
}

/// Whoever watches sees that the directory is not open, though the sidecar is ready.
async fn is_seen(shop: &Shop, condition: &str) {
    assert_eq!(shop.mesh.admin("web", "/ready").await.text(), "ready\n");
    let labels = [("durability", "local"), ("condition", condition)];
    assert_eq!(shop.metric("tidegate_queue_store_condition", &labels).await, 1.0, "{condition}");
    let (proxy, controller) = (shop.admin().to_string(), shop.mesh.net.at(1, 8087).to_string());
    for (command, words) in [
        (vec!["queue", "ls", "--proxy", &proxy], "the queue's directory is not open"),
        (vec!["dlq", "ls", "--proxy", &proxy], "the queue's directory is not open"),
        (
            vec!["check", "--proxy", &proxy, "--controller-admin", &controller],
            "is not open, what is in it waits",
        ),
    ] {
        let told = std::process::Command::new(program("tidegate")).args(&command).output();
        let told = told.expect("the operator's hand is built");
        let said = String::from_utf8_lossy(&told.stdout);
        assert_eq!(told.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains(words) && !said.contains("no request was taken in"), "{command:?}: {said}");
    }
}

/// web's sidecar with another flag.
async fn restart_with(shop: &mut Shop, flag: &str) {
    let mut flags = vec!["--queue-directory".to_owned(), shop.queue.path().display().to_string()];
    flags.push(flag.to_owned());
    shop.mesh.restart("web", &flags);
    shop.is_ready().await;
}

#[tokio::test]
async fn a_database_without_its_head_is_refused_and_named_and_salvaged_on_request() {
    is_refused_and_salvaged("messages.db", false).await;
}

#[tokio::test]
async fn a_log_that_is_corrupt_in_its_middle_is_refused_and_named_and_salvaged_on_request() {
    is_refused_and_salvaged("messages.db-wal", true).await;
}

async fn is_refused_and_salvaged(file: &str, killed: bool) {
    let (mut shop, ids) = stopped(50, killed).await;
    let path = shop.queue.path().join(file);
    let length = std::fs::metadata(&path).expect("it is there").len();
    assert!(length > 100_000 || !killed, "{file}: {length} bytes");
    overwrite(&path, if killed { length / 2 } else { 0 }, &[0xa5; 512]);
    shop.start_again().await;
    let directory = shop.queue.path().display().to_string();
    is_refused(file, &shop, &[&directory, "damaged", "salvage"]).await;
    let log = shop.mesh.sidecars["web"].log();
    assert!(log.contains(&directory), "{file}: the log says so too: {log}");
    assert!(shop.orders().paths().iter().all(|path| path == "/synchronous"), "{file}");
    is_seen(&shop, "damaged").await;
    // The remedy that is named helps.
    restart_with(&mut shop, "--queue-salvage").await;
    let after = id_of(&shop.post("/after", &[PREFER], "").await);
    shop.reaches(&after, "Succeeded").await;
    assert!(!ids.contains(&after), "{file}: no id is given twice");
}

#[tokio::test]
async fn a_database_that_is_gone_is_refused_and_named_and_salvage_begins_anew() {
    for killed in [false, true] {
        let (mut shop, ids) = stopped(5, killed).await;
        std::fs::write(database(&shop), []).expect("it is cut");
        shop.start_again().await;
        let directory = shop.queue.path().display().to_string();
        is_refused("gone", &shop, &[&directory, "damaged", "messages.db has 0 bytes", "salvage"]).await;
        restart_with(&mut shop, "--queue-salvage").await;
        let after = id_of(&shop.post("/after", &[PREFER], "").await);
        shop.reaches(&after, "Succeeded").await;
        assert!(!ids.contains(&after), "no id is given twice");
        let log = shop.mesh.sidecars["web"].log();
        assert!(log.contains("nothing could be kept"), "{log}");
    }
}

#[tokio::test]
async fn of_a_database_with_a_damaged_page_salvage_keeps_the_rest() {
    let (mut shop, ids) = stopped(200, false).await;
    let length = std::fs::metadata(database(&shop)).expect("it is there").len();
    // One page of its middle.
    overwrite(&database(&shop), length / 2 / 4096 * 4096, &[0xa5; 4096]);
    shop.start_again().await;
    let answer: Answer = shop.post("/asynchronous", &[PREFER], "").await;
    // Found at once, or in the background: never a wrong delivery, never silence.
    assert!(matches!(answer.status, 202 | 503), "{answer:?} {}", answer.text());
    restart_with(&mut shop, "--queue-salvage").await;
    let after = id_of(&shop.post("/after", &[PREFER], "").await);
    shop.reaches(&after, "Succeeded").await;
    let mut kept = 0;
    for id in &ids {
        let status = shop.resource("GET", id, &[]).await;
        kept += usize::from(status.status == 200);
    }
    assert!(kept >= ids.len() / 2, "{kept} of {} are known after salvage", ids.len());
    for seen in shop.orders().seen().iter().filter(|seen| seen.id().is_some() && seen.path != "/after") {
        assert!(seen.body == "body" || seen.body.is_empty(), "{seen:?}");
    }
}

#[tokio::test]
async fn a_directory_of_another_version_is_refused_and_named() {
    let (mut shop, ids) = stopped(3, true).await;
    let given = |version: &Value| json!({"database": database(&shop), "version": version});
    let told = python::run("user_version.py", &[], &given(&json!(999))).await;
    shop.start_again().await;
    let directory = shop.queue.path().display().to_string();
    is_refused("a later format", &shop, &[&directory, "999", "version"]).await;
    let log = shop.mesh.sidecars["web"].log();
    assert!(log.contains("999") && log.contains(&directory), "{log}");
    // Nothing is lost: the version that wrote it reads it.
    drop(shop.mesh.sidecars.remove("web"));
    let given = json!({"database": database(&shop), "version": told["before"]});
    python::run("user_version.py", &[], &given).await;
    shop.start_again().await;
    for id in &ids {
        shop.reaches(id, "Succeeded").await;
    }
}

#[tokio::test]
async fn a_directory_of_another_workload_is_refused_and_both_are_named() {
    let mut shop = Setup::of(json!({})).pod("other").start().await;
    shop.enqueue("/", &[]).await;
    let directory = shop.queue.path().display().to_string();
    drop(shop.mesh.sidecars.remove("web"));
    shop.mesh.restart("other", &["--queue-directory".to_owned(), directory.clone()]);
    until("other's readiness", || shop.mesh.admin_if_up("other", "/ready"), |text| text == "ready\n").await;
    let other = shop.mesh.at("other", OUTBOUND);
    let answer = send(other, "POST /", &host("orders"), &[PREFER], "").await;
    let names =
        [&*directory, "another owner", "/ns/shop/sa/web", "/ns/shop/sa/other", "remove the file lock"];
    is_problem("another owner", &answer, 503, &names);
    let synchronous = send(other, "POST /synchronous", &host("orders"), &[], "").await;
    assert_eq!(synchronous.status, 200, "{synchronous:?}");
}

#[tokio::test]
async fn a_directory_in_use_by_another_sidecar_is_refused() {
    // A replica: another pod of the same workload.
    let mut shop = Setup::of(json!({})).pod("second").start().await;
    shop.enqueue("/", &[]).await;
    let directory = shop.queue.path().display().to_string();
    let token = shop.mesh.dir.path().join("state/tokens/shop.web.token").display().to_string();
    let flags = ["--queue-directory", &directory, "--service-account", "web", "--token-file", &token];
    shop.mesh.restart("second", &flags.map(str::to_owned));
    until("second's readiness", || shop.mesh.admin_if_up("second", "/ready"), |text| text == "ready\n").await;
    let second = shop.mesh.at("second", OUTBOUND);
    let answer = send(second, "POST /", &host("orders"), &[PREFER], "").await;
    is_problem("in use", &answer, 503, &[&directory, "in use"]);
    let synchronous = send(second, "POST /synchronous", &host("orders"), &[], "").await;
    assert_eq!(synchronous.status, 200, "{synchronous:?}");
    let id = shop.enqueue("/still", &[]).await;
    shop.reaches(&id, "Succeeded").await;
    // The other one goes: what was refused is taken in without a restart.
    drop(shop.mesh.sidecars.remove("web"));
    let free = || async { send(second, "POST /", &host("orders"), &[PREFER], "").await.status };
    until("the directory to be free", free, |status| *status == 202).await;
}

#[tokio::test]
async fn a_directory_that_forgets_is_refused_unless_allowed() {
    let forgetful = tempfile::TempDir::new_in("/dev/shm").expect("/dev/shm is a tmpfs");
    let directory = forgetful.path().join("queue").display().to_string();
    let shop = Setup::of(json!({})).no_queue().flags(&["--queue-directory", &directory]).start().await;
    is_refused("tmpfs", &shop, &[&directory, "tmpfs", "--queue-allow-volatile"]).await;
    let flags = ["--queue-directory", &directory, "--queue-allow-volatile"];
    let shop = Setup::of(json!({})).no_queue().flags(&flags).start().await;
    let id = shop.enqueue("/", &[]).await;
    shop.reaches(&id, "Succeeded").await;
}

#[tokio::test]
async fn no_directory_no_promise() {
    let shop = Setup::of(json!({})).no_queue().start().await;
    is_refused("no directory", &shop, &["--queue-directory"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let shop = Setup::of(json!({})).no_queue().flags(&["--queue-directory", &path]).start().await;
    is_refused("a file is in the way", &shop, &[&path]).await;
}

#[tokio::test]
async fn a_directory_too_small_for_a_queue_is_refused() {
    let shop = Setup::of(json!({})).flags(&["--queue-bytes-max", "1Mi"]).start().await;
    is_refused("1 MiB", &shop, &["bytes"]).await;
}

/// The one problem the controller has with the policy.
async fn told(shop: &Shop) -> Value {
    let problems = until("a problem", || shop.problems(), |problems| !problems.is_empty()).await;
    let of_policy = |problem: &&Value| problem["object"] == "AsyncPolicy shop/orders-async";
    problems.iter().find(of_policy).unwrap_or_else(|| panic!("{problems:?}")).clone()
}

#[tokio::test]
async fn a_policy_that_cannot_be_kept_is_told_and_promises_nothing() {
    for (row, spec, field, words) in [
        ("Broker", json!({"durability": "Broker"}), "spec.durability", vec!["Broker", "Local", "Memory"]),
        (
            "a quota smaller than one message",
            json!({"queue": {"maxBytes": "1Mi"}, "maxBodyBytes": "4Mi"}),
            "spec.queue.maxBytes",
            vec!["1Mi", "4Mi", "smaller than one message"],
        ),
        (
            "a sink",
            json!({"delivery": {"deadLetterSink": {"ref": {"kind": "Topic", "name": "t"}}}}),
            "spec.delivery.deadLetterSink.ref.kind",
            vec!["Topic is not implemented yet", "Service"],
        ),
        (
            "Operation",
            json!({"grpc": {"ack": "Operation"}}),
            "spec.grpc.ack",
            vec!["Operation", "EmptyMessage"],
        ),
        ("a mode nobody knows", json!({"mode": "Sometimes"}), "spec.mode", vec!["Sometimes", "Preferred"]),
        ("a field nobody knows", json!({"wrong": 1}), "spec.wrong", vec!["is no field here"]),
    ] {
        let shop = Shop::with(spec).await;
        let problem = told(&shop).await;
        assert_eq!(problem["field"], field, "{row}: {problem}");
        for word in words {
            assert!(problem["message"].as_str().unwrap().contains(word), "{row}: no {word:?} in {problem}");
        }
        // Without its policy the Service is as any other: nothing is answered 202 that is not stored.
        let synchronous = shop.post("/synchronous", &[], "body").await;
        assert_eq!(synchronous.status, 200, "{row}: {synchronous:?}");
        let preferring = shop.post("/preferring", &[PREFER], "body").await;
        assert_ne!(preferring.status, 202, "{row}: {preferring:?}");
    }
}

#[tokio::test]
async fn a_policy_for_nobody_and_a_second_one_are_told() {
    let nobody = json!({"targetRefs": [{"kind": "Service", "name": "nobody"}]});
    let shop = Setup::of(json!({}))
        .with(policy("nobody", nobody))
        .with(policy("zz-second", json!({"mode": "Always"})))
        .start()
        .await;
    let problems = until("two problems", || shop.problems(), |problems| problems.len() == 2).await;
    for (object, word) in
        [("AsyncPolicy shop/nobody", "nobody"), ("AsyncPolicy shop/zz-second", "orders-async")]
    {
        let named = |problem: &&Value| problem["object"] == object;
        let problem = problems.iter().find(named).unwrap_or_else(|| panic!("{object}: {problems:?}"));
        assert!(problem["message"].as_str().unwrap().contains(word), "{problem}");
    }
    assert_eq!(shop.post("/", &[], "").await.status, 200, "the first one holds, whose mode is Preferred");
}
