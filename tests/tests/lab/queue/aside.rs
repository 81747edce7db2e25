//! aside: synchronous calls beside a full queue, whose receiver is away.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::manifests::Port;

use super::is_long;
use super::post::{Post, start_app};
use super::programs::{Run, number};

/// Messages that wait: as many as the policy allows.
const BACKLOG: u32 = 50_000;
const PAIRS: usize = 8;
const PAIRS_LONG: usize = 15;
/// How much slower the p99 may be beside a full queue, as the issue has it.
const RATIO_MAX: f64 = 1.10;
/// A client that sends 1 of 100 requests later than this has no processor to itself: its pair of runs says
/// nothing.
const LATE_MS_MAX: f64 = 2.0;
/// By so many the loud pairs may outnumber the quiet ones until it is given up: such a machine cannot tell.
const LOUD_MORE_MAX: usize = 3;
/// How often a mesh that is as fast as the issue has it may be found too slow.
const WRONG_RATIO_MAX: f64 = 0.05;

/// The same sidecar is started anew for each run, in turn on a directory with a full queue and on an empty
/// one, so that each pair saw the same machine.
#[test]
fn synchronous_calls_are_as_fast_beside_a_full_queue() -> Result<()> {
    let policy = format!(
        "queue: {{ maxMessages: {BACKLOG} }}, delivery: {{ backoffDelay: PT0.5S, backoffMax: PT1S }}"
    );
    let mut post = Post::new(&policy, &[], &[])?;
    let stock = post.world.pod("stock-1", "stock", &[("http", 8080)])?;
    let _stock_app = start_app(&stock, &post.file(""), &[])?;
    let _stock_sidecar = post.world.sidecar(&stock)?;
    post.world.service("stock", 11, &[Port::new("http", 80, 8080)], &[&stock])?;
    // Away, and the slice still names it.
    let receiver = &mut post.receivers[0];
    receiver.sidecar.process.kill()?;
    receiver.app.kill()?;
    let filled = post.fill("q", BACKLOG, &["--loose", "64", "--bytes", "1024"])?;
    eprintln!("filled: {filled}");
    let depth = post.depth()?;
    ensure!(depth == f64::from(BACKLOG), "{depth} wait");
    let (status, _) = post.post(&[], "one more")?;
    ensure!(status == 429, "a full queue answers {status}");

    let (full, empty) = (post.disk.clone(), post.world.lab.disk()?);
    open_and_empty(&mut post, &empty)?;
    let pairs = if is_long() { PAIRS_LONG } else { PAIRS };
    let (mut quiet, mut loud) = (Vec::new(), 0);
    while quiet.len() < pairs && loud < quiet.len() + LOUD_MORE_MAX {
        let mut p99 = [0.0; 2];
        let mut is_quiet = true;
        // Who is first changes, so that what the machine does meanwhile falls on both.
        let first = (quiet.len() + loud) % 2;
        for turn in [first, 1 - first] {
            post.move_to([&empty, &full][turn])?;
            let [p50, p90, slow, late] = ask(&post, turn)?;
            let depth = post.depth()?;
            ensure!(depth == [0.0, f64::from(BACKLOG)][turn], "{depth} wait");
            eprintln!(
                "{depth:>6} wait: p50 {p50:.2} p90 {p90:.2} p99 {slow:.2} ms; asked late, p99 {late:.2} ms"
            );
            p99[turn] = slow;
            is_quiet &= late <= LATE_MS_MAX;
        }
        eprintln!("{:.3} times, on a machine that was quiet: {is_quiet}", p99[1] / p99[0]);
        if is_quiet {
            quiet.push(p99[1] / p99[0]);
        } else {
            loud += 1;
        }
    }
    judge(quiet, pairs)
}

/// Fails when the p99 beside a full queue is too long in the median of quiet pairs, by what the spread of
/// the pairs leaves no doubt of.
fn judge(mut quiet: Vec<f64>, wanted: usize) -> Result<()> {
    if quiet.len() < wanted {
        eprintln!("NOT JUDGED: the machine was not quiet in more than {} of {wanted} pairs", quiet.len());
        return Ok(());
    }
    quiet.sort_by(f64::total_cmp);
    let (least, median) = (quiet[surely_below_median(wanted)], quiet[wanted / 2]);
    eprintln!("p99 beside a full queue: {median:.3} times in the median of {wanted} pairs, {quiet:.3?}");
    if median > RATIO_MAX {
        eprintln!("that is more than {RATIO_MAX}, and by the spread of the pairs it is {least:.3} at least");
    }
    ensure!(least <= RATIO_MAX, "beside a full queue the p99 is {median:.2} times as long, {quiet:.3?}");
    Ok(())
}

/// The place, in ascending order, of a figure that is above the true median of `count` figures no more
/// often than [`WRONG_RATIO_MAX`], whatever their spread is: the sign test.
#[allow(clippy::cast_precision_loss, reason = "a few pairs")]
fn surely_below_median(count: usize) -> usize {
    // So many of the figures, from none on, are below the median with this chance.
    let mut chance = (0..count).fold(1.0, |chance, _| chance / 2.0);
    let (mut below, mut sum) = (0, chance);
    while sum <= WRONG_RATIO_MAX {
        below += 1;
        chance *= (count + 1 - below) as f64 / below as f64;
        sum += chance;
    }
    below.checked_sub(1).expect("there are pairs enough")
}

#[test]
fn what_is_surely_below_the_median_is_as_in_the_tables_of_the_sign_test() {
    assert_eq!([5, 8, 15].map(surely_below_median), [0, 1, 3]);
}

#[test]
fn too_slow_is_what_the_spread_leaves_no_doubt_of() {
    let judge = |ratios: [f64; 8]| judge(ratios.to_vec(), 8).is_ok();
    assert!(judge([0.6, 0.9, 1.0, 1.0, 1.05, 1.2, 1.3, 1.4]), "as noisy as it was measured");
    assert!(judge([1.05, 1.08, 1.12, 1.12, 1.12, 1.2, 1.2, 1.2]), "it may be as it should");
    assert!(!judge([0.9, 1.12, 1.12, 1.15, 1.15, 1.2, 1.2, 1.2]));
    assert!(!judge([1.25; 8]));
}

/// A queue that was opened by a message, which is gone.
fn open_and_empty(post: &mut Post, disk: &Path) -> Result<()> {
    post.move_to(disk)?;
    let (status, head) = post.post(&["tidegate-delay: PT1H"], "one")?;
    ensure!(status == 202, "an empty queue answers {status}: {head}");
    let location = head.lines().find_map(|line| line.strip_prefix("location: "));
    let url = format!("http://orders{}", location.context("a 202 has a Location")?.trim());
    post.web.run(post.web.command("curl").args(["-sSf", "-X", "DELETE", &url]))?;
    Ok(())
}

/// The p50, p90 and p99 of synchronous calls, and by how much the client asked late, in ms.
fn ask(post: &Post, turn: usize) -> Result<[f64; 4]> {
    let args = ["ask", "--to", "http://stock/", "--rate", "400", "--for", "11s", "--warm", "3s"];
    let run = Run::start(&post.web, &args, post.file(&format!("asked-{turn}")))?;
    let result = run.ended(Duration::from_secs(30))?;
    ensure!(result["failed"] == 0, "synchronous calls failed: {:#}", result["failures"]);
    Ok(["p50_ms", "p90_ms", "p99_ms", "late_p99_ms"].map(|name| number(&result, name)))
}
