//! tests: a proxy's whole talk over real TLS: Certify, Watch, a change, an acknowledgement.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use policy::name::{Domain, Label};
use policy::snapshot::Snapshot;
use policy::wire::v1::identity_client::IdentityClient;
use policy::wire::v1::identity_server::IdentityServer;
use policy::wire::v1::policy_client::PolicyClient;
use policy::wire::v1::{self, watch_request::Kind};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, codegen};

use super::*;
use crate::documents::tests::{change, documents};
use crate::documents::{Documents, Need};
use crate::index::Index;
use crate::index::tests::SHOP;
use crate::issue::{Authority, Certifier, Owners, Tokens};
use crate::proxies::Proxies;
use crate::watch::{PolicyService, Watcher};

struct Rig {
    address: SocketAddr,
    roots: RootCertStore,
    token: String,
    proxies: Arc<Proxies>,
    documents: Arc<Documents>,
    _state: tempfile::TempDir,
}

async fn rig() -> Rig {
    let state = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open(state.path(), "cluster.local").unwrap());
    let tokens = Arc::new(Tokens::open(state.path()).unwrap());
    let documents = documents(SHOP);
    tokens.ensure(&documents.ask(Index::accounts)).unwrap();
    let token = std::fs::read_to_string(state.path().join("tokens/shop.orders.token")).unwrap();
    let domain = Domain::new("cluster.local").unwrap();
    let own = policy::identity::Identity {
        trust_domain: domain.clone(),
        namespace: Label::new("tidegate").unwrap(),
        service_account: Domain::new("tidegate-controller").unwrap(),
    };
    let hour = Duration::from_secs(3600);
    let tls = Arc::new(Tls::new(authority.clone(), own, hour).unwrap());
    let metrics = Arc::new(Metrics::new());
    let proxies = Arc::new(Proxies::new(documents.clone(), metrics.clone()));
    let roots = authority.roots().unwrap();
    let certifier = Certifier::new(authority, Owners::Files(tokens), (domain.clone(), hour), metrics.clone());
    let watcher = Watcher::new(documents.clone(), proxies.clone(), metrics.clone(), domain);
    let routes = Routes::new(IdentityServer::new(certifier)).add_service(PolicyService::new(watcher));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, tls, routes, metrics));
    Rig { address, roots, token, proxies, documents, _state: state }
}

type Identified = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

async fn connect(rig: &Rig, identified: Option<Identified>) -> Channel {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rig.roots.clone());
    let mut config = match identified {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "tidegate-controller.tidegate.serviceaccount.identity.linkerd.cluster.local";
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Channel(send)
}

#[derive(Clone)]
struct Channel(hyper::client::conn::http2::SendRequest<Body>);

impl codegen::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        *request.uri_mut() = format!("https://controller{}", request.uri()).parse().unwrap();
        Box::pin(self.0.send_request(request))
    }
}

async fn certify(rig: &Rig) -> Identified {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let identity = "spiffe://cluster.local/ns/shop/sa/orders".to_owned();
    let request = v1::CertifyRequest { token: rig.token.clone(), csr, identity };
    let answer = IdentityClient::new(connect(rig, None).await).certify(request).await.unwrap().into_inner();
    let chain = answer.chain.into_iter().map(CertificateDer::from).collect();
    (chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn message(kind: Kind) -> v1::WatchRequest {
    v1::WatchRequest { kind: Some(kind) }
}

#[tokio::test]
async fn watch_without_a_certificate_is_refused() {
    let rig = rig().await;
    let (_requests, stream) = mpsc::channel(1);
    let mut client = PolicyClient::new(connect(&rig, None).await);
    let status = client.watch(ReceiverStream::new(stream)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_proxy_certifies_watches_sees_a_change_and_acknowledges() {
    let rig = rig().await;
    let identified = certify(&rig).await;
    let mut client = PolicyClient::new(connect(&rig, Some(identified)).await);
    let (requests, stream) = mpsc::channel(4);
    let hello = v1::Hello { pod: "orders-0".to_owned(), version: "1".to_owned(), ..v1::Hello::default() };
    requests.send(message(Kind::Hello(hello))).await.unwrap();
    let mut answers = client.watch(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let mut snapshot = Snapshot::default();

    let first = answers.message().await.unwrap().unwrap();
    take(&mut snapshot, &first);
    assert!(snapshot.inbound.as_ref().unwrap().ports.contains_key(&8080));

    let add = vec!["10.96.0.1:80".to_owned()];
    requests.send(message(Kind::Subscribe(v1::Subscribe { add, remove: Vec::new() }))).await.unwrap();
    take(&mut snapshot, &answers.message().await.unwrap().unwrap());
    assert_eq!(snapshot.backends.values().next().unwrap().endpoints.len(), 3);

    let moved = SHOP.replace("[10.0.0.4], conditions: {ready: false, serving: true}", "[10.0.0.4]");
    change(&rig.documents, &moved);
    let third = answers.message().await.unwrap().unwrap();
    take(&mut snapshot, &third);
    assert_eq!(snapshot.backends.values().next().unwrap().endpoints.len(), 4);

    let ack =
        v1::Ack { sequence: third.sequence, digest: snapshot.digest().to_string(), rejected: Vec::new() };
    requests.send(message(Kind::Ack(ack))).await.unwrap();
    while rig.proxies.list()[0].acknowledged < third.sequence {
        tokio::task::yield_now().await;
    }
    let proxy = rig.proxies.list().remove(0);
    assert!(proxy.digest_ok && proxy.pod == "orders-0" && proxy.sent == 3);
    let orders = Need::Service(("shop".to_owned(), "orders".to_owned()));
    let progress = rig.proxies.progress(std::slice::from_ref(&orders), rig.proxies.generation());
    assert_eq!((progress.needing, progress.current), (1, 1));

    drop(requests);
    assert!(answers.message().await.unwrap().is_none());
    assert!(rig.proxies.list().is_empty());
}

fn take(snapshot: &mut Snapshot, answer: &v1::WatchResponse) {
    for document in &answer.changed {
        let (document, version) = policy::wire::decode(document).unwrap();
        snapshot.put(document, version);
    }
    assert_eq!(snapshot.digest().to_string(), answer.digest);
}
