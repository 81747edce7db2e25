//! random: any writes, a power cut at any of them, and whether the store holds what it said it does.

use crate::client::{Client, Home, SMALL};
use crate::disk::{Disk, Files, Keep};
use crate::model::{Ask, Model, Said, after};
use crate::seeds::{seeds, with_seed};

#[test]
fn after_any_crash_the_store_holds_what_it_answered() {
    for seed in seeds(300, 6_000) {
        with_seed("after_any_crash", seed, async || {
            if let Err(wrong) = run(seed).await {
                panic!("seed {seed}: {wrong}");
            }
        });
    }
}

/// What a crash may keep, all of it as likely.
pub(crate) fn any_keep(random: &mut fastrand::Rng) -> Keep {
    [Keep::Nothing, Keep::Everything, Keep::Torn, Keep::Torn][random.usize(..4)]
}

#[test]
fn a_disk_that_only_says_it_has_flushed_is_found_out() {
    let found = |seed| with_seed("a_disk_that_only_says", seed, async || lied_to(seed).await.is_err());
    let seeds: Vec<u64> = (1..=20).collect();
    let found_out = seeds.iter().filter(|seed| found(**seed)).count();
    assert!(found_out >= 15, "{found_out} of 20 were found out");
}

async fn lied_to(seed: u64) -> Result<(), String> {
    let mut client = Client::new(seed);
    let home = Home::with(&Files::new(), seed);
    let held = home.open(SMALL).map_err(|e| e.to_string())?;
    home.disk.lie();
    let left = ask_until_dead(&mut client, &held.opened.store, &home.disk).await?;
    home.disk.cut_power();
    drop(held);
    let home = Home::with(&home.disk.left(Keep::Torn), seed);
    let held = home.open(SMALL).map_err(|e| e.to_string())?;
    held.settle(left).await.map(|_| ())
}

async fn run(seed: u64) -> Result<(), String> {
    let mut client = Client::new(seed);
    client.sizes = if seed.is_multiple_of(3) { 40 } else { 24 };
    let bytes_max = if seed.is_multiple_of(5) { 4 * SMALL } else { SMALL };
    let mut files = Files::new();
    let mut models = vec![client.model.clone()];
    let lives = client.random.usize(2..6);
    for _ in 0..lives {
        (files, models) = live(&mut client, bytes_max, &files, models).await?;
    }
    Ok(())
}

/// From an opening to the next crash or close; returns what is on the disk and what may be.
async fn live(
    client: &mut Client,
    bytes_max: u64,
    files: &Files,
    models: Vec<Model>,
) -> Result<(Files, Vec<Model>), String> {
    let home = Home::with(files, client.random.u64(..));
    let keep = any_keep(&mut client.random);
    if client.random.u8(..4) == 0 {
        home.disk.crash_in(Some(client.random.u64(1..30)));
    }
    let held = match home.open(bytes_max) {
        Ok(held) => held,
        Err(_) if home.disk.is_dead() => return Ok((home.disk.left(keep), models)),
        Err(e) => return Err(format!("it does not open: {e}")),
    };
    home.disk.crash_in(None);
    if !home.disk.is_dead() {
        client.model = held.settle(models).await?;
        client.check_keys(&held.opened.store).await?;
        if let Some(damaged) = held.opened.store.condition().damaged {
            return Err(format!("its pages are in no order: {damaged}"));
        }
        home.disk.crash_in(calls_until_crash(&mut client.random));
    } else {
        drop(held);
        return Ok((home.disk.left(keep), models));
    }
    let left = ask_until_dead(client, &held.opened.store, &home.disk).await?;
    if !home.disk.is_dead() {
        if client.random.bool() {
            held.opened.store.close().await;
        } else {
            home.disk.cut_power();
        }
    }
    drop(held);
    Ok((home.disk.left(keep), left))
}

/// Soon, late, or not at all.
fn calls_until_crash(random: &mut fastrand::Rng) -> Option<u64> {
    match random.u8(..8) {
        0 => None,
        1..5 => Some(random.u64(1..100)),
        _ => Some(random.u64(1..1_500)),
    }
}

/// Asks until the power goes, or enough; returns what may be there now.
async fn ask_until_dead(
    client: &mut Client,
    store: &store::Store,
    disk: &Disk,
) -> Result<Vec<Model>, String> {
    for _ in 0..client.random.usize(1..60) {
        let asks = client.asks();
        if let Some(asked) = client.round(store, asks).await? {
            if !disk.is_dead() {
                return Err(format!("poisoned by a disk that works: {asked:?}"));
            }
            expect_unknown(client, store).await?;
            return after(&client.model, &asked);
        }
        if client.random.u8(..4) == 0
            && let Err(e) = client.check_some(store).await?
            && !disk.is_dead()
        {
            return Err(format!("it cannot be read: {e}"));
        }
    }
    Ok(vec![client.model.clone()])
}

/// A poisoned store stays so.
pub(crate) async fn expect_unknown(client: &mut Client, store: &store::Store) -> Result<(), String> {
    let asks: Vec<Ask> = client.asks();
    match client.round(store, asks).await? {
        Some(asked) if asked.iter().all(|(_, said)| matches!(said, Said::Unknown(_))) => Ok(()),
        other => Err(format!("a poisoned store answers {other:?}")),
    }
}
