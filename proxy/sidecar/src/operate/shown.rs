//! shown: queues and messages as an operator sees them, in JSON and on the page.

use serde::Serialize;

/// All queues of this sidecar.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overview {
    pub(crate) pod: String,
    pub(crate) identity: String,
    /// Why the directory could not be opened.
    pub(crate) trouble: Option<String>,
    /// The same as the condition of `tidegate_queue_store_condition`.
    pub(crate) trouble_condition: Option<&'static str>,
    pub(crate) stores: Vec<Store>,
    pub(crate) queues: Vec<Listed>,
}

/// Where messages lie.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Store {
    pub(crate) durability: &'static str,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    /// Why nothing is taken in.
    pub(crate) full: Option<String>,
    /// What is wrong with its pages.
    pub(crate) damaged: Option<String>,
    /// Why its files are in doubt.
    pub(crate) doubted: Option<String>,
    /// Why it is not trusted any more.
    pub(crate) poisoned: Option<String>,
}

/// One queue.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) policy: String,
    pub(crate) destination: String,
    pub(crate) durability: &'static str,
    pub(crate) depth: u64,
    pub(crate) messages_max: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    pub(crate) oldest_age_seconds: Option<f64>,
    pub(crate) in_flight: u64,
    pub(crate) scheduled: u64,
    pub(crate) retrying: u64,
    pub(crate) dead_letters: u64,
    pub(crate) dead_letter_bytes: u64,
    pub(crate) quarantined: u64,
    /// By whom: `policy`, `policy-gone` where there is none any more, or `operator`.
    pub(crate) paused: Option<&'static str>,
    /// Why nothing goes although something could.
    pub(crate) blocked: Option<String>,
    /// Its dead letters are being brought back.
    pub(crate) redriving: bool,
    /// How far that is, or how far the last one came.
    pub(crate) redrive: Option<Redrive>,
    pub(crate) arrivals_per_second: f64,
    pub(crate) completions_per_second: f64,
    /// `None`: messages come and none leaves.
    pub(crate) utilisation: Option<f64>,
    /// `None`: never.
    pub(crate) drain_estimate_seconds: Option<f64>,
    /// The oldest first.
    pub(crate) history: Vec<Point>,
}

/// A redrive of a whole dead letter.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Redrive {
    /// Which one, since the sidecar was started.
    pub(crate) number: u64,
    /// Dead letters when it began.
    pub(crate) of: u64,
    /// Those that its filter means, as far as it is; what died meanwhile counts too.
    pub(crate) meant: u64,
    pub(crate) redriven: u64,
    pub(crate) under_way: bool,
    /// Why it ended early.
    pub(crate) failed: Option<String>,
}

/// A queue a while ago.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    pub(crate) at: String,
    pub(crate) depth: u64,
    pub(crate) oldest_age_seconds: f64,
    pub(crate) arrivals_per_second: f64,
    pub(crate) completions_per_second: f64,
}

/// One message.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) queue: String,
    pub(crate) durability: &'static str,
    pub(crate) enqueued_at: String,
    pub(crate) age_seconds: f64,
    pub(crate) attempts: Vec<Tried>,
    pub(crate) attempts_used: u32,
    pub(crate) next_attempt_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) about: String,
    pub(crate) key: Option<String>,
    pub(crate) priority: Option<u8>,
    /// As the store counts them.
    pub(crate) bytes: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<Inside>,
}

/// One attempt.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tried {
    pub(crate) at: String,
    pub(crate) status: Option<u16>,
    pub(crate) grpc: bool,
    pub(crate) error: Option<String>,
    pub(crate) duration_ms: u64,
}

/// What may be told of a message's call and body.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inside {
    pub(crate) authority: String,
    /// The names; `authorization` and `cookie` are not among them, nor is any value.
    pub(crate) headers: Vec<String>,
    /// Credentials are stored with it, encrypted.
    pub(crate) credentials: bool,
    pub(crate) body_bytes: u64,
}
