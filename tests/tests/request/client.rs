//! client: a workload's words, byte by byte, so that nothing is tidied on the way.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A response of HTTP/1.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's values, joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// What the application says it saw.
    #[track_caller]
    pub(crate) fn seen(&self) -> serde_json::Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_slice(&self.body).expect("the application answers JSON")
    }

    /// The proxy itself refused, with this status and token.
    #[track_caller]
    pub(crate) fn is_refusal(&self, status: u16, token: &str) {
        let told = self.header("proxy-status").unwrap_or_default();
        let wanted = format!("tidegate; error={token};");
        assert!(self.status == status && told.starts_with(&wanted), "wanted {status} {token}: {self:?}");
    }
}

/// What the application saw of a header; `None` when it saw none.
pub(crate) fn seen_header<'a>(seen: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    seen["headers"].get(name)?.as_str()
}

/// Sends a request and reads its response; `None` when nothing answers. `head` is without the last
/// empty line.
pub(crate) async fn ask(address: SocketAddr, head: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
    within(answer(&mut stream)).await
}

/// Bounds a wait that should be short.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it does not take 10 s")
}

/// Reads one response; `None` when the connection ends before it is whole.
pub(crate) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, head, body: Vec::new() };
    if answer.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        answer.body = chunks(stream).await?;
    } else if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut answer.body).await.ok()?;
    } else if status >= 200 && status != 204 && status != 304 {
        stream.read_to_end(&mut answer.body).await.ok()?;
    }
    Some(answer)
}

async fn chunks(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.ok()?);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// Reads until the other side ends or resets the connection.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = within(stream.read_to_end(&mut bytes)).await;
    bytes
}
