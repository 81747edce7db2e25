//! metrics: what this room counts, with bounded labels.
//!
//! Counters live with their named queue and go when it goes; gauges are read off the queues when
//! somebody asks. The label `queue` is `NAMESPACE/POLICY/DESTINATION`, of which at most
//! [`policy::limits::QUEUES_MAX`] exist in a store; requests refused before they had a queue are counted
//! under `other`.

mod stores;

pub use stores::closed_for;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use policy::limits;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::enqueue::{Accepted, Refused};
use crate::handle::Shared;
use crate::id::Class;
use crate::schedule::Blocked;

const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    queue: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    queue: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    queue: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    durability: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    queue: String,
    state: &'static str,
}

/// An enum of which every variant has its label, so that there are as many of the one as of the other.
macro_rules! labelled {
    ($(#[$about:meta])* $name:ident { $($variant:ident $label:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($variant,)* }

        impl $name {
            const LABELS: [&str; [$($label),*].len()] = [$($label),*];
        }
    };
}

labelled! {
    /// How a request to be taken in ended.
    EnqueueResult {
        Accepted "accepted",
        Duplicate "duplicate",
        QueueFull "queue_full",
        SourceOverQuota "source_over_quota",
        TooManyKeys "too_many_keys",
        TooManyQueues "too_many_queues",
        OtherFingerprint "other_fingerprint",
        Draining "draining",
        DiskFull "disk_full",
        TooLarge "too_large",
        Poisoned "poisoned",
        Invalid "invalid",
    }
}

impl EnqueueResult {
    pub(crate) fn of(accepted: &Result<Accepted, Refused>) -> Self {
        match accepted {
            Ok(accepted) if accepted.duplicate => Self::Duplicate,
            Ok(_) => Self::Accepted,
            Err(Refused::QueueFull { .. }) => Self::QueueFull,
            Err(Refused::SourceOverQuota { .. }) => Self::SourceOverQuota,
            Err(Refused::TooManyKeys { .. }) => Self::TooManyKeys,
            Err(Refused::TooManyQueues) => Self::TooManyQueues,
            Err(Refused::OtherFingerprint) => Self::OtherFingerprint,
            Err(Refused::Draining) => Self::Draining,
            Err(Refused::DiskFull(_)) => Self::DiskFull,
            Err(Refused::Poisoned(_)) => Self::Poisoned,
            Err(Refused::TooLarge { .. }) => Self::TooLarge,
            Err(Refused::Invalid(_)) => Self::Invalid,
        }
    }
}

labelled! {
    /// How an attempt ended.
    AttemptOutcome {
        Delivered "delivered",
        Retried "retried",
        PushedBack "pushed_back",
        Unavailable "unavailable",
        DeadLettered "dead_lettered",
    }
}

const REASONS: [&str; 8] = [
    "paused_by_policy",
    "paused_by_operator",
    "dead_letter_full",
    "unavailable",
    "pushed_back",
    "concurrency",
    "rate",
    "stopped",
];

type Seconds = Counter<f64, AtomicU64>;

/// The counters of this room; one for all queues of a process.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    enqueued: Family<ResultLabels, Counter>,
    attempts: Family<OutcomeLabels, Counter>,
    throttled: Family<ReasonLabels, Seconds>,
    commits: Family<ClassLabels, Histogram, fn() -> Histogram>,
    sources: Mutex<Vec<Weak<Shared>>>,
    closed: stores::Closed,
}

fn commit_histogram() -> Histogram {
    // Seconds, by factors of about two: a flush of a local disk takes 0.1 ms, of a bad one a second.
    Histogram::new([
        0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    ])
}

