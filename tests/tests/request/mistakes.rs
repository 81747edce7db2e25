//! mistakes: what a person gets wrong is told in one message, and is never a panic.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, ask};
use crate::mesh::{
    ADMIN, INBOUND, Mesh, Net, OUTBOUND, Plan, Program, controller, program, sidecar_flags, until,
};

fn strings(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|flag| (*flag).to_owned()).collect()
}

/// Starts a program that ends by itself, unsuccessfully, having said each of `sentences`.
async fn fails(name: &str, flags: &[String], sentences: &[&str]) {
    let dir = TempDir::new().unwrap();
    let mut started = Program::start(name, flags, dir.path().join("log"));
    let status = started.ended().await;
    let log = started.log();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}: {log}");
    for sentence in sentences {
        assert!(log.contains(sentence), "no {sentence:?} in:\n{log}");
    }
    assert!(!log.contains("panicked") && !log.contains('\u{1b}'), "{log}");
    let mistakes = log.lines().filter(|line| !line.contains(" INFO ")).count();
    assert!(mistakes <= 12, "one message, not {mistakes} lines:\n{log}");
}

/// A sidecar's flags in an empty folder with nothing behind them.
fn alone(dir: &TempDir, net: &Net, more: &[&str]) -> Vec<String> {
    sidecar_flags(dir.path(), net, "web", 10, &strings(more))
}

#[tokio::test]
async fn a_sidecar_without_flags_names_those_it_needs() {
    let needed = ["--anchors", "--token-file", "--namespace", "--service-account", "--pod"];
    fails("tidegate-proxy", &[], &needed).await;
}

