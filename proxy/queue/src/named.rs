//! named: one named queue as every thread sees it: its settings, and how full it is.
//!
//! Room is reserved before a write and given back when the write failed, so two that come at once
//! cannot both take the last place, and no lock is held over a flush.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use policy::limits;
use policy::queue::AsyncPolicy;
use store::message::{QueueId, Timestamp};

use crate::admission::Bound;
use crate::metrics::Series;
use crate::pressure::Pressure;
use crate::stored::Settings;

/// The destination in the name of the queue of a policy's callbacks.
pub(crate) const CALLBACKS: &str = "callbacks";
/// The destination in the name of the queue of a policy's sink.
pub(crate) const SINK: &str = "dead-letter-sink";

/// `NAMESPACE/POLICY/DESTINATION`.
pub(crate) fn name_of(policy: &AsyncPolicy, destination: &str) -> String {
    format!("{}/{destination}", policy.name)
}

/// The policy of the queue of `policy`'s callbacks: as it delivers, without order, keys and results.
pub(crate) fn callbacks_policy(policy: &AsyncPolicy) -> AsyncPolicy {
    let mut of = policy.clone();
    of.ordering_header = None;
    of.rate.key_header = None;
    of.result_ttl = Duration::ZERO;
    // What tells of an end is no dead letter of the application's.
    of.delivery.sink = None;
    of
}

/// The policy of the queue of `policy`'s sink: as it delivers, without order, keys and results.
pub(crate) fn sink_policy(policy: &AsyncPolicy) -> AsyncPolicy {
    let mut of = callbacks_policy(policy);
    of.delivery.sink.clone_from(&policy.delivery.sink);
    of
}

/// A named queue.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    pub(crate) id: QueueId,
    /// Its number in the index.
    pub(crate) line: u16,
    /// Its messages are on their way to the policy's sink.
    pub(crate) is_sink: bool,
    settings: RwLock<Arc<Settings>>,
    /// The policy as it was last heard; `None` if it is known from disk only.
    heard: RwLock<Option<Arc<AsyncPolicy>>>,
    /// Nothing is reserved any more: it is being removed.
    closed: AtomicBool,
    /// Messages that wait or are being written.
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) dead_messages: AtomicU64,
    pub(crate) dead_bytes: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) in_flight: AtomicU32,
    pub(crate) scheduled: AtomicU32,
    pub(crate) retrying: AtomicU32,
    /// When its oldest message was accepted, in seconds of Unix time; `u32::MAX` without any.
    pub(crate) oldest: AtomicU32,
    pub(crate) pressure: Mutex<Pressure>,
    pub(crate) series: Series,
}

