//! tests: the webhook over real HTTPS, with a scripted API.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// An API server with one namespace that asks for sidecars, one that does not, and one Service.
fn api_server(down: &Arc<AtomicBool>) -> kube::Client {
    let down = down.clone();
    let answer = move |request: Request<kube::client::Body>| {
        let is_down = down.load(Ordering::Relaxed);
        let metadata = |name: &str, labels: Value| {
            (
                200,
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                         "metadata": {"name": name, "labels": labels}}),
            )
        };
        let (status, body) = match request.uri().path() {
            _ if is_down => {
                (503, json!({"kind": "Status", "apiVersion": "v1", "code": 503, "message": "away"}))
            }
            "/version" => (
                200,
                json!({
                "major": "1", "minor": "36+", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            ),
            "/api/v1/namespaces/shop" => metadata("shop", json!({"tidegate.dev/inject": "enabled"})),
            "/api/v1/namespaces/other" => metadata("other", json!({})),
            "/api/v1/namespaces/shop/services/orders" => metadata("orders", json!({})),
            path => (
                404,
                json!({"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound",
                                 "message": format!("{path} is not there")}),
            ),
        };
        async move {
            let body = http_body_util::Full::new(Bytes::from(body.to_string()));
            let response = Response::builder().status(status).header("content-type", "application/json");
            response.body(body)
        }
    };
    kube::Client::new(tower::service_fn(answer), "default")
}

struct Asking {
    address: std::net::SocketAddr,
    trust: TlsConnector,
    down: Arc<AtomicBool>,
    registry: Registry,
}

impl Asking {
    async fn new() -> Self {
        let down = Arc::new(AtomicBool::new(false));
        let mut registry = Registry::default();
        let admissions = Admissions::new(&mut registry);
        let webhook = Webhook::open(None, api_server(&down), admissions).await;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(webhook.run(listener, Arc::new(move || acceptor.clone())));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { address, trust: TlsConnector::from(Arc::new(client)), down, registry }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let io = TokioIo::new(self.trust.connect("localhost".try_into().unwrap(), tcp).await.unwrap());
        let response = if request.version() == http::Version::HTTP_2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    async fn review(&self, path: &str, review: &Value) -> Result<Value, (StatusCode, String)> {
        let request = Request::post(format!("https://localhost{path}")).header("host", "localhost");
        let (status, body) = self.send(request.body(Full::from(review.to_string())).unwrap()).await;
        match status {
            StatusCode::OK => Ok(serde_json::from_slice::<Value>(&body).unwrap()["response"].clone()),
            _ => Err((status, String::from_utf8_lossy(&body).into_owned())),
        }
    }

    fn counted(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn question(namespace: &str, object: &Value) -> Value {
    let kind = object["kind"].clone();
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1-2-3", "kind": {"group": "", "version": "v1", "kind": kind},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": namespace,
            "operation": "CREATE", "userInfo": {}, "object": object, "dryRun": true
        }
    })
}

fn pod(annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "orders-", "annotations": annotations, "labels": {"app": "orders"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]}
    })
}

fn patch_of(response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes: Vec<u8> = serde_json::from_value::<Value>(response["patch"].clone())
        .map(|patch| match patch {
            Value::String(text) => base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap(),
            bytes => serde_json::from_value(bytes).unwrap(),
        })
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_pod_of_a_namespace_that_asks_gets_its_sidecar() {
    let asking = Asking::new().await;
    let response = asking.review("/inject", &question("shop", &pod(&json!({})))).await.unwrap();
    assert_eq!((&response["allowed"], &response["uid"]), (&json!(true), &json!("1-2-3")));
    let patch = patch_of(&response);
    let paths: Vec<&str> =
        patch.as_array().unwrap().iter().map(|step| step["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/metadata/annotations", "/spec/initContainers", "/spec/volumes"]);
    assert_eq!(patch[1]["value"][1]["name"], "tidegate-proxy");
    let counted = asking.counted();
    let line = "tidegate_controller_admissions_total{webhook=\"inject\",outcome=\"injected\"} 1";
    assert!(counted.contains(line), "{counted}");
}

#[tokio::test]
async fn a_pod_that_nobody_asked_for_stays_as_it_is() {
    let asking = Asking::new().await;
    let response = asking.review("/inject", &question("other", &pod(&json!({})))).await.unwrap();
    assert_eq!(response["allowed"], true);
    assert_eq!(response.get("patch"), None);
}

#[tokio::test]
async fn a_pod_that_cannot_have_what_it_asks_for_is_denied_with_the_reason() {
    let asking = Asking::new().await;
    let wrong = pod(&json!({"tidegate.dev/proxy-workers": "many"}));
    let response = asking.review("/inject", &question("shop", &wrong)).await.unwrap();
    assert_eq!(response["allowed"], false);
    let said = response["status"]["message"].as_str().unwrap();
    assert!(said.contains("tidegate.dev/proxy-workers: \"many\" is no number of threads"), "{said}");
}

#[tokio::test]
async fn a_pod_left_out_by_its_namespaces_label_runs_with_a_warning() {
    let asking = Asking::new().await;
    let mut host = pod(&json!({}));
    host["spec"]["hostNetwork"] = json!(true);
    let response = asking.review("/inject", &question("shop", &host)).await.unwrap();
    assert_eq!(response["allowed"], true);
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("this pod runs without a sidecar: hostNetwork is true"), "{warning}");
    let patch = patch_of(&response);
    assert!(patch[0]["value"]["tidegate.dev/not-injected"].is_string(), "{patch}");
}

