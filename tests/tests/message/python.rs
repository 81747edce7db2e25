//! python: programs of other people's libraries, in the suite's own environment.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

fn interpreter() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv/bin/python3");
    std::env::var_os("TIDEGATE_TEST_PYTHON").map_or_else(beside, PathBuf::from)
}

/// One of our programs, to be started.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/message").join(program));
    // gRPC would ask a proxy of the environment.
    command.env_remove("http_proxy").env_remove("HTTP_PROXY").env("no_proxy", "*");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a program to its end: JSON in, JSON out.
pub(crate) async fn run(program: &str, arguments: &[&str], input: &Value) -> Value {
    let mut child = command(program).args(arguments).spawn().expect("python starts: see tests/run");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.to_string().as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = crate::client::within(child.wait_with_output()).await.expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}
