//! demo: the command line as a person has it: `tidegate demo`, `validate` and `check`, for real.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod kept;
mod queues;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The demo has fixed addresses: one at a time.
static ADDRESSES: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where the programs are: all three in one folder.
fn programs() -> PathBuf {
    let whole = |folder: &PathBuf| {
        ["tidegate", "tidegate-controller", "tidegate-proxy"].iter().all(|name| folder.join(name).is_file())
    };
    if let Some(folder) = std::env::var_os("TIDEGATE_BIN_DIR") {
        let folder = PathBuf::from(folder);
        assert!(whole(&folder), "TIDEGATE_BIN_DIR ({}) does not hold the programs", folder.display());
        return folder;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let found =
        ["release-fast", "release", "debug"].map(|profile| target.join(profile)).into_iter().find(whole);
    found.expect(
        "the programs are not built: cargo build --profile release-fast --bins -p sidecar -p controller -p cli",
    )
}

fn tidegate(arguments: &[&str]) -> Output {
    let tidegate = programs().join("tidegate");
    Command::new(tidegate).args(arguments).stdin(Stdio::null()).output().expect("tidegate starts")
}

fn out(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn says(output: &Output, code: i32, sentences: &[&str]) {
    let text = out(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for sentence in sentences {
        assert!(text.contains(sentence), "no {sentence:?} in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours without a terminal:\n{text}");
}

/// Whether nothing listens any more where the demo's programs did.
#[track_caller]
fn all_ended() {
    let pods = (2..=6).flat_map(|pod| [4140, 4143, 4191, 8080].map(|port| format!("127.0.1.{pod}:{port}")));
    let controller = [8086, 8087].map(|port| format!("127.0.1.1:{port}"));
    for address in pods.chain(controller) {
        assert!(std::net::TcpStream::connect(&address).is_err(), "something still listens on {address}");
    }
}

#[test]
fn demo_proves_every_verdict_and_leaves_nothing_behind() {
    let _alone = alone();
    let sentences = [
        "requests were answered 2xx: web's sidecar and its client agree",
        "POSTs was received exactly once, every GET at least once",
        "every sidecar proves the identity of its pod's service account",
        "receivers were asked by spiffe://cluster.local/ns/shop/sa/web alone",
        "0 in plaintext",
        "both endpoints of orders were used",
        "requests under /prices to prices",
        "orders-2 was stopped in the middle and took",
        "200 of 200 answered 202, Tidegate-Durability: local",
        "sidecar killed (SIGKILL)",
        ", to be drained in ",
        "all 200 messages were accepted",
        "all 200 accepted messages arrived",
        "web's sidecar was killed with 200 queued",
        "each of the 4 keys first arrived in the order they were sent",
        "the queue is drained, 0 dead letters",
        "PASSED: all 12 proven",
    ];
    says(&tidegate(&["demo"]), 0, &sentences);
    all_ended();
}

#[test]
fn demo_notices_a_lost_message() {
    let _alone = alone();
    let sentences = [
        "ok      all 200 messages were accepted",
        "FAILED: lost message: 200 of 200 accepted never arrived, 0 the first",
        "FAILED: 1 of 10 not as it should be",
    ];
    says(&tidegate(&["demo", "--requests", "300", "--fault", "lose-message"]), 1, &sentences);
    all_ended();
}

#[test]
fn demo_notices_a_wrong_identity() {
    let _alone = alone();
    let sentences = [
        "FAILED: wrong identity: the sidecar of orders-2 proves spiffe://cluster.local/ns/shop/sa/intruder",
        "web's sidecar would not speak to it",
        "ok      all 300 requests were answered 2xx",
    ];
    says(&tidegate(&["demo", "--requests", "300", "--fault", "wrong-identity"]), 1, &sentences);
    all_ended();
}

#[test]
fn demo_notices_an_unused_endpoint() {
    let _alone = alone();
    let sentences = ["FAILED: unused endpoint: orders-2 (127.0.1.4:8080) answered no request"];
    says(&tidegate(&["demo", "--requests", "300", "--fault", "unused-endpoint"]), 1, &sentences);
    all_ended();
}

#[test]
fn demo_notices_a_failed_request() {
    let _alone = alone();
    let sentences = ["FAILED: 15 of 300 requests failed: 15 × 5xx"];
    says(&tidegate(&["demo", "--requests", "300", "--fault", "failed-request"]), 1, &sentences);
    all_ended();
}

#[test]
fn demo_names_an_address_that_is_taken() {
    let _alone = alone();
    let _taken = std::net::TcpListener::bind("127.0.1.3:4143").expect("the address is free");
    says(&tidegate(&["demo"]), 1, &["127.0.1.3:4143 is not free"]);
}

#[test]
fn demo_names_a_program_that_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().display().to_string();
    says(&tidegate(&["demo", "--bin-dir", &empty]), 1, &["tidegate-controller is not in", "cargo build"]);
}

#[test]
fn validate_finds_nothing_wrong_with_the_manifests_of_the_demo() {
    let manifests = root().join("manifests/demo").display().to_string();
    says(&tidegate(&["validate", &manifests]), 0, &["in 4 files, 0 problems"]);
}

#[test]
fn validate_names_each_problem_with_its_line_object_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\nkind: [\n");
    write(
        "b.yaml",
        "apiVersion: tidegate.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: one, namespace: shop}\n\
         spec: {targetRefs: [{name: orders}], retries: 3}\n",
    );
    write(
        "c.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: orders, namespace: shop}\n\
         spec: {ports: [{port: 70000}]}\n",
    );
    let output = tidegate(&["validate", &directory.path().display().to_string()]);
    let sentences = [
        "a.yaml:5: ",
        "is not YAML",
        "b.yaml:1: BackendPolicy shop/one: spec.retries: ",
        "c.yaml:1: Service shop/orders: spec.ports[0].port: ",
        "4 documents in 3 files, 3 problems",
    ];
    says(&output, 1, &sentences);
}

#[test]
fn validate_finds_two_policies_on_one_target() {
    let directory = tempfile::tempdir().unwrap();
    let policy = |name: &str| {
        format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: BackendPolicy\n\
             metadata: {{name: {name}, namespace: shop}}\nspec: {{targetRefs: [{{name: orders}}]}}\n"
        )
    };
    let file = directory.path().join("two.yaml");
    std::fs::write(&file, [policy("one"), policy("two")].join("---\n")).unwrap();
    let output = tidegate(&["validate", &file.display().to_string()]);
    says(&output, 1, &["BackendPolicy shop/two", "shop/one", "2 documents in 1 file, 1 problem"]);
}

#[test]
fn validate_reads_standard_input_and_answers_in_json() {
    let mut child = Command::new(programs().join("tidegate"))
        .args(["validate", "--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tidegate starts");
    let text = b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 0}]}\n";
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["problems"][0]["file"], "-");
    assert_eq!(said["problems"][0]["object"], "Service default/a");
    assert_eq!((&said["files"], &said["documents"]), (&1.into(), &1.into()));
}

#[test]
fn validate_of_a_missing_file_exits_2_and_names_it() {
    says(&tidegate(&["validate", "/nowhere/a.yaml"]), 2, &["cannot read /nowhere/a.yaml"]);
}

#[test]
fn check_without_a_controller_says_so() {
    let output = tidegate(&["check", "--controller-admin", "127.0.1.99:9"]);
    says(&output, 1, &["no controller on 127.0.1.99:9", "--controller-admin", "Connection refused"]);
}
