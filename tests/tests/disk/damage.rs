//! damage: cut tails, flipped bits, and what a salvage makes of them; never wrong bytes.

use std::collections::BTreeMap;

use store::message::{Change, Draft, State};
use store::{OpenError, Options, StoreError};

use crate::client::{Client, Home, SMALL, directory, open, options};
use crate::disk::{Files, Keep};
use crate::model::{Ask, Held, Model, number_of};
use crate::seeds::{is_long, seeds, with_seed};

const WAL: &str = "messages.db-wal";
const DATABASE: &str = "messages.db";
/// So much room that the file for writing ahead does not begin again.
const LARGE: u64 = 64 << 20;
/// The head of the file for writing ahead, and one frame of it.
const HEAD_BYTES: usize = 32;
const FRAME_BYTES: usize = 4096 + 24;

/// A directory without its process, and what it held after each commit.
struct Life {
    files: Files,
    /// Where each commit ends in the file for writing ahead, and what is there by then.
    commits: Vec<(usize, Model)>,
    drafts: BTreeMap<u64, Draft>,
    random: fastrand::Rng,
}

/// Writes one after the other, then a stop, or a close that leaves everything in the database.
async fn live(seed: u64, bytes_max: u64, writes: usize, close: bool) -> Life {
    let mut client = Client::new(seed);
    client.model.evicts = false;
    let home = Home::with(&Files::new(), seed);
    let store = home.open(bytes_max).expect("it opens").opened.store;
    let (mut commits, mut drafts) = (Vec::new(), BTreeMap::new());
    while commits.len() < writes {
        let ask = client.asks().swap_remove(0);
        let Ask::Changes(changes) = &ask else { continue };
        for (number, change) in changes {
            if let Change::Append(draft) = change {
                drafts.insert(*number, draft.clone());
            }
        }
        let before = home.disk.end_of(WAL);
        let unknown = client.round(&store, vec![ask]).await.expect("it is written");
        assert!(unknown.is_none(), "{unknown:?}");
        if home.disk.end_of(WAL) != before {
            commits.push((home.disk.end_of(WAL), client.model.clone()));
        } else if let Some(last) = commits.last_mut() {
            last.1 = client.model.clone();
        }
    }
    if close {
        store.close().await;
    } else {
        home.disk.cut_power();
    }
    drop(store);
    Life { files: home.disk.left(Keep::Everything), commits, drafts, random: client.random }
}

/// These files in a directory of their own.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(files: &Files) -> Self {
        let directory = directory();
        for (name, bytes) in files {
            std::fs::write(directory.path().join(name), bytes).expect("it is written");
        }
        Self(directory)
    }

    fn open(&self, salvage: bool) -> Result<Held, OpenError> {
        open(Options { bytes_max: LARGE, salvage, ..options(self.0.path()) })
    }
}

