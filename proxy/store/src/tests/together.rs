//! together: many at once, and some that go away.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::*;
use crate::Event;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_producers_share_flushes_and_each_is_told_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Mutex::new((0_u32, Vec::new())));
    let hears = Arc::clone(&told);
    let options = Options {
        told: Box::new(move |event| {
            if let Event::Committed(entries) = event {
                let mut told = hears.lock().expect("nobody panics");
                told.0 += 1;
                told.1.extend(entries.iter().map(|entry| entry.position));
            }
        }),
        ..options(Some(directory.path()))
    };
    let store = try_open(options).expect("it opens").0.store;
    let producers: Vec<_> = (0..32_u8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..20 {
                    let position = append(&store, draft(&[number; 100])).await;
                    let loaded = store.load(position).await.expect("it is read").expect("it is there");
                    assert_eq!(loaded.body, [number; 100].as_slice());
                    mine.push(position);
                }
                mine
            })
        })
        .collect();
    let mut stored = BTreeSet::new();
    for producer in producers {
        stored.extend(producer.await.expect("it does not panic"));
    }
    let (flushes, told) = &*told.lock().expect("nobody panics");
    assert_eq!(stored.len(), 640);
    assert!(stored.iter().eq(told.iter()), "told once each, in the order of positions");
    assert!(*flushes < 640, "{flushes} flushes");
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_done() {
    let store = in_memory();
    let write = Box::pin(store.write(vec![Change::Append(draft(b"left"))]));
    let gone = tokio::time::timeout(std::time::Duration::ZERO, write).await;
    drop(gone);
    let next = append(&store, draft(b"body")).await;
    assert!(store.load(Position(next.0 - 1)).await.expect("it is read").is_some());
}

#[tokio::test]
async fn a_close_writes_what_is_on_its_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let writes: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.write(vec![Change::Append(draft(b"body"))]).await })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await;
    let mut done = 0;
    for write in writes {
        done += usize::from(write.await.expect("it does not panic").is_ok());
    }
    let (_, entries) = open(directory.path());
    assert_eq!(entries.len(), done);
    assert_eq!(done, 50);
}
