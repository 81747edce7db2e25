//! migrate: a directory of the format before opens, and is one of ours afterwards.

use super::*;

/// What format 1 was, to the letter: what it added is taken away again.
const BACK: &str = "
ALTER TABLE history DROP COLUMN sum;
ALTER TABLE verdicts DROP COLUMN sum;
ALTER TABLE ended DROP COLUMN sum;
ALTER TABLE results DROP COLUMN sum;
PRAGMA user_version = 1;";

/// A dead letter and an ended message, in format 1.
async fn before() -> (tempfile::TempDir, Position, Position) {
    let (directory, dead, ended) = with_responses().await;
    spoil(directory.path(), BACK);
    let file = rusqlite::Connection::open(directory.path().join("messages.db")).expect("it opens");
    let sums =
        file.query_row("SELECT count(*) FROM sqlite_schema WHERE sql LIKE '%sum INTEGER)'", [], |row| {
            row.get::<_, i64>(0)
        });
    assert_eq!(sums.expect("it is read"), 0);
    (directory, dead, ended)
}

async fn assert_there(store: &Store, dead: Position, ended: Position) {
    let loaded = store.load(dead).await.expect("it is read").expect("it is there");
    assert_eq!(
        (loaded.result.map(|kept| kept.len()), &loaded.history[..]),
        (Some(70_000), &b"three times"[..])
    );
    let record = store.ended(ended).await.expect("it is read").expect("it is there");
    assert_eq!((record.result.map(|kept| kept.len()), &record.record[..]), (Some(70_000), &b"record"[..]));
}

#[tokio::test]
async fn a_directory_of_the_format_before_opens_with_all_that_is_in_it() {
    let (directory, dead, ended) = before().await;
    for _ in 0..2 {
        let (store, entries) = open(directory.path());
        assert_eq!(entries.len(), 1);
        assert_there(&store, dead, ended).await;
        store.close().await;
    }
    let file = rusqlite::Connection::open(directory.path().join("messages.db")).expect("it opens");
    let format = file.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(format.expect("it is read"), crate::limits::FORMAT);
}

#[tokio::test]
async fn a_damaged_directory_of_the_format_before_is_salvaged() {
    let (directory, dead, ended) = before().await;
    spoil(directory.path(), "INSERT INTO queues VALUES (70000, 'none', x'00')");
    assert!(matches!(try_open(options(Some(directory.path()))), Err(OpenError::Damaged { .. })));
    let (opened, _) =
        try_open(Options { salvage: true, ..options(Some(directory.path())) }).expect("it is salvaged");
    assert_there(&opened.store, dead, ended).await;
}
