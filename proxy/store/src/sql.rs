//! sql: every statement of the store, and the tables they speak of.
//!
//! Nothing here may read a whole table unless its name says so: a test asks SQLite for the plan of each.

/// The tables. `WITHOUT ROWID` nowhere: all of them are read and appended by number. Of a message's
/// `marks`, 1 says that an attempt was begun and 2 that it has a history; `ord` is NULL while it is the
/// position; `state` is 0 waiting, 1 dead, 2 quarantined. The `sum` of a response stands with its first piece;
/// where there is none it was written by format 1.
pub(crate) const TABLES: &str = "
CREATE TABLE meta(
    only INTEGER PRIMARY KEY CHECK (only = 0),
    next_position INTEGER NOT NULL,
    clean INTEGER NOT NULL);
INSERT INTO meta VALUES (0, 1, 1);
CREATE TABLE queues(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, settings BLOB NOT NULL);
CREATE TABLE messages(
    position INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    lane INTEGER,
    priority INTEGER NOT NULL,
    due_at INTEGER,
    ord INTEGER,
    attempts INTEGER NOT NULL,
    marks INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    state INTEGER NOT NULL,
    sum INTEGER NOT NULL);
CREATE INDEX apart ON messages(queue, state) WHERE state <> 0;
CREATE TABLE contents(key INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE history(position INTEGER PRIMARY KEY, data BLOB NOT NULL, sum INTEGER);
CREATE TABLE verdicts(key INTEGER PRIMARY KEY, data BLOB NOT NULL, sum INTEGER);
CREATE TABLE ended(
    position INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    keep_until INTEGER NOT NULL,
    record BLOB NOT NULL, sum INTEGER);
CREATE TABLE results(key INTEGER PRIMARY KEY, data BLOB NOT NULL, sum INTEGER);
CREATE TABLE dedupe(
    row INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    position INTEGER NOT NULL,
    until INTEGER NOT NULL);
";

/// Makes format 1 ours. A column that is added is written into the text of its table: it must then be the
/// one above, to the letter.
pub(crate) const FROM_BEFORE: &str = "
ALTER TABLE history ADD COLUMN sum INTEGER;
ALTER TABLE verdicts ADD COLUMN sum INTEGER;
ALTER TABLE ended ADD COLUMN sum INTEGER;
ALTER TABLE results ADD COLUMN sum INTEGER;
";

/// Declares the statements and a list of them all for the test of their plans.
macro_rules! statements {
    ($($(#[$about:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$about])* pub(crate) const $name: &str = $text;)*
        /// All of them, by name.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $text),)*];
    };
}

statements! {
    BEGIN_WRITE = "BEGIN IMMEDIATE";
    BEGIN_READ = "BEGIN";
    COMMIT = "COMMIT";
    ROLLBACK = "ROLLBACK";

    PAGE_COUNT = "PRAGMA page_count";
    FREE_COUNT = "PRAGMA freelist_count";
    WAL_STATE = "PRAGMA wal_checkpoint(NOOP)";
    CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)";
    CHECKPOINT_RESTART = "PRAGMA wal_checkpoint(RESTART)";
    CHECKPOINT_TRUNCATE = "PRAGMA wal_checkpoint(TRUNCATE)";

    /// Lets a database be read whose first page does not fit the rest: used by salvage.
    READ_ANYWAY = "PRAGMA writable_schema = ON";
    /// Reads every page and holds the indexes against their tables: used by salvage.
    CHECK_ALL_SCAN = "PRAGMA integrity_check(1)";
    /// The tables and indexes, and the pages of one that are in order: used by salvage.
    TREES_SCAN = "SELECT name FROM sqlite_schema WHERE rootpage > 0";
    TREE_PAGES_SCAN = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype <> 'corrupted'";
    /// Reads every page: used behind everybody's back after an unclean stop.
    CHECK_SCAN = "PRAGMA quick_check(1)";
    /// What the tables and indexes are said to be.
    SCHEMA_SCAN = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid";
    /// The pages where the tables begin that an opening reads.
    ROOTS = "SELECT rootpage FROM sqlite_schema WHERE name IN ('messages', 'dedupe')";

    META = "SELECT next_position, clean FROM meta WHERE only = 0";
    META_NEXT = "UPDATE meta SET next_position = ?1, clean = 0 WHERE only = 0";
    META_CLEAN = "UPDATE meta SET next_position = ?1, clean = 1 WHERE only = 0";

    QUEUES_SCAN = "SELECT id, name, settings FROM queues";
    QUEUE_NUMBERS_SCAN = "SELECT id FROM queues";
    /// Used by salvage.
    QUEUE_COPY = "INSERT OR IGNORE INTO queues(id, name, settings) VALUES (?1, ?2, ?3)";
    QUEUES_AFTER = "SELECT id, name, settings FROM queues WHERE id > ?1 ORDER BY id";
    QUEUE_BY_NAME = "SELECT id FROM queues WHERE name = ?1";
    QUEUE_INSERT = "INSERT INTO queues(id, name, settings) VALUES (?1, ?2, ?3)";
    QUEUE_SETTINGS = "UPDATE queues SET settings = ?2 WHERE id = ?1";
    QUEUE_DELETE = "DELETE FROM queues WHERE id = ?1";

    MESSAGE_INSERT = "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, NULL, 0, 0, ?6, 0, ?7)";
    MESSAGE_COPY = "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    MESSAGE_BEGIN = "UPDATE messages SET attempts = min(attempts + 1, 65535), marks = marks | 1
        WHERE position = ?1 AND state = 0";
    MESSAGE_RETRY = "UPDATE messages SET attempts = max(attempts - ?2, 0), marks = (marks & 2) | ?4, due_at = ?3
        WHERE position = ?1 AND state = 0";
    MESSAGE_BURY = "UPDATE messages SET marks = 2, due_at = NULL, state = 1 WHERE position = ?1 AND state = 0";
    MESSAGE_REDRIVE = "UPDATE messages SET attempts = 0, marks = 0, due_at = ?2, ord = ?3, state = 0
        WHERE position = ?1 AND state = 1";
    MESSAGE_QUARANTINE = "UPDATE messages SET marks = marks & 2, state = 2 WHERE position = ?1 AND state <> 2";
    MESSAGE_STANDS = "SELECT queue, state, bytes, marks FROM messages WHERE position = ?1";
    MESSAGE_DELETE = "DELETE FROM messages WHERE position = ?1";
    MESSAGE = "SELECT position, queue, lane, priority, due_at, ord, attempts, marks, bytes, state, sum
        FROM messages WHERE position = ?1";
    /// Used at opening, by salvage and by lists of waiting messages, a bounded number of rows at a time.
    MESSAGES_SCAN = "SELECT position, queue, lane, priority, due_at, ord, attempts, marks, bytes, state, sum
        FROM messages WHERE position > ?1 ORDER BY position";
    MESSAGES_APART = "SELECT position, queue, lane, priority, due_at, ord, attempts, marks, bytes, state, sum
        FROM messages INDEXED BY apart
        WHERE queue = ?1 AND state = ?2 AND state <> 0 AND position > ?3 ORDER BY position LIMIT ?4";

    CONTENT_INSERT = "INSERT INTO contents(key, data) VALUES (?1, ?2)";
    CONTENT_DELETE = "DELETE FROM contents WHERE key = ?1";
    CONTENT_PIECES = "SELECT data FROM contents WHERE key BETWEEN ?1 AND ?2 ORDER BY key";

    /// Used by salvage.
    CONTENT_KEYS_SCAN = "SELECT key FROM contents WHERE key BETWEEN ?1 AND ?2 ORDER BY key";

    HISTORY_PUT = "INSERT OR REPLACE INTO history(position, data, sum) VALUES (?1, ?2, ?3)";
    HISTORY_DELETE = "DELETE FROM history WHERE position = ?1";
    HISTORY = "SELECT data, sum FROM history WHERE position = ?1";

    VERDICT_INSERT = "INSERT INTO verdicts(key, data, sum) VALUES (?1, ?2, ?3)";
    VERDICT_DELETE = "DELETE FROM verdicts WHERE key BETWEEN ?1 AND ?2";
    VERDICT_PIECES = "SELECT data, sum FROM verdicts WHERE key BETWEEN ?1 AND ?2 ORDER BY key";

    ENDED_INSERT = "INSERT INTO ended(position, queue, keep_until, record, sum) VALUES (?1, ?2, ?3, ?4, ?5)";
    ENDED = "SELECT position, queue, keep_until, record, sum FROM ended WHERE position = ?1";
    ENDED_DELETE = "DELETE FROM ended WHERE position = ?1";
    ENDED_FIRST = "SELECT position FROM ended WHERE position >= ?1 ORDER BY position LIMIT ?2";
    /// Used by sweeps, a bounded number of rows at a time, and by salvage.
    ENDED_SCAN = "SELECT position, keep_until FROM ended WHERE position >= ?1 ORDER BY position";
    ENDED_COPY_SCAN = "SELECT position, queue, keep_until, record, sum FROM ended WHERE position > ?1
        ORDER BY position";

    RESULT_INSERT = "INSERT INTO results(key, data, sum) VALUES (?1, ?2, ?3)";
    RESULT_DELETE = "DELETE FROM results WHERE key BETWEEN ?1 AND ?2";
    RESULT_PIECES = "SELECT data, sum FROM results WHERE key BETWEEN ?1 AND ?2 ORDER BY key";
    RESULT_FIRST = "SELECT key FROM results ORDER BY key LIMIT ?1";

    DEDUPE_INSERT = "INSERT INTO dedupe(row, key, fingerprint, position, until) VALUES (?1, ?2, ?3, ?4, ?5)";
    DEDUPE_ROW = "SELECT key, fingerprint, position, until FROM dedupe WHERE row = ?1";
    DEDUPE_DELETE = "DELETE FROM dedupe WHERE row BETWEEN ?1 AND ?2";
    /// Used at opening and by salvage.
    DEDUPE_SCAN = "SELECT row, key, until, fingerprint, position FROM dedupe WHERE row > ?1 ORDER BY row";
}
