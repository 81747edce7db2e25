//! renew: after a failure that was written down the next opening copies what checks.

use super::*;
use crate::AfterPoison;

const WHY: &str = "the flush failed";
const COPIED: AfterPoison = AfterPoison { reason: String::new(), in_place: None };

fn after(why: &str) -> Option<AfterPoison> {
    Some(AfterPoison { reason: why.to_owned(), ..COPIED })
}

fn files(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).expect("it is there");
    let mut names: Vec<_> =
        names.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

/// A directory with messages of every kind, poisoned and closed; what was in it.
async fn poisoned(bodies: usize) -> (tempfile::TempDir, Vec<Entry>) {
    let (directory, ..) = with_responses().await;
    let (store, _) = open(directory.path());
    store.put_queue("orders".into(), Bytes::from_static(b"settings")).await.expect("it is put");
    append(&store, keyed(1, 1, 10, 1_000)).await;
    for _ in 0..bodies {
        append(&store, draft(&[7; 40_000])).await;
    }
    store.inner.shared.poison(WHY);
    store.close().await;
    assert!(std::fs::metadata(directory.path().join("messages.db-wal")).expect("it is there").len() > 4096);
    let entries = as_it_stands(directory.path()).await;
    (directory, entries)
}

/// What is in a directory, seen in a copy of its files.
async fn as_it_stands(directory: &Path) -> Vec<Entry> {
    let other = tempfile::tempdir().expect("a directory");
    for name in ["messages.db", "messages.db-wal"] {
        std::fs::copy(directory.join(name), other.path().join(name)).expect("it is copied");
    }
    let (store, entries) = open(other.path());
    store.close().await;
    entries
}

#[tokio::test]
async fn what_checks_is_copied_once_and_nothing_of_the_files_before_is_left() {
    let (directory, entries) = poisoned(100).await;
    let before = std::fs::metadata(directory.path().join("messages.db")).expect("it is there");
    let (opened, found) = try_open(options(Some(directory.path()))).expect("it opens");
    assert_eq!((opened.after_poison, opened.lost, found.clone()), (after(WHY), 0, entries.clone()));
    assert!(opened.store.condition().doubted.is_none());
    let repeated = opened.store.write(vec![Change::Append(keyed(1, 1, 20, 1_000))]).await;
    assert!(matches!(repeated.as_deref(), Ok([Changed::Duplicate { same: true, .. }])), "{repeated:?}");
    let row = opened.queues.iter().find(|row| row.name == "orders").expect("it is copied");
    assert_eq!(row.settings, "settings");
    let loaded = opened.store.load(found[0].position).await.expect("it is read").expect("it is there");
    assert_eq!((loaded.history.len(), loaded.result.map(|result| result.len())), (11, Some(70_000)));
    opened.store.close().await;
    assert_eq!(
        files(directory.path()),
        ["ballast", "lock", "messages.db", "messages.db-shm", "messages.db-wal"]
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let now = std::fs::metadata(directory.path().join("messages.db")).expect("it is there");
        assert_ne!(before.ino(), now.ino(), "it is another file");
    }
    let (opened, found) = try_open(options(Some(directory.path()))).expect("it opens");
    assert_eq!((opened.after_poison, found), (None, entries), "once");
}

#[tokio::test]
async fn what_does_not_check_is_counted_and_its_files_stay_beside() {
    let (directory, entries) = poisoned(3).await;
    spoil(directory.path(), "UPDATE contents SET data = zeroblob(length(data)) WHERE length(data) > 30000");
    let (opened, found) = try_open(options(Some(directory.path()))).expect("it opens");
    assert_eq!((opened.after_poison, opened.lost), (after(WHY), 3));
    assert_eq!(found, entries[..entries.len() - 3]);
    opened.store.close().await;
    assert!(files(directory.path()).contains(&"damaged-1.db".to_owned()));
    assert!(!files(directory.path()).contains(&"poisoned".to_owned()));
}

