//! away: receivers restarted, then away for a minute, while the sidecar with the queue stops and dies too.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::post::{Post, Receiver, now, start_app};
use crate::rollout::wait;

/// Few: what a shutdown used up would show as a dead letter.
const RETRY: u64 = 3;
const WORK: [&str; 2] = ["--work", "5ms"];
const GRACE: Duration = Duration::from_secs(5);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn receivers_restarted_and_away_for_a_minute_lose_nothing_and_nothing_dies_of_a_shutdown() -> Result<()> {
    let policy =
        format!("delivery: {{ retry: {RETRY}, backoffDelay: PT0.2S, backoffMax: PT2S, timeout: PT5S }}");
    let mut post = Post::new(&policy, &WORK, &["--drain-grace", "5s"])?;
    post.add_receiver("orders-2", &WORK)?;
    let producer = post.produce("p", &["--keys", "10", "--loose", "6", "--rate", "200"])?;
    wait(Duration::from_secs(3));
    for number in [0, 1, 0, 1] {
        stop(&mut post.receivers[number])?;
        wait(Duration::from_secs(1));
        start(&mut post, number)?;
        wait(Duration::from_secs(1));
    }

    eprintln!("both go, and the slice still names them");
    post.receivers.iter_mut().try_for_each(stop)?;
    let gone = now();
    wait(Duration::from_secs(20));
    eprintln!("the sidecar with the queue is told to stop: {} wait", post.depth()?);
    post.sidecar.process.terminate()?;
    let ended = post.sidecar.process.wait(GRACE + Duration::from_secs(3))?;
    ensure!(ended.success(), "it ended with {ended}");
    post.sidecar.process.wait_for("messages stay in the queue", Duration::from_secs(1))?;
    post.sidecar.start_again()?;
    post.sidecar.wait_ready(Duration::from_secs(15))?;
    eprintln!("and the slice names nobody");
    post.announce(false)?;
    wait(Duration::from_secs(15));
    eprintln!("the sidecar is killed: {} wait", post.depth()?);
    post.sidecar.start_again()?;
    post.sidecar.wait_ready(Duration::from_secs(15))?;
    wait(Duration::from_secs(20));
    let waited = post.depth()?;
    eprintln!("they come back: {waited} wait");
    ensure!(waited > 5000.0, "under load for a minute, and only {waited} wait");
    let back = now();
    start(&mut post, 0)?;
    start(&mut post, 1)?;
    post.announce(true)?;
    wait(Duration::from_secs(5));
    let produced = producer.finish()?;
    eprintln!("the producer: {produced}");
    post.wait_until_drained(Duration::from_secs(90))?;
    eprintln!(
        "all delivered {:.1} s after they came back",
        Duration::from_nanos(u64::try_from(now() - back)?).as_secs_f64()
    );
    post.print_complaints()?;

    let ledger = post.ledger()?;
    ensure!(
        !ledger.deliveries.iter().any(|delivery| (gone..back).contains(&delivery.at)),
        "somebody was not away"
    );
    ledger.check_nothing_lost()?;
    ledger.check_nothing_made_up()?;
    ledger.check_order()?;
    let most = ledger.deliveries.iter().map(|delivery| delivery.attempt).max();
    eprintln!("the highest attempt delivered is {most:?}");
    ensure!(ledger.dead.is_empty(), "dead letters: {:#?}", &ledger.dead[..ledger.dead.len().min(5)]);
    Ok(())
}

/// As a pod ends: the application first, then the sidecar.
fn stop(receiver: &mut Receiver) -> Result<()> {
    receiver.app.terminate()?;
    receiver.app.wait(STOP_PATIENCE)?;
    receiver.sidecar.process.terminate()?;
    let ended = receiver.sidecar.process.wait(STOP_PATIENCE)?;
    ensure!(ended.success(), "the receiver's sidecar ended with {ended}");
    Ok(())
}

fn start(post: &mut Post, number: usize) -> Result<()> {
    let folder = post.file("");
    let receiver = &mut post.receivers[number];
    receiver.app = start_app(&receiver.pod, &folder, &WORK)?;
    receiver.sidecar.start_again()?;
    receiver.sidecar.wait_ready(Duration::from_secs(15))
}