impl Metrics {
    /// Registers everything under `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let inner = Inner {
            enqueued: Family::default(),
            attempts: Family::default(),
            throttled: Family::default(),
            commits: Family::new_with_constructor(commit_histogram),
            sources: Mutex::default(),
            closed: stores::Closed::default(),
        };
        registry.register(
            "tidegate_queue_enqueue",
            "Asynchronous requests by how they were answered",
            inner.enqueued.clone(),
        );
        registry.register(
            "tidegate_queue_delivery_attempts",
            "Attempts to deliver by outcome",
            inner.attempts.clone(),
        );
        registry.register(
            "tidegate_queue_throttled_seconds",
            "Time in which messages waited only because of this reason",
            inner.throttled.clone(),
        );
        registry.register(
            "tidegate_queue_commit_seconds",
            "From the beginning of a group commit to the end of its flush",
            inner.commits.clone(),
        );
        let metrics = Self(Arc::new(inner));
        registry.register_collector(Box::new(Gauges(metrics.clone())));
        metrics
    }

    /// From now on the gauges show its queues.
    pub(crate) fn watch(&self, shared: &Arc<Shared>) {
        let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| source.strong_count() > 0);
        sources.push(Arc::downgrade(shared));
    }

    pub(crate) fn refused(&self, result: EnqueueResult) {
        let labels = ResultLabels { queue: OTHER.into(), result: EnqueueResult::LABELS[result as usize] };
        self.0.enqueued.get_or_create(&labels).inc();
    }

    /// How long commits of a class take.
    pub(crate) fn commits(&self, class: Class) -> Histogram {
        self.0.commits.get_or_create(&ClassLabels { durability: class.as_str() }).clone()
    }

    pub(crate) fn series(&self, queue: &Arc<str>) -> Series {
        Series {
            queue: queue.clone(),
            metrics: self.clone(),
            enqueued: [const { OnceLock::new() }; _],
            attempts: [const { OnceLock::new() }; _],
        }
    }
}

/// The counters of one named queue.
pub(crate) struct Series {
    queue: Arc<str>,
    metrics: Metrics,
    enqueued: [OnceLock<Counter>; EnqueueResult::LABELS.len()],
    attempts: [OnceLock<Counter>; AttemptOutcome::LABELS.len()],
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.fmt(f)
    }
}

impl Series {
    pub(crate) fn enqueued(&self, result: EnqueueResult) {
        let at = result as usize;
        let make = || {
            let labels = ResultLabels { queue: self.queue.to_string(), result: EnqueueResult::LABELS[at] };
            self.metrics.0.enqueued.get_or_create(&labels).clone()
        };
        self.enqueued[at].get_or_init(make).inc();
    }

    pub(crate) fn attempted(&self, outcome: AttemptOutcome) {
        let at = outcome as usize;
        let make = || {
            let labels = OutcomeLabels { queue: self.queue.to_string(), outcome: AttemptOutcome::LABELS[at] };
            self.metrics.0.attempts.get_or_create(&labels).clone()
        };
        self.attempts[at].get_or_init(make).inc();
    }

    pub(crate) fn throttled(&self, blocked: Blocked, span: Duration) {
        let labels = ReasonLabels { queue: self.queue.to_string(), reason: blocked.as_str() };
        self.metrics.0.throttled.get_or_create(&labels).inc_by(span.as_secs_f64());
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        let inner = &self.metrics.0;
        let queue = || self.queue.to_string();
        for result in EnqueueResult::LABELS {
            inner.enqueued.remove(&ResultLabels { queue: queue(), result });
        }
        for outcome in AttemptOutcome::LABELS {
            inner.attempts.remove(&OutcomeLabels { queue: queue(), outcome });
        }
        for reason in REASONS {
            inner.throttled.remove(&ReasonLabels { queue: queue(), reason });
        }
    }
}

/// What is read off the queues when somebody asks.
#[derive(Debug)]
struct Gauges(Metrics);

#[derive(Debug, Default, Clone)]
struct Figures {
    queued: u64,
    scheduled: u64,
    retrying: u64,
    delivering: u64,
    dead: u64,
    bytes: u64,
    oldest_age: f64,
    drain: f64,
    utilisation: f64,
    arrivals: f64,
    served: f64,
}

