//! steps: what each change does, and that it is there after the next opening.

use bytes::Bytes;

use super::*;
use crate::StoreError;

#[tokio::test]
async fn what_was_stored_is_read_back_after_the_next_opening() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, entries) = open(directory.path());
    assert!(entries.is_empty());
    let due = Draft { lane: Some(u64::MAX), due_at: Some(Timestamp(77)), priority: 7, ..draft(b"body") };
    let position = append(&store, due).await;
    store.close().await;
    let (store, entries) = open(directory.path());
    assert_eq!(entries.len(), 1);
    let loaded = store.load(position).await.expect("it is read").expect("it is there");
    assert_eq!(loaded.entry, entries[0]);
    assert_eq!(loaded.entry.lane, Some(u64::MAX));
    assert_eq!(loaded.entry.due_at, Some(Timestamp(77)));
    assert_eq!(loaded.entry.priority, 7);
    assert_eq!(loaded.entry.bytes, 8);
    assert_eq!((&loaded.head[..], &loaded.body[..]), (&b"head"[..], &b"body"[..]));
}

#[tokio::test]
async fn bodies_of_many_pieces_come_back_whole() {
    for store in [in_memory(), open(tempfile::tempdir().expect("a directory").path()).0] {
        for bytes in [0, 1, 65_523, 65_524, 65_525, 200_000, 1 << 20] {
            let body: Vec<u8> = (0..=250).cycle().take(bytes).collect();
            let head = Bytes::from(vec![7; bytes / 2]);
            let position = append(&store, Draft { head: head.clone(), ..draft(&body) }).await;
            let loaded = store.load(position).await.expect("it is read").expect("it is there");
            assert_eq!(loaded.body, body);
            assert_eq!(loaded.head, head);
            let listed = store.list(QUEUE, State::Waiting, None, 10).await.expect("it is listed");
            assert_eq!(listed[0].head, head);
            assert_eq!(one(&store, end(position)).await, Changed::Done { order: 0 });
            assert!(store.load(position).await.expect("it is read").is_none());
        }
    }
}

#[tokio::test]
async fn an_attempt_is_begun_failed_and_given_back() {
    let store = in_memory();
    let position = append(&store, draft(b"body")).await;
    one(&store, Change::Begin(position)).await;
    one(&store, Change::Begin(position)).await;
    let loaded = store.load(position).await.expect("it is read").expect("it is there");
    assert_eq!((loaded.entry.attempts, loaded.entry.begun), (2, true));
    let history = Some(Bytes::from_static(b"refused"));
    let due_at = Some(Timestamp(5));
    one(&store, Change::Retry { position, due_at, free: true, history }).await;
    let loaded = store.load(position).await.expect("it is read").expect("it is there");
    assert_eq!((loaded.entry.attempts, loaded.entry.begun, loaded.entry.due_at), (1, false, due_at));
    assert_eq!(&loaded.history[..], b"refused");
    one(&store, Change::Retry { position, due_at: None, free: false, history: None }).await;
    let loaded = store.load(position).await.expect("it is read").expect("it is there");
    assert_eq!((loaded.entry.attempts, loaded.entry.due_at), (1, None));
    assert_eq!(&loaded.history[..], b"refused");
}

