//! deadly: a message at whose sight the sidecar that sent it dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::post::{Post, start_app};
use crate::rollout::wait;

const RETRY: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_message_that_kills_its_sender_ends_in_the_dead_letter_and_holds_up_no_other() -> Result<()> {
    let policy = format!("delivery: {{ retry: {RETRY}, backoffDelay: PT0.1S, backoffMax: PT1S }}");
    let mut post = Post::new(&policy, &[], &[])?;
    let victim = post.file("victim");
    std::fs::write(&victim, post.sidecar.process.pid().to_string())?;
    let receiver = &mut post.receivers[0];
    receiver.app.kill()?;
    let folder = victim.parent().context("it lies in a folder")?;
    let args = ["--work", "50ms", "--deadly", "deadly", "--victim", &victim.to_string_lossy()];
    receiver.app = start_app(&receiver.pod, folder, &args)?;
    let producer = post.produce("p", &["--keys", "5", "--loose", "2", "--rate", "70"])?;
    wait(Duration::from_secs(1));

    let mut ids = Vec::new();
    // Those behind it are in its lane. They are due one after the other when the last has been answered.
    for body in ["deadly 1", "p-kdeadly 2", "p-kdeadly 3"] {
        write_down(&post, body)?;
        let (status, head) = post.post(&["tidegate-key: lane", "tidegate-delay: PT3S"], body)?;
        ensure!(status == 202, "{body} was answered {status}: {head}");
        let location = head.lines().find_map(|line| line.strip_prefix("location: /.tidegate/requests/"));
        ids.push(location.context("a 202 has a Location")?.trim().to_owned());
    }
    let deaths = usize::try_from(RETRY + 1)?;
    survive(&mut post, deaths)?;
    wait(Duration::from_secs(3));
    ensure!(post.sidecar.process.is_running()?, "it was killed more often than {deaths} times");
    let produced = producer.finish()?;
    eprintln!("the producer: {produced}");
    post.wait_until_drained(Duration::from_secs(30))?;

    let ledger = post.ledger()?;
    let attempts: Vec<u32> =
        ledger.deliveries.iter().filter(|d| d.id == ids[0]).map(|delivery| delivery.attempt).collect();
    eprintln!("{deaths} deaths; the receiver saw its attempts {attempts:?}");
    ensure!(attempts == [1, 2, 3, 4], "the deadly message came as attempts {attempts:?}");
    for id in &ids[1..] {
        ensure!(ledger.deliveries.iter().any(|delivery| delivery.id == *id), "{id}, behind it, never came");
    }
    ledger.check_dead(RETRY + 1)?;
    ledger.check_nothing_lost()?;
    ledger.check_nothing_made_up()?;
    ledger.check_order()?;
    let (deadly, others): (Vec<_>, Vec<_>) = ledger.dead.iter().partition(|letter| letter["id"] == ids[0]);
    ensure!(deadly.len() == 1, "the deadly message is not in the dead letter: {:#?}", ledger.dead);
    eprintln!("{:#}", deadly[0]["attempts"]);
    let named: Vec<_> = others.iter().map(|letter| (&letter["key"], &letter["attempts"])).collect();
    ensure!(others.is_empty(), "{} others died with it, such as {:#?}", others.len(), named[0]);
    Ok(())
}

/// Starts the sidecar again each time it was killed, this many times.
fn survive(post: &mut Post, deaths: usize) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    for death in 0..deaths {
        while post.sidecar.process.is_running()? {
            ensure!(Instant::now() < end, "only {death} deaths of {deaths}; {:#}", post.queues()?);
            wait(Duration::from_millis(5));
        }
        post.sidecar.start_again()?;
        std::fs::write(post.file("victim"), post.sidecar.process.pid().to_string())?;
    }
    post.sidecar.wait_ready(Duration::from_secs(10))
}

fn write_down(post: &Post, body: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(post.file("sent"))?;
    Ok(writeln!(file, "{body}")?)
}
