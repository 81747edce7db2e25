//! pressure: how fast messages come and go, and how long the backlog will take.
//!
//! With P arriving and C served per second a backlog of Q drains in Q/(C−P). P and C are exponentially
//! decayed rates over [`limits::PRESSURE_DECAY`]: each event adds 1/τ, and the sum falls by e every τ.
//! A sum that began a short while ago has not seen a whole τ yet; it is divided by the part it has
//! seen (the bias correction of Kingma & Ba 2015, §3), so that the first seconds count too. A sum never falls
//! to nothing by itself: below what one event a τ ago has left of itself, it is shown as nothing. An
//! estimate still goes by it, for a queue may well serve one message a minute.

use std::time::Duration;

use policy::limits;
use store::message::Timestamp;

/// Seconds after which no message waits any more: the longest `maxAge`.
const WAIT_MAX: f64 = 30.0 * 24.0 * 3600.0;

/// A decayed rate.
#[derive(Debug, Default, Clone, Copy)]
struct Rate {
    sum: f64,
    at: u64,
}

#[allow(clippy::cast_precision_loss, reason = "spans of milliseconds")]
fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1000.0
}

impl Rate {
    fn decay(&mut self, now: u64) {
        self.sum *= (-seconds(self.at, now) / limits::PRESSURE_DECAY.as_secs_f64()).exp();
        self.at = self.at.max(now);
    }

    fn add(&mut self, n: f64, now: u64) {
        self.decay(now);
        self.sum += n / limits::PRESSURE_DECAY.as_secs_f64();
    }

    /// What is shown: nothing, once it is small.
    fn shown(mut self, since: u64, now: u64) -> f64 {
        self.decay(now);
        let small = self.sum < (-1.0_f64).exp() / limits::PRESSURE_DECAY.as_secs_f64();
        if small { 0.0 } else { self.per_second(since, now) }
    }

    fn per_second(mut self, since: u64, now: u64) -> f64 {
        self.decay(now);
        let tau = limits::PRESSURE_DECAY.as_secs_f64();
        // In the first second there is nothing to tell a rate by.
        let seen = seconds(since, now).max(1.0) / tau;
        self.sum / (1.0 - (-seen).exp())
    }
}

/// One named queue's P and C.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Pressure {
    arrivals: Rate,
    served: Rate,
    since: Option<u64>,
    arrived_total: u64,
    served_total: u64,
}

impl Pressure {
    fn begin(&mut self, now: Timestamp) {
        if self.since.is_none() {
            (self.since, self.arrivals.at, self.served.at) = (Some(now.0), now.0, now.0);
        }
    }

    /// A message came.
    pub(crate) fn arrived(&mut self, now: Timestamp) {
        self.begin(now);
        self.arrivals.add(1.0, now.0);
        self.arrived_total += 1;
    }

    /// A message left: delivered, or in the dead letter.
    pub(crate) fn left(&mut self, now: Timestamp) {
        self.begin(now);
        self.served.add(1.0, now.0);
        self.served_total += 1;
    }

    /// P.
    pub(crate) fn arrivals(&self, now: Timestamp) -> f64 {
        self.since.map_or(0.0, |since| self.arrivals.shown(since, now.0))
    }

    /// C.
    pub(crate) fn served(&self, now: Timestamp) -> f64 {
        self.since.map_or(0.0, |since| self.served.shown(since, now.0))
    }

    /// P/C; 0 when nothing comes, +Inf when something comes and nothing leaves.
    pub(crate) fn utilisation(&self, now: Timestamp) -> f64 {
        let (p, c) = (self.arrivals(now), self.served(now));
        if p == 0.0 { 0.0 } else { p / c }
    }

    /// Q/(C−P) seconds; +Inf when C ≤ P or that is longer than any message may wait, 0 without a backlog.
    pub(crate) fn drain_seconds(&self, depth: u64, now: Timestamp) -> f64 {
        let p = self.since.map_or(0.0, |since| self.arrivals.per_second(since, now.0));
        self.passed_seconds(depth, p, now)
    }

    /// The same as if nothing more came: when those that wait have gone.
    pub(crate) fn gone_seconds(&self, depth: u64, now: Timestamp) -> f64 {
        self.passed_seconds(depth, 0.0, now)
    }

    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn passed_seconds(&self, depth: u64, p: f64, now: Timestamp) -> f64 {
        let c = self.since.map_or(0.0, |since| self.served.per_second(since, now.0));
        match depth {
            0 => 0.0,
            _ if c <= p => f64::INFINITY,
            depth => Some(depth as f64 / (c - p)).filter(|s| *s <= WAIT_MAX).unwrap_or(f64::INFINITY),
        }
    }

