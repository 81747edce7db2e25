//! straight: a peer whose inbound port nobody knows is reached by TLS at its application's own port,
//! where redirection would bring it to its sidecar. Here the test is that sidecar.

use std::net::SocketAddr;
use std::time::Duration;

use policy::identity::Identity;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use transport::detect::{ClientHello, Detected, detect};
use transport::io::Io;
use transport::tls::Tls;

use crate::app::App;
use crate::client::{answer, seen_header, within};
use crate::mesh::{APPLICATION, Mesh, OUTBOUND, Plan, host};
use crate::peer::{certified, identity};

/// Where the application is that the stand-in for a sidecar hands its connections to.
const BEHIND: u16 = 8081;

/// What a peer saw of one connection.
#[derive(Debug)]
struct Seen {
    hello: ClientHello,
    client: Option<Identity>,
    has_header: bool,
}

/// A peer with the certificate of `tls`; ends when dropped.
struct Peer {
    seen: mpsc::Receiver<Seen>,
    _serving: JoinSet<()>,
}

impl Peer {
    async fn start(tls: Tls, at: SocketAddr, application: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (tell, seen) = mpsc::channel(16);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(connection(tls.clone(), tcp, application, tell.clone()));
            }
        });
        Self { seen, _serving: serving }
    }
}

/// Tells what came, and hands what is inside TLS to the application, byte for byte.
async fn connection(tls: Tls, tcp: TcpStream, application: SocketAddr, tell: mpsc::Sender<Seen>) {
    let hello = loop {
        let mut bytes = [0; 8192];
        let count = tcp.peek(&mut bytes).await.unwrap();
        match detect(&bytes[..count]) {
            Some(Detected::Tls(hello)) => break hello,
            Some(other) => panic!("the peer was spoken to as {other:?}"),
            None => tokio::task::yield_now().await,
        }
    };
    // A client that refuses the certificate ends the handshake.
    let Ok(accepted) = tls.accept(Io::tcp(tcp)).await else { return };
    tell.send(Seen { hello, client: accepted.peer, has_header: accepted.has_header }).await.unwrap();
    let (mut near, mut far) = (accepted.io, TcpStream::connect(application).await.unwrap());
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}

/// web asks orders, which has the certificate of `account`.
async fn shop(account: &str) -> (Mesh, App, Peer) {
    let mesh = Plan::of(&["web", "orders"]).straight("orders").plain("orders").start().await;
    let app = App::start(mesh.at("orders", BEHIND)).await;
    let tls = certified(&mesh.dir.path().join("state"), identity(account), Duration::from_secs(3600));
    let peer = Peer::start(tls, mesh.at("orders", APPLICATION), app.address).await;
    (mesh, app, peer)
}

impl Seen {
    /// TLS as between sidecars, but for the transport header.
    fn is_straight(&self) {
        assert_eq!(self.hello.server_name, Some(identity("orders").dns_name()), "{self:?}");
        assert!(self.hello.alpn.is_empty() && !self.has_header, "{self:?}");
        assert_eq!(self.client, Some(identity("web")), "{self:?}");
    }
}

#[tokio::test]
async fn requests_go_in_tls_without_alpn_or_header_to_the_applications_own_port() {
    let (mesh, app, mut peer) = shop("orders").await;
    for number in 1..=3 {
        let seen = mesh.get("web", "orders", &format!("/{number}")).await.seen();
        assert_eq!(seen["version"], "HTTP/2.0");
        assert_eq!(seen_header(&seen, "l5d-orig-proto"), Some("HTTP/1.1"), "{seen}");
        assert_eq!(app.arrived(), number);
    }
    within(peer.seen.recv()).await.unwrap().is_straight();
    assert!(peer.seen.try_recv().is_err(), "one connection carries all of them");
    let certain = [("pod", "orders"), ("result", "success")];
    assert_eq!(mesh.metric("web", "tidegate_request_endpoint_attempts_total", &certain).await, 3.0);
}

#[tokio::test]
async fn what_a_sidecar_says_of_its_own_is_heeded_and_what_an_application_says_so_is_not() {
    let (mesh, _app, _peer) = shop("orders").await;
    let attempts = "tidegate_request_endpoint_attempts_total";
    let answer = mesh.get("web", "orders", "/sidecar").await;
    assert_eq!((answer.status, answer.header("connection").as_deref()), (502, Some("close")), "{answer:?}");
    assert!(!answer.head.contains("l5d-"), "{answer:?}");
    let told = [("pod", "orders"), ("result", "peer_error")];
    assert_eq!(mesh.metric("web", attempts, &told).await, 1.0);

    let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
    let _orders = App::start(mesh.at("orders", APPLICATION)).await;
    let _plain = App::start(mesh.at("plain", APPLICATION)).await;
    for service in ["orders", "plain"] {
        let answer = mesh.get("web", service, "/sidecar").await;
        assert_eq!((answer.status, answer.header("connection")), (502, None), "{service}: {answer:?}");
        assert!(!answer.head.contains("l5d-"), "{service}: {answer:?}");
        assert_eq!(mesh.metric("web", attempts, &[("pod", service), ("result", "failure")]).await, 1.0);
    }
}

#[tokio::test]
async fn bytes_go_in_the_same_way() {
    let (mesh, _app, mut peer) = shop("orders").await;
    let mut tunnel = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
    let connect = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", host("orders"));
    tunnel.write_all(connect.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(tokio::io::AsyncReadExt::read_u8(&mut tunnel)).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    tunnel.write_all(b"GET /inside HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let seen = within(answer(&mut tunnel)).await.unwrap().seen();
    assert_eq!((&seen["version"], &seen["uri"]), (&"HTTP/1.1".into(), &"/inside".into()));
    within(peer.seen.recv()).await.unwrap().is_straight();
}

#[tokio::test]
async fn somebody_elses_certificate_or_plaintext_there_is_refused_and_nothing_is_sent() {
    let (mesh, app, _peer) = shop("cart").await;
    mesh.get("web", "orders", "/").await.is_refusal(502, "tls_certificate_error");
    mesh.counts("web", "outbound", "tls_certificate_error", 1.0).await;
    assert_eq!(app.arrived(), 0);
    let mesh = Plan::of(&["web", "orders"]).straight("orders").plain("orders").start().await;
    let plain = App::start(mesh.at("orders", APPLICATION)).await;
    mesh.get("web", "orders", "/").await.is_refusal(502, "tls_protocol_error");
    mesh.counts("web", "outbound", "tls_protocol_error", 1.0).await;
    assert_eq!(plain.arrived(), 0);
}

#[tokio::test]
async fn a_pod_that_asks_itself_asks_its_own_sidecar_whose_port_it_knows() {
    let mesh = Plan::of(&["orders"]).straight("orders").start().await;
    let _app = App::start(mesh.at("orders", APPLICATION)).await;
    let seen = mesh.get("orders", "orders", "/").await.seen();
    assert_eq!(seen_header(&seen, "l5d-client-id"), Some(identity("orders").dns_name().as_str()), "{seen}");
    let own = identity("orders").to_string();
    let let_in = [("client", own.as_str()), ("tls", "true")];
    assert_eq!(mesh.metric("orders", "tidegate_sidecar_peer_requests_total", &let_in).await, 1.0);
}
