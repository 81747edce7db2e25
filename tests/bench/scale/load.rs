//! load: gRPC by hand over HTTP/2, as little of it as a simulated proxy needs.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use crate::controller::Controller;
use policy::wire::v1;

const SERVER: &str = "tidegate-controller.tidegate.serviceaccount.identity.linkerd.cluster.local";
/// The flag and the length in front of a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// TLS that trusts the controller, with a certificate or without.
pub(crate) fn tls(
    controller: &Controller,
    identified: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(controller.anchors.as_bytes()) {
        roots.add(anchor?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match identified {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every handshake is a whole one, as after a start of all.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// One connection.
pub(crate) async fn connect(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> anyhow::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = tokio_rustls::TlsConnector::from(tls).connect(ServerName::try_from(SERVER)?, stream).await?;
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(send)
}

/// A certificate for a service account, with a token that names it.
pub(crate) async fn certify(
    controller: &Controller,
    namespace: &str,
    account: &str,
) -> anyhow::Result<Arc<ClientConfig>> {
    let token = format!("{namespace}:{account}");
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
    let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
    let send = connect(controller.address, tls(controller, None)?).await?;
    let (mut out, answer) = call(send, "/tidegate.policy.v1.Identity/Certify")?;
    say(&mut out, &v1::CertifyRequest { token, csr, identity }, true)?;
    let mut talk = Talk::new(answer.await?.into_body());
    let answer: v1::CertifyResponse = talk.next().await?.context("no certificate came")?.0;
    let chain = answer.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    tls(controller, Some((chain, key)))
}

/// Begins a call.
pub(crate) fn call(
    mut send: SendRequest<Bytes>,
    path: &str,
) -> anyhow::Result<(SendStream<Bytes>, h2::client::ResponseFuture)> {
    let request = http::Request::post(format!("https://controller{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, out) = send.send_request(request, false)?;
    Ok((out, answer))
}

/// Sends a message.
pub(crate) fn say(out: &mut SendStream<Bytes>, message: &impl Message, is_last: bool) -> anyhow::Result<()> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length)?);
    message.encode(&mut bytes)?;
    Ok(out.send_data(bytes.freeze(), is_last)?)
}

/// Messages that come in.
pub(crate) struct Talk {
    body: RecvStream,
    buffer: BytesMut,
}

impl Talk {
    pub(crate) fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next message and its bytes on the wire; `None` at the end.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> anyhow::Result<Option<(M, usize)>> {
        loop {
            if let Some(prefix) = self.buffer.get(1..PREFIX_BYTES) {
                let length = PREFIX_BYTES + u32::from_be_bytes(prefix.try_into()?) as usize;
                if self.buffer.len() >= length {
                    let mut message = self.buffer.split_to(length);
                    message.advance(PREFIX_BYTES);
                    return Ok(Some((M::decode(message)?, length)));
                }
            }
            let Some(data) = self.body.data().await else {
                let trailers = self.body.trailers().await?;
                let status =
                    trailers.as_ref().and_then(|t| t.get("grpc-status")).map(|s| s.as_bytes().to_vec());
                anyhow::ensure!(matches!(status.as_deref(), None | Some(b"0")), "ended: {trailers:?}");
                return Ok(None);
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}
