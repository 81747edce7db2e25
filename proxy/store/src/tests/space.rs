//! space: a full store refuses, and takes again.

use bytes::Bytes;

use super::*;
use crate::StoreError;
use crate::limits::STORE_BYTES_MIN;

fn small(directory: &Path) -> Options {
    Options { bytes_max: STORE_BYTES_MIN, ..options(Some(directory)) }
}

/// Appends until it is refused, about 100 KiB at a time; returns what was stored.
async fn fill(store: &Store, body: &[u8]) -> Vec<Position> {
    let together = (100_000 / body.len()).max(1);
    let mut stored = Vec::new();
    loop {
        match store.write(vec![Change::Append(draft(body)); together]).await {
            Ok(changed) => stored.extend(changed.iter().map(|changed| match changed {
                Changed::Stored(position) => *position,
                other => panic!("{other:?}"),
            })),
            Err(StoreError::Full(_)) => return stored,
            Err(other) => panic!("{other}"),
        }
    }
}

fn assert_within_bound(directory: &Path) {
    let files = std::fs::read_dir(directory).expect("it is there");
    let files = files.map(|file| file.expect("it is there"));
    let sizes: Vec<_> =
        files.map(|file| (file.file_name(), file.metadata().map_or(0, |data| data.len()))).collect();
    let bytes: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes <= STORE_BYTES_MIN, "{bytes} bytes: {sizes:?}");
}

#[test]
fn too_small_a_store_is_refused() {
    let refused = try_open(Options { bytes_max: STORE_BYTES_MIN - 1, ..options(None) });
    assert!(matches!(refused, Err(OpenError::TooSmall(_))));
}

#[tokio::test]
async fn a_full_store_refuses_and_takes_again_once_there_is_room() {
    for body in [&[1; 100][..], &[1; 5_000], &[1; 300_000]] {
        let directory = tempfile::tempdir().expect("a directory");
        let store = try_open(small(directory.path())).expect("it opens").0.store;
        let stored = fill(&store, body).await;
        let taken: usize = stored.len() * (body.len() + 4);
        assert!(taken as u64 > STORE_BYTES_MIN / 4, "{taken} bytes of {}", body.len());
        assert_within_bound(directory.path());
        assert!(store.condition().full.is_some());
        let ends = |positions: &[Position]| positions.iter().map(|position| end(*position)).collect();
        for some in stored.chunks(100) {
            store.write(ends(some)).await.expect("settles go on");
        }
        assert!(store.condition().full.is_none());
        let again = fill(&store, body).await;
        assert!(again.len() * 10 >= stored.len() * 9, "{} after {}", again.len(), stored.len());
        assert_within_bound(directory.path());
        store.close().await;
    }
}

#[tokio::test]
async fn settles_have_room_in_a_full_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = try_open(small(directory.path())).expect("it opens").0.store;
    let stored = fill(&store, &[1; 1000]).await;
    for position in &stored[..30] {
        let history = Bytes::from_static(&[b'h'; 200]);
        one(&store, Change::Begin(*position)).await;
        one(&store, Change::Retry { position: *position, due_at: None, free: false, history: Some(history) })
            .await;
        let history = Bytes::from_static(b"over");
        one(&store, Change::Bury { position: *position, history, result: None }).await;
    }
    assert!(store.condition().poisoned.is_none());
}

#[tokio::test]
async fn the_oldest_results_make_room_before_drafts_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = try_open(small(directory.path())).expect("it opens").0.store;
    let mut kept = Vec::new();
    for _ in 0..30 {
        let position = append(&store, draft(b"body")).await;
        one(&store, end_kept(position, 1, Some(Bytes::from(vec![1; 100_000])))).await;
        kept.push(position);
    }
    let ended = async |position| store.ended(position).await.expect("it is read");
    assert!(ended(kept[0]).await.is_some_and(|ended| ended.result.is_some()));
    for _ in 0..25 {
        append(&store, draft(&[1; 100_000])).await;
    }
    assert!(ended(kept[0]).await.is_some_and(|ended| ended.result.is_none()), "the oldest makes room");
    assert!(ended(kept[29]).await.is_some_and(|ended| ended.result.is_some()), "the newest stays");
    fill(&store, &[1; 100_000]).await;
    assert!(ended(kept[0]).await.is_none(), "records go when no result is left");
}

