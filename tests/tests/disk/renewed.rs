//! renewed: a poisoned store is copied by the next opening, over a disk that goes on failing.

use crate::client::{Client, Home, SMALL};
use crate::disk::{Call, FOR_GOOD, Failure, Fault, Files};
use crate::model::{Held, Model, after};
use crate::random::any_keep;
use crate::seeds::{HANGS_AFTER, is_long, seeds, watch, with_seed};

/// So large that a copy fits beside what is copied.
const BYTES_MAX: u64 = 4 * SMALL;
const NOTE: &str = "poisoned";

/// What a poisoned store and a power cut have left, and what may be in it.
struct Left {
    files: Files,
    models: Vec<Model>,
    client: Client,
}

async fn left(seed: u64) -> Left {
    let mut client = Client::new(seed);
    let home = Home::with(&Files::new(), seed);
    let held = home.open(BYTES_MAX).expect("it opens");
    let flush = 1 + client.random.u64(20..60);
    home.disk.fail(&[Fault { call: Call::Sync, first: flush, times: 1, failure: Failure::Io }]);
    let models = loop {
        let asks = client.asks();
        if let Some(asked) = client.round(&held.opened.store, asks).await.expect("right answers") {
            break after(&client.model, &asked).expect("some ways");
        }
    };
    held.opened.store.close().await;
    home.disk.cut_power();
    let keep = any_keep(&mut client.random);
    let mut files = home.disk.left(keep);
    let note = std::fs::read(home.path().join(NOTE)).expect("it was written down");
    files.insert(NOTE.to_owned(), note);
    Left { files, models, client }
}

fn is_noted(home: &Home) -> bool {
    home.path().join(NOTE).exists()
}

/// It holds one of these, and it was copied.
async fn expect(held: Held, models: &[Model]) -> Result<(), String> {
    let said = held.opened.after_poison.clone();
    if said.as_ref().is_some_and(|said| said.in_place.is_some()) || held.opened.lost > 0 {
        return Err(format!("{said:?}, {} lost", held.opened.lost));
    }
    held.settle(models.to_vec()).await?;
    held.opened.store.close().await;
    Ok(())
}

#[test]
fn each_call_of_the_copying_fails_in_turn_and_the_next_opening_starts_over() {
    for seed in seeds(1, 20) {
        with_seed("each_call_of_the_copying", seed, async || {
            let left = left(seed).await;
            for (call, failure, times) in [
                (Call::Open, Failure::Io, 1),
                (Call::Read, Failure::Io, 1),
                (Call::Write, Failure::Io, 1),
                (Call::Write, Failure::Io, FOR_GOOD),
                (Call::Sync, Failure::Io, 1),
                (Call::Truncate, Failure::Io, 1),
            ] {
                let home = Home::with(&left.files, seed);
                home.disk.fail(&[]);
                drop(home.open(BYTES_MAX).expect("it opens"));
                let most = home.disk.calls(call);
                let step = if is_long() { 1 } else { (most / 4).max(1) as usize };
                for first in (1..=most).step_by(step) {
                    let fault = Fault { call, first, times, failure };
                    let _watch = watch(format!("{seed} {fault:?}"), HANGS_AFTER);
                    fails_once(&left, seed, fault).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
                }
            }
        });
    }
}

async fn fails_once(left: &Left, seed: u64, fault: Fault) -> Result<(), String> {
    let home = Home::with(&left.files, seed);
    home.disk.fail(&[fault]);
    if let Ok(held) = home.open(BYTES_MAX) {
        // What fails from here on fails as ever.
        held.opened.store.close().await;
    } else if home.disk.fired() == 0 {
        return Err("it does not open, and nothing failed".to_owned());
    }
    home.disk.heal();
    let noted = is_noted(&home);
    let held = home.open(BYTES_MAX).map_err(|e| format!("once more: {e}"))?;
    if noted != held.opened.after_poison.is_some() {
        return Err(format!("a note: {noted}, and {:?}", held.opened.after_poison));
    }
    expect(held, &left.models).await?;
    if is_noted(&home) { Err("the note stays".to_owned()) } else { Ok(()) }
}

#[test]
fn a_full_disk_is_no_reason_not_to_open() {
    for seed in seeds(2, 40) {
        with_seed("a_full_disk_is_no_reason", seed, async || {
            let left = left(seed).await;
            let home = Home::with(&left.files, seed);
            home.disk.fail(&[Fault { call: Call::Write, first: 3, times: FOR_GOOD, failure: Failure::Full }]);
            let held = home.open(BYTES_MAX).expect("it opens");
            let said = held.opened.after_poison.clone().expect("it was poisoned");
            assert_eq!(said.in_place.as_deref(), Some("the disk is full"));
            assert!(is_noted(&home) && held.opened.store.condition().doubted.is_some());
            home.disk.heal();
            held.settle(left.models.clone()).await.expect("all that was answered is there");
            held.opened.store.close().await;
            let held = home.open(BYTES_MAX).expect("it opens");
            assert!(held.opened.after_poison.is_some(), "there is room now");
            expect(held, &left.models).await.expect("all that was answered is there");
        });
    }
}

#[test]
fn the_power_goes_while_it_is_copied_and_the_next_opening_starts_over() {
    for seed in seeds(20, 400) {
        with_seed("the_power_goes_while", seed, async || {
            let mut left = left(seed).await;
            let home = Home::with(&left.files, seed);
            home.disk.crash_in(Some(left.client.random.u64(1..120)));
            let opened = home.open(BYTES_MAX).is_ok();
            if !is_noted(&home) {
                // The copy is in its place, under a name that the model of the disk knows nothing of.
                return;
            }
            assert!(!opened && home.disk.is_dead());
            let mut files = home.disk.left(any_keep(&mut left.client.random));
            files.insert(NOTE.to_owned(), left.files[NOTE].clone());
            let again = Home::with(&files, seed);
            let held = again.open(BYTES_MAX).expect("it opens");
            assert!(held.opened.after_poison.is_some());
            expect(held, &left.models).await.expect("all that was answered is there");
        });
    }
}