#[tokio::test]
async fn flags_that_cannot_be_are_named_with_their_value() {
    let (dir, net) = (TempDir::new().unwrap(), Net::claim());
    let admin = net.at(10, ADMIN).to_string();
    for (flags, sentences) in [
        (&["--outbound", "127.0.0.1:70000"][..], &["'127.0.0.1:70000'", "--outbound"][..]),
        (&["--outbound", &admin], &["--outbound and --admin are both", &admin]),
        (&["--inbound", &admin], &["--inbound and --admin are both", &admin]),
        (&["--controller", "nowhere"], &["--controller \"nowhere\" is not HOST:PORT"]),
        (&["--controller", "nowhere:70000"], &["--controller \"nowhere:70000\" is not HOST:PORT"]),
        (&["--connections-max", "0"], &["--connections-max must be at least 1"]),
        (&["--workers", "0"], &["'0'", "--workers"]),
        (&["--namespace", "Shop!"], &["'Shop!'", "--namespace"]),
        (&["--drain-grace", "soon"], &["'soon'", "--drain-grace"]),
        (&["--otlp-endpoint", "localhost"], &["--otlp-endpoint \"localhost\" is not http://HOST:PORT"]),
        (&["--log", "a=b=c"], &["a=b=c"]),
    ] {
        fails("tidegate-proxy", &alone(&dir, &net, flags), sentences).await;
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_flag() {
    let (dir, net) = (TempDir::new().unwrap(), Net::claim());
    for (flag, port) in [("--outbound", OUTBOUND), ("--inbound", INBOUND), ("--admin", ADMIN)] {
        let address = net.at(10, port);
        let _taken = TcpListener::bind(address).unwrap();
        for workers in ["1", "2"] {
            let said = [&*format!("{flag} {address} cannot be listened on"), "in use"];
            fails("tidegate-proxy", &alone(&dir, &net, &["--workers", workers]), &said).await;
        }
    }
}

/// What /ready says once it says `sentence`; the sidecar runs on.
async fn ready_says(flags: &[String], admin: std::net::SocketAddr, sentence: &str) -> String {
    let dir = TempDir::new().unwrap();
    let mut sidecar = Program::start("tidegate-proxy", flags, dir.path().join("log"));
    let look = || ask(admin, "GET /ready HTTP/1.1\r\nHost: a\r\n");
    let says =
        |answer: &Option<Answer>| answer.as_ref().is_some_and(|answer| answer.text().contains(sentence));
    let answer = until(sentence, look, says).await.expect("it answers");
    assert_eq!(answer.status, 503);
    assert!(sidecar.is_running() && !sidecar.log().contains("panicked"), "{}", sidecar.log());
    sidecar.log()
}

#[tokio::test]
async fn anchors_that_are_missing_unreadable_or_garbage_are_told_by_ready() {
    let (dir, net) = (TempDir::new().unwrap(), Net::claim());
    let (admin, path) = (net.at(10, ADMIN), dir.path().join("anchors.pem"));
    let path = path.to_str().unwrap();
    let flags = alone(&dir, &net, &["--anchors", path]);
    let unreadable = format!("no certificate yet: the file of trust anchors {path} cannot be read");
    ready_says(&flags, admin, &unreadable).await;
    std::fs::create_dir(path).unwrap();
    ready_says(&flags, admin, &unreadable).await;
    std::fs::remove_dir(path).unwrap();
    for garbage in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(path, garbage).unwrap();
        ready_says(&flags, admin, &format!("no certificate yet: the file of trust anchors {path}: ")).await;
    }
}

/// A controller that knows web, whose sidecar is not started.
async fn waiting() -> Mesh {
    Plan::of(&["web"]).plain("web").start().await
}

fn of(mesh: &Mesh, more: &[&str]) -> Vec<String> {
    sidecar_flags(mesh.dir.path(), &mesh.net, "web", 10, &strings(more))
}

#[tokio::test]
async fn a_token_that_is_missing_or_wrong_is_told_and_never_shown() {
    let mesh = waiting().await;
    let (admin, path) = (mesh.at("web", ADMIN), mesh.dir.path().join("token"));
    let flags = of(&mesh, &["--token-file", path.to_str().unwrap()]);
    ready_says(&flags, admin, &format!("the token file {} cannot be read", path.display())).await;
    std::fs::write(&path, "not-the-token-at-all").unwrap();
    let log =
        ready_says(&flags, admin, "the controller refuses: the token is of no workload known here").await;
    let others = ask(mesh.net.at(1, 8087), "GET /status HTTP/1.1\r\nHost: a\r\n").await.unwrap().text();
    for text in [log, mesh.controller.log(), others] {
        assert!(!text.contains("not-the-token"), "{text}");
    }
    let refused = ask(mesh.net.at(1, 8087), "GET /metrics HTTP/1.1\r\nHost: a\r\n").await.unwrap().text();
    assert!(refused.contains("tidegate_controller_certificates_refused_total "), "{refused}");
}

#[tokio::test]
async fn a_token_of_somebody_else_is_refused() {
    let mesh = waiting().await;
    let flags = of(&mesh, &["--service-account", "king"]);
    let token = mesh.dir.path().join("state/tokens/shop.web.token").display().to_string();
    let flags: Vec<_> =
        flags.into_iter().map(|flag| if flag.contains("shop.king") { token.clone() } else { flag }).collect();
    let said = "the controller refuses: the token is not that of spiffe://cluster.local/ns/shop/sa/king";
    ready_says(&flags, mesh.at("web", ADMIN), said).await;
}

#[tokio::test]
async fn a_controller_that_is_not_there_is_told() {
    let mut mesh = waiting().await;
    mesh.controller.kill();
    let away = mesh.net.at(1, 8086);
    let said = format!("no certificate yet: the controller {away} is not reached");
    ready_says(&of(&mesh, &[]), mesh.at("web", ADMIN), &said).await;
}

#[tokio::test]
async fn a_controller_of_a_foreign_mesh_is_refused() {
    let (mesh, foreign) = (waiting().await, waiting().await);
    let anchors = foreign.dir.path().join("state/anchors.pem");
    let flags = of(&mesh, &["--anchors", anchors.to_str().unwrap()]);
    ready_says(&flags, mesh.at("web", ADMIN), "the peer's certificate is refused").await;
}

#[tokio::test]
async fn redirect_without_rights_says_what_it_needs() {
    let flags = ["redirect", "--self-check"];
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let output = if is_root {
        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
        Command::new("setpriv").args(nobody).arg(program("tidegate-proxy")).args(flags).output()
    } else {
        Command::new(program("tidegate-proxy")).args(flags).output()
    };
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let has_nft = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].iter().any(|path| Path::new(path).exists());
    let sentence =
        if has_nft { "is not permitted: run as uid 0 with the capability NET_ADMIN" } else { "nftables" };
    assert!(said.contains(sentence) && said.lines().count() == 1, "{said}");
}

