//! mesh: a controller, sidecars and applications on loopback, ended with the test.
//!
//! Each mesh has a third octet of its own, held by a listening socket so that neither threads nor
//! processes share one: 127.0.N.1 is the controller, 127.0.N.10 and upward are the pods. Nothing is
//! redirected: a workload reaches its sidecar by `Host` or an absolute URI.

use std::collections::HashMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, ask};

pub(crate) const OUTBOUND: u16 = 4140;
pub(crate) const INBOUND: u16 = 4143;
pub(crate) const ADMIN: u16 = 4191;
pub(crate) const APPLICATION: u16 = 8080;
const INJECT: &str = "tidegate.dev/inject";
const INBOUND_PORT: &str = "tidegate.dev/proxy-inbound-port";

/// Waited for at most, whatever it is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Where a built program is.
pub(crate) fn program(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = match std::env::var_os("TIDEGATE_BIN_DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => {
            let target =
                std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
            ["release-fast", "release", "debug"].map(|profile| target.join(profile)).to_vec()
        }
    };
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: looked in {folders:?}"))
}

/// Asks again until `is_so`; panics with what was seen last.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F, is_so: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
    F: Future<Output = T>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = look().await;
        if is_so(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "{what} did not come about; seen last: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A program that was started; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(name: &str, flags: &[String], log: PathBuf) -> Self {
        let file = File::create(&log).expect("the log is made");
        let child = Command::new(program(name))
            .args(flags)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("one file for both"))
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "{signal} was not sent");
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < end, "it goes on:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Leaves it room for so many descriptors beyond those it has open.
    pub(crate) fn leave_descriptors(&self, more: usize) {
        let pid = self.child.id().to_string();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the program runs").count();
        let limit = format!("--nofile={}:4096", open + more);
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status().expect("prlimit runs");
        assert!(set.success(), "{limit} was not set");
    }

    /// Resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> i64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("the program runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is VmRSS");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("--- {}\n{tail}", self.log.display());
        }
    }
}

/// A third octet nobody else has.
pub(crate) struct Net {
    octet: u8,
    _held: TcpListener,
}

impl Net {
    pub(crate) fn claim() -> Self {
        let free = (20..=250u8).find_map(|octet| {
            let held = TcpListener::bind(SocketAddr::from(([127, 0, octet, 1], 9))).ok()?;
            Some(Self { octet, _held: held })
        });
        free.expect("one of 231 networks is free")
    }

    pub(crate) fn at(&self, host: u8, port: u16) -> SocketAddr {
        ([127, 0, self.octet, host], port).into()
    }
}

/// A mesh to be.
#[derive(Default)]
pub(crate) struct Plan {
    pods: Vec<&'static str>,
    without_sidecar: Vec<&'static str>,
    straight: Vec<&'static str>,
    objects: Vec<Value>,
    flags: HashMap<&'static str, Vec<String>>,
}

/// A mesh that runs. Fields are dropped in this order.
pub(crate) struct Mesh {
    pub(crate) sidecars: HashMap<&'static str, Program>,
    pub(crate) controller: Program,
    pub(crate) dir: TempDir,
    pub(crate) net: Net,
    pods: Vec<&'static str>,
    flags: HashMap<&'static str, Vec<String>>,
}

/// The authority of a pod's Service.
pub(crate) fn host(service: &str) -> String {
    format!("{service}.shop.svc.cluster.local:{APPLICATION}")
}