#[tokio::test]
async fn a_message_that_can_never_fit_is_refused_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = try_open(small(directory.path())).expect("it opens").0.store;
    let huge = store.write(vec![Change::Append(draft(&vec![1; 2 << 20]))]).await;
    assert!(matches!(huge, Err(StoreError::TooLarge { bytes, .. }) if bytes == (2 << 20) + 4), "{huge:?}");
    append(&store, draft(b"body")).await;
    let both = vec![Change::Append(draft(b"body")), Change::Append(draft(&vec![1; 2 << 20]))];
    assert!(matches!(store.write(both).await, Err(StoreError::TooLarge { .. })));
    store.close().await;
    let (_, entries) = try_open(small(directory.path())).expect("it opens");
    assert_eq!(entries.len(), 1, "all of a write or nothing");
}

#[tokio::test]
async fn an_end_that_brings_a_message_goes_where_settles_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = try_open(small(directory.path())).expect("it opens").0.store;
    let stored = fill(&store, &[1; 1000]).await;
    while store.write(vec![Change::Append(draft(&[1; 1000]))]).await.is_ok() {}
    let told = || Change::Append(draft(&[2; 1000]));
    let refused = store.write(vec![Change::Begin(stored[0]), told()]).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    for position in &stored[..20] {
        let written = store.write(vec![end_kept(*position, 1, None), told()]).await.expect("it is written");
        assert!(matches!(written[..], [Changed::Done { .. }, Changed::Stored(_)]), "{written:?}");
    }
    let bury = Change::Bury { position: stored[20], history: Bytes::new(), result: None };
    store.write(vec![bury, told()]).await.expect("it is written");
    // They leave room for ends without any.
    let mut told_too = 21;
    let bury = |position| Change::Bury { position, history: Bytes::new(), result: None };
    while store.write(vec![bury(stored[told_too]), Change::Append(draft(&[2; 9_000]))]).await.is_ok() {
        told_too += 1;
    }
    assert!((21..60).contains(&told_too), "{told_too}");
    for position in &stored[60..80] {
        assert_eq!(one(&store, bury(*position)).await, Changed::Done { order: 0 });
    }
    let huge = Change::Append(draft(&vec![2; 2 << 20]));
    let never = store.write(vec![end(stored[80]), huge]).await;
    assert!(matches!(never, Err(StoreError::TooLarge { .. })), "{never:?}");
    assert_eq!(one(&store, end(stored[80])).await, Changed::Done { order: 0 }, "nothing was done before");
}

#[tokio::test]
async fn in_memory_a_message_may_be_as_large_as_any_policy_allows() {
    let store = in_memory();
    let body = vec![1; 16 << 20];
    let position = append(&store, draft(&body)).await;
    let loaded = store.load(position).await.expect("it is read").expect("it is there");
    assert!(loaded.body == body);
    let never = store.write(vec![Change::Append(draft(&vec![1; 33 << 20]))]).await;
    assert!(matches!(never, Err(StoreError::TooLarge { .. })));
}

#[tokio::test]
async fn the_file_for_writing_ahead_stays_within_its_bound() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = try_open(small(directory.path())).expect("it opens").0.store;
    for _ in 0..200 {
        let position = append(&store, draft(&[1; 60_000])).await;
        one(&store, end(position)).await;
        assert_within_bound(directory.path());
    }
    let wal = std::fs::metadata(directory.path().join("messages.db-wal")).expect("it is there").len();
    assert!(wal <= 2 << 20, "{wal} bytes");
}

#[tokio::test]
async fn a_reader_from_outside_that_pins_the_file_makes_the_store_full_not_large() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = try_open(small(directory.path())).expect("it opens").0.store;
    append(&store, draft(b"body")).await;
    let outsider = rusqlite::Connection::open(directory.path().join("messages.db")).expect("it opens");
    outsider.execute_batch("BEGIN; SELECT count(*) FROM messages;").expect("it reads");
    let stored = fill(&store, &[1; 10_000]).await;
    assert_within_bound(directory.path());
    outsider.execute_batch("COMMIT").expect("it lets go");
    append(&store, draft(b"body")).await;
    assert!(!stored.is_empty());
}
