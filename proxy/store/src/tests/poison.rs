//! poison: after a failure nobody can explain, nothing is said that may be wrong.

use super::*;
use crate::StoreError;

#[tokio::test]
async fn a_poisoned_store_takes_nothing_and_shows_nothing_until_it_is_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let position = append(&store, draft(b"body")).await;
    store.inner.shared.poison("the flush failed");
    let refused = store.write(vec![Change::Append(draft(b"later"))]).await;
    assert!(matches!(refused, Err(StoreError::Poisoned(why)) if &*why == "the flush failed"));
    assert!(matches!(store.load(position).await, Err(StoreError::Poisoned(_))));
    assert!(matches!(store.sweep(Timestamp(1)).await, Err(StoreError::Poisoned(_))));
    assert_eq!(store.condition().poisoned.as_deref(), Some("the flush failed"));
    let wal = std::fs::read(directory.path().join("messages.db-wal")).expect("it is there");
    store.close().await;
    let left = std::fs::read(directory.path().join("messages.db-wal")).expect("it is there");
    assert!(wal == left, "a poisoned store copies nothing when it closes");
    let (store, entries) = open(directory.path());
    assert_eq!(entries.len(), 1);
    assert!(store.condition().poisoned.is_none());
}

#[tokio::test]
async fn a_page_that_makes_no_sense_to_the_writer_poisons() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let mut positions = Vec::new();
    for _ in 0..40 {
        let drafts = vec![Change::Append(draft(&[1; 900])); 50];
        let stored = store.write(drafts).await.expect("it is written");
        positions.extend(stored.into_iter().filter_map(|changed| match changed {
            Changed::Stored(position) => Some(position),
            _ => None,
        }));
    }
    store.close().await;
    let (store, _) = open(directory.path());
    let database = directory.path().join("messages.db");
    let mut data = std::fs::read(&database).expect("it is there");
    let pages = data.len() / 4096;
    // All leaves of tables behind the middle.
    for page in data.chunks_mut(4096).skip(pages / 2).filter(|page| page[0] == 13) {
        page[..8].fill(0xFF);
    }
    std::fs::write(&database, data).expect("it is written");
    let settled = store.write(vec![end(positions[1500])]).await;
    assert!(matches!(settled, Err(StoreError::Poisoned(_))), "{settled:?}");
    assert!(matches!(store.load(positions[0]).await, Err(StoreError::Poisoned(_))));
}