impl Plan {
    /// A pod for each name, with a service account and a Service of the same name.
    pub(crate) fn of(pods: &[&'static str]) -> Self {
        Self { pods: pods.to_vec(), ..Self::default() }
    }

    /// A pod that is not of the mesh.
    pub(crate) fn plain(mut self, pod: &'static str) -> Self {
        self.without_sidecar.push(pod);
        self
    }

    /// A pod of the mesh whose inbound port nobody knows.
    pub(crate) fn straight(mut self, pod: &'static str) -> Self {
        self.straight.push(pod);
        self
    }

    /// One manifest more.
    pub(crate) fn with(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// More flags for a pod's sidecar, or for `controller`.
    pub(crate) fn flags(mut self, of: &'static str, flags: &[&str]) -> Self {
        self.flags.entry(of).or_default().extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(self) -> Mesh {
        let net = Net::claim();
        let dir = TempDir::with_prefix("tidegate-request-").expect("a temporary folder");
        self.write(&dir, &net);
        let controller = controller(&dir, &net, self.flags.get("controller").map_or(&[], Vec::as_slice));
        let mut mesh = Mesh {
            sidecars: HashMap::new(),
            controller,
            dir,
            net,
            pods: self.pods.clone(),
            flags: self.flags,
        };
        let admin = mesh.net.at(1, 8087);
        until("the controller's readiness", || ask(admin, "GET /ready HTTP/1.1\r\n"), is_ok).await;
        for pod in self.pods.iter().filter(|pod| !self.without_sidecar.contains(pod)) {
            mesh.start_sidecar(pod);
        }
        for pod in mesh.sidecars.keys() {
            let admin = mesh.at(pod, ADMIN);
            until("a sidecar's readiness", || ask(admin, "GET /ready HTTP/1.1\r\n"), is_ok).await;
        }
        mesh
    }

    fn write(&self, dir: &TempDir, net: &Net) {
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})];
        for (number, pod) in self.pods.iter().enumerate() {
            let address = net.at(host_number(number), 0).ip().to_string();
            let inbound = match (self.straight.contains(pod), self.without_sidecar.contains(pod)) {
                (true, _) => json!({INJECT: "enabled", INBOUND_PORT: "none"}),
                (_, true) => json!({}),
                (_, false) => json!({INJECT: "enabled", INBOUND_PORT: INBOUND.to_string()}),
            };
            objects.extend(pod_and_service(pod, number, &address, &inbound));
        }
        objects.extend_from_slice(&self.objects);
        std::fs::create_dir_all(dir.path().join("manifests")).expect("the folder is made");
        let text: Vec<_> = objects.iter().map(ToString::to_string).collect();
        std::fs::write(dir.path().join("manifests/all.yaml"), text.join("\n---\n"))
            .expect("they are written");
    }
}

fn is_ok(answer: &Option<Answer>) -> bool {
    answer.as_ref().is_some_and(|answer| answer.status == 200)
}

fn host_number(pod: usize) -> u8 {
    10 + u8::try_from(pod).expect("few pods")
}

fn pod_and_service(name: &str, number: usize, address: &str, annotations: &Value) -> [Value; 3] {
    [
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}, "annotations": annotations},
            "spec": {"serviceAccountName": name, "containers": [{"name": "app"}]},
            "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": format!("10.96.0.{}", number + 10),
                "ports": [{"name": "http", "port": APPLICATION, "protocol": "TCP"}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-1"), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": APPLICATION, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": name, "namespace": "shop"}}]}),
    ]
}

/// A controller on the manifests and the state of `dir`.
pub(crate) fn controller(dir: &TempDir, net: &Net, more: &[String]) -> Program {
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut flags = vec!["--manifests".to_owned(), path("manifests"), "--state".to_owned(), path("state")];
    flags.extend(["--listen".to_owned(), net.at(1, 8086).to_string()]);
    flags.extend(["--admin".to_owned(), net.at(1, 8087).to_string()]);
    flags.extend(more.iter().cloned());
    Program::start("tidegate-controller", &flags, dir.path().join("controller.log"))
}