impl Named {
    pub(crate) fn new(name: Arc<str>, id: QueueId, line: u16, settings: Settings, series: Series) -> Self {
        Self {
            name,
            id,
            line,
            is_sink: settings.is_sink(),
            settings: RwLock::new(Arc::new(settings)),
            heard: RwLock::new(None),
            closed: AtomicBool::new(false),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dead_messages: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            scheduled: AtomicU32::new(0),
            retrying: AtomicU32::new(0),
            oldest: AtomicU32::new(u32::MAX),
            pressure: Mutex::default(),
            series,
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub(crate) fn set_heard(&self, policy: Arc<AsyncPolicy>) {
        *self.heard.write().unwrap_or_else(PoisonError::into_inner) = Some(policy);
    }

    pub(crate) fn forget_heard(&self) {
        *self.heard.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether these are the words it goes by.
    pub(crate) fn knows(&self, policy: &Arc<AsyncPolicy>) -> bool {
        let heard = self.heard.read().unwrap_or_else(PoisonError::into_inner);
        heard.as_ref().is_some_and(|heard| Arc::ptr_eq(heard, policy) || heard == policy)
    }

    /// Takes room if there is any.
    pub(crate) fn take_room(&self, bytes: u64) -> bool {
        let settings = self.settings();
        let policy = &settings.policy;
        let messages_max = policy.queue_messages_max.min(limits::QUEUE_MESSAGES_CAP);
        let taken = take(&self.messages, 1, messages_max) && {
            let fits = take(&self.bytes, bytes, policy.queue_bytes_max);
            if !fits {
                self.messages.fetch_sub(1, Ordering::SeqCst);
            }
            fits
        };
        if taken && self.closed.load(Ordering::SeqCst) {
            self.left(bytes);
            return false;
        }
        taken
    }

    /// The bound for which there was no room just now.
    pub(crate) fn bound(&self) -> Bound {
        let settings = self.settings();
        let policy = &settings.policy;
        let messages_max = policy.queue_messages_max.min(limits::QUEUE_MESSAGES_CAP);
        if self.messages.load(Ordering::SeqCst) >= messages_max {
            return Bound::Messages(messages_max);
        }
        Bound::Bytes(policy.queue_bytes_max)
    }

    /// Takes room whether there is any or not: what must not be refused (callbacks, redriven ones).
    pub(crate) fn entered(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// A message waits no more.
    pub(crate) fn left(&self, bytes: u64) {
        give(&self.messages, 1);
        give(&self.bytes, bytes);
    }

    pub(crate) fn buried(&self, bytes: u64) {
        self.dead_messages.fetch_add(1, Ordering::SeqCst);
        self.dead_bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(crate) fn unburied(&self, bytes: u64) {
        give(&self.dead_messages, 1);
        give(&self.dead_bytes, bytes);
    }

    /// Whether it takes no more.
    pub(crate) fn full(&self) -> bool {
        let settings = self.settings();
        self.messages.load(Ordering::SeqCst) >= settings.policy.queue_messages_max
            || self.bytes.load(Ordering::SeqCst) >= settings.policy.queue_bytes_max
    }

    /// Whether its dead letter takes no more.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a bound, not a sum")]
    #[allow(clippy::cast_sign_loss, reason = "a share of an unsigned number")]
    pub(crate) fn dead_full(&self) -> bool {
        let settings = self.settings();
        let share = |bound: u64| ((bound as f64 * limits::DEAD_LETTER_RATIO) as u64).max(1);
        self.dead_messages.load(Ordering::SeqCst) >= share(settings.policy.queue_messages_max)
            || self.dead_bytes.load(Ordering::SeqCst) >= share(settings.policy.queue_bytes_max)
    }

    /// Closes it if nothing is in it and nobody is about to put something in.
    pub(crate) fn close_if_empty(&self) -> bool {
        self.closed.store(true, Ordering::SeqCst);
        let empty = self.is_empty();
        if !empty {
            self.reopen();
        }
        empty
    }

    /// Whether nothing is in it, in whatever state, and nobody is about to put something in.
    pub(crate) fn is_empty(&self) -> bool {
        let counts = [&self.messages, &self.dead_messages, &self.quarantined];
        counts.iter().all(|count| count.load(Ordering::SeqCst) == 0)
    }

    /// Whether it is being removed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether it is one of this policy's.
    pub(crate) fn is_of(&self, policy: &str) -> bool {
        self.name.strip_prefix(policy).is_some_and(|rest| rest.starts_with('/'))
    }

    /// It was not removed after all.
    pub(crate) fn reopen(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    pub(crate) fn pressed<T>(&self, look: impl FnOnce(&mut Pressure) -> T) -> T {
        look(&mut self.pressure.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When to ask again: as long as the backlog takes at the pace of the last seconds.
    pub(crate) fn retry_after(&self, now: Timestamp) -> Duration {
        self.passed_after(self.messages.load(Ordering::Relaxed), now)
    }

    /// When to ask again about a message that was just taken in: as long as those before it take.
    pub(crate) fn retry_after_those_before(&self, now: Timestamp) -> Duration {
        self.passed_after(self.messages.load(Ordering::Relaxed).saturating_sub(1), now)
    }

    fn passed_after(&self, messages: u64, now: Timestamp) -> Duration {
        let wait = self.pressed(|pressure| pressure.gone_seconds(messages, now)).min(3600.0);
        Duration::from_secs_f64(wait.ceil())
            .clamp(limits::QUEUE_RETRY_AFTER_MIN, limits::QUEUE_RETRY_AFTER_MAX)
    }
}

fn take(count: &AtomicU64, n: u64, max: u64) -> bool {
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            now.checked_add(n).filter(|after| *after <= max)
        })
        .is_ok()
}

fn give(count: &AtomicU64, n: u64) {
    let given = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| now.checked_sub(n));
    if given.is_err() {
        tracing::error!(n, "more was given back than taken");
        count.store(0, Ordering::SeqCst);
    }
}