fn flipped(files: &Files, name: &str, at: usize, bit: u8) -> Files {
    let mut files = files.clone();
    files.get_mut(name).expect("it is there")[at] ^= 1 << bit;
    files
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_commit() {
    for seed in seeds(10, 200) {
        with_seed("a_torn_tail", seed, async || {
            let mut life = live(seed, LARGE, 12, false).await;
            let [.., (start, before), (end, after)] = &life.commits[..] else { panic!("there are some") };
            for _ in 0..4 {
                let cut = life.random.usize(*start..*end);
                let mut files = life.files.clone();
                let wal = files.get_mut(WAL).expect("it is there");
                if life.random.bool() {
                    wal.truncate(cut);
                } else {
                    // The file had grown before its sectors were there.
                    let sector_end = end.min(&(cut.next_multiple_of(512) + 512)).to_owned();
                    wal[cut..sector_end].fill(0);
                }
                let held =
                    Copy::of(&files).open(false).unwrap_or_else(|e| panic!("seed {seed}, cut at {cut}: {e}"));
                let settled = held.settle(vec![before.clone(), after.clone()]).await;
                settled.unwrap_or_else(|e| panic!("seed {seed}, cut at {cut}: {e}"));
            }
        });
    }
}

#[test]
fn a_flipped_bit_before_later_commits_refuses_to_open_and_is_salvaged() {
    let mut unseen = Vec::new();
    for seed in seeds(8, 200) {
        // Every third has begun the file anew, so that older frames stand behind its end.
        let (bytes_max, writes) = if seed.is_multiple_of(3) { (SMALL, 120) } else { (LARGE, 16) };
        with_seed("a_flipped_bit_before", seed, async || {
            let mut life = live(seed, bytes_max, writes, false).await;
            let ends: Vec<usize> = life.commits.iter().map(|(end, _)| *end).collect();
            // Those of before it began anew stand further behind.
            let anew = ends.windows(2).rposition(|two| two[1] < two[0]).map_or(0, |before| before + 1);
            // A flipped bit in the last commit makes it a torn tail; in any before it must be seen.
            let [.., before_last, _] = ends[anew..] else { return };
            let (_, whole) = life.commits.last().expect("there are some").clone();
            for _ in 0..if is_long() { 40 } else { 12 } {
                let at = place(&mut life.random, before_last);
                let files = flipped(&life.files, WAL, at, life.random.u8(..8));
                let copy = Copy::of(&files);
                match copy.open(false) {
                    Err(OpenError::Damaged { .. }) => {
                        salvage(&copy, &life).await;
                    }
                    Err(e) => panic!("seed {seed}, byte {at}: {e}"),
                    Ok(held) => match held.settle(vec![whole.clone()]).await {
                        Ok(_) => {}
                        Err(e) => unseen.push(format!("seed {seed}, byte {at} of {before_last}: {e}")),
                    },
                }
            }
        });
    }
    assert!(unseen.is_empty(), "{} were not seen:\n{}", unseen.len(), unseen.join("\n"));
}

/// A byte of the head, of a frame's head, or of a page.
fn place(random: &mut fastrand::Rng, end: usize) -> usize {
    match random.u8(..4) {
        0 => random.usize(..HEAD_BYTES),
        1 => HEAD_BYTES + random.usize(..(end - HEAD_BYTES) / FRAME_BYTES) * FRAME_BYTES + random.usize(..24),
        _ => random.usize(HEAD_BYTES..end),
    }
}

/// Salvages, and holds what is kept against what was written; says whether there was something to do.
async fn salvage(copy: &Copy, life: &Life) -> bool {
    let held = copy.open(true).unwrap_or_else(|e| panic!("it is not salvaged: {e}"));
    let salvaged = copy.0.path().join("damaged-1.db").exists();
    for entry in &held.entries {
        match held.opened.store.load(entry.position).await {
            Ok(Some(loaded)) => delivers(life, &loaded),
            // Bytes of a message are no matter of the pages that hold them.
            Err(StoreError::Damaged { .. }) if !salvaged => {}
            other => panic!("position {} is kept and is {other:?}", entry.position),
        }
    }
    held.opened.store.close().await;
    let kept = held.entries;
    drop(held.opened);
    let again = copy.open(true).unwrap_or_else(|e| panic!("it does not open after a salvage: {e}"));
    assert_eq!((again.opened.lost, &again.entries), (0, &kept));
    salvaged
}

/// What is delivered was taken in, byte for byte.
fn delivers(life: &Life, loaded: &store::message::Loaded) {
    let draft =
        number_of(&loaded.head).and_then(|number| life.drafts.get(&number)).expect("somebody wrote it");
    let entry = loaded.entry;
    assert_eq!((&loaded.head, &loaded.body), (&draft.head, &draft.body), "other bytes than were taken in");
    let told = (entry.queue, entry.lane, entry.priority);
    assert_eq!(told, (draft.queue, draft.lane, draft.priority));
}

#[test]
fn a_salvage_that_is_cut_short_is_done_again() {
    for seed in seeds(2, 40) {
        with_seed("a_salvage_that_is_cut", seed, async || {
            let mut life = live(seed, LARGE, 16, false).await;
            let (quarter, _) = life.commits[life.commits.len() / 4];
            let files = flipped(&life.files, WAL, quarter + 24 + 100, 3);
            let copy = Copy::of(&files);
            assert!(matches!(copy.open(false), Err(OpenError::Damaged { .. })));
            let whole = copy.open(true).expect("it is salvaged");
            for calls in 1.. {
                let home = Home::with(&files, seed);
                home.disk.crash_in(Some(calls));
                let salvages = |home: &Home| {
                    let vfs = Some(crate::vfs::NAME.to_owned());
                    open(Options { bytes_max: LARGE, salvage: true, vfs, ..options(home.path()) })
                };
                if salvages(&home).is_ok() {
                    assert!(calls > 20, "seed {seed}: it is cut short {calls} times");
                    break;
                }
                // Names that were given anew are given by nobody SQLite knows.
                if home.path().join("damaged-1.db").exists() {
                    break;
                }
                let left = home.disk.left(crate::random::any_keep(&mut life.random));
                let home = Home::with(&left, seed);
                let again = salvages(&home).unwrap_or_else(|e| panic!("seed {seed}, after {calls}: {e}"));
                assert_eq!((again.entries, again.opened.lost), (whole.entries.clone(), whole.opened.lost));
            }
        });
    }
}

/// Where the first page says of which format it is, and whose.
const OF_WHOM: [std::ops::Range<usize>; 2] = [60..64, 68..72];

/// What flipped bits in pages came to.
#[derive(Debug, Default)]
struct Seen {
    flips: u32,
    refused: u32,
    /// Files that say they are of another format, or nobody's.
    others: u32,
    /// Messages that say they are damaged.
    damaged: u32,
    /// Messages that were shown at opening and cannot be found.
    missing: u32,
    /// Openings that showed fewer messages, more, or others, and said nothing.
    unseen: u32,
    /// Of those, the ones a salvage finds.
    found: u32,
}

#[test]
fn a_flipped_bit_in_the_database_never_delivers_wrong_bytes() {
    let mut seen = Seen::default();
    for seed in seeds(6, 200) {
        with_seed("a_flipped_bit_in", seed, async || {
            let mut life = live(seed, LARGE, 24, true).await;
            let bytes = life.files[DATABASE].len();
            for _ in 0..if is_long() { 100 } else { 25 } {
                // Half of them where pages keep what they are.
                let page = life.random.usize(..bytes / 4096);
                let within =
                    if life.random.bool() { life.random.usize(..64) } else { life.random.usize(..4096) };
                let at = page * 4096 + within;
                let files = flipped(&life.files, DATABASE, at, life.random.u8(..8));
                flip(&Copy::of(&files), &life, at, &mut seen).await;
            }
        });
    }
    println!("{seen:?}");
    assert!(seen.damaged > 0 || seen.flips < 100, "none was seen: {seen:?}");
}

async fn flip(copy: &Copy, life: &Life, at: usize, seen: &mut Seen) {
    let place = format!("page {} byte {}", at / 4096, at % 4096);
    seen.flips += 1;
    let held = match copy.open(false) {
        Ok(held) => held,
        Err(OpenError::Damaged { .. }) => {
            seen.refused += 1;
            salvage(copy, life).await;
            return;
        }
        // Whose it is and of which format is not ours to guess.
        Err(OpenError::Version { .. }) if OF_WHOM.iter().any(|names| names.contains(&at)) => {
            seen.others += 1;
            return;
        }
        Err(e) => panic!("{place}: {e}"),
    };
    let mut damaged = 0;
    for entry in &held.entries {
        match held.opened.store.load(entry.position).await {
            Ok(Some(loaded)) if loaded.entry.state == State::Quarantined => {}
            Ok(Some(loaded)) => delivers(life, &loaded),
            Ok(None) => seen.missing += 1,
            Err(StoreError::Damaged { .. }) => damaged += 1,
            Err(e) => panic!("position {}: {e}", entry.position),
        }
    }
    seen.damaged += damaged;
    let (_, last) = life.commits.last().expect("there are some");
    let whole = held.settle(vec![last.clone()]).await;
    let unseen = damaged == 0 && whole.is_err();
    if let (true, Err(difference)) = (unseen, whole) {
        println!("{place} is not seen: {}", difference.chars().take(300).collect::<String>());
    }
    drop(held);
    seen.unseen += u32::from(unseen);
    let salvaged = salvage(copy, life).await;
    seen.found += u32::from(unseen && salvaged);
}
