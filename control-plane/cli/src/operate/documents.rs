//! documents: what a proxy's admin port says of queues and messages, as far as it is read here.

use serde::Deserialize;

/// Of `GET /queues`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Queues {
    /// Why the directory is not open.
    #[serde(default)]
    pub(crate) trouble: Option<String>,
    /// The same in a word, that of the metric.
    #[serde(default)]
    pub(crate) trouble_condition: Option<String>,
    pub(crate) stores: Vec<Store>,
    pub(crate) queues: Vec<Named>,
}

/// Where messages lie.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Store {
    pub(crate) durability: String,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    #[serde(default)]
    pub(crate) full: Option<String>,
    #[serde(default)]
    pub(crate) damaged: Option<String>,
    #[serde(default)]
    pub(crate) doubted: Option<String>,
    #[serde(default)]
    pub(crate) poisoned: Option<String>,
}

/// One queue.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) policy: String,
    pub(crate) durability: String,
    pub(crate) depth: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_age_seconds: Option<f64>,
    pub(crate) in_flight: u64,
    pub(crate) dead_letters: u64,
    #[serde(default)]
    pub(crate) quarantined: u64,
    pub(crate) paused: Option<String>,
    pub(crate) blocked: Option<String>,
    pub(crate) arrivals_per_second: f64,
    pub(crate) completions_per_second: f64,
    pub(crate) drain_estimate_seconds: Option<f64>,
    #[serde(default)]
    pub(crate) redriving: bool,
}

impl Named {
    /// Its name with its durability, which tells apart two of one name.
    pub(crate) fn spelled(&self) -> String {
        format!("{}@{}", self.name, self.durability)
    }
}

/// A page of messages.
#[derive(Debug, Deserialize)]
pub(super) struct Messages {
    pub(super) messages: Vec<Message>,
    /// Where the next page begins.
    pub(super) next: Option<u64>,
}

/// One message; its owner is told less of it than an operator.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) queue: String,
    pub(super) durability: String,
    pub(super) enqueued_at: String,
    pub(super) attempts: Vec<Attempt>,
    pub(super) attempts_used: u32,
    pub(super) next_attempt_at: Option<String>,
    pub(super) ended_at: Option<String>,
    #[serde(default)]
    pub(super) age_seconds: Option<f64>,
    #[serde(default)]
    pub(super) about: Option<String>,
    #[serde(default)]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) priority: Option<u8>,
    #[serde(default)]
    pub(super) bytes: Option<u64>,
    #[serde(default)]
    pub(super) expires_at: Option<String>,
    #[serde(default)]
    pub(super) authority: Option<String>,
    #[serde(default)]
    pub(super) headers: Option<Vec<String>>,
    #[serde(default)]
    pub(super) body_bytes: Option<u64>,
}

/// One attempt.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attempt {
    pub(super) at: String,
    pub(super) status: Option<u16>,
    pub(super) error: Option<String>,
    pub(super) duration_ms: u64,
}

impl Attempt {
    /// How it ended, in a few words.
    pub(super) fn ended(&self) -> String {
        match (self.status, &self.error) {
            (Some(status), None) => status.to_string(),
            (Some(status), Some(error)) => format!("{status}: {error}"),
            (None, Some(error)) => error.clone(),
            (None, None) => "no answer".to_owned(),
        }
    }
}

/// What a purge did.
#[derive(Debug, Deserialize)]
pub(super) struct Purged {
    pub(super) purged: u64,
}

/// A problem document (RFC 9457).
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) r#type: String,
    pub(super) title: String,
    #[serde(default)]
    pub(super) detail: String,
}
