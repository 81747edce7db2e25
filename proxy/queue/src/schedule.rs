//! schedule: what one named queue may hand out now, and when it may again.
//!
//! Pure: every call says what time it is. Four things hold a queue back: somebody paused it, its dead
//! letter is full, its receiver cannot be reached or pushes back (the **gate**), or as many
//! deliveries are under way or were begun as its policy allows.

use std::time::Duration;

use policy::limits;
use policy::queue::{AsyncPolicy, Backoff};
use store::message::Timestamp;

use crate::heap::Heap;
use crate::rates::Rates;
use crate::slab::NONE;

/// What a policy says about handing out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limits {
    pub(crate) concurrent_max: u32,
    pub(crate) per_second: Option<f64>,
    pub(crate) burst_max: u32,
    /// Each value of a header has limits of its own.
    pub(crate) keyed: bool,
    pub(crate) age_max: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) backoff_delay: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) paused: bool,
}

impl Limits {
    /// Of a queue of which nobody has said anything: it stands still.
    pub(crate) fn unknown() -> Self {
        Self {
            concurrent_max: 1,
            per_second: None,
            burst_max: 1,
            keyed: false,
            age_max: limits::MESSAGE_DELAY_MAX,
            backoff: Backoff::Exponential,
            backoff_delay: limits::DELIVERY_BACKOFF_MIN,
            backoff_max: limits::DELIVERY_BACKOFF_MAX,
            paused: true,
        }
    }

    pub(crate) fn of(policy: &AsyncPolicy) -> Self {
        let (delivery, rate) = (&policy.delivery, &policy.rate);
        Self {
            concurrent_max: rate.concurrent_max.max(1),
            per_second: rate.per_second.filter(|rate| *rate > 0.0),
            burst_max: rate.burst_max.max(1),
            keyed: rate.key_header.is_some(),
            age_max: delivery.age_max,
            backoff: delivery.backoff,
            backoff_delay: delivery.backoff_delay,
            backoff_max: delivery.backoff_max,
            paused: policy.paused,
        }
    }
}

/// The longest wait after `failures` (from 0): min(max, delay · 2ⁿ), or delay · (n+1).
pub(crate) fn backoff(kind: Backoff, delay: Duration, max: Duration, failures: u32) -> Duration {
    let grown = match kind {
        Backoff::Exponential => delay.saturating_mul(2u32.saturating_pow(failures)),
        Backoff::Linear => delay.saturating_mul(failures.saturating_add(1)),
    };
    grown.min(max)
}

/// A share of a span; `jitter` is 0..=1.
pub(crate) fn share(span: Duration, jitter: f64) -> Duration {
    span.mul_f64(jitter.clamp(0.0, 1.0))
}

pub(crate) fn plus(at: Timestamp, span: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}

/// A token bucket as the generic cell rate algorithm (ITU-T I.371): one number, the theoretical
/// arrival time, instead of a level that must be refilled. Milliseconds with a fraction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gcra {
    interval: f64,
    tolerance: f64,
    arrival: f64,
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time after now, rounded up")]
impl Gcra {
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        let interval = 1000.0 / limits.per_second?;
        // The clock ticks in milliseconds: what falls into one must be able to go in it.
        let tolerance = (interval * f64::from(limits.burst_max - 1)).max((1.0 - interval).max(0.0));
        Some(Self { interval, tolerance, arrival: 0.0 })
    }

    /// When the next may go.
    pub(crate) fn at(&self) -> Timestamp {
        Timestamp((self.arrival - self.tolerance).max(0.0).ceil() as u64)
    }

    pub(crate) fn take(&mut self, now: Timestamp) {
        self.arrival = self.arrival.max(now.0 as f64) + self.interval;
    }

    /// Nothing of the past counts any more.
    pub(crate) fn idle(&self, now: Timestamp) -> bool {
        self.arrival <= now.0 as f64
    }
}

/// Whether the receiver takes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Shut {
        until: Timestamp,
        why: &'static str,
    },
    /// One was let through to see.
    Probing {
        why: &'static str,
    },
}