#[tokio::test]
async fn a_stop_at_any_step_of_it_starts_over() {
    type Step = fn(&Path);
    let steps: [(&str, Step); 6] = [
        ("half a copy", |at| std::fs::write(at.join("salvaged.db"), [1; 5000]).expect("it is written")),
        ("the copy is whole", |at| moved(at, "whole.db", "salvaged.db")),
        ("the database has another name", |at| {
            moved(at, "whole.db", "salvaged.db");
            moved(at, "messages.db", "replaced.db");
        }),
        ("and what was written ahead", |at| {
            moved(at, "whole.db", "salvaged.db");
            moved(at, "messages.db", "replaced.db");
            moved(at, "messages.db-wal", "replaced.db-wal");
        }),
        ("some of it did not check", |at| {
            moved(at, "whole.db", "salvaged.db");
            moved(at, "messages.db", "damaged-1.db");
            moved(at, "messages.db-wal", "damaged-1.db-wal");
        }),
        ("the copy is in place", |at| {
            moved(at, "messages.db", "replaced.db");
            moved(at, "messages.db-wal", "replaced.db-wal");
            let _ = std::fs::remove_file(at.join("messages.db-shm"));
            moved(at, "whole.db", "messages.db");
        }),
    ];
    for (row, step) in steps {
        let (directory, entries) = poisoned(5).await;
        whole_copy(directory.path()).await;
        step(directory.path());
        let _ = std::fs::remove_file(directory.path().join("whole.db"));
        let (opened, found) = try_open(options(Some(directory.path()))).expect(row);
        assert_eq!((opened.after_poison, opened.lost, found), (after(WHY), 0, entries), "{row}");
        opened.store.close().await;
        let left = files(directory.path());
        assert!(
            !left.iter().any(|name| name.contains("replaced") || name.contains("salvaged")),
            "{row}: {left:?}"
        );
        assert!(!left.contains(&"poisoned".to_owned()), "{row}: {left:?}");
    }
}

fn moved(directory: &Path, from: &str, to: &str) {
    std::fs::rename(directory.join(from), directory.join(to)).expect("it is renamed");
}

/// Puts a copy of all that is there beside it, as an opening would have made it.
async fn whole_copy(directory: &Path) {
    let other = tempfile::tempdir().expect("a directory");
    for name in ["messages.db", "messages.db-wal", "poisoned"] {
        std::fs::copy(directory.join(name), other.path().join(name)).expect("it is copied");
    }
    let (opened, _) = try_open(options(Some(other.path()))).expect("it opens");
    opened.store.close().await;
    std::fs::copy(other.path().join("messages.db"), directory.join("whole.db")).expect("it is copied");
}

#[tokio::test]
async fn without_room_for_a_copy_the_pages_are_looked_through_and_it_goes_on_and_says_so() {
    let (directory, entries) = poisoned(100).await;
    // 4 MB are stored.
    let narrow = || Options { bytes_max: 8 << 20, ..options(Some(directory.path())) };
    for _ in 0..2 {
        let (opened, found) = try_open(narrow()).expect("it opens");
        let said = opened.after_poison.expect("it was poisoned");
        let why = said.in_place.expect("there is no room");
        assert!(said.reason == WHY && why.contains("left"), "{why}");
        assert_eq!((opened.lost, found), (0, entries.clone()));
        let doubted = opened.store.condition().doubted.expect("it is told");
        assert!(doubted.contains(WHY) && doubted.contains(&why), "{doubted}");
        opened.store.close().await;
        assert!(files(directory.path()).contains(&"poisoned".to_owned()), "until there is room");
    }
    let (opened, found) = try_open(options(Some(directory.path()))).expect("it opens");
    assert_eq!((opened.after_poison, found), (after(WHY), entries));
}

#[tokio::test]
async fn without_room_a_database_whose_pages_are_in_no_order_is_refused() {
    let (directory, _) = poisoned(100).await;
    spoil(directory.path(), "UPDATE messages SET state = 'none' WHERE position > 5");
    let narrow = Options { bytes_max: 8 << 20, ..options(Some(directory.path())) };
    match try_open(narrow) {
        Err(OpenError::Damaged { details, .. }) => assert!(details.contains(WHY), "{details}"),
        other => panic!("{:?}", other.map(|(opened, _)| opened.after_poison)),
    }
    let narrow = Options { bytes_max: 8 << 20, salvage: true, ..options(Some(directory.path())) };
    let (opened, _) = try_open(narrow).expect("it is salvaged");
    assert!(opened.lost > 0);
}

#[tokio::test]
async fn a_note_without_a_word_is_one_and_a_note_about_nothing_goes() {
    let (directory, entries) = poisoned(1).await;
    std::fs::write(directory.path().join("poisoned"), "").expect("it is written");
    let (opened, found) = try_open(options(Some(directory.path()))).expect("it opens");
    assert_eq!((opened.after_poison, found), (after("nobody knows why"), entries));
    let empty = tempfile::tempdir().expect("a directory");
    std::fs::write(empty.path().join("poisoned"), WHY).expect("it is written");
    let (opened, found) = try_open(options(Some(empty.path()))).expect("it opens");
    assert_eq!((opened.after_poison, found.len()), (None, 0));
    assert!(!files(empty.path()).contains(&"poisoned".to_owned()));
}

#[tokio::test]
async fn a_thread_that_is_gone_says_nothing_of_the_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let shared = std::sync::Arc::clone(&store.inner.shared);
    let ended = std::thread::spawn(move || {
        let _alive = crate::shared::Alive(shared);
        panic!("as a defect would");
    });
    assert!(ended.join().is_err() && store.condition().poisoned.is_some());
    store.close().await;
    assert!(!files(directory.path()).contains(&"poisoned".to_owned()));
}
