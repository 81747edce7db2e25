//! terms: fields, names and ranges of an AsyncPolicy, which its reader and its schema share.

use std::ops::RangeInclusive;
use std::time::Duration;

use policy::limits;
use policy::queue::{Backoff, Credentials, Durability, GrpcAck, Mode};

pub(super) const SPEC: [&str; 15] = [
    "targetRefs",
    "mode",
    "methods",
    "durability",
    "queue",
    "maxBodyBytes",
    "ordering",
    "delivery",
    "rateLimits",
    "idempotency",
    "result",
    "callback",
    "credentials",
    "grpc",
    "paused",
];
pub(super) const TARGET: [&str; 4] = ["group", "kind", "name", "sectionName"];
pub(super) const QUEUE: [&str; 2] = ["maxBytes", "maxMessages"];
pub(super) const DELIVERY: [&str; 8] = [
    "retry",
    "backoffPolicy",
    "backoffDelay",
    "backoffMax",
    "timeout",
    "retryAfterMax",
    "maxAge",
    "deadLetterSink",
];
pub(super) const RATE: [&str; 4] =
    ["maxConcurrentDispatches", "maxDispatchesPerSecond", "maxBurstSize", "key"];
pub(super) const IDEMPOTENCY: [&str; 2] = ["required", "window"];
pub(super) const RESULT: [&str; 2] = ["ttl", "maxBytes"];
pub(super) const CALLBACK: [&str; 2] = ["allowedHosts", "secretRef"];

pub(super) const MODES: [(&str, Mode); 3] =
    [("Preferred", Mode::Preferred), ("Spill", Mode::Spill), ("Always", Mode::Always)];
pub(super) const DURABILITIES: [(&str, Durability); 2] =
    [("Local", Durability::Local), ("Memory", Durability::Memory)];
pub(super) const CREDENTIALS: [(&str, Credentials); 3] =
    [("Refuse", Credentials::Refuse), ("Drop", Credentials::Drop), ("Store", Credentials::Store)];
pub(super) const BACKOFFS: [(&str, Backoff); 2] =
    [("exponential", Backoff::Exponential), ("linear", Backoff::Linear)];
pub(super) const ACKS: [(&str, GrpcAck); 1] = [("EmptyMessage", GrpcAck::EmptyMessage)];
/// Groups of targets.
pub(super) const GROUPS: [(&str, ()); 2] = [(CORE, ()), (GATEWAY, ())];
/// Kinds of targets, the first of the group [`CORE`], the second of [`GATEWAY`].
pub(super) const KINDS: [(&str, ()); 2] = [(SERVICE, ()), (ROUTE, ())];
pub(super) const CORE: &str = "";
pub(super) const GATEWAY: &str = "gateway.networking.k8s.io";
pub(super) const SERVICE: &str = "Service";
pub(super) const ROUTE: &str = "HTTPRoute";
/// Methods that are never taken in.
pub(super) const NEVER: [&str; 2] = ["CONNECT", "TRACE"];
/// Headers that hold a credential, which a key would write down.
pub(super) const CREDENTIAL_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
/// What a rate is bounded by unless a header is named.
pub(super) const DESTINATION: &str = "destination";

pub(super) const TARGETS: RangeInclusive<usize> = 0..=limits::POLICY_TARGETS_MAX;
/// Methods, and hosts for callbacks.
pub(super) const NAMES: RangeInclusive<usize> = 1..=limits::POLICY_NAMES_MAX;
pub(super) const BODY_BYTES: RangeInclusive<u64> = 1..=limits::MESSAGE_BODY_BYTES_CAP;
/// At most what the store can count: signed 64-bit numbers.
pub(super) const QUEUE_BYTES: RangeInclusive<u64> = 1..=1 << 62;
pub(super) const QUEUE_MESSAGES: RangeInclusive<u64> = 1..=limits::QUEUE_MESSAGES_CAP;
pub(super) const RESULT_BYTES: RangeInclusive<u64> = 0..=limits::RESULT_BYTES_CAP;
pub(super) const RETRY: RangeInclusive<u64> = 0..=limits::DELIVERY_RETRY_CAP as u64;
pub(super) const CONCURRENT: RangeInclusive<u64> = 1..=limits::DISPATCHES_CONCURRENT_CAP as u64;
/// Deliveries begun at once after a pause.
pub(super) const BURST: RangeInclusive<u64> = 1..=1_000_000;
/// The slowest rate, about nine in a day, and the fastest, which no sidecar reaches.
pub(super) const PER_SECOND: RangeInclusive<f64> = 0.0001..=1_000_000.0;

/// The longest time a policy can speak of: that for which a message can be delayed.
const LONGEST: Duration = limits::MESSAGE_DELAY_MAX;
/// Between two attempts; less would be a busy loop against a receiver that is ill.
pub(super) const BACKOFF: RangeInclusive<Duration> = Duration::from_millis(10)..=LONGEST;
/// The shortest time anything can be waited for is what a timer can tell.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// How long a key is remembered: shorter, a client's own retry would be a second request.
pub(super) const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
/// What may be nothing at all.
pub(super) const ANY: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;

// A policy that sets only one of the two keeps the rule that a quota is not below a body.
const _: () = assert!(limits::QUEUE_BYTES_MAX >= limits::MESSAGE_BODY_BYTES_CAP);