    /// All that ever came, and left, since the queue was opened.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.arrived_total, self.served_total)
    }
}

/// One note of a queue's depth, for plots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Messages that waited.
    pub messages: u64,
    /// The age of the oldest.
    pub oldest_age: Duration,
    /// Arrivals per second.
    pub arrivals: f64,
    /// Deliveries per second.
    pub served: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: u64 = 1_700_000_000_000;

    /// P and C per second for `seconds`.
    fn run(pressure: &mut Pressure, p: u64, c: u64, from: u64, seconds: u64) -> Timestamp {
        for ms in 0..seconds * 1000 {
            let now = Timestamp(from + ms);
            for _ in 0..((ms + 1) * p / 1000 - ms * p / 1000) {
                pressure.arrived(now);
            }
            for _ in 0..((ms + 1) * c / 1000 - ms * c / 1000) {
                pressure.left(now);
            }
        }
        Timestamp(from + seconds * 1000)
    }

    fn near(is: f64, should: f64) -> bool {
        (is - should).abs() <= should * 0.05
    }

    #[test]
    fn rates_are_right_after_three_seconds_and_after_a_minute() {
        for seconds in [3, 60] {
            let mut pressure = Pressure::default();
            let now = run(&mut pressure, 40, 100, T0, seconds);
            assert!(near(pressure.arrivals(now), 40.0), "{}", pressure.arrivals(now));
            assert!(near(pressure.served(now), 100.0), "{}", pressure.served(now));
            assert!(near(pressure.utilisation(now), 0.4));
        }
    }

    #[test]
    fn a_backlog_drains_when_the_estimate_says_so() {
        let mut pressure = Pressure::default();
        let now = run(&mut pressure, 40, 100, T0, 20);
        let estimate = pressure.drain_seconds(600, now);
        // What the clock says: 600 messages, 40 more and 100 less each second.
        assert!(near(estimate, 10.0), "{estimate}");
    }

    #[test]
    fn a_backlog_that_grows_never_drains() {
        let mut pressure = Pressure::default();
        let now = run(&mut pressure, 100, 100, T0, 20);
        assert!(pressure.drain_seconds(600, now).is_infinite() || pressure.drain_seconds(600, now) > 100.0);
        let now = run(&mut pressure, 100, 50, now.0, 60);
        assert!(pressure.drain_seconds(600, now).is_infinite());
        assert!(pressure.drain_seconds(0, now) == 0.0);
    }

    #[test]
    fn a_queue_that_has_been_idle_for_a_while_has_no_rates() {
        let mut pressure = Pressure::default();
        pressure.arrived(Timestamp(T0));
        pressure.left(Timestamp(T0 + 5));
        let soon = Timestamp(T0 + 5_000);
        assert!(pressure.arrivals(soon) > 0.0 && pressure.served(soon) > 0.0);
        for seconds in [11, 60, 360, 3600] {
            let now = Timestamp(T0 + seconds * 1000);
            assert_eq!((pressure.arrivals(now), pressure.served(now)), (0.0, 0.0), "{seconds} s");
            assert_eq!((pressure.utilisation(now), pressure.drain_seconds(0, now)), (0.0, 0.0));
        }
        assert!(pressure.drain_seconds(1, Timestamp(T0 + 3_600_000)).is_infinite());
    }

    #[test]
    fn a_queue_that_serves_one_message_a_minute_drains() {
        let mut pressure = Pressure::default();
        for minute in 0..5 {
            pressure.left(Timestamp(T0 + minute * 60_000));
        }
        for seconds in [1, 20, 59] {
            let now = Timestamp(T0 + (4 * 60 + seconds) * 1000);
            assert!(pressure.drain_seconds(10, now).is_finite(), "{seconds} s after the last");
        }
    }

    #[test]
    fn rates_follow_a_change_within_half_a_minute() {
        let mut pressure = Pressure::default();
        let now = run(&mut pressure, 100, 100, T0, 60);
        let now = run(&mut pressure, 10, 100, now.0, 30);
        assert!(pressure.arrivals(now) < 16.0, "{}", pressure.arrivals(now));
        assert_eq!(pressure.totals(), (6300, 9000));
    }
}
