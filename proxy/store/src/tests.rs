//! tests: the store through its handle, over real files.

mod damage;
mod gone;
mod lists;
mod lost;
mod migrate;
mod model;
mod modes;
mod owner;
mod plans;
mod poison;
mod renew;
mod space;
mod spoilt;
mod steps;
mod together;
mod told;

use std::path::Path;

use bytes::Bytes;

use crate::message::{Change, Changed, Dedupe, Draft, Entry, Position, QueueId, State, Timestamp};
use crate::{OpenError, Opened, Options, Store};

const QUEUE: QueueId = QueueId(1);

fn options(directory: Option<&Path>) -> Options {
    Options {
        directory: directory.map(Path::to_owned),
        bytes_max: 64 << 20,
        allow_volatile: true,
        ..Options::default()
    }
}

fn try_open(options: Options) -> Result<(Opened, Vec<Entry>), OpenError> {
    let mut entries = Vec::new();
    let opened = Store::open(options, &mut |entry| entries.push(entry))?;
    Ok((opened, entries))
}

fn open(directory: &Path) -> (Store, Vec<Entry>) {
    let (opened, entries) = try_open(options(Some(directory))).expect("it opens");
    (opened.store, entries)
}

fn in_memory() -> Store {
    try_open(options(None)).expect("it opens").0.store
}

/// Writes what no writer of ours writes into a directory that is closed.
fn spoil(directory: &Path, how: &str) {
    let file = rusqlite::Connection::open(directory.join("messages.db")).expect("it opens");
    file.execute_batch(how).expect("it is written");
}

/// Gives a row of a small table another number, in its place on the page.
fn renumber(directory: &Path, table: &str, row: u8, to: u8) {
    let path = directory.join("messages.db");
    let file = rusqlite::Connection::open(&path).expect("it opens");
    let root = file
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get::<_, u32>(0));
    drop(file);
    let mut data = std::fs::read(&path).expect("it is there");
    let page = &mut data[(root.expect("it is there") as usize - 1) * 4096..][..4096];
    assert_eq!(page[0], 13, "its root is its only leaf");
    let cells = usize::from(page[3]) << 8 | usize::from(page[4]);
    let at = (0..cells).map(|cell| usize::from(page[8 + 2 * cell]) << 8 | usize::from(page[9 + 2 * cell]));
    // A cell begins with its bytes and its number, each one byte while it is small.
    let at = at.into_iter().find(|at| page[at + 1] == row).expect("it is there");
    page[at + 1] = to;
    std::fs::write(path, data).expect("it is written");
}

fn draft(body: &[u8]) -> Draft {
    Draft {
        queue: QUEUE,
        lane: None,
        priority: 3,
        due_at: None,
        head: Bytes::from_static(b"head"),
        body: Bytes::copy_from_slice(body),
        dedupe: None,
    }
}

fn keyed(key: u8, fingerprint: u8, now: u64, until: u64) -> Draft {
    let dedupe = Dedupe {
        key: [key; 16],
        fingerprint: [fingerprint; 16],
        now: Timestamp(now),
        until: Timestamp(until),
    };
    Draft { dedupe: Some(dedupe), ..draft(b"keyed") }
}

async fn append(store: &Store, draft: Draft) -> Position {
    match one(store, Change::Append(draft)).await {
        Changed::Stored(position) => position,
        other => panic!("stored was expected, not {other:?}"),
    }
}

async fn one(store: &Store, change: Change) -> Changed {
    store.write(vec![change]).await.expect("it is written")[0]
}

fn end(position: Position) -> Change {
    Change::End { position, of: State::Waiting, record: None, result: None }
}

fn end_kept(position: Position, until: u64, result: Option<Bytes>) -> Change {
    let record = Some((Bytes::from_static(b"record"), Timestamp(until)));
    Change::End { position, of: State::Waiting, record, result }
}

/// A dead letter and an ended message, each with a history and a response of two pieces.
async fn with_responses() -> (tempfile::TempDir, Position, Position) {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let result = Some(Bytes::from(vec![b'r'; 70_000]));
    let dead = append(&store, draft(b"dead")).await;
    let history = Bytes::from_static(b"three times");
    one(&store, Change::Bury { position: dead, history, result: result.clone() }).await;
    let ended = append(&store, draft(b"ended")).await;
    one(&store, end_kept(ended, 100, result)).await;
    store.close().await;
    (directory, dead, ended)
}