#[tokio::test]
async fn what_cannot_be_decided_is_left_to_the_failure_policy() {
    let asking = Asking::new().await;
    asking.down.store(true, Ordering::Relaxed);
    let (status, why) = asking.review("/inject", &question("shop", &pod(&json!({})))).await.unwrap_err();
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(why.contains("namespace shop cannot be read"), "{why}");
}

#[tokio::test]
async fn our_own_kinds_are_denied_for_what_keeps_them_out_of_force_and_warned_of_the_rest() {
    let asking = Asking::new().await;
    let policy = |service: &str, more: &str| {
        json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "BackendPolicy", "metadata": {"name": "orders"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": service}], more: {}}
        })
    };
    let denied = asking.review("/validate", &question("shop", &policy("orders", "retrys"))).await.unwrap();
    assert_eq!(denied["allowed"], false);
    let said = denied["status"]["message"].as_str().unwrap();
    assert!(said.starts_with("spec.retrys: is no field here"), "{said}");

    let right = asking.review("/validate", &question("shop", &policy("orders", "retry"))).await.unwrap();
    assert_eq!((&right["allowed"], right.get("warnings")), (&json!(true), None));

    let early = asking.review("/validate", &question("shop", &policy("later", "retry"))).await.unwrap();
    assert_eq!(early["allowed"], true);
    assert_eq!(
        early["warnings"][0],
        "spec.targetRefs[0]: there is no Service shop/later yet: nothing is done for it until there is"
    );
}

#[tokio::test]
async fn what_is_no_question_is_answered_with_its_fault_and_bounded() {
    let asking = Asking::new().await;
    let post = |path: &str| Request::post(format!("https://localhost{path}")).header("host", "localhost");
    let too_long = vec![b' '; policy::limits::ADMISSION_BYTES_MAX + 1];
    for (request, expected) in [
        (post("/inject").body(Full::from("{")).unwrap(), StatusCode::BAD_REQUEST),
        (post("/inject").body(Full::from(too_long)).unwrap(), StatusCode::PAYLOAD_TOO_LARGE),
        (post("/elsewhere").body(Full::default()).unwrap(), StatusCode::NOT_FOUND),
        (
            Request::get("https://localhost/inject")
                .header("host", "localhost")
                .body(Full::default())
                .unwrap(),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
    ] {
        let path = request.uri().path().to_owned();
        assert_eq!(asking.send(request).await.0, expected, "{path}");
    }
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    let asking = Asking::new().await;
    let question = question("shop", &pod(&json!({}))).to_string();
    let request = Request::post("https://localhost/inject").version(http::Version::HTTP_2);
    let (status, _) = asking.send(request.body(Full::from(question)).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
}

/// The API server's POST is not sent again when it meets a connection that is just being closed.
#[tokio::test]
async fn an_idle_connection_is_left_for_the_api_server_to_close_and_an_old_one_ends_with_an_answer() {
    let asking = Asking::new().await;
    let tcp = TcpStream::connect(asking.address).await.unwrap();
    let io = TokioIo::new(asking.trust.connect("localhost".try_into().unwrap(), tcp).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let question = question("shop", &pod(&json!({}))).to_string();
    // Go's transport keeps what it used within the last 90 s.
    for round in 0..=7 {
        sender.ready().await.unwrap();
        let request = Request::post("/inject").header("host", "localhost");
        let response =
            sender.send_request(request.body(Full::<Bytes>::from(question.clone())).unwrap()).await;
        let response = response.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(response.status(), StatusCode::OK, "round {round}");
        let is_last = response.headers().get("connection").is_some_and(|value| value == "close");
        assert_eq!(is_last, round == 7, "round {round}");
        response.into_body().collect().await.unwrap();
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(89)).await;
        tokio::time::resume();
    }
}
