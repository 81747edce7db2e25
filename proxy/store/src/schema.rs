//! schema: a connection as all of ours are set up, and the tables of a new database.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::files::make_private;
use crate::limits::{APPLICATION, BUSY_MS, FORMAT, FORMAT_BEFORE, PAGE_BYTES};
use crate::scan::Wrong;
use crate::sql;

/// What stands at the head of a database.
pub(crate) enum Format {
    /// Nothing yet.
    New,
    /// Ours.
    Known,
    /// The one before ours.
    Before,
    /// A number of another version, or 0 for another program's file.
    Other(i64),
}

/// Opens a file for reading and writing.
pub(crate) fn open(path: &Path, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match vfs {
        Some(name) => Connection::open_with_flags_and_vfs(path, flags, name),
        None => {
            // Where it cannot be made SQLite says why.
            let _ = make_private(path);
            Connection::open_with_flags(path, flags)
        }
    }
}

/// Sets a connection up. `pages` bounds the database.
pub(crate) fn set_up(connection: &Connection, cache_kib: i64, pages: u64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_millis(BUSY_MS))?;
    connection.set_prepared_statement_cache_capacity(8);
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA cache_size = -{cache_kib};
         PRAGMA temp_store = MEMORY;
         PRAGMA synchronous = FULL;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA secure_delete = OFF;
         PRAGMA foreign_keys = OFF;"
    ))?;
    pragma_number(connection, "wal_autocheckpoint = 0")?;
    pragma_number(connection, &format!("max_page_count = {pages}"))?;
    Ok(())
}

/// Reads what is at the head of a database, which begins its replay.
pub(crate) fn format(connection: &Connection) -> rusqlite::Result<Format> {
    let version = pragma_number(connection, "user_version")?;
    let application = pragma_number(connection, "application_id")?;
    if version == FORMAT && application == APPLICATION {
        return Ok(Format::Known);
    }
    if version == FORMAT_BEFORE && application == APPLICATION {
        return Ok(Format::Before);
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 && version == 0 && application == 0 {
        return Ok(Format::New);
    }
    Ok(Format::Other(if application == APPLICATION { version } else { 0 }))
}

/// Makes the tables, as one.
pub(crate) fn create(connection: &Connection, on_disk: bool) -> rusqlite::Result<()> {
    let mode = if on_disk { "wal" } else { "memory" };
    let mut sets = connection.prepare(&format!("PRAGMA journal_mode = {mode}"))?;
    // It is written once its row was read: whoever reads that row alone does not hear that it failed.
    let mut rows = sets.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;",
        sql::TABLES
    ))
}

/// Begins to make the format before ours; nothing of it is there until somebody commits.
pub(crate) fn begin_migration(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(sql::BEGIN_WRITE)?;
    connection.execute_batch(sql::FROM_BEFORE)?;
    connection.execute_batch(&format!("PRAGMA user_version = {FORMAT}"))
}

/// Whether the file says of itself what ours do, so that every statement means what it should: a bit of that
/// may be flipped, and then SQLite follows it to other columns, another journal, or nowhere.
pub(crate) fn look(connection: &Connection) -> Result<(), Wrong> {
    let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if journal != "wal" || connection.is_readonly("main")? {
        return Err(Wrong::Value(format!(
            "its first page asks for the journal {journal}, or for no writing"
        )));
    }
    let ours = Connection::open_in_memory()?;
    create(&ours, false)?;
    match text(connection)? == text(&ours)? {
        true => Ok(()),
        false => Err(Wrong::Value("its schema is not the one of its format".to_owned())),
    }
}

/// The schema, line by line.
fn text(connection: &Connection) -> rusqlite::Result<Vec<[Option<String>; 4]>> {
    let mut scan = connection.prepare(sql::SCHEMA_SCAN)?;
    let lines = scan.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
    lines.collect()
}

/// Asks for, or sets, one number.
pub(crate) fn pragma_number(connection: &Connection, what: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {what}"), [], |row| row.get(0))
}
