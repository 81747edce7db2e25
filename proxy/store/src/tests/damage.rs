//! damage: what is not as it was written is found, and nothing else is lost.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::StoreError;

const DATABASE: &str = "messages.db";
const WAL: &str = "messages.db-wal";
const FRAME_BYTES: u64 = 24 + 4096;

/// A directory as a stop without a close leaves it: the files as they are while the store runs.
fn stopped(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for name in [DATABASE, WAL] {
        std::fs::copy(directory.join(name), copy.path().join(name)).expect("it is copied");
    }
    copy
}

fn flip(path: PathBuf, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is as long");
    file.write_all_at(&[byte[0] ^ 4], at).expect("it is written");
}

/// Flips a bit `behind` the beginning of these bytes, wherever they stand: pages that were split leave
/// copies behind.
fn flip_all(path: &Path, needle: &[u8], behind: usize) {
    let mut data = std::fs::read(path).expect("it is there");
    let mut at = 0;
    while let Some(found) = data[at..].windows(needle.len()).position(|window| window == needle) {
        at += found + behind;
        data[at] ^= 4;
        at += 1;
    }
    assert!(at > 0, "it is in there");
    std::fs::write(path, data).expect("it is written");
}

/// A store with some commits, and the byte behind each in the file for writing ahead.
async fn with_commits(directory: &Path, count: u64) -> (Store, Vec<u64>) {
    let (store, _) = open(directory);
    let mut ends = Vec::new();
    for number in 0..count {
        append(&store, draft(format!("message {number}").as_bytes())).await;
        ends.push(File::open(directory.join(WAL)).and_then(|wal| wal.metadata()).expect("it is there").len());
    }
    (store, ends)
}

#[tokio::test]
async fn a_second_opening_says_that_it_is_in_use() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let second = try_open(options(Some(directory.path())));
    assert!(matches!(second, Err(OpenError::InUse(path)) if path == directory.path()));
    store.close().await;
    open(directory.path());
}

#[tokio::test]
async fn another_format_is_refused_by_its_number() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).0.close().await;
    let file = rusqlite::Connection::open(directory.path().join(DATABASE)).expect("it opens");
    file.pragma_update(None, "user_version", 7).expect("it is set");
    drop(file);
    for salvage in [false, true] {
        let opened = try_open(Options { salvage, ..options(Some(directory.path())) });
        assert!(matches!(opened, Err(OpenError::Version { found: 7, known: 2, .. })));
    }
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = rusqlite::Connection::open(directory.path().join(DATABASE)).expect("it opens");
    file.execute_batch("CREATE TABLE theirs(x); PRAGMA user_version = 1;").expect("it is made");
    drop(file);
    let opened = try_open(options(Some(directory.path())));
    assert!(matches!(opened, Err(OpenError::Version { found: 0, .. })));
}

#[test]
fn a_file_system_in_memory_is_refused() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
    let opened = try_open(Options { allow_volatile: false, ..options(Some(directory.path())) });
    assert!(matches!(opened, Err(OpenError::NotDurable { kind, .. }) if kind == "tmpfs"));
}

#[tokio::test]
async fn everything_answered_is_there_after_a_stop_without_a_close() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = with_commits(directory.path(), 20).await;
    let copy = stopped(directory.path());
    let next = append(&store, draft(b"later")).await;
    let (opened, entries) = try_open(options(Some(copy.path()))).expect("it opens");
    assert_eq!(entries.len(), 20);
    assert!(append(&opened.store, draft(b"again")).await >= next, "positions set aside are passed by");
}

#[tokio::test]
async fn a_flipped_bit_in_a_body_damages_that_message_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = with_commits(directory.path(), 9).await;
    let large = append(&store, draft(&[0xA5; 200_000])).await;
    store.close().await;
    let database = directory.path().join(DATABASE);
    flip_all(&database, b"message 4", 0);
    flip_all(&database, &[0xA5; 4000], 2000);
    let (store, entries) = open(directory.path());
    assert_eq!(entries.len(), 10);
    for entry in &entries {
        let read = store.load(entry.position).await;
        if entry.position == large || entry.position == entries[4].position {
            assert!(
                matches!(read, Err(StoreError::Damaged { position, .. }) if position == entry.position),
                "{entry:?}"
            );
        } else {
            assert!(read.expect("it is read").is_some());
        }
    }
    one(&store, Change::Quarantine(large)).await;
    assert_eq!(store.list(QUEUE, State::Quarantined, None, 9).await.expect("it is listed").len(), 1);
    assert_eq!(one(&store, Change::Begin(large)).await, Changed::Missing);
    assert!(store.condition().poisoned.is_none());
}

#[tokio::test]
async fn a_torn_tail_is_cut_at_the_last_whole_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_store, ends) = with_commits(directory.path(), 10).await;
    for cut in [1, 100, FRAME_BYTES, FRAME_BYTES + 1] {
        let copy = stopped(directory.path());
        let wal = OpenOptions::new().write(true).open(copy.path().join(WAL)).expect("it is there");
        wal.set_len(ends[9] - cut).expect("it is cut");
        let (_, entries) = open(copy.path());
        assert_eq!(entries.len(), 9, "cut by {cut}");
    }
}

