//! mathematics: P arriving, C served: throughput is min(P, C), a backlog Q is gone after Q/(C−P).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::until;

use super::is_long;
use super::post::{Post, now};
use crate::rollout::wait;

/// What the issue allows.
const TOLERANCE: f64 = 0.1;
const SETTLE: Duration = Duration::from_secs(3);
const SPAN: Duration = Duration::from_secs(10);
/// 100 at once, a second each; a flush before and after is short against that, on a slow disk too.
const BY_CONCURRENCY: (&str, &[&str]) = ("maxConcurrentDispatches: 100", &["--work", "1s"]);
const BY_RATE: (&str, &[&str]) =
    ("maxConcurrentDispatches: 50, maxDispatchesPerSecond: 100, maxBurstSize: 10", &[]);
/// C of both.
const SERVED: f64 = 100.0;
/// With this many left the drain counts as over: as many come while they are looked at.
const REST: f64 = 8.0;
/// When a queue that was just opened has seen enough of P and C to tell.
const TOLD_AFTER: f64 = 5.0;

#[test]
fn throughput_is_the_lesser_of_arrivals_and_what_a_slow_receiver_serves() -> Result<()> {
    check_throughput(BY_CONCURRENCY)
}

#[test]
fn throughput_is_the_lesser_of_arrivals_and_the_rate_limit() -> Result<()> {
    check_throughput(BY_RATE)
}

fn check_throughput((limits, record): (&str, &[&str])) -> Result<()> {
    let post = Post::new(&format!("rateLimits: {{ {limits} }}"), record, &[])?;
    let mut wrong = Vec::new();
    for arriving in [50.0_f64, 200.0] {
        let producer =
            post.produce(&format!("p{arriving}"), &["--loose", "20", "--rate", &arriving.to_string()])?;
        wait(SETTLE);
        let from = now();
        wait(SPAN);
        let to = now();
        let depth = post.depth()?;
        let produced = producer.finish()?;
        let rate = post.ledger()?.rate(from, to);
        let expected = arriving.min(SERVED);
        eprintln!("P {arriving} C {SERVED}: {rate:.1}/s, {depth} wait at the end; {produced}");
        if !is_near(rate, expected) {
            wrong.push(format!("{arriving} arrive, {SERVED} can be served: {rate:.1}/s is not {expected}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

fn is_near(is: f64, should: f64) -> bool {
    (is - should).abs() <= should * TOLERANCE
}

/// A backlog in a queue that is opened: P and C are the same from the first message on.
#[test]
fn a_backlog_drains_in_the_time_that_was_predicted() -> Result<()> {
    const BACKLOG: u32 = 2400;
    const ARRIVING: f64 = 40.0;
    let paused = |paused| format!("rateLimits: {{ {} }}, paused: {paused}", BY_RATE.0);
    let mut post = Post::new(&paused(true), &[], &[])?;
    post.fill("q", BACKLOG, &["--loose", "32"])?;
    post.sidecar.process.kill()?;
    post.put_policy(&paused(false))?;
    wait(Duration::from_secs(1));
    let producer = post.produce("p", &["--loose", "8", "--rate", &ARRIVING.to_string()])?;
    post.sidecar.start_again()?;
    post.sidecar.wait_ready(Duration::from_secs(15))?;
    until("a delivery", Duration::from_secs(5), || Ok((post.deliveries()? > 0).then_some(())))?;

    let curve = Curve::follow(&post, f64::from(BACKLOG) / (SERVED - ARRIVING))?;
    producer.finish()?;
    ensure!(is_near(curve.seconds, curve.expected), "{} s are not {} s", curve.seconds, curve.expected);
    curve.check_from(TOLD_AFTER)
}

/// A peak that ends: P changes, and the estimate follows it over a few times its 10 s.
#[test]
fn after_a_peak_the_backlog_drains_in_time_and_the_estimate_follows() -> Result<()> {
    const PEAK: f64 = 300.0;
    const AFTER: f64 = 20.0;
    // τ is 10 s, and 280·e^(-t/10) must be small against the 80 that are left of C.
    const FOLLOWED_AFTER: f64 = 36.0;
    if !is_long() {
        eprintln!("SKIPPED: it takes two minutes; TIDEGATE_LONG=1 asks for it");
        return Ok(());
    }
    let post = Post::new(&format!("rateLimits: {{ {} }}", BY_RATE.0), &[], &[])?;
    let peak = post.produce("peak", &["--loose", "20", "--rate", &PEAK.to_string()])?;
    wait(Duration::from_secs(30));
    peak.finish()?;
    let producer = post.produce("after", &["--loose", "8", "--rate", &AFTER.to_string()])?;
    let curve = Curve::follow(&post, post.depth()? / (SERVED - AFTER))?;
    producer.finish()?;
    ensure!(is_near(curve.seconds, curve.expected), "{} s are not {} s", curve.seconds, curve.expected);
    curve.check_from(FOLLOWED_AFTER)
}

/// What was estimated while a backlog drained.
struct Curve {
    expected: f64,
    seconds: f64,
    /// Seconds since the beginning, and what was estimated then.
    estimates: Vec<(f64, f64)>,
}

#[allow(clippy::cast_precision_loss, reason = "spans of seconds")]
fn since(began: u128) -> f64 {
    (now() - began) as f64 / 1e9
}

impl Curve {
    /// Looks at a queue until it is empty.
    fn follow(post: &Post, expected: f64) -> Result<Self> {
        let (began, mut estimates) = (now(), Vec::new());
        let patience = Duration::from_secs_f64(expected * 2.0 + 10.0);
        let seconds = until("the end of the drain", patience, || {
            let estimate = post.sidecar.metric("tidegate_queue_drain_estimate_seconds", &[])?;
            let at = since(began);
            if estimates.last().is_none_or(|(last, _)| at - last >= 1.0) {
                estimates.push((at, estimate));
            }
            Ok((post.depth()? <= REST).then_some(at))
        })?;
        let curve = Self { expected, seconds, estimates };
        eprintln!(
            "the drain took {seconds:.1} s, Q/(C−P) is {expected:.1} s; at, estimated, and what was true:"
        );
        for (at, estimate) in &curve.estimates {
            let left = seconds - at;
            eprintln!("{at:>6.1} {estimate:>7.1} {left:>7.1} {:+.0} %", (estimate / left - 1.0) * 100.0);
        }
        Ok(curve)
    }

    /// Fails unless the first estimate after so many seconds was right.
    fn check_from(&self, after: f64) -> Result<()> {
        let told = self.estimates.iter().find(|(at, _)| *at >= after);
        let (at, estimate) = told.context("the drain was over before")?;
        let left = self.seconds - at;
        ensure!(
            is_near(*estimate, left),
            "after {at:.1} s {estimate:.1} s were estimated, it took {left:.1} s"
        );
        Ok(())
    }
}