/// Why a queue that has something to hand out does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blocked {
    /// Its policy says `paused`.
    PausedByPolicy,
    /// An operator paused it.
    PausedByOperator,
    /// Its dead letter is full: redrive, export or purge it.
    DeadLetterFull,
    /// The receiver cannot be reached; the error token of RFC 9209.
    Unavailable(&'static str),
    /// The receiver answers 429 or 503.
    PushedBack,
    /// As many deliveries are under way as may be.
    Concurrency,
    /// As many were begun as may be in a second.
    Rate,
    /// The proxy is not ready yet, is being stopped, or its disk cannot be trusted.
    Stopped,
}

impl Blocked {
    /// The metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PausedByPolicy => "paused_by_policy",
            Self::PausedByOperator => "paused_by_operator",
            Self::DeadLetterFull => "dead_letter_full",
            Self::Unavailable(_) => "unavailable",
            Self::PushedBack => "pushed_back",
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::Stopped => "stopped",
        }
    }
}

const PUSHED_BACK: &str = "pushed_back";

/// The messages of one priority that may go.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Those that never waited, in order: the ends of the list.
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// Those that did, by order.
    pub(crate) returned: Heap,
}

impl Default for Ready {
    fn default() -> Self {
        Self { first: NONE, last: NONE, returned: Heap::default() }
    }
}

/// One named queue.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) limits: Limits,
    pub(crate) paused: bool,
    pub(crate) dead_full: bool,
    pub(crate) ready: [Ready; 8],
    /// How many are in `ready`.
    pub(crate) ready_len: u32,
    /// All of its messages that wait, those on their way included.
    pub(crate) waiting: u32,
    /// Of those, not due for the first time.
    pub(crate) scheduled: u32,
    /// Of those, not due again.
    pub(crate) retrying: u32,
    /// Attempts under way.
    pub(crate) in_flight: u32,
    /// Messages that may have killed their sender.
    pub(crate) suspects: u32,
    /// No message is older, in seconds of Unix time.
    pub(crate) oldest: u32,
    pub(crate) rates: Option<Box<Rates>>,
    gcra: Option<Gcra>,
    gate: Gate,
    failures: u32,
    pushed_back: u32,
    blocked: Option<(Blocked, Timestamp)>,
}

impl Line {
    pub(crate) fn new(limits: Limits, paused: bool) -> Self {
        Self {
            gcra: Gcra::new(&limits).filter(|_| !limits.keyed),
            rates: limits.keyed.then(|| Box::new(Rates::new(&limits))),
            limits,
            paused,
            dead_full: false,
            ready: Default::default(),
            ready_len: 0,
            waiting: 0,
            scheduled: 0,
            retrying: 0,
            in_flight: 0,
            suspects: 0,
            oldest: u32::MAX,
            gate: Gate::Open,
            failures: 0,
            pushed_back: 0,
            blocked: None,
        }
    }