impl Figures {
    /// The same name may exist in memory and on disk, after a policy changed its class.
    fn add(&mut self, other: &Self) {
        self.queued += other.queued;
        self.scheduled += other.scheduled;
        self.retrying += other.retrying;
        self.delivering += other.delivering;
        self.dead += other.dead;
        self.bytes += other.bytes;
        self.oldest_age = self.oldest_age.max(other.oldest_age);
        self.drain = self.drain.max(other.drain);
        self.utilisation = self.utilisation.max(other.utilisation);
        self.arrivals += other.arrivals;
        self.served += other.served;
    }

    fn of(shared: &Shared) -> Vec<(String, Self)> {
        let now = shared.steady.now();
        shared
            .named()
            .into_iter()
            .map(|named| {
                let load = |count: &std::sync::atomic::AtomicU32| u64::from(count.load(Ordering::Relaxed));
                let messages = named.messages.load(Ordering::Relaxed);
                let (scheduled, retrying) = (load(&named.scheduled), load(&named.retrying));
                let delivering = load(&named.in_flight);
                let pressure = named.pressed(|pressure| *pressure);
                let figures = Self {
                    queued: messages.saturating_sub(scheduled + retrying + delivering),
                    scheduled,
                    retrying,
                    delivering,
                    dead: named.dead_messages.load(Ordering::Relaxed),
                    bytes: named.bytes.load(Ordering::Relaxed),
                    oldest_age: shared.age(&named, now).as_secs_f64(),
                    drain: pressure.drain_seconds(messages, now),
                    utilisation: pressure.utilisation(now),
                    arrivals: pressure.arrivals(now),
                    served: pressure.served(now),
                };
                (named.name.to_string(), figures)
            })
            .collect()
    }
}

type Look = fn(&Figures) -> f64;

#[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
const GAUGES: [(&str, &str, Look); 8] = [
    ("tidegate_queue_bytes", "Bytes that wait", |f| f.bytes as f64),
    ("tidegate_queue_oldest_message_age_seconds", "Age of the oldest waiting message", |f| f.oldest_age),
    ("tidegate_queue_in_flight", "Attempts under way", |f| f.delivering as f64),
    ("tidegate_queue_dead_letter_messages", "Messages in the dead letter", |f| f.dead as f64),
    (
        "tidegate_queue_drain_estimate_seconds",
        "Backlog over served minus arriving per second; +Inf when it grows",
        |f| f.drain,
    ),
    ("tidegate_queue_utilisation", "Arriving over served per second", |f| f.utilisation),
    ("tidegate_queue_arrivals_per_second", "Messages taken in per second, over ten seconds", |f| f.arrivals),
    ("tidegate_queue_served_per_second", "Messages done with per second, over ten seconds", |f| f.served),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sources = self.0.0.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut queues: BTreeMap<String, Figures> = BTreeMap::new();
        for shared in sources.iter().filter_map(Weak::upgrade) {
            for (name, figures) in Figures::of(&shared) {
                let name = if queues.len() < limits::METRIC_SERIES_MAX { name } else { OTHER.into() };
                queues.entry(name).or_default().add(&figures);
            }
        }
        let help = "Messages that wait, by what they wait for";
        let mut family =
            encoder.encode_descriptor("tidegate_queue_messages", help, None, MetricType::Gauge)?;
        for (queue, f) in &queues {
            for (state, count) in [
                ("queued", f.queued),
                ("scheduled", f.scheduled),
                ("retrying", f.retrying),
                ("delivering", f.delivering),
            ] {
                let labels = StateLabels { queue: queue.clone(), state };
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, look) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (queue, figures) in &queues {
                let labels = QueueLabels { queue: queue.clone() };
                ConstGauge::new(look(figures)).encode(family.encode_family(&labels)?)?;
            }
        }
        stores::encode(&sources, &self.0.0.closed, &mut encoder)
    }
}
