//! shop: web asks orders, and an AsyncPolicy says what web's sidecar takes in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{Answer, answer, within};
use crate::mesh::{ADMIN, APPLICATION, Mesh, OUTBOUND, Plan, host, until};
use crate::receiver::{Act, Receiver, Script, Seen};

pub(crate) const PREFER: (&str, &str) = ("prefer", "respond-async");

/// A shop to be.
pub(crate) struct Setup {
    spec: Option<Value>,
    pods: Vec<&'static str>,
    plain: Vec<&'static str>,
    straight: Vec<&'static str>,
    objects: Vec<Value>,
    flags: Vec<String>,
    controller: Vec<&'static str>,
    queue: bool,
    script: Option<Script>,
}

/// A shop that runs. Fields are dropped in this order.
pub(crate) struct Shop {
    pub(crate) mesh: Mesh,
    receiver: Option<Receiver>,
    /// The durable queue of web's sidecar.
    pub(crate) queue: TempDir,
}

/// Short waits, so that a test does not last.
fn quick() -> Value {
    json!({"backoffDelay": "PT0.02S", "backoffMax": "PT0.1S", "timeout": "PT5S"})
}

/// `spec` with what every policy here has: Service orders, and quick retries.
fn filled(spec: Value) -> Value {
    let mut filled = json!({"targetRefs": [{"kind": "Service", "name": "orders"}], "delivery": quick()});
    for (name, value) in spec.as_object().expect("a spec is an object") {
        match (name.as_str(), value.as_object()) {
            ("delivery", Some(fields)) => {
                for (name, value) in fields {
                    filled["delivery"][name] = value.clone();
                }
            }
            _ => filled[name] = value.clone(),
        }
    }
    filled
}

/// An AsyncPolicy of this name.
pub(crate) fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "AsyncPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": filled(spec)})
}

/// A Service that nobody serves.
pub(crate) fn empty_service(name: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": "10.96.1.200", "ports": [{"name": "http", "port": APPLICATION}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-1"), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": APPLICATION, "protocol": "TCP"}],
            "endpoints": []}),
    ]
}

impl Setup {
    pub(crate) fn of(spec: Value) -> Self {
        Self { spec: Some(spec), ..Self::without_policy() }
    }

    pub(crate) fn without_policy() -> Self {
        Self {
            spec: None,
            pods: vec!["web", "orders"],
            plain: Vec::new(),
            straight: Vec::new(),
            objects: Vec::new(),
            flags: Vec::new(),
            controller: Vec::new(),
            queue: true,
            script: Some(Arc::new(|_| Act::ok())),
        }
    }

    /// A pod more.
    pub(crate) fn pod(mut self, pod: &'static str) -> Self {
        self.pods.push(pod);
        self
    }

    /// A pod without a sidecar.
    pub(crate) fn plain(mut self, pod: &'static str) -> Self {
        self.plain.push(pod);
        self
    }

    /// A pod spoken to in TLS at its application's own port.
    pub(crate) fn straight(mut self, pod: &'static str) -> Self {
        self.straight.push(pod);
        self
    }

    pub(crate) fn with(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// For web's sidecar.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// The mesh knows that its pods are on loopback: one can be asked for by its address.
    pub(crate) fn by_address(mut self) -> Self {
        self.controller.extend(["--networks", "127.0.0.0/8"]);
        self
    }

    /// web's sidecar has no directory for a queue but what `flags` say.
    pub(crate) fn no_queue(mut self) -> Self {
        self.queue = false;
        self
    }

    pub(crate) fn script(mut self, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        self.script = Some(Arc::new(script));
        self
    }

    /// orders does not listen yet.
    pub(crate) fn away(mut self) -> Self {
        self.script = None;
        self
    }

    pub(crate) async fn start(self) -> Shop {
        let queue = TempDir::with_prefix("tidegate-queue-").expect("a temporary folder");
        let mut flags = self.flags;
        if self.queue {
            flags.extend(["--queue-directory".to_owned(), queue.path().display().to_string()]);
        }
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let mut plan = Plan::of(&self.pods).flags("web", &flags).flags("controller", &self.controller);
        plan = self.plain.into_iter().fold(plan, Plan::plain);
        plan = self.straight.into_iter().fold(plan, Plan::straight);
        plan = self.objects.into_iter().fold(plan, Plan::with);
        if let Some(spec) = self.spec {
            plan = plan.with(policy("orders-async", spec));
        }
        let mut shop = Shop { mesh: plan.start().await, receiver: None, queue };
        if let Some(script) = self.script {
            shop.receiver = Some(Receiver::start(shop.mesh.at("orders", APPLICATION), script).await);
        }
        shop
    }
}

/// Sends a request and reads its response.
pub(crate) async fn send(
    address: SocketAddr,
    line: &str,
    authority: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!("{line} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    // Whoever refuses a head may close before it has read the body.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
    within(answer(&mut stream)).await.unwrap_or_else(|| panic!("no answer to {head}"))
}

/// The document in an answer.
#[track_caller]
pub(crate) fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// The id in a 202.
#[track_caller]
pub(crate) fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{answer:?} {}", answer.text());
    let location = answer.header("location").unwrap_or_else(|| panic!("no Location: {answer:?}"));
    location.strip_prefix("/.tidegate/requests/").unwrap_or_else(|| panic!("{location}")).to_owned()
}

/// A problem document (RFC 9457) with this status, whose words contain these.
#[track_caller]
pub(crate) fn is_problem(what: &str, answer: &Answer, status: u16, words: &[&str]) -> Value {
    assert_eq!(answer.status, status, "{what}: {answer:?} {}", answer.text());
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/problem+json"), "{what}: {answer:?} {}", answer.text());
    let document = json_of(answer);
    assert_eq!(document["status"], status, "{what}: {document}");
    for member in ["type", "title", "detail"] {
        assert!(document[member].is_string(), "{what}: no {member} in {document}");
    }
    let text = document.to_string().to_lowercase();
    for word in words {
        assert!(text.contains(&word.to_lowercase()), "{what}: no {word:?} in {document}");
    }
    document
}

/// Whole seconds, at least one.
#[track_caller]
pub(crate) fn retry_after(what: &str, answer: &Answer) -> u64 {
    let text = answer.header("retry-after").unwrap_or_else(|| panic!("{what}: no Retry-After in {answer:?}"));
    let seconds = text.parse().unwrap_or_else(|_| panic!("{what}: Retry-After: {text}"));
    assert!(seconds >= 1, "{what}: Retry-After: {seconds}");
    seconds
}

impl Shop {
    pub(crate) async fn with(spec: Value) -> Self {
        Setup::of(spec).start().await
    }