    /// Takes over another policy's words; what the old one had begun counts on.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        let same = self.limits.per_second == limits.per_second && self.limits.burst_max == limits.burst_max;
        if !same || self.limits.keyed != limits.keyed {
            self.gcra = Gcra::new(&limits).filter(|_| !limits.keyed);
        }
        if let Some(rates) = self.rates.as_mut().filter(|_| !same && limits.keyed) {
            rates.set_limits(&limits);
        }
        self.limits = limits;
    }

    /// Why nothing of it may go now, whatever waits.
    pub(crate) fn held(&self, now: Timestamp) -> Option<Blocked> {
        let gate = match self.gate {
            Gate::Open => None,
            Gate::Shut { until, .. } if until <= now => None,
            Gate::Shut { why, .. } | Gate::Probing { why } if why == PUSHED_BACK => Some(Blocked::PushedBack),
            Gate::Shut { why, .. } | Gate::Probing { why } => Some(Blocked::Unavailable(why)),
        };
        if self.limits.paused {
            Some(Blocked::PausedByPolicy)
        } else if self.paused {
            Some(Blocked::PausedByOperator)
        } else if self.dead_full {
            Some(Blocked::DeadLetterFull)
        } else {
            gate
        }
    }

    /// Why no more of it may go now.
    pub(crate) fn blocked(&self, now: Timestamp) -> Option<Blocked> {
        if let Some(held) = self.held(now) {
            return Some(held);
        }
        match &self.rates {
            Some(rates) => rates.blocked(self.limits.concurrent_max, now),
            None if self.in_flight >= self.limits.concurrent_max => Some(Blocked::Concurrency),
            None if self.gcra.is_some_and(|gcra| gcra.at() > now) => Some(Blocked::Rate),
            None => None,
        }
    }

    /// When something may go that may not now, if only time is missing.
    pub(crate) fn opens_at(&self, now: Timestamp) -> Option<Timestamp> {
        match (self.gate, self.held(now)) {
            (Gate::Shut { until, .. }, Some(Blocked::Unavailable(_) | Blocked::PushedBack)) => Some(until),
            (_, Some(_)) => None,
            (_, None) => match &self.rates {
                Some(rates) => rates.opens_at(self.limits.concurrent_max),
                None if self.in_flight >= self.limits.concurrent_max => None,
                None => self.gcra.map(|gcra| gcra.at()),
            },
        }
    }

    /// An attempt begins.
    pub(crate) fn begun(&mut self, now: Timestamp) {
        self.in_flight += 1;
        if let Some(gcra) = &mut self.gcra {
            gcra.take(now);
        }
        if let Gate::Shut { why, .. } = self.gate {
            self.gate = Gate::Probing { why };
        }
    }

    /// An attempt has ended and its end is flushed.
    pub(crate) fn landed(&mut self, now: Timestamp) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let (Gate::Probing { why }, 0) = (self.gate, self.in_flight) {
            // The probe came to nothing: another one may go.
            self.gate = Gate::Shut { until: now, why };
        }
    }

    /// The receiver was reached and said something else than "later".
    pub(crate) fn answered(&mut self) {
        self.gate = Gate::Open;
        (self.failures, self.pushed_back) = (0, 0);
    }

    /// The receiver was not reached: the queue waits, once for all attempts that were under way.
    pub(crate) fn unavailable(&mut self, why: &'static str, now: Timestamp, jitter: f64) {
        self.shut(why, Duration::ZERO, now, jitter);
    }

    /// The receiver said "later": after a few of those in a row the queue waits.
    pub(crate) fn pushed_back(&mut self, retry_after: Option<Duration>, now: Timestamp, jitter: f64) {
        self.pushed_back += 1;
        let probed = matches!(self.gate, Gate::Probing { .. });
        if self.pushed_back >= limits::PUSHED_BACK_RUN || probed {
            self.shut(PUSHED_BACK, retry_after.unwrap_or_default(), now, jitter);
        }
    }

    fn shut(&mut self, why: &'static str, at_least: Duration, now: Timestamp, jitter: f64) {
        if let Gate::Shut { until, .. } = self.gate
            && until > now
        {
            return;
        }
        let l = &self.limits;
        let longest = backoff(l.backoff, l.backoff_delay, l.backoff_max, self.failures);
        // At least half of it: the whole queue hangs on this one throw.
        let wait = share(longest, 0.5 + jitter / 2.0).max(at_least);
        self.failures = self.failures.saturating_add(1);
        self.gate = Gate::Shut { until: plus(now, wait), why };
    }

    /// Notes why it stands still: what it stood still for since it was last asked.
    pub(crate) fn note(&mut self, now: Timestamp, stopped: bool) -> Option<(Blocked, Duration)> {
        let reason = if self.ready_len == 0 && self.rates.as_ref().is_none_or(|rates| rates.parked() == 0) {
            None
        } else if stopped {
            Some(Blocked::Stopped)
        } else {
            self.blocked(now)
        };
        let before = self.blocked.take();
        self.blocked = reason.map(|reason| (reason, now));
        let (blocked, since) = before?;
        Some((blocked, Duration::from_millis(now.0.saturating_sub(since.0))))
    }

    /// Why it stands still, as last noted.
    pub(crate) fn noted(&self) -> Option<Blocked> {
        self.blocked.map(|(blocked, _)| blocked)
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.ready.iter().map(|ready| ready.returned.bytes()).sum::<usize>()
    }
}
