//! every_call: each call on the disk fails in turn; each answer is the truth.
//!
//! Written, or refused with nothing stored, or unknown and the store poisoned; and then everything that
//! was answered is found by whoever opens the directory next, with or without a power cut in between.

use crate::client::{Client, Home, SMALL};
use crate::disk::{Call, FOR_GOOD, Failure, Fault, Files, Keep};
use crate::model::{Model, Said, after};
use crate::random::expect_unknown;
use crate::seeds::{HANGS_AFTER, is_long, seeds, watch, with_seed};

/// Room for all of a scenario; its file for writing ahead is no larger than that of the smallest store.
const BYTES_MAX: u64 = 2 * SMALL;

/// What is done while a call fails.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    seed: u64,
    rounds: usize,
    /// So much is written that the file for writing ahead is copied behind the writer's back, and begins
    /// again.
    heavy: bool,
}

/// How each call may fail, and for how long.
const FAILURES: &[(Call, Failure, u64)] = &[
    (Call::Open, Failure::Io, 1),
    (Call::Read, Failure::Io, 1),
    (Call::Read, Failure::PartIo, 1),
    (Call::Read, Failure::Io, FOR_GOOD),
    (Call::Write, Failure::Io, 1),
    (Call::Write, Failure::Full, 1),
    (Call::Write, Failure::PartIo, 1),
    (Call::Write, Failure::PartFull, 1),
    (Call::Write, Failure::PartFull, 4),
    (Call::Write, Failure::Quota, 1),
    (Call::Write, Failure::Quota, FOR_GOOD),
    (Call::Write, Failure::Full, FOR_GOOD),
    (Call::Truncate, Failure::Io, 1),
    (Call::Delete, Failure::Io, 1),
    (Call::Index, Failure::Io, 1),
];

#[test]
fn every_call_fails_once_and_every_answer_stays_true() {
    for seed in seeds(1, 4) {
        with_seed("every_call_fails", seed, async || {
            every(Scenario { seed, rounds: 7, heavy: false }, FAILURES, 1).await;
        });
    }
}

#[test]
fn calls_fail_while_the_file_for_writing_ahead_begins_again() {
    for seed in seeds(1, 4) {
        with_seed("calls_fail_while", seed, async || {
            let step = if is_long() { 1 } else { 241 };
            every(Scenario { seed, rounds: 60, heavy: true }, FAILURES, step).await;
        });
    }
}

#[test]
fn a_failed_flush_that_later_succeeds_never_leads_to_an_answer_for_what_was_lost() {
    let flushes =
        &[(Call::Sync, Failure::Io, 1), (Call::Sync, Failure::Full, 2), (Call::Sync, Failure::Io, FOR_GOOD)];
    for seed in seeds(2, 20) {
        with_seed("a_failed_flush", seed, async || {
            every(Scenario { seed, rounds: 7, heavy: false }, flushes, 1).await;
            every(Scenario { seed, rounds: 60, heavy: true }, flushes, if is_long() { 1 } else { 5 }).await;
        });
    }
}

/// Runs the scenario once for each call of these kinds, or each `step`-th.
async fn every(scenario: Scenario, failures: &[(Call, Failure, u64)], step: usize) {
    let calls = run(scenario, None).await.unwrap_or_else(|e| panic!("without any fault: {e}"));
    let (mut cases, mut fired, mut poisoned, mut full) = (0, 0, 0, 0);
    for (call, failure, times) in failures {
        let most = calls.calls.iter().find(|(of, _)| of == call).map_or(0, |(_, most)| *most);
        let offset = scenario.seed % (step as u64).min(most.max(1));
        for first in (1 + offset..=most).step_by(step) {
            let fault = Fault { call: *call, first, times: *times, failure: *failure };
            let ended =
                run(scenario, Some(fault)).await.unwrap_or_else(|e| panic!("{scenario:?} {fault:?}: {e}"));
            cases += 1;
            fired += u64::from(ended.fired);
            poisoned += u64::from(ended.poisoned);
            full += u64::from(ended.full);
        }
    }
    println!(
        "{cases} cases: {fired} reached their call, {poisoned} poisoned the store, {full} were refused as full"
    );
}

