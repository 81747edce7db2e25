//! gone: a database that was there and is not any more is damage, never a new one.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;

use super::*;

const DATABASE: &str = "messages.db";
const WAL: &str = "messages.db-wal";

type Spoils = fn(&Path);

const WAYS: [(&str, Spoils); 5] = [
    ("cut to nothing", |at| fs::write(at.join(DATABASE), []).expect("it is cut")),
    ("another content", |at| fs::write(at.join(DATABASE), b"hello\n").expect("it is written")),
    ("removed, and a salvage of that was cut off", |at| {
        fs::write(at.join(DATABASE), []).expect("it is begun");
        fs::write(at.join("salvaged.db"), [0; 4096]).expect("it is half made");
    }),
    ("removed", |at| fs::remove_file(at.join(DATABASE)).expect("it is removed")),
    ("removed with what was written ahead", |at| {
        fs::remove_file(at.join(DATABASE)).expect("it is removed");
        let _ = fs::remove_file(at.join(WAL));
    }),
];

/// A directory with a message, closed or as a stop without a close leaves it.
async fn left(closed: bool) -> (tempfile::TempDir, Option<Store>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    append(&store, draft(b"accepted")).await;
    if closed {
        store.close().await;
        return (directory, None);
    }
    let copy = tempfile::tempdir().expect("a directory");
    for name in [DATABASE, WAL, "ballast"] {
        fs::copy(directory.path().join(name), copy.path().join(name)).expect("it is copied");
    }
    (copy, Some(store))
}

#[tokio::test]
async fn a_database_that_is_gone_is_refused_and_a_salvage_begins_anew() {
    for (way, spoils) in WAYS {
        for closed in [true, false] {
            let (directory, _runs) = left(closed).await;
            let ahead = fs::read(directory.path().join(WAL)).unwrap_or_default();
            spoils(directory.path());
            for _ in 0..2 {
                let refused = try_open(options(Some(directory.path()))).err();
                let Some(OpenError::Damaged { details, .. }) = refused else {
                    panic!("{way}, closed {closed}: {refused:?}");
                };
                assert!(details.contains(DATABASE), "{way}: {details}");
            }
            let salvage = Options { salvage: true, ..options(Some(directory.path())) };
            let (opened, entries) = try_open(salvage).expect("it is salvaged");
            assert!(entries.is_empty());
            let why = opened.uncounted.expect("it is told");
            assert!(why.contains("nothing could be kept"), "{why}");
            assert!(append(&opened.store, draft(b"later")).await.0 > 1, "no position is given twice");
            opened.store.close().await;
            if !closed && !way.ends_with("ahead") {
                let kept = fs::read(directory.path().join("damaged-1.db-wal")).expect("it is beside");
                assert!(kept == ahead, "{way}: what was written ahead is kept for whoever wants to look");
            }
            assert_eq!(open(directory.path()).1.len(), 1, "{way}, closed {closed}");
        }
    }
}

#[tokio::test]
async fn a_young_database_of_one_page_is_no_damage_while_the_rest_is_written_ahead() {
    let (directory, _runs) = left(false).await;
    assert_eq!(fs::metadata(directory.path().join(DATABASE)).expect("it is there").len(), 4096);
    assert_eq!(open(directory.path()).1.len(), 1);
}

#[tokio::test]
async fn a_salvage_that_cannot_count_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    for _ in 0..30 {
        append(&store, draft(&[7; 2_000])).await;
    }
    store.close().await;
    let database = OpenOptions::new().write(true).open(directory.path().join(DATABASE)).expect("it is there");
    // The roots of all tables, and what follows.
    database.write_all_at(&[0xA5; 20 * 4096], 3 * 4096).expect("it is written");
    let salvage = Options { salvage: true, ..options(Some(directory.path())) };
    let (opened, entries) = try_open(salvage).expect("it is salvaged");
    assert_eq!((entries.len(), opened.lost), (0, 1));
    let why = opened.uncounted.expect("more than one is lost");
    let pages: u64 = why.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    assert!((12..40).contains(&pages), "{why}");
    opened.store.close().await;
}
