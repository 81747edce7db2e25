//! held: what the controller says of itself and of each connected proxy.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Context as _;
use serde::Deserialize;

use super::finding::Finding;
use crate::ask;
use crate::print::count;

/// What `/status` of the controller says, as far as it is read here.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    /// Problems of the objects.
    pub(super) problems: Vec<Problem>,
    /// Connected proxies.
    pub(crate) proxies: Vec<Proxy>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    #[serde(default)]
    file: String,
    #[serde(default)]
    line: usize,
    #[serde(default)]
    object: String,
    #[serde(default)]
    field: Option<String>,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in no file has no line.
        if self.line > 0 {
            write!(f, "{}:{}: ", self.file, self.line)?;
        }
        for part in [self.object.as_str(), self.field.as_deref().unwrap_or_default()] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// One connected proxy.
#[derive(Debug, Deserialize)]
pub(crate) struct Proxy {
    /// Whom its certificate names.
    pub(crate) identity: String,
    /// The pod it says it stands in.
    pub(crate) pod: String,
    #[serde(default)]
    pub(super) version: String,
    sent: u64,
    pub(super) acknowledged: u64,
    digest_ok: bool,
    documents: usize,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    key: String,
    reason: String,
}

/// Reads the controller's status.
///
/// # Errors
/// When there is no answer, or one of another version.
pub(crate) async fn status(admin: SocketAddr) -> anyhow::Result<Status> {
    read(&ask::text(admin, "/status").await?)
}

/// Reads what `/status` answered.
///
/// # Errors
/// When it is of another version.
pub(super) fn read(text: &str) -> anyhow::Result<Status> {
    serde_json::from_str(text).context("the controller's /status is not as this version writes it")
}

impl Proxy {
    /// How many answers it has not acknowledged.
    pub(super) fn behind(&self) -> u64 {
        self.sent.saturating_sub(self.acknowledged)
    }

    /// Takes it as one that has acknowledged all: it moved on while somebody looked.
    pub(super) fn catch_up(&mut self) {
        self.acknowledged = self.sent;
    }

    /// The pod with its namespace, which its certificate names: `shop/web-0`.
    pub(super) fn named(&self) -> String {
        let namespace = self.identity.split_once("/ns/").and_then(|(_, rest)| rest.split('/').next());
        format!("{}/{}", namespace.unwrap_or_default(), self.pod)
    }

    /// Whether it holds what it was sent.
    pub(super) fn held(&self) -> Finding {
        let object = format!("proxy of {} ({})", self.pod, self.identity);
        if let Some(first) = self.rejected.first() {
            let said = format!(
                "refused {}, the first {}: {}",
                count(self.rejected.len(), "document"),
                first.key,
                first.reason
            );
            return Finding::failed(object, said, "is it older than the controller? upgrade it");
        }
        if self.behind() > 0 {
            let said = format!("{} unacknowledged", count(self.behind(), "answer"));
            return Finding::failed(object, said, "ask again; when it stays, see the proxy's log");
        }
        if !self.digest_ok {
            let remedy = "ask again: the controller sends all anew; when it stays, restart the proxy";
            return Finding::failed(object, "holds something else than was sent", remedy);
        }
        Finding::ok(object, format!("holds {}, lag 0", count(self.documents, "document")))
    }
}