#[derive(Default)]
struct Ended {
    calls: Vec<(Call, u64)>,
    fired: bool,
    poisoned: bool,
    full: bool,
    why: String,
}

async fn run(scenario: Scenario, fault: Option<Fault>) -> Result<Ended, String> {
    let _watch = watch(format!("{scenario:?} {fault:?}"), HANGS_AFTER);
    let mut client = Client::new(scenario.seed);
    client.sizes = if scenario.heavy { 40 } else { 22 };
    let home = Home::with(&Files::new(), scenario.seed);
    home.disk.fail(fault.as_slice());
    let mut ended = Ended::default();
    let models = match home.open(BYTES_MAX) {
        Err(_) if home.disk.fired() > 0 => vec![client.model.clone()],
        Err(e) => return Err(format!("it does not open: {e}")),
        Ok(held) => {
            let store = &held.opened.store;
            let models = ask(&mut client, &home, store, scenario, &mut ended).await?;
            let poisoned = store.condition().poisoned;
            if poisoned.is_some() && home.failures() == 0 {
                return Err(format!("nobody was told of {poisoned:?}"));
            }
            if let (Some(why), Some(Failure::Quota)) = (poisoned, fault.map(|fault| fault.failure)) {
                return Err(format!("a quota that is used up poisons: {why}"));
            }
            held.opened.store.close().await;
            models
        }
    };
    ended.fired = home.disk.fired() > 0;
    ended.calls = Call::ALL.map(|call| (call, home.disk.calls(call))).to_vec();
    if !ended.fired && (ended.poisoned || ended.full) {
        return Err(format!("it fails on a disk that works: {}", ended.why));
    }
    if let (true, Some(Failure::Io | Failure::PartIo)) = (ended.full, fault.map(|fault| fault.failure)) {
        return Err(format!("a disk that fails is told as a full one: {}", ended.why));
    }
    for keep in [Keep::Everything, Keep::Nothing, Keep::Torn] {
        let again = Home::with(&home.disk.left(keep), scenario.seed);
        let held = again.open(BYTES_MAX).map_err(|e| format!("keeping {keep:?}, it does not open: {e}"))?;
        client.model = held.settle(models.clone()).await.map_err(|e| format!("keeping {keep:?}: {e}"))?;
        client.check_keys(&held.opened.store).await?;
    }
    Ok(ended)
}

/// Asks on whatever happens; returns what may be there.
async fn ask(
    client: &mut Client,
    home: &Home,
    store: &store::Store,
    scenario: Scenario,
    ended: &mut Ended,
) -> Result<Vec<Model>, String> {
    for _ in 0..scenario.rounds {
        let asks = client.asks();
        if let Some(models) = ask_once(client, store, asks, ended).await? {
            for _ in 0..3 {
                expect_unknown(client, store).await?;
            }
            return Ok(models);
        }
        // A read that fails may poison or say so; one that succeeds is right.
        let _ = client.check_some(store).await?;
    }
    home.disk.heal();
    let (number, change) = client.append();
    let last = vec![crate::model::Ask::Changes(vec![(number, change)])];
    let before = ended.full;
    ended.full = false;
    let models = ask_once(client, store, last, ended).await?;
    if std::mem::replace(&mut ended.full, before) && models.is_none() {
        return Err("it is still full though the disk works again".to_owned());
    }
    Ok(models.unwrap_or_else(|| vec![client.model.clone()]))
}

async fn ask_once(
    client: &mut Client,
    store: &store::Store,
    asks: Vec<crate::model::Ask>,
    ended: &mut Ended,
) -> Result<Option<Vec<Model>>, String> {
    let asked = client.ask_all(store, asks).await?;
    for (_, said) in &asked {
        if let Said::Full(reason) = said {
            ended.full = true;
            ended.why.clone_from(reason);
        }
    }
    ended.poisoned |= asked.iter().any(|(_, said)| matches!(said, Said::Unknown(_)));
    let mut models = after(&client.model, &asked)?;
    if ended.poisoned {
        return Ok(Some(models));
    }
    client.model = models.swap_remove(0);
    Ok(None)
}
