//! settle: what a delivery result means, and what follows from it.
//!
//! The table of the asynchronous contract, as two pure functions: [`meaning`] reads an answer,
//! [`verdict`] says what becomes of the message. The same table serves events.

use std::time::Duration;

use policy::queue::Delivery;
use store::message::Timestamp;

use crate::deliver::Answer;
use crate::message::Reason;
use crate::schedule::{backoff, plus, share};

/// What an answer means, whatever the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It was taken.
    Done,
    /// Another attempt may help; this one is used up.
    Retry {
        /// Not before.
        pushback: Option<Duration>,
    },
    /// Later: not now, and it is nobody's fault.
    PushedBack {
        /// Not before.
        retry_after: Option<Duration>,
    },
    /// It never left.
    Unavailable(&'static str),
    /// Another attempt would not help.
    Bury(Reason),
}

/// Reads an answer. HTTP by status (Knative's data plane specification, Standard Webhooks), gRPC by
/// the codes its own retry policy takes (gRFC A6).
pub(crate) fn meaning(answer: Answer) -> Meaning {
    match answer {
        Answer::Status { code, retry_after } => match code {
            200..=299 => Meaning::Done,
            429 | 503 => Meaning::PushedBack { retry_after },
            410 => Meaning::Bury(Reason::Gone),
            404 | 408 | 409 | 425 | 500..=599 => Meaning::Retry { pushback: None },
            300..=499 => Meaning::Bury(Reason::NonRetryable),
            // No final status of HTTP: as good as a connection lost.
            _ => Meaning::Retry { pushback: None },
        },
        Answer::Grpc { code, pushback } => match code {
            0 => Meaning::Done,
            // RESOURCE_EXHAUSTED and UNAVAILABLE are what 429 and 503 are mapped to.
            8 | 14 => Meaning::PushedBack { retry_after: pushback },
            // DEADLINE_EXCEEDED, ABORTED.
            4 | 10 => Meaning::Retry { pushback },
            _ => Meaning::Bury(Reason::NonRetryable),
        },
        Answer::TimedOut | Answer::Broken => Meaning::Retry { pushback: None },
        Answer::Unavailable { token } => Meaning::Unavailable(token),
        Answer::Misconfigured => Meaning::Bury(Reason::Misconfigured),
    }
}

/// What is known of a message when an attempt has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) now: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) delivery: &'a Delivery,
    /// Attempts used up, this one included.
    pub(crate) attempts: u32,
    /// Attempts pushed back before this one.
    pub(crate) pushed_back: u32,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// It waits.
    Again {
        due: Timestamp,
        /// The attempt was none.
        free: bool,
    },
    /// Its queue waits, and it with it; the attempt was none.
    Stay,
    Bury(Reason),
}

/// What follows; `jitter` is 0..=1, and full (Brooker, "Exponential Backoff And Jitter", 2015).
pub(crate) fn verdict(meaning: Meaning, facts: Facts<'_>, jitter: f64) -> Verdict {
    let delivery = facts.delivery;
    let expired = facts.now >= facts.expires_at;
    let waits = |failures: u32, at_least: Option<Duration>, free: bool| {
        let longest = backoff(delivery.backoff, delivery.backoff_delay, delivery.backoff_max, failures);
        let asked = at_least.unwrap_or_default().min(delivery.retry_after_max);
        let due = plus(facts.now, share(longest, jitter).max(asked));
        // One that would be too old by then ends when it is.
        Verdict::Again { due: due.min(facts.expires_at), free }
    };
    match meaning {
        Meaning::Done => Verdict::Done,
        Meaning::Bury(reason) => Verdict::Bury(reason),
        Meaning::Retry { .. } if facts.attempts > delivery.retry => Verdict::Bury(Reason::Exhausted),
        Meaning::Retry { .. } | Meaning::PushedBack { .. } if expired => Verdict::Bury(Reason::Expired),
        Meaning::Unavailable(_) if expired => Verdict::Bury(Reason::Expired),
        Meaning::Retry { pushback } => {
            waits((facts.attempts + facts.pushed_back).saturating_sub(1), pushback, false)
        }
        Meaning::PushedBack { retry_after } => {
            waits((facts.attempts + facts.pushed_back).saturating_sub(1), retry_after, true)
        }
        Meaning::Unavailable(_) => Verdict::Stay,
    }
}

#[cfg(test)]
mod tests;