/// A sidecar's flags; of two of a kind the later is meant to hold, so `more` replaces.
pub(crate) fn sidecar_flags(dir: &Path, net: &Net, pod: &str, number: u8, more: &[String]) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    let pairs = [
        ("--controller", net.at(1, 8086).to_string()),
        ("--anchors", path("state/anchors.pem")),
        ("--token-file", path(&format!("state/tokens/shop.{pod}.token"))),
        ("--namespace", "shop".to_owned()),
        ("--service-account", pod.to_owned()),
        ("--pod", pod.to_owned()),
        ("--outbound", net.at(number, OUTBOUND).to_string()),
        ("--inbound", net.at(number, INBOUND).to_string()),
        ("--admin", net.at(number, ADMIN).to_string()),
    ];
    let kept = pairs.into_iter().filter(|(flag, _)| !more.iter().any(|other| other == flag));
    kept.flat_map(|(flag, value)| [flag.to_owned(), value]).chain(more.iter().cloned()).collect()
}

impl Mesh {
    /// An address of a pod.
    pub(crate) fn at(&self, pod: &str, port: u16) -> SocketAddr {
        let number = self.pods.iter().position(|name| *name == pod).expect("a pod of this mesh");
        self.net.at(host_number(number), port)
    }

    pub(crate) fn start_sidecar(&mut self, pod: &'static str) {
        let std::net::IpAddr::V4(address) = self.at(pod, 0).ip() else { unreachable!("all are IPv4") };
        let more = self.flags.get(pod).map_or(&[][..], Vec::as_slice);
        let flags = sidecar_flags(self.dir.path(), &self.net, pod, address.octets()[3], more);
        let log = self.dir.path().join(format!("{pod}.log"));
        self.sidecars.insert(pod, Program::start("tidegate-proxy", &flags, log));
    }

    /// Ends a pod's sidecar and starts it with other flags.
    pub(crate) fn restart(&mut self, pod: &'static str, flags: &[String]) {
        drop(self.sidecars.remove(pod));
        self.flags.insert(pod, flags.to_vec());
        self.start_sidecar(pod);
    }

    pub(crate) fn start_controller(&mut self) {
        self.controller.kill();
        let more = self.flags.get("controller").map_or(&[][..], Vec::as_slice);
        self.controller = controller(&self.dir, &self.net, more);
    }

    /// Asks through the sidecar beside `pod`. `head` is a request without its last empty line.
    pub(crate) async fn ask(&self, pod: &str, head: &str) -> Answer {
        ask(self.at(pod, OUTBOUND), head).await.expect("the sidecar answers")
    }

    /// GET `path` of a Service through the sidecar beside `pod`.
    pub(crate) async fn get(&self, pod: &str, service: &str, path: &str) -> Answer {
        self.ask(pod, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", host(service))).await
    }

    /// GET of the admin address.
    pub(crate) async fn admin(&self, pod: &str, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        ask(self.at(pod, ADMIN), &head).await.expect("the admin address answers")
    }

    /// The text at the admin address of a sidecar that may not listen yet.
    pub(crate) async fn admin_if_up(&self, pod: &str, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        ask(self.at(pod, ADMIN), &head).await.map(|answer| answer.text()).unwrap_or_default()
    }

    /// The sum of a metric's samples that have these labels.
    pub(crate) async fn metric(&self, pod: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.admin(pod, "/metrics").await.text(), name, labels)
    }

    /// Errors counted by the sidecar beside `pod`.
    pub(crate) async fn errors(&self, pod: &str, direction: &str, error: &str) -> f64 {
        let labels = [("direction", direction), ("error", error)];
        self.metric(pod, "tidegate_request_errors_total", &labels).await
    }

    /// Waits until a metric has at least this value.
    pub(crate) async fn reaches(&self, pod: &str, name: &str, labels: &[(&str, &str)], least: f64) {
        until(name, || self.metric(pod, name, labels), |value| *value >= least).await;
    }

    /// Waits until so many errors are counted.
    pub(crate) async fn counts(&self, pod: &str, direction: &str, error: &str, least: f64) {
        let labels = [("direction", direction), ("error", error)];
        self.reaches(pod, "tidegate_request_errors_total", &labels, least).await;
    }

    pub(crate) fn rss_kib(&self, pod: &str) -> i64 {
        self.sidecars[pod].rss_kib()
    }
}

fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let is_meant = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    text.lines().filter(is_meant).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
