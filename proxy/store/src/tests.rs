//! tests: the store through its handle, over real files.

mod damage;
mod model;
mod plans;
mod poison;
mod space;
mod steps;
mod together;

use std::path::Path;

use bytes::Bytes;

use crate::message::{Change, Changed, Dedupe, Draft, Entry, Position, QueueId, Timestamp};
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
    Change::End { position, record: None, result: None }
}

fn end_kept(position: Position, until: u64, result: Option<Bytes>) -> Change {
    Change::End { position, record: Some((Bytes::from_static(b"record"), Timestamp(until))), result }
}