#[tokio::test]
async fn a_dead_letter_keeps_its_response_and_comes_back_at_the_tail_without_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let first = append(&store, draft(b"first")).await;
    let second = append(&store, draft(b"second")).await;
    let bury = Change::Bury {
        position: first,
        history: Bytes::from_static(b"three times"),
        result: Some(Bytes::from_static(b"500")),
    };
    assert_eq!(one(&store, bury.clone()).await, Changed::Done { order: 0 });
    assert_eq!(one(&store, bury).await, Changed::Missing);
    assert_eq!(one(&store, Change::Begin(first)).await, Changed::Missing);
    let dead = store.list(QUEUE, State::Dead, None, 10).await.expect("it is listed");
    assert_eq!((dead.len(), dead[0].entry.position, &dead[0].history[..]), (1, first, &b"three times"[..]));
    let loaded = store.load(first).await.expect("it is read").expect("it is there");
    assert_eq!(loaded.result.as_deref(), Some(&b"500"[..]));
    let Changed::Done { order } = one(&store, Change::Redrive { position: first, due_at: None }).await else {
        panic!("it comes back")
    };
    assert!(order > second.0);
    store.close().await;
    let (store, entries) = open(directory.path());
    assert_eq!((entries[0].position, entries[0].order, entries[0].attempts), (first, order, 0));
    let loaded = store.load(first).await.expect("it is read").expect("it is there");
    assert!(loaded.result.is_none() && loaded.history.is_empty());
    assert!(append(&store, draft(b"third")).await.0 > order);
}

#[tokio::test]
async fn an_end_of_a_dead_letter_leaves_one_that_was_redriven_meanwhile() {
    let store = in_memory();
    let position = append(&store, draft(b"body")).await;
    let of = |of| Change::End { position, of, record: None, result: None };
    assert_eq!(one(&store, of(State::Dead)).await, Changed::Missing);
    one(&store, Change::Bury { position, history: Bytes::new(), result: None }).await;
    assert_eq!(one(&store, of(State::Waiting)).await, Changed::Missing);
    one(&store, Change::Redrive { position, due_at: None }).await;
    assert_eq!(one(&store, of(State::Dead)).await, Changed::Missing);
    assert!(store.load(position).await.expect("it is read").is_some());
    assert_eq!(one(&store, of(State::Waiting)).await, Changed::Done { order: 0 });
}

#[tokio::test]
async fn a_message_is_tried_from_its_first_history_to_its_redrive_also_when_no_attempt_is_used_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let position = append(&store, draft(b"body")).await;
    one(&store, Change::Begin(position)).await;
    let history = Some(Bytes::from_static(b"pushed back"));
    one(&store, Change::Retry { position, due_at: None, free: true, history }).await;
    store.close().await;
    let (store, entries) = open(directory.path());
    assert_eq!((entries[0].attempts, entries[0].begun, entries[0].tried), (0, false, true));
    one(&store, Change::Bury { position, history: Bytes::new(), result: None }).await;
    one(&store, Change::Redrive { position, due_at: None }).await;
    assert!(!store.load(position).await.expect("it is read").expect("it is there").entry.tried);
}

#[tokio::test]
async fn an_ended_message_leaves_its_record_until_it_is_swept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let mut kept = Vec::new();
    for until in [10, 30, 20] {
        let position = append(&store, draft(b"body")).await;
        let result = Some(Bytes::from(vec![1; 100_000]));
        one(&store, end_kept(position, until, result)).await;
        kept.push(position);
    }
    let ended = store.ended(kept[0]).await.expect("it is read").expect("it is there");
    assert_eq!((&ended.record[..], ended.keep_until), (&b"record"[..], Timestamp(10)));
    assert_eq!(ended.result.map(|result| result.len()), Some(100_000));
    assert_eq!(store.sweep(Timestamp(9)).await.expect("it is swept"), 0);
    assert_eq!(store.sweep(Timestamp(10)).await.expect("it is swept"), 1);
    assert!(store.ended(kept[0]).await.expect("it is read").is_none());
    store.close().await;
    let (store, _) = open(directory.path());
    assert_eq!(store.sweep(Timestamp(20)).await.expect("it is swept"), 1);
    assert!(store.ended(kept[1]).await.expect("it is read").is_some());
    assert_eq!(store.sweep(Timestamp(99)).await.expect("it is swept"), 1);
    assert_eq!(store.sweep(Timestamp(99)).await.expect("it is swept"), 0);
}