#[tokio::test]
async fn a_controller_that_cannot_begin_says_why() {
    let (dir, net) = (TempDir::new().unwrap(), Net::claim());
    fails("tidegate-controller", &[], &["--manifests <DIR>", "--kubernetes"]).await;
    fails("tidegate-controller", &strings(&["--manifests", "."]), &["--state <DIR>"]).await;
    let both = strings(&["--kubernetes", "--manifests", "."]);
    fails("tidegate-controller", &both, &["--manifests", "cannot be used with", "--kubernetes"]).await;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let flags = |more: &[&str]| {
        let (manifests, state) = (path("nowhere"), path("state"));
        strings(&[&["--manifests", &manifests, "--state", &state], more].concat())
    };
    let missing = format!("cannot read the directory of manifests {}", path("nowhere"));
    fails("tidegate-controller", &flags(&[]), &[&missing]).await;
    fails(
        "tidegate-controller",
        &flags(&["--leaf-lifetime", "5s"]),
        &["'5s'", "--leaf-lifetime", "1m to 10000h"],
    )
    .await;
    fails("tidegate-controller", &flags(&["--listen", "127.0.0.1:70000"]), &["127.0.0.1:70000", "--listen"])
        .await;
    fails("tidegate-controller", &flags(&["--networks", "10.0.0.0/99"]), &["10.0.0.0/99", "--networks"])
        .await;
    std::fs::create_dir(path("manifests")).unwrap();
    let _taken = TcpListener::bind(net.at(1, 8086)).unwrap();
    let dir_log = dir.path().join("controller.log");
    let mut started = controller(&dir, &net, &[]);
    let status = started.ended().await;
    let log = std::fs::read_to_string(dir_log).unwrap();
    assert!(!status.success() && log.contains(&net.at(1, 8086).to_string()), "{log}");
}

#[tokio::test]
async fn wrong_manifests_are_shown_at_status_and_the_rest_is_in_force() {
    let policy = |name: &str, spec: Value| {
        json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "BackendPolicy",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    };
    let target = json!([{"kind": "Service", "name": "orders"}]);
    let far = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "far", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.1.9", "ports": [{"port": 70000}]}});
    let mesh = Plan::of(&["web", "orders"])
        .with(policy("a", json!({"targetRefs": target, "wrong": 1})))
        .with(policy("b", json!({"targetRefs": target, "limits": {"queue": 5}})))
        .with(policy("c", json!({"targetRefs": target, "limits": {"queue": 6}})))
        .with(far)
        .start()
        .await;
    std::fs::write(mesh.dir.path().join("manifests/torn.yaml"), "a: [b").unwrap();
    let look = || async {
        let answer = ask(mesh.net.at(1, 8087), "GET /status HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        serde_json::from_slice::<Value>(&answer.body).unwrap()["problems"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let problems = until("four problems", look, |problems| problems.len() == 4).await;
    for (object, field, message) in [
        ("BackendPolicy shop/a", "spec.wrong", "is no field here; known are"),
        ("BackendPolicy shop/c", "spec.targetRefs[0]", "has BackendPolicy shop/b"),
        ("Service shop/far", "spec.ports[0].port", "70000 is out of range: 1 to 65535"),
        ("", "", "this document is not YAML"),
    ] {
        let is_it = |problem: &&Value| {
            problem["object"] == object
                && problem["field"].as_str().unwrap_or_default() == field
                && problem["message"].as_str().is_some_and(|said| said.contains(message))
                && problem["line"].as_u64().is_some_and(|line| line > 0)
        };
        assert!(problems.iter().find(is_it).is_some(), "{object}: no {message:?} in {problems:?}");
    }
    let _app = crate::app::App::start(mesh.at("orders", crate::mesh::APPLICATION)).await;
    mesh.get("web", "orders", "/").await.seen();
}
