//! lists: what is damaged is shown to whoever may remove it, and stands in nobody's way.

use super::*;

/// So many messages whose heads are damaged, and a sound one behind them.
async fn damaged(count: u8) -> (tempfile::TempDir, Store, Vec<Position>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    for _ in 0..=count {
        append(&store, draft(b"body")).await;
    }
    store.close().await;
    let spoilt = format!("UPDATE contents SET data = x'00' WHERE key >> 10 <= {count}");
    spoil(directory.path(), &spoilt);
    let (store, entries) = open(directory.path());
    (directory, store, entries.iter().map(|entry| entry.position).collect())
}

#[tokio::test]
async fn a_quarantined_message_without_a_head_is_listed_and_can_be_removed() {
    let (_directory, store, positions) = damaged(3).await;
    for position in &positions[..3] {
        one(&store, Change::Quarantine(*position)).await;
    }
    let listed = store.list(QUEUE, State::Quarantined, None, 2).await.expect("they are listed");
    assert_eq!(listed.iter().map(|listed| listed.entry.position).collect::<Vec<_>>(), positions[..2]);
    assert!(listed.iter().all(|listed| listed.head.is_empty()));
    for position in &positions[..3] {
        let end = Change::End { position: *position, of: State::Quarantined, record: None, result: None };
        assert_eq!(one(&store, end).await, Changed::Done { order: 0 });
    }
    assert!(store.list(QUEUE, State::Quarantined, None, 2).await.expect("it is listed").is_empty());
}

#[tokio::test]
async fn a_list_goes_on_behind_a_page_of_damaged_messages() {
    let (_directory, store, positions) = damaged(5).await;
    let listed = store.list(QUEUE, State::Waiting, None, 2).await.expect("they are listed");
    assert_eq!(listed.iter().map(|listed| listed.entry.position).collect::<Vec<_>>(), positions[5..]);
    let behind = store.list(QUEUE, State::Waiting, Some(positions[5]), 2).await.expect("it is listed");
    assert!(behind.is_empty());
}