#[tokio::test]
async fn a_last_commit_that_reached_the_disk_in_another_order_is_a_torn_tail() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_store, ends) = with_commits(directory.path(), 10).await;
    let copy = stopped(directory.path());
    let wal = OpenOptions::new().write(true).open(copy.path().join(WAL)).expect("it is there");
    wal.write_all_at(&[0; 4096], ends[8] + 24).expect("it is torn");
    assert!(ends[9] - ends[8] >= 2 * FRAME_BYTES, "its last frame is whole");
    assert_eq!(open(copy.path()).1.len(), 9);
}

#[tokio::test]
async fn a_torn_tail_over_a_longer_one_that_was_torn_before_is_no_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    store.put_queue("orders".into(), Bytes::new()).await.expect("it is put");
    append(&store, draft(b"kept")).await;
    let end = std::fs::metadata(directory.path().join(WAL)).expect("it is there").len();
    append(&store, draft(&[1; 200_000])).await;
    let tear = |copy: &TempDir| {
        let wal = OpenOptions::new().write(true).open(copy.path().join(WAL)).expect("it is there");
        wal.write_all_at(&[0; 4096], end + 24).expect("it is torn");
    };
    let torn = stopped(directory.path());
    tear(&torn);
    let (store, entries) = open(torn.path());
    assert_eq!(entries.len(), 1);
    append(&store, draft(b"shorter")).await;
    let again = stopped(torn.path());
    tear(&again);
    assert_eq!(open(again.path()).1.len(), 1);
}

#[tokio::test]
async fn a_flipped_bit_in_a_commit_in_the_middle_refuses_to_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_store, ends) = with_commits(directory.path(), 10).await;
    // In the page, the sum, the salt and the size of a frame in the middle, and everywhere in the head.
    let frame = ends[4];
    let places = [frame + 24 + 77, frame + 17, frame + 9, frame + 5, 0, 9, 17, 21, 25, 30];
    for at in places {
        let copy = stopped(directory.path());
        flip(copy.path().join(WAL), at);
        let refused = try_open(options(Some(copy.path())));
        let Err(OpenError::Damaged { details, .. }) = refused else {
            panic!("a flipped bit at {at} is not seen");
        };
        assert!(details.contains("stand behind it"), "{details}");
        let (opened, entries) =
            try_open(Options { salvage: true, ..options(Some(copy.path())) }).expect("it is salvaged");
        assert!(opened.lost > 0);
        assert!(entries.len() <= 5, "what stands behind the break is left behind");
        assert!(append(&opened.store, draft(b"later")).await.0 > 10);
        assert!(copy.path().join("damaged-1.db-wal").exists());
        opened.store.close().await;
        open(copy.path());
    }
}

#[tokio::test]
async fn a_salvage_keeps_what_checks() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let queue = store.put_queue("orders".into(), Bytes::from_static(b"settings")).await.expect("it is put");
    for _ in 0..20 {
        let drafts = (0..100).map(|_| Change::Append(Draft { queue, ..draft(&[1; 500]) })).collect();
        store.write(drafts).await.expect("it is written");
    }
    let dead = append(&store, draft(b"dead")).await;
    let result = Some(Bytes::from_static(b"500"));
    one(&store, Change::Bury { position: dead, history: Bytes::from_static(b"h"), result }).await;
    let known = append(&store, keyed(1, 1, 0, 100)).await;
    one(&store, end_kept(known, 100, None)).await;
    store.close().await;
    let database = directory.path().join(DATABASE);
    let pages = std::fs::metadata(&database).expect("it is there").len() / 4096;
    // Leaves of messages and contents lie between one another: three in a row hit both.
    let file = OpenOptions::new().write(true).open(&database).expect("it is there");
    file.write_all_at(&[0xFF; 3 * 4096], pages / 2 * 4096).expect("it is written");
    let options = || Options { salvage: true, ..options(Some(directory.path())) };
    let (opened, entries) = try_open(options()).expect("it is salvaged");
    assert!(opened.lost > 0 && opened.lost < 400, "lost {}", opened.lost);
    assert_eq!(entries.len() as u64 + opened.lost, 2001);
    for entry in &entries {
        assert!(opened.store.load(entry.position).await.expect("it is read").is_some());
    }
    assert_eq!((opened.queues.len(), &opened.queues[0].settings[..]), (1, &b"settings"[..]));
    let loaded = opened.store.load(dead).await.expect("it is read").expect("it is there");
    assert_eq!(loaded.result.as_deref(), Some(&b"500"[..]));
    assert!(opened.store.ended(known).await.expect("it is read").is_some());
    let again = one(&opened.store, Change::Append(keyed(1, 1, 50, 150))).await;
    assert_eq!(again, Changed::Duplicate { position: known, same: true });
    opened.store.close().await;
    assert_eq!(try_open(options()).expect("it opens").0.lost, 0);
}

#[tokio::test]
async fn a_database_whose_making_was_cut_off_is_made_again() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(DATABASE), [7; 4096]).expect("it is written");
    std::fs::write(directory.path().join("messages.db-journal"), [7; 512]).expect("it is written");
    let (store, entries) = open(directory.path());
    assert!(entries.is_empty());
    store.close().await;
    let (store, _) = open(directory.path());
    store.close().await;
}
