//! balance: which endpoint takes a request.
//!
//! Two endpoints are drawn at random and the one with less load takes it (Mitzenmacher, "The Power
//! of Two Choices in Randomized Load Balancing", 2001). Load is the peak-sensitive moving average of
//! the time to a response, times the requests on their way plus one (Finagle's `PeakEwma`): a slow
//! answer counts at once, a fast one slowly.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::limits;
use tokio::time::Instant;

/// How loaded something is.
pub(crate) trait Loaded {
    /// Its load; less is better.
    fn load(&self, now: Instant) -> f64;
    /// Whether connecting to it failed so recently that it is left out.
    fn is_backing_off(&self, now: Instant) -> bool;
    /// Whether it is on its way out.
    fn is_terminating(&self) -> bool;
}

/// The peak EWMA of one endpoint.
pub(crate) struct Load {
    in_flight: AtomicU32,
    average: Mutex<Average>,
    failures: Mutex<Failures>,
}

struct Average {
    seconds: f64,
    measured_at: Instant,
    /// Requests that have no response yet, and since when nobody has had one.
    unanswered: u32,
    silent_since: Instant,
}

struct Failures {
    count: u32,
    until: Option<Instant>,
}

impl Load {
    pub(crate) fn new() -> Self {
        let seconds = limits::EWMA_DEFAULT_RTT.as_secs_f64();
        Self {
            in_flight: AtomicU32::new(0),
            average: Mutex::new(Average {
                seconds,
                measured_at: Instant::now(),
                unanswered: 0,
                silent_since: Instant::now(),
            }),
            failures: Mutex::new(Failures { count: 0, until: None }),
        }
    }

    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A request was sent.
    pub(crate) fn asked(&self, now: Instant) {
        let mut average = self.average.lock().unwrap_or_else(PoisonError::into_inner);
        if average.unanswered == 0 {
            average.silent_since = now;
        }
        average.unanswered += 1;
    }

    /// It was given up after `waited`, without a response: that counts as a peak, or not at all.
    pub(crate) fn given_up(&self, waited: Duration, now: Instant) {
        let mut average = self.average.lock().unwrap_or_else(PoisonError::into_inner);
        average.unanswered = average.unanswered.saturating_sub(1);
        // A response would have taken longer still.
        if waited.as_secs_f64() > average.seconds * decay(average.measured_at, now) {
            (average.seconds, average.measured_at) = (waited.as_secs_f64(), now);
        }
    }

    /// Its response took `rtt` to begin.
    pub(crate) fn answered(&self, rtt: Duration, now: Instant) {
        let mut average = self.average.lock().unwrap_or_else(PoisonError::into_inner);
        average.unanswered = average.unanswered.saturating_sub(1);
        average.silent_since = now;
        let (rtt, weight) = (rtt.as_secs_f64(), decay(average.measured_at, now));
        average.seconds =
            if rtt > average.seconds { rtt } else { average.seconds * weight + rtt * (1.0 - weight) };
        average.measured_at = now;
    }

    /// Leaves it out for a while, longer each time. Many requests that fail at once are one failure.
    pub(crate) fn connect_failed(&self, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.until.is_some_and(|until| now < until) {
            return;
        }
        let pause = limits::CONNECT_BACKOFF_MIN.saturating_mul(1 << failures.count.min(10));
        failures.count += 1;
        failures.until = Some(now + pause.min(limits::CONNECT_BACKOFF_MAX));
    }

    pub(crate) fn connected(&self) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = Failures { count: 0, until: None };
    }

    pub(crate) fn value(&self, now: Instant) -> f64 {
        let average = self.average.lock().unwrap_or_else(PoisonError::into_inner);
        // Without news the average goes towards zero, so that an endpoint once slow is tried again.
        let mut seconds = average.seconds * decay(average.measured_at, now);
        // One that is asked and answers nobody is as slow as its silence.
        if average.unanswered > 0 {
            seconds = seconds.max(now.saturating_duration_since(average.silent_since).as_secs_f64());
        }
        seconds * f64::from(self.in_flight() + 1)
    }

    pub(crate) fn backs_off(&self, now: Instant) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.until.is_some_and(|until| now < until)
    }
}

fn decay(from: Instant, now: Instant) -> f64 {
    let passed = now.saturating_duration_since(from).as_secs_f64();
    (-passed / limits::EWMA_DECAY.as_secs_f64()).exp()
}

/// Chooses among `endpoints`, leaving out those `tried` already. Endpoints on their way out, and
/// then those whose connects failed, are chosen only when nothing else is left.
pub(crate) fn choose<'a, E: Loaded>(
    endpoints: &'a [Arc<E>],
    tried: &[*const E],
    now: Instant,
) -> Option<&'a Arc<E>> {
    let untried = |e: &&Arc<E>| tried.is_empty() || !tried.contains(&Arc::as_ptr(e));
    // The usual case first: two draws that are both good need no look at the others.
    if endpoints.len() > 2 {
        let first = fastrand::usize(..endpoints.len());
        let second = (first + 1 + fastrand::usize(..endpoints.len() - 1)) % endpoints.len();
        let pair = [&endpoints[first], &endpoints[second]];
        if pair.iter().all(|e| untried(e) && !e.is_terminating() && !e.is_backing_off(now)) {
            return Some(lighter(pair, now));
        }
    }
    let serving = endpoints.iter().filter(|e| untried(e) && !e.is_terminating());
    let leaving = endpoints.iter().filter(|e| untried(e) && e.is_terminating());
    let ready = |e: &&Arc<E>| !e.is_backing_off(now);
    two_of(serving.clone().filter(ready), now)
        .or_else(|| two_of(leaving.clone().filter(ready), now))
        .or_else(|| two_of(serving, now))
        .or_else(|| two_of(leaving, now))
}

fn lighter<E: Loaded>([a, b]: [&Arc<E>; 2], now: Instant) -> &Arc<E> {
    if a.load(now) <= b.load(now) { a } else { b }
}

fn two_of<'a, E: Loaded + 'a>(
    mut candidates: impl Iterator<Item = &'a Arc<E>> + Clone,
    now: Instant,
) -> Option<&'a Arc<E>> {
    let count = candidates.clone().count();
    match count {
        0 => None,
        1 => candidates.next(),
        _ => {
            let first = fastrand::usize(..count);
            let second = (first + 1 + fastrand::usize(..count - 1)) % count;
            let (low, high) = (first.min(second), first.max(second));
            let a = candidates.nth(low)?;
            let b = candidates.nth(high - low - 1)?;
            Some(if first < second { lighter([a, b], now) } else { lighter([b, a], now) })
        }
    }
}

#[cfg(test)]
mod tests;