    pub(crate) fn orders(&self) -> &Receiver {
        self.receiver.as_ref().expect("orders is there")
    }

    /// orders goes away.
    pub(crate) fn leave(&mut self) {
        self.receiver = None;
    }

    /// orders comes, with nothing seen.
    pub(crate) async fn arrive(&mut self, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) {
        self.leave();
        let address = self.mesh.at("orders", APPLICATION);
        self.receiver = Some(Receiver::start(address, Arc::new(script)).await);
    }

    pub(crate) fn outbound(&self) -> SocketAddr {
        self.mesh.at("web", OUTBOUND)
    }

    /// A request of web to orders.
    pub(crate) async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        send(self.outbound(), line, &host("orders"), headers, body).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(&format!("POST {path}"), headers, body).await
    }

    /// A POST that prefers to be asynchronous, and is: its id.
    pub(crate) async fn enqueue(&self, path: &str, headers: &[(&str, &str)]) -> String {
        id_of(&self.post(path, &[&[PREFER], headers].concat(), "body").await)
    }

    /// A request to `/.tidegate/requests/…`.
    pub(crate) async fn resource(&self, method: &str, rest: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(&format!("{method} /.tidegate/requests/{rest}"), headers, "").await
    }

    pub(crate) async fn status(&self, id: &str) -> Value {
        let answer = self.resource("GET", id, &[]).await;
        assert_eq!(answer.status, 200, "{answer:?} {}", answer.text());
        json_of(&answer)
    }

    /// Waits until a message is in this state.
    pub(crate) async fn reaches(&self, id: &str, state: &str) -> Value {
        let what = format!("{state} of {id}");
        let end = |status: &Value| {
            ["Succeeded", "DeadLettered", "Cancelled"].iter().any(|end| status["state"] == *end)
        };
        let status = until(&what, || self.status(id), |status| status["state"] == state || end(status)).await;
        assert_eq!(status["state"], state, "{status}");
        status
    }

    pub(crate) async fn result(&self, id: &str) -> Answer {
        self.resource("GET", &format!("{id}/result"), &[]).await
    }

    /// A sum of web's metrics.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.mesh.metric("web", name, labels).await
    }

    /// Kills web's sidecar with SIGKILL, unless it is gone, and starts it again.
    pub(crate) async fn kill_and_start(&mut self) {
        drop(self.mesh.sidecars.remove("web"));
        self.start_again().await;
    }

    pub(crate) async fn start_again(&mut self) {
        self.mesh.start_sidecar("web");
        self.is_ready().await;
    }

    pub(crate) async fn is_ready(&self) {
        let ready = || self.mesh.admin_if_up("web", "/ready");
        until("web's readiness", ready, |text| text == "ready\n").await;
    }

    /// Other words in the manifests.
    pub(crate) fn rewrite(&self, from: &str, to: &str) {
        let path = self.mesh.dir.path().join("manifests/all.yaml");
        let text = std::fs::read_to_string(&path).expect("they were written");
        assert!(text.contains(from), "no {from} in {text}");
        std::fs::write(path, text.replace(from, to)).expect("they are written");
    }

    /// What the controller has to say about the manifests.
    pub(crate) async fn problems(&self) -> Vec<Value> {
        let admin = self.mesh.net.at(1, 8087);
        let status = crate::client::ask(admin, "GET /status HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        json_of(&status)["problems"].as_array().cloned().unwrap_or_default()
    }

    /// The address and port of web's admin.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.mesh.at("web", ADMIN)
    }

    /// The files of the queue.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.queue.path()).expect("the queue has a folder");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        files
    }
}
