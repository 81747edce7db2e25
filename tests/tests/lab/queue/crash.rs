//! crash: the sidecar with the queue killed at random moments.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::until;

use super::is_long;
use super::post::{Post, now};
use crate::rollout::wait;

const KILLS: u32 = 100;
const KILLS_LONG: u32 = 1000;
/// How long a sidecar lives. It needs about a fifth of a second until it delivers, so that some are
/// killed while they find again what was left.
const LIFE_MS: std::ops::Range<u64> = 50..2000;
const CONCURRENCY: usize = 20;
const RETRY: u64 = 12;
/// Messages sent and delivered per second. A little more come than go, so that there is something to be
/// found again, behind each lane's first.
const SENT: &str = "300";
const DISPATCHED: u32 = 270;
const DRAIN_PATIENCE: Duration = Duration::from_secs(400);

/// splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// From `TIDEGATE_SEED`, else from the clock; printed.
    fn seeded() -> Result<Self> {
        let seed = match std::env::var("TIDEGATE_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => u64::try_from(now() & 0xffff_ffff)?,
        };
        eprintln!("TIDEGATE_SEED={seed} kills at the same moments of each life");
        Ok(Self(seed))
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (x ^ x >> 31) % (range.end - range.start)
    }
}

#[test]
fn what_was_answered_202_outlives_a_hundred_kills_and_repeats_at_most_once_per_lane() -> Result<()> {
    let mut random = Random::seeded()?;
    let policy = format!(
        "delivery: {{ retry: {RETRY}, backoffDelay: PT0.1S, backoffMax: PT1S }}, \
         rateLimits: {{ maxConcurrentDispatches: {CONCURRENCY}, maxDispatchesPerSecond: {DISPATCHED}, maxBurstSize: 20 }}"
    );
    let mut post = Post::new(&policy, &["--work", "10ms"], &[])?;
    let producer = post.produce("p", &["--keys", "20", "--loose", "6", "--rate", SENT])?;
    until("a delivery", Duration::from_secs(10), || Ok((post.deliveries()? > 0).then_some(())))?;

    let (began, mut kills) = (Instant::now(), Vec::new());
    for kill in 1..=if is_long() { KILLS_LONG } else { KILLS } {
        wait(Duration::from_millis(random.within(LIFE_MS)));
        let sidecar = &mut post.sidecar;
        ensure!(sidecar.process.is_running()?, "it ended by itself:\n{}", sidecar.process.log_tail());
        kills.push(now());
        sidecar.start_again()?;
        if kill % 50 == 0 {
            eprintln!("{kill} kills in {:.0?}", began.elapsed());
        }
    }
    post.sidecar.wait_ready(Duration::from_secs(15))?;
    wait(Duration::from_secs(2));
    eprintln!("{} wait", post.depth()?);
    let produced = producer.finish()?;
    eprintln!("the producer: {produced}");
    post.wait_until_drained(DRAIN_PATIENCE)?;
    post.print_complaints()?;

    let ledger = post.ledger()?;
    ledger.check_nothing_lost()?;
    ledger.check_nothing_made_up()?;
    ledger.check_order()?;
    ledger.check_dead(RETRY + 1)?;
    let repeats = ledger.check_repeats(&kills, CONCURRENCY)?;
    let fruitful =
        kills.windows(2).filter(|life| ledger.accepted_at.iter().any(|at| (life[0]..life[1]).contains(at)));
    eprintln!(
        "{} lives accepted something; {} repeats; kills by how many messages came again: {:?}",
        fruitful.count(),
        repeats.total,
        repeats.kills_by_repeats
    );
    // Otherwise the kills met nothing.
    ensure!(repeats.total > 0, "no kill met an attempt under way");
    let said = produced["said"].as_object().into_iter().flatten();
    let strange: Vec<_> = said.filter(|(what, _)| !expected(what)).collect();
    ensure!(strange.is_empty(), "the producer was answered {strange:?}");
    Ok(())
}

/// What a producer may be answered besides 202: nobody, half an answer, the same again, "not yet".
fn expected(what: &str) -> bool {
    matches!(what, "not connected" | "unknown" | "duplicate" | "202 cut") || what.starts_with("status 503 ")
}
