//! told: whoever opened a store hears of what ends its trust, whoever saw it.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::shared::{Ends, Shared};
use crate::{Event, StoreError};

/// Counts [`Event::Failed`].
fn counted(options: Options) -> (Options, Arc<Mutex<u32>>) {
    let count = Arc::new(Mutex::new(0));
    let counts = Arc::clone(&count);
    let told = Box::new(move |event: Event<'_>| match event {
        Event::Failed => *counts.lock().expect("nobody panics") += 1,
        Event::Committed([_, ..]) => panic!("it is to end here"),
        _ => {}
    });
    (Options { told, ..options }, count)
}

#[tokio::test]
async fn poison_that_no_batch_brought_is_told_once() {
    let (options, failed) = counted(options(None));
    let store = try_open(options).expect("it opens").0.store;
    store.inner.shared.poison("a read failed");
    store.inner.shared.poison("a checkpoint failed");
    assert!(matches!(store.write(vec![]).await, Err(StoreError::Poisoned(_))));
    assert_eq!(*failed.lock().expect("nobody panics"), 1);
}

#[tokio::test]
async fn a_writer_that_panics_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (options, failed) = counted(options(Some(directory.path())));
    let store = try_open(options).expect("it opens").0.store;
    let written = store.write(vec![Change::Append(draft(b"body"))]).await;
    assert!(matches!(written, Err(StoreError::Poisoned(_))), "{written:?}");
    store.close().await;
    assert_eq!(*failed.lock().expect("nobody panics"), 1);
}

#[test]
fn a_checkpoint_that_panics_has_ended() {
    let shared = Arc::new(Shared::default());
    assert!(shared.checkpoint.begins());
    let theirs = Arc::clone(&shared);
    let panics = std::thread::spawn(move || {
        let _ends = Ends(&theirs.checkpoint);
        panic!("it is to end here");
    });
    assert!(panics.join().is_err());
    shared.checkpoint.wait();
}

/// A directory that was not closed, with three MiB in it.
async fn unclean() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    for _ in 0..50 {
        append(&store, draft(&[7; 60_000])).await;
    }
    store.close().await;
    spoil(directory.path(), "UPDATE meta SET clean = 0");
    directory
}

/// Says of damage that is told.
fn hears(directory: &Path) -> (Options, Receiver<String>) {
    let (says, heard) = channel();
    let told = Box::new(move |event: Event<'_>| {
        if let Event::Damaged(found) = event {
            says.send(found.to_owned()).expect("somebody hears");
        }
    });
    (Options { told, ..options(Some(directory)) }, heard)
}

#[tokio::test]
async fn after_an_unclean_stop_what_is_wrong_with_the_pages_is_told_and_stops_nothing() {
    let directory = unclean().await;
    let database = directory.path().join("messages.db");
    let mut data = std::fs::read(&database).expect("it is there");
    // The first leaf of contents: no opening reads it.
    let leaf = data.chunks_mut(4096).find(|page| page[0] == 13 && page[4000] == 7);
    leaf.expect("there is one")[5..7].fill(0xFF);
    std::fs::write(&database, data).expect("it is written");
    let (options, heard) = hears(directory.path());
    let store = try_open(options).expect("it opens").0.store;
    let found = heard.recv_timeout(Duration::from_secs(4)).expect("it is told");
    assert!(found.starts_with("damaged: ") && found.contains("--queue-salvage"), "{found}");
    assert_eq!(store.condition().damaged.as_deref(), Some(found.as_str()));
    append(&store, draft(b"body")).await;
    store.close().await;
    let salvaged = Options { salvage: true, ..super::options(Some(directory.path())) };
    try_open(salvaged).expect("it is salvaged").0.store.close().await;
    assert!(directory.path().join("damaged-1.db").exists());
}

#[tokio::test]
async fn the_look_through_all_pages_gives_way() {
    let directory = unclean().await;
    let mut connection = rusqlite::Connection::open(directory.path().join("messages.db")).expect("it opens");
    let shared = Arc::new(Shared::default());
    let gives_way = Arc::clone(&shared);
    let steps = crate::limits::CHECK_STEPS;
    connection.progress_handler(steps, Some(move || gives_way.must_give_way())).expect("it is set");
    let look = |connection: &rusqlite::Connection| {
        connection.query_row(crate::sql::CHECK_SCAN, [], |row| row.get::<_, String>(0))
    };
    assert_eq!(look(&connection).as_deref(), Ok("ok"));
    shared.set_wal_waits(true);
    let stopped = look(&connection).expect_err("it gives way");
    assert_eq!(stopped.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
}

#[tokio::test]
async fn a_directory_in_which_only_settles_were_written_was_not_closed_either() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let position = append(&store, draft(b"body")).await;
    store.close().await;
    let clean = || {
        let file = rusqlite::Connection::open(directory.path().join("messages.db")).expect("it opens");
        file.query_row("SELECT clean FROM meta", [], |row| row.get::<_, bool>(0)).expect("it is read")
    };
    assert!(clean());
    let (store, _) = open(directory.path());
    one(&store, end(position)).await;
    assert!(!clean());
    store.close().await;
    assert!(clean());
}
