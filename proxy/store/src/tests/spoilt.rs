//! spoilt: rows that say what no writer of ours says are damage, never the disk's failure, and are salvaged.

use super::*;
use crate::StoreError;

/// Twenty messages, a key for each, and a queue; closed.
async fn closed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    store.put_queue("orders".into(), Bytes::from_static(b"settings")).await.expect("it is put");
    for number in 1..=20 {
        append(&store, keyed(number, 1, 0, 100)).await;
    }
    store.close().await;
    directory
}

fn is_damaged(directory: &Path) -> bool {
    matches!(try_open(options(Some(directory))), Err(OpenError::Damaged { .. }))
}

/// Salvages; returns what was lost and what is there, and that it opens afterwards.
async fn salvaged(directory: &Path) -> (u64, Vec<Entry>, Store) {
    let (opened, entries) =
        try_open(Options { salvage: true, ..options(Some(directory)) }).expect("it is salvaged");
    opened.store.close().await;
    let (again, there) = open(directory);
    assert_eq!(entries, there);
    (opened.lost, there, again)
}

#[tokio::test]
async fn a_value_no_writer_of_ours_writes_refuses_to_open_and_is_salvaged() {
    let of_a_message = ["state = 7", "priority = 300", "priority = 9", "marks = 64", "queue = 'x'"];
    let of_a_message = of_a_message.map(|value| format!("UPDATE messages SET {value} WHERE position = 2"));
    let of_others = [
        "UPDATE dedupe SET until = 'x' WHERE row = 3",
        "UPDATE dedupe SET key = 7 WHERE row = 3",
        "UPDATE dedupe SET fingerprint = x'00' WHERE row = 3",
        "UPDATE dedupe SET position = 'x' WHERE row = 3",
        "UPDATE dedupe SET row = 1 << 62 | 1 WHERE row = 20",
        "UPDATE queues SET settings = 5",
        "UPDATE queues SET id = 70000",
        "UPDATE meta SET next_position = 0",
        "UPDATE meta SET next_position = 3",
        "UPDATE meta SET next_position = 1 << 50",
        "UPDATE meta SET clean = 'x'",
        "UPDATE messages SET ord = 1 << 50 WHERE position = 2",
        "DELETE FROM meta",
    ];
    let others = of_others.map(|how| (how.to_owned(), 0));
    for (how, lost) in of_a_message.into_iter().map(|how| (how, 1)).chain(others) {
        let directory = closed().await;
        spoil(directory.path(), &how);
        assert!(is_damaged(directory.path()), "{how}");
        let (left_behind, entries, store) = salvaged(directory.path()).await;
        assert_eq!(
            (left_behind, entries.len()),
            (lost, 20 - usize::try_from(lost).expect("it is one")),
            "{how}"
        );
        let position = append(&store, draft(b"later")).await;
        assert!(position.0 > 20, "{how}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_schema_that_says_something_else_refuses_to_open() {
    let others = [
        "UPDATE sqlite_schema SET sql = replace(sql, 'due_at', 'due_au') WHERE name = 'messages'",
        "UPDATE sqlite_schema SET sql = replace(sql, 'data', 'datb') WHERE name = 'history'",
        "UPDATE sqlite_schema SET sql = replace(sql, 'keep_until', 'keep_untik') WHERE name = 'ended'",
        "UPDATE sqlite_schema SET name = 'verdictt', tbl_name = 'verdictt',
         sql = replace(sql, 'verdicts', 'verdictt') WHERE name = 'verdicts'",
    ];
    for how in others {
        let directory = closed().await;
        spoil(directory.path(), &format!("PRAGMA writable_schema = ON; {how}"));
        assert!(is_damaged(directory.path()), "{how}");
        let (_, _, store) = salvaged(directory.path()).await;
        append(&store, draft(b"later")).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_position_out_of_order_refuses_to_open_and_only_its_message_is_left_behind() {
    for to in [3, 15, 100] {
        let directory = closed().await;
        renumber(directory.path(), "messages", 5, to);
        assert!(is_damaged(directory.path()), "5 is {to}");
        let (lost, entries, store) = salvaged(directory.path()).await;
        assert_eq!(lost, if to == 100 { 1 } else { lost.clamp(1, 2) }, "5 is {to}");
        let there: Vec<u64> = entries.iter().map(|entry| entry.position.0).collect();
        assert_eq!(there, (1..=20).filter(|position| *position != 5).collect::<Vec<_>>(), "5 is {to}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_key_out_of_order_refuses_to_open_and_only_it_is_forgotten() {
    for to in [3, 15, 100] {
        let directory = closed().await;
        renumber(directory.path(), "dedupe", 5, to);
        assert!(is_damaged(directory.path()), "5 is {to}");
        let (_, _, store) = salvaged(directory.path()).await;
        for number in (1..=20).filter(|number| *number != 5) {
            let again = one(&store, Change::Append(keyed(number, 1, 1, 101))).await;
            assert!(matches!(again, Changed::Duplicate { .. }), "5 is {to}, {number} is {again:?}");
        }
        store.close().await;
    }
}

#[tokio::test]
async fn an_index_that_does_not_fit_its_table_is_made_anew_by_a_salvage() {
    let directory = closed().await;
    let database = directory.path().join("messages.db");
    let mut data = std::fs::read(&database).expect("it is there");
    // The leaf of the index of names.
    let leaf =
        data.chunks_mut(4096).find(|page| page[0] == 10 && page.windows(6).any(|name| name == b"orders"));
    let leaf = leaf.expect("there is one");
    let at = leaf.windows(6).position(|name| name == b"orders").expect("it is in there");
    leaf[at] ^= 1;
    std::fs::write(&database, data).expect("it is written");
    let (_, entries, store) = salvaged(directory.path()).await;
    assert_eq!(entries.len(), 20);
    let orders = store.put_queue("orders".into(), Bytes::new()).await.expect("it is found by its name");
    assert_eq!(orders, QUEUE);
}

#[tokio::test]
async fn an_empty_index_that_makes_no_sense_is_made_anew_by_a_salvage() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    append(&store, draft(b"body")).await;
    store.close().await;
    let database = directory.path().join("messages.db");
    let mut data = std::fs::read(&database).expect("it is there");
    // The root of the index of names, which is the fourth page, says that it is an inner one.
    assert_eq!(std::mem::replace(&mut data[3 * 4096], 2), 10);
    std::fs::write(&database, data).expect("it is written");
    assert!(is_damaged(directory.path()));
    let (lost, entries, store) = salvaged(directory.path()).await;
    assert_eq!((lost, entries.len()), (0, 1));
    store.put_queue("orders".into(), Bytes::new()).await.expect("it is put");
}

#[tokio::test]
async fn a_response_that_is_not_the_one_that_was_written_is_as_good_as_none() {
    let flip = "SET data = CAST(x'73' || substr(data, 2) AS BLOB) WHERE key & 1023 =";
    for how in ["0", "1"].map(|piece| format!("{flip} {piece}")).into_iter().chain([
        "SET data = 7".to_owned(),
        "SET sum = sum + 1".to_owned(),
        "SET key = key + 5 WHERE key & 1023 = 1".to_owned(),
    ]) {
        let (directory, dead, ended) = with_responses().await;
        // The piece is moved to another message, or changed.
        let moved = how.replace("+ 5", "+ 1024");
        spoil(directory.path(), &format!("UPDATE verdicts {moved}; UPDATE results {moved};"));
        let (store, _) = open(directory.path());
        let loaded = store.load(dead).await.expect("it is read").expect("it is there");
        assert_eq!((loaded.result, &loaded.history[..]), (None, &b"three times"[..]), "{how}");
        let record = store.ended(ended).await.expect("it is read").expect("it is there");
        assert_eq!((record.result, &record.record[..]), (None, &b"record"[..]), "{how}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_history_or_record_that_is_not_the_one_that_was_written_is_damage_of_its_message_alone() {
    let others = [("data", "x'00'"), ("data", "7"), ("sum", "sum + 1"), ("sum", "x'00'")];
    for (column, value) in others {
        let (directory, dead, ended) = with_responses().await;
        let of_record = if column == "data" { "record" } else { column };
        spoil(
            directory.path(),
            &format!("UPDATE history SET {column} = {value}; UPDATE ended SET {of_record} = {value};"),
        );
        let (store, _) = open(directory.path());
        let damaged = |read: Option<StoreError>| matches!(read, Some(StoreError::Damaged { .. }));
        assert!(damaged(store.load(dead).await.err()), "{column} = {value}");
        assert!(damaged(store.ended(ended).await.err()), "{column} = {value}");
        let listed = store.list(QUEUE, State::Dead, None, 9).await.expect("others are listed");
        assert_eq!((listed.len(), listed[0].history.len()), (1, 0));
        assert!(store.condition().poisoned.is_none());
        store.close().await;
    }
}

#[tokio::test]
async fn a_record_that_does_not_say_until_when_it_is_kept_is_swept() {
    let (directory, _, ended) = with_responses().await;
    spoil(directory.path(), "UPDATE ended SET keep_until = 'x'");
    let (store, _) = open(directory.path());
    assert_eq!(store.sweep(Timestamp(1)).await.expect("it is swept"), 1);
    assert!(store.ended(ended).await.expect("it is read").is_none());
}
