//! stop: the pod with the queue is rolled out, as the contract's section on drain has it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::until;

use super::post::{Post, plain};
use super::programs::Run;
use crate::rollout::wait;

/// Messages per second at most, so that the drain can be watched.
const SPEED: u32 = 200;
const GRACE: Duration = Duration::from_secs(12);
const POLICY: &str =
    "rateLimits: { maxConcurrentDispatches: 50, maxDispatchesPerSecond: 200, maxBurstSize: 10 }";

/// Nothing was delivered while the queue was filled, however slow the disk is; from now on it is.
fn resume(post: &Post) -> Result<()> {
    post.put_policy(POLICY)?;
    until("a delivery", Duration::from_secs(10), || Ok((post.deliveries()? > 0).then_some(())))
}

#[test]
fn a_sidecar_told_to_stop_delivers_its_backlog_first_while_synchronous_calls_go_on() -> Result<()> {
    let mut post = Post::new(&format!("{POLICY}, paused: true"), &[], &["--drain-grace", "12s"])?;
    post.fill("q", SPEED * 6, &["--keys", "10", "--loose", "22"])?;
    let asks = [("kept", "--fresh=false"), ("fresh", "--fresh")];
    let asks = asks.map(|(name, fresh)| {
        let args = ["ask", "--to", "http://orders/", "--rate", "50", fresh];
        Run::start(&post.web, &args, post.file(name))
    });
    let asks = asks.into_iter().collect::<Result<Vec<_>>>()?;
    resume(&post)?;

    // As an operator does; SIGTERM is the same.
    let (began, backlog) = (Instant::now(), post.depth()?);
    ensure!(backlog > f64::from(SPEED * 3), "only {backlog} wait: nothing to drain");
    let mut hook = post.web.command("curl");
    post.web.run(hook.args(["-sSf", "-X", "POST", "http://127.0.0.1:4191/shutdown"]))?;
    let (status, why) = until("/ready to say so", Duration::from_secs(5), || {
        let answer = post.web.get("http://127.0.0.1:4191/ready")?;
        Ok((answer.0 != 200).then_some(answer))
    })?;
    ensure!(status == 503 && why.contains("draining"), "/ready answers {status} {why}");
    while post.depth()? > f64::from(SPEED) {
        let (status, head) = post.post(&[], "too late")?;
        ensure!(status == 503, "an asynchronous request was answered {status} while draining: {head}");
        let says = |text: &str| head.lines().any(|line| line.contains(text));
        ensure!(says("retry-after: ") && says("problems/draining"), "refused without saying when: {head}");
        let (status, said) = post.web.get("http://orders/")?;
        ensure!(status == 200, "a synchronous call was answered {status} while draining: {said}");
        wait(Duration::from_millis(200));
    }
    for run in asks {
        let result = run.finish()?;
        eprintln!(
            "synchronous calls: {} sent, {} failed, p99 {} ms",
            result["sent"], result["failed"], result["p99_ms"]
        );
        ensure!(result["failed"] == 0, "synchronous calls failed while draining: {:#}", result["failures"]);
    }
    let ended = post.sidecar.process.wait(GRACE)?;
    let took = began.elapsed();
    eprintln!("{backlog} waited, and it ended after {took:.1?}");
    ensure!(ended.success() && took < GRACE, "it ended with {ended} after {took:?}");
    let log = post.sidecar.process.log();
    ensure!(log.contains("every message was delivered"), "it does not say so: {log}");
    post.sidecar.start_again()?;
    post.sidecar.wait_ready(Duration::from_secs(15))?;
    let ledger = post.ledger()?;
    ledger.check_nothing_lost()?;
    ledger.check_order()?;
    ensure!(ledger.dead.is_empty() && ledger.check_repeats(&[], 0)?.total == 0, "some died or came twice");
    Ok(())
}

#[test]
fn what_the_grace_is_too_short_for_stays_and_is_delivered_by_the_next() -> Result<()> {
    let mut post = Post::new(&format!("{POLICY}, paused: true"), &[], &["--drain-grace", "4s"])?;
    let grace = Duration::from_secs(4);
    let filled = post.fill("q", SPEED * 12, &["--keys", "10", "--loose", "22"])?;
    resume(&post)?;
    let (began, at_first) = (Instant::now(), post.deliveries()?);
    post.sidecar.process.terminate()?;
    let ended = post.sidecar.process.wait(grace + Duration::from_secs(5))?;
    let (took, delivered) = (began.elapsed(), post.deliveries()?);
    let log = plain(&post.sidecar.process.log());
    let said = log.lines().find(|line| line.contains("messages stay in the queue"));
    let said = said.with_context(|| format!("nobody says how much is left:\n{log}"))?;
    eprintln!("ended after {took:.1?}, {} delivered meanwhile: {said}", delivered - at_first);
    ensure!(ended.success(), "it ended with {ended}");
    let accepted = usize::try_from(filled["accepted"].as_u64().context("it counts")?)?;
    let left = accepted - delivered;
    ensure!(said.contains(&format!("messages={left} ")), "{left} are left, and it says: {said}");

    post.sidecar.start_again()?;
    post.sidecar.wait_ready(Duration::from_secs(15))?;
    post.wait_until_drained(Duration::from_secs(30))?;
    let ledger = post.ledger()?;
    ledger.check_nothing_lost()?;
    ledger.check_order()?;
    ensure!(ledger.dead.is_empty(), "a shutdown made dead letters: {:#?}", ledger.dead);
    ensure!(ledger.check_repeats(&[], 0)?.total == 0, "an orderly stop repeated some");
    Ok(())
}

/// An attempt that takes longer than the grace is cut by each stop; its message must not die of that.
#[test]
fn no_message_dies_because_stops_cut_its_attempts() -> Result<()> {
    const STOPS: usize = 3;
    let mut post = Post::new("delivery: { retry: 1 }", &["--work", "4s"], &["--drain-grace", "1s"])?;
    post.fill("q", 1, &["--keys", "1"])?;
    for stop in 1..=STOPS {
        until("its attempt to begin", Duration::from_secs(10), || {
            Ok((post.deliveries()? >= stop).then_some(()))
        })
        .with_context(|| format!("before stop {stop}: {:#?}", post.dead_letters()))?;
        post.sidecar.process.terminate()?;
        let ended = post.sidecar.process.wait(Duration::from_secs(5))?;
        ensure!(ended.success(), "it ended with {ended}");
        post.sidecar.start_again()?;
        post.sidecar.wait_ready(Duration::from_secs(15))?;
    }
    post.wait_until_drained(Duration::from_secs(30))?;
    let ledger = post.ledger()?;
    let attempts: Vec<u32> = ledger.deliveries.iter().map(|delivery| delivery.attempt).collect();
    eprintln!("its attempts were {attempts:?}");
    ensure!(ledger.dead.is_empty(), "it died of {STOPS} shutdowns: {:#?}", ledger.dead);
    Ok(())
}
