//! kept: the demo left running, asked by hand, looked at with `check`, and ended.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{all_ended, alone, out, programs, says, tidegate};

/// Where web's sidecar takes what web sends.
pub(crate) const OUTBOUND: &str = "127.0.1.2:4140";
/// Its admin address.
pub(crate) const ADMIN: &str = "127.0.1.2:4191";
/// The Service that is asked.
pub(crate) const HOST: &str = "orders.shop.svc.cluster.local:8080";
/// How long anything may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A demo that runs until it is told to stop.
pub(crate) struct Kept {
    child: Child,
    /// What it printed of what to try.
    pub(crate) told: Vec<String>,
}

impl Kept {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(programs().join("tidegate"))
            .args(["demo", "--keep", "--requests", "50"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tidegate starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut kept = Self { child, told: Vec::new() };
        let before: Vec<String> =
            lines.by_ref().take_while(|line| !line.contains("runs until Ctrl-C")).collect();
        for line in lines {
            let last = line.contains("routes.yaml");
            kept.told.push(line);
            if last {
                return kept;
            }
        }
        panic!("the demo was not kept:\n{}", before.join("\n"));
    }

    /// The printed line that tells how to do this.
    #[track_caller]
    fn how_to(&self, what: &str) -> &str {
        let line = self.told.iter().find_map(|line| line.trim_start().strip_prefix(what));
        line.unwrap_or_else(|| panic!("no {what:?} in:\n{}", self.told.join("\n"))).trim()
    }

    /// The folder of its manifests, which its controller watches.
    pub(crate) fn manifests(&self) -> PathBuf {
        let file = self.how_to("change what it does").strip_prefix("edit ").expect("a file is named");
        Path::new(file).parent().expect("the file is in a folder").to_owned()
    }

    /// Tells it to stop, as Kubernetes does, and waits for its end.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.is_ok_and(|told| told.success()) || std::thread::panicking(), "it can be told");
        self.child.wait().ok()?.code()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // After a failure nothing of it may stay; a kill would leave its sidecars.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}

/// One request by HTTP/1.1, its answer whole.
pub(crate) fn ask(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks again until it is as it should be.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "a pause between two looks from outside, not an order of events"
)]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(is) if Instant::now() > end => panic!("{what}: {is}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[test]
fn kept_demo_answers_at_what_it_prints_check_finds_it_well_and_it_ends_when_told() {
    let _alone = alone();
    let mut kept = Kept::start();
    let curl = kept.how_to("ask as web");
    let url = curl.split("http://").nth(1).expect("an address is printed").trim();
    let (address, path) = url.split_once('/').expect("the address has a path");
    let answer = ask(address, &format!("GET /{path} HTTP/1.1\r\nHost: {HOST}"), "");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("orders-"), "{answer}");

    let check = kept.how_to("how the mesh is").to_owned();
    let check: Vec<&str> = check.split_whitespace().skip(1).collect();
    let well = until("check passes", || {
        let output = tidegate(&check);
        if output.status.success() { Ok(output) } else { Err(out(&output)) }
    });
    says(
        &well,
        0,
        &[
            "controller 127.0.1.1:8087",
            "no problems",
            "proxy of web",
            "proxy 127.0.1.2:4191",
            "checks passed",
        ],
    );

    let bad =
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: shop}\nspec: {ports: [{port: 0}]}\n";
    std::fs::write(kept.manifests().join("bad.yaml"), bad).unwrap();
    let ill = until("check notices a bad manifest", || {
        let output = tidegate(&check);
        if output.status.success() { Err(out(&output)) } else { Ok(output) }
    });
    says(
        &ill,
        1,
        &["bad.yaml:1: Service shop/bad: spec.ports[0].port", "1 of", "failed", "tidegate validate"],
    );

    assert_eq!(kept.stop(), Some(0));
    all_ended();
}
