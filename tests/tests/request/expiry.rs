//! expiry: a certificate that ends while the controller is away.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::wire::v1::{CertifyRequest, CertifyResponse};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use transport::io::Io;

use crate::mesh::{Plan, until};
use crate::peer::{certified, identity, issuer, sign};

/// A controller that signs one short life and goes away. (The real one gives a minute at least.)
async fn one_short_life(state: PathBuf, account: &'static str, life: Duration) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let own = "spiffe://cluster.local/ns/tidegate/sa/tidegate-controller".parse().unwrap();
        let tls = certified(&state, own, Duration::from_secs(3600));
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let accepted = tls.accept(Io::tcp(stream)).await.unwrap();
        let service = service_fn(move |request| certify(request, state.clone(), account, life));
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(accepted.io), service).await;
    });
    (address, serving)
}

async fn certify(
    request: Request<Incoming>,
    state: PathBuf,
    account: &str,
    life: Duration,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let asked = CertifyRequest::decode(body.slice(5..)).expect("a CertifyRequest");
    let leaf = sign(&issuer(&state), &asked.csr, &identity(account), life);
    let message = CertifyResponse { chain: vec![leaf], not_after: 0 }.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("it is short"));
    frame.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Full::new(frame.freeze()).with_trailers(async { Some(Ok(trailers)) }));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[tokio::test]
async fn a_sidecar_whose_certificate_ended_says_so_and_peers_refuse_it() {
    let mut mesh = Plan::of(&["web", "orders"]).start().await;
    let state = mesh.dir.path().join("state");
    let (address, _serving) = one_short_life(state, "orders", Duration::from_secs(2)).await;
    mesh.restart("orders", &["--controller".to_owned(), address.to_string()]);
    let look = || mesh.admin_if_up("orders", "/ready");
    let says = |text: &String| text.contains("the certificate has expired: the controller");
    let text = until("expired", look, says).await;
    assert!(text.contains("is not reached"), "{text}");
    // The last second counts as valid (RFC 5280 §4.1.2.5), and it is not over.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = mesh.get("web", "orders", "/").await;
    answer.is_refusal(502, "tls_certificate_error");
    assert!(answer.text().contains("the peer's certificate is refused"), "{answer:?}");
    mesh.counts("web", "outbound", "tls_certificate_error", 1.0).await;
}
