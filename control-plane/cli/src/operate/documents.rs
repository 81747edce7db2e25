//! documents: what a proxy's admin port says of queues and messages, as far as it is read here.

use serde::Deserialize;

use crate::print::plain;

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
    /// The last redrive of its dead letters.
    #[serde(default)]
    pub(crate) redrive: Option<Redrive>,
}

/// A redrive of a whole dead letter: how far it is, or how far it came.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Redrive {
    /// Which one.
    pub(super) number: u64,
    /// Dead letters when it began.
    pub(super) of: u64,
    /// Those that its filter means, what died meanwhile included.
    pub(super) meant: u64,
    pub(super) redriven: u64,
    pub(super) under_way: bool,
    /// Why it ended early.
    pub(super) failed: Option<String>,
}

/// What is answered to a redrive.
#[derive(Debug, Deserialize)]
pub(super) struct Redriving {
    pub(super) redrive: Redrive,
}

impl Named {
    /// Its name with its durability, which tells apart two of one name.
    pub(crate) fn spelled(&self) -> String {
        format!("{}@{}", self.name, self.durability)
    }

    /// Why nothing of it goes although something could, in the words of every command.
    pub(crate) fn waits_for(&self) -> Option<String> {
        if let Some(by) = &self.paused {
            let by = if by == "policy-gone" { "a policy that is gone".to_owned() } else { plain(by) };
            return Some(format!("paused by {by}"));
        }
        Some(match self.blocked.as_deref()? {
            why @ ("rate" | "concurrency") => format!("at its {why}"),
            "pushed_back" => "pushed back by its receiver".to_owned(),
            "dead_letter_full" => "its dead letter is full".to_owned(),
            // `paused_by_policy`; of what is behind a colon it is a token of `Proxy-Status`.
            why => match why.split_once(": ") {
                Some((what, token)) => format!("{}: {}", plain(what).replace('_', " "), plain(token)),
                None => plain(why).replace('_', " "),
            },
        })
    }

    /// Whether it goes as fast as its policy lets it: then nothing is wrong.
    pub(crate) fn is_at_its_pace(&self) -> bool {
        self.paused.is_none() && matches!(self.blocked.as_deref(), Some("rate" | "concurrency"))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn why_a_queue_waits_is_said_in_words() {
        let said = |paused: Value, blocked: Value| {
            let queue = json!({
                "name": "a/b/c:80", "policy": "a/b", "durability": "local", "depth": 1, "bytes": 1,
                "oldestAgeSeconds": 1.0, "inFlight": 0, "deadLetters": 0, "paused": paused, "blocked": blocked,
                "arrivalsPerSecond": 0.0, "completionsPerSecond": 0.0, "drainEstimateSeconds": null,
            });
            let queue: Named = serde_json::from_value(queue).unwrap();
            (queue.waits_for().unwrap_or_default(), queue.is_at_its_pace())
        };
        for (paused, blocked, words, pace) in [
            (json!("policy"), json!("paused_by_policy"), "paused by policy", false),
            (Value::Null, json!("paused_by_operator"), "paused by operator", false),
            (Value::Null, json!("dead_letter_full"), "its dead letter is full", false),
            (Value::Null, json!("pushed_back"), "pushed back by its receiver", false),
            (Value::Null, json!("unavailable: connection_refused"), "unavailable: connection_refused", false),
            (Value::Null, json!("rate"), "at its rate", true),
            (Value::Null, Value::Null, "", false),
        ] {
            assert_eq!(said(paused, blocked), (words.to_owned(), pace));
        }
    }
}
