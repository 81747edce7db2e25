//! ask: one request to an admin port, bounded in time and size.

mod forward;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub(crate) use forward::PodPort;

/// An admin port answers from memory: one that takes longer hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer: the metrics of a large mesh have a few MB, a page of an export some twenty.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Reads the address of an admin port.
///
/// # Errors
/// What is expected.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "IP:PORT is expected, such as 127.0.0.1:4191".to_owned())
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The method.
    pub(crate) method: Method,
    /// The path with its query.
    pub(crate) path: String,
    /// How long the other side may wait before it answers (`Prefer: wait`), in seconds.
    pub(crate) wait_seconds: Option<u64>,
    /// How long the whole may take.
    pub(crate) timeout: Duration,
}

impl Question {
    /// One that is answered at once.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), wait_seconds: None, timeout: ANSWER_TIMEOUT }
    }
}

/// What was answered.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// A header's value; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Where an admin port is reached.
#[derive(Clone)]
pub(crate) enum AdminPort {
    /// At an address.
    At(SocketAddr),
    /// Inside a pod, through the API server.
    In(PodPort),
}

impl fmt::Display for AdminPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::In(pod) => pod.fmt(f),
        }
    }
}

impl AdminPort {
    /// Asks.
    ///
    /// # Errors
    /// When there is no whole answer in time; any status is an answer.
    pub(crate) async fn ask(&self, question: &Question) -> anyhow::Result<Answer> {
        match self {
            Self::At(address) => ask(*address, question).await,
            Self::In(pod) => {
                let whole = question.timeout + forward::OPEN_TIMEOUT;
                let asked = tokio::time::timeout(whole, pod.ask(question)).await;
                let asked = asked.with_context(|| format!("no answer within {} s", whole.as_secs()));
                asked.flatten().with_context(|| format!("{pod}, {}", question.path))
            }
        }
    }

    /// Asks for `path`; anything but 200 is an error.
    ///
    /// # Errors
    /// When there is no whole answer in time, or another status.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.ask(&Question::new(Method::GET, path)).await?;
        let text = answer.text();
        anyhow::ensure!(answer.status == StatusCode::OK, "{self}: {}: {}", answer.status, text.trim());
        Ok(text.into_owned())
    }
}

/// Asks.
///
/// # Errors
/// When there is no whole answer in time; any status is an answer.
pub(crate) async fn ask(address: SocketAddr, question: &Question) -> anyhow::Result<Answer> {
    let asked = tokio::time::timeout(question.timeout, over_tcp(address, question)).await;
    asked
        .with_context(|| format!("no answer within {} s", question.timeout.as_secs()))
        .flatten()
        .with_context(|| format!("http://{address}{}", question.path))
}

/// Asks for `path`.
///
/// # Errors
/// When there is no whole answer within 3 s; any status is an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    ask(address, &Question::new(Method::GET, path)).await
}

/// As [`get`], and anything but 200 is an error too.
pub(crate) async fn text(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let answer = get(address, path).await?;
    let text = answer.text();
    anyhow::ensure!(
        answer.status == StatusCode::OK,
        "http://{address}{path}: {}: {}",
        answer.status,
        text.trim()
    );
    Ok(text.into_owned())
}

async fn over_tcp(address: SocketAddr, question: &Question) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    exchange(stream, &address.to_string(), question).await
}

/// One question and its answer over a fresh stream.
async fn exchange<S>(stream: S, host: &str, question: &Question) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(question.method.clone())
        .uri(&question.path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close");
    if let Some(seconds) = question.wait_seconds {
        request = request.header("prefer", format!("wait={seconds}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
        anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body })
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
