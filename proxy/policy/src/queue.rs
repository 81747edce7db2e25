//! queue: what an AsyncPolicy says, as the sidecar that takes requests in needs it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::limits;
use crate::name::ServicePort;

/// An AsyncPolicy, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AsyncPolicy {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// Which requests are taken in.
    pub mode: Mode,
    /// Methods that are; every other is proxied.
    pub methods: Vec<String>,
    /// What a 202 means.
    pub durability: Durability,
    /// Bytes that may wait in one queue.
    pub queue_bytes_max: u64,
    /// Messages that may wait in one queue.
    pub queue_messages_max: u64,
    /// Bytes of one body, at most [`limits::MESSAGE_BODY_BYTES_CAP`].
    pub body_bytes_max: u64,
    /// The header, in lower case, whose value is the ordering key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_header: Option<String>,
    /// How it is delivered.
    pub delivery: Delivery,
    /// How fast.
    pub rate: RateLimits,
    /// Whether requests without an `Idempotency-Key` are refused.
    pub idempotency_required: bool,
    /// How long a key is remembered.
    pub idempotency_window: Duration,
    /// How long a final response is kept; zero: not at all.
    pub result_ttl: Duration,
    /// Bytes of a kept response's body; a longer one is not kept.
    pub result_bytes_max: u64,
    /// Hosts a callback may go to; `*.` stands for one or more labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callback_hosts: Vec<String>,
    /// The key callbacks are signed with, as Standard Webhooks write it: `whsec_` and the base64
    /// (with padding) of 24 to 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_secret: Option<Secret>,
    /// What is done with `Authorization` and `Cookie`.
    pub credentials: Credentials,
    /// What a gRPC call is answered; `None`: UNIMPLEMENTED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_ack: Option<GrpcAck>,
    /// Nothing is delivered while this holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// The methods of a policy that names none.
const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];
/// The ordering key's header where none is named.
const ORDERING_HEADER: &str = "tidegate-key";

impl AsyncPolicy {
    /// A policy of which nothing is known but its name, `NAMESPACE/NAME`: every default.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            mode: Mode::default(),
            methods: METHODS.map(str::to_owned).to_vec(),
            durability: Durability::default(),
            queue_bytes_max: limits::QUEUE_BYTES_MAX,
            queue_messages_max: limits::QUEUE_MESSAGES_MAX,
            body_bytes_max: limits::MESSAGE_BODY_BYTES_MAX,
            ordering_header: Some(ORDERING_HEADER.to_owned()),
            delivery: Delivery::default(),
            rate: RateLimits::default(),
            idempotency_required: false,
            idempotency_window: limits::IDEMPOTENCY_WINDOW,
            result_ttl: limits::RESULT_TTL,
            result_bytes_max: limits::RESULT_BYTES_MAX,
            callback_hosts: Vec::new(),
            callback_secret: None,
            credentials: Credentials::default(),
            grpc_ack: None,
            paused: false,
        }
    }
}

/// Which requests are taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Those that prefer it (RFC 7240 `respond-async`).
    #[default]
    Preferred,
    /// Those, and those whose receiver cannot take them now.
    Spill,
    /// All.
    Always,
}

/// What a 202 means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// In memory: survives the application's crash.
    Memory,
    /// Flushed on the pod's volume.
    #[default]
    Local,
}

/// How a message is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Delivery {
    /// Attempts after the first.
    pub retry: u32,
    /// How waits grow.
    pub backoff: Backoff,
    /// The first wait.
    pub backoff_delay: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// For one attempt.
    pub timeout: Duration,
    /// The longest `Retry-After` that is heeded.
    pub retry_after_max: Duration,
    /// From acceptance to the dead letter.
    pub age_max: Duration,
    /// Where dead letters are sent on to; `None`: the built-in dead letter keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<Sink>,
}

/// Where dead letters are sent on to (Knative's `deadLetterSink`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sink {
    /// The Service.
    pub service: ServicePort,
    /// Path and query there, at most [`limits::MESSAGE_KEY_BYTES_MAX`].
    pub uri: String,
}

/// How waits grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backoff {
    /// Doubled each time.
    #[default]
    #[serde(rename = "exponential")]
    Exponential,
    /// One more delay each time.
    #[serde(rename = "linear")]
    Linear,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            retry: limits::DELIVERY_RETRY,
            backoff: Backoff::Exponential,
            backoff_delay: limits::DELIVERY_BACKOFF_MIN,
            backoff_max: limits::DELIVERY_BACKOFF_MAX,
            timeout: limits::DELIVERY_TIMEOUT,
            retry_after_max: limits::DELIVERY_RETRY_AFTER_MAX,
            age_max: limits::MESSAGE_AGE_MAX,
            sink: None,
        }
    }
}

/// How fast a queue is emptied (Cloud Tasks' names).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimits {
    /// Deliveries under way at once.
    pub concurrent_max: u32,
    /// Deliveries begun in a second; `None`: as many as `concurrent_max` lets through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Deliveries begun at once after a pause.
    pub burst_max: u32,
    /// The header, in lower case, each value of which has limits of its own; `None`: the
    /// destination has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_header: Option<String>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            concurrent_max: limits::DISPATCHES_CONCURRENT,
            per_second: None,
            burst_max: limits::DISPATCHES_BURST,
            key_header: None,
        }
    }
}

/// What is done with `Authorization` and `Cookie`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// The request is refused.
    #[default]
    Refuse,
    /// They are taken off.
    Drop,
    /// They are stored, encrypted.
    Store,
}

/// What a gRPC call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrpcAck {
    /// An empty message: the default value of any type.
    EmptyMessage,
}

/// A secret: readable on the wire alone, and nowhere shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself; not for logs, errors, pages or metrics.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Serializes `value` for people: every secret in it reads `(secret)`.
///
/// # Errors
/// Those of serializing `value`.
pub(crate) fn without_secrets<T: Serialize, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut shown = serde_json::to_value(value).map_err(S::Error::custom)?;
    hide(&mut shown);
    shown.serialize(serializer)
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| match name.as_str() {
            "callbackSecret" => *field = "(secret)".into(),
            _ => hide(field),
        }),
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}
