//! ask: one GET of an admin port, bounded in time and size.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An admin port answers from memory: one that takes longer hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer: the metrics of a large mesh, or the demo's list of ids, have a few MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What was answered.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The body.
    pub(crate) text: String,
}

/// Asks for `path`.
///
/// # Errors
/// When there is no whole answer within 3 s; any status is an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, exchange(address, path)).await;
    asked
        .with_context(|| format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))
        .flatten()
        .with_context(|| format!("http://{address}{path}"))
}

/// As [`get`], and anything but 200 is an error too.
pub(crate) async fn text(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let answer = get(address, path).await?;
    let said = answer.text.trim();
    anyhow::ensure!(answer.status == StatusCode::OK, "http://{address}{path}: {}: {said}", answer.status);
    Ok(answer.text)
}

async fn exchange(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
        anyhow::Ok(Answer { status, text: String::from_utf8_lossy(&body).into_owned() })
    };
    // The connection is driven here and not in a task, so that nothing is left behind.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let mut driven = false;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = &mut connection, if !driven => driven = true,
        }
    }
}
