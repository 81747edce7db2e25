//! retry: how often a request may be tried again, and at whose cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;

/// The share of requests that may be retries (Gateway API GEP-3388).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// Retries per request, 0..=1.
    pub ratio: f64,
    /// The window the ratio is taken over.
    pub interval: Duration,
    /// Retries per second that are always allowed.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            ratio: limits::RETRY_BUDGET_RATIO,
            interval: limits::RETRY_BUDGET_INTERVAL,
            min_per_second: limits::RETRY_BUDGET_MIN_PER_SECOND,
        }
    }
}

/// What a rule says about retries after a response (GEP-1731). A failed connect or a refused
/// stream goes to another endpoint without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryPolicy {
    /// Tries after the first, 0 to [`limits::RETRY_ATTEMPTS_MAX`].
    pub attempts: u32,
    /// HTTP statuses that are tried again.
    pub codes: Vec<u16>,
    /// The shortest wait before a try again; doubled each time, with full jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}
