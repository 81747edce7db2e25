//! lines: a watch as it is opened and read, one event a line.

use http_body_util::BodyExt as _;
use kube::Client;
use kube::api::WatchEvent;
use kube::client::Body;
use kube::core::Status;
use policy::limits;

use super::kind::Raw;

/// The events of a watch.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Up to here there is no end of a line.
    searched: usize,
}

/// Opens a watch. kube's `request_events` tells a refusal only as the first event of a watch that
/// seems to stand, and puts no bound on a line.
///
/// # Errors
/// When there is no answer, or one that refuses.
pub(super) async fn open(client: &Client, request: http::Request<Vec<u8>>) -> kube::Result<Lines> {
    let answer = client.send(request.map(Body::from)).await?;
    let code = answer.status();
    let body = answer.into_body();
    if code.is_success() {
        return Ok(Lines { body, buffer: Vec::new(), searched: 0 });
    }
    let text = body.collect().await?.to_bytes();
    let status = serde_json::from_slice::<Status>(&text)
        .unwrap_or_else(|_| Status::failure(&code.to_string(), "").with_code(code.as_u16()));
    Err(kube::Error::Api(status.boxed()))
}

impl Lines {
    /// The next event; `None` when the watch ended, broke off, or said what cannot be read.
    pub(super) async fn next(&mut self) -> Option<WatchEvent<Raw>> {
        loop {
            let rest = &self.buffer[self.searched..];
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                let event = serde_json::from_slice(&self.buffer[..end]).ok();
                self.buffer.drain(..=end);
                self.searched = 0;
                return event;
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > limits::API_EVENT_BYTES_MAX {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