#[tokio::test]
async fn a_repetition_is_known_until_its_time_is_over_also_after_the_next_opening() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let position = append(&store, keyed(1, 1, 0, 100)).await;
    let twice = vec![Change::Append(keyed(2, 1, 0, 100)), Change::Append(keyed(2, 1, 0, 100))];
    let twice = store.write(twice).await.expect("it is written");
    assert!(
        matches!(twice[..], [Changed::Stored(first), Changed::Duplicate { position, same: true }] if position == first)
    );
    one(&store, end(position)).await;
    store.close().await;
    let (store, _) = open(directory.path());
    let again = one(&store, Change::Append(keyed(1, 1, 99, 199))).await;
    assert_eq!(again, Changed::Duplicate { position, same: true });
    let other = one(&store, Change::Append(keyed(1, 2, 99, 199))).await;
    assert_eq!(other, Changed::Duplicate { position, same: false });
    assert_ne!(append(&store, keyed(1, 2, 100, 200)).await, position);
}

#[tokio::test]
async fn positions_are_never_used_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut last = Position(0);
    for clean in [true, false, true, true] {
        let (store, entries) = open(directory.path());
        assert!(entries.is_empty());
        let position = append(&store, draft(b"body")).await;
        assert!(position > last, "{position} after {last}");
        last = position;
        one(&store, end(position)).await;
        if clean {
            store.close().await;
        }
    }
    assert!(last.0 < 10, "a close gives back what was set aside");
}

#[tokio::test]
async fn queues_keep_their_numbers_and_go_only_when_they_are_empty() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let orders = store.put_queue("orders".into(), Bytes::from_static(b"a")).await.expect("it is put");
    let mails = store.put_queue("mails".into(), Bytes::from_static(b"b")).await.expect("it is put");
    assert_ne!(orders, mails);
    let again = store.put_queue("orders".into(), Bytes::from_static(b"c")).await.expect("it is put");
    assert_eq!(again, orders);
    let position = append(&store, Draft { queue: orders, ..draft(b"body") }).await;
    assert!(matches!(store.remove_queue(orders).await, Err(StoreError::Full(_))));
    store.close().await;
    let (opened, _) = try_open(options(Some(directory.path()))).expect("it opens");
    assert_eq!(opened.queues.len(), 2);
    assert_eq!(&opened.queues[0].settings[..], b"c");
    assert!(matches!(opened.store.remove_queue(orders).await, Err(StoreError::Full(_))));
    one(&opened.store, end(position)).await;
    opened.store.remove_queue(orders).await.expect("it is removed");
}

#[tokio::test]
async fn a_list_finds_its_queue_among_many_messages_of_others() {
    let store = in_memory();
    let mut mine = Vec::new();
    for _ in 0..3 {
        let others = (0..7_000).map(|_| Change::Append(Draft { queue: QueueId(9), ..draft(b"") })).collect();
        store.write(others).await.expect("it is written");
        mine.push(append(&store, draft(b"mine")).await);
    }
    let listed = store.list(QUEUE, State::Waiting, None, 2).await.expect("it is listed");
    assert_eq!(listed.iter().map(|loaded| loaded.entry.position).collect::<Vec<_>>(), mine[..2]);
    let listed = store.list(QUEUE, State::Waiting, Some(mine[1]), 2).await.expect("it is listed");
    assert_eq!(listed.iter().map(|loaded| loaded.entry.position).collect::<Vec<_>>(), mine[2..]);
}

#[tokio::test]
async fn what_is_committed_is_told_before_it_is_answered() {
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = std::sync::Arc::clone(&told);
    let options = Options {
        told: Box::new(move |event| {
            if let crate::Event::Committed(entries) = event {
                hears.lock().expect("nobody panics").extend(entries.iter().map(|entry| entry.position));
            }
        }),
        ..options(None)
    };
    let store = try_open(options).expect("it opens").0.store;
    let position = append(&store, draft(b"body")).await;
    assert_eq!(*told.lock().expect("nobody panics"), [position]);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let store = in_memory();
    append(&store, draft(b"body")).await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.write(vec![]).await, Err(StoreError::Closed)));
    assert!(matches!(store.load(Position(1)).await, Err(StoreError::Closed)));
}
