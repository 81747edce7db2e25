//! salvage: what checks is copied out of a damaged directory into a fresh database beside it.
//!
//! First the copy is made whole; then the damaged files get another name (`damaged-1.db`, ...), kept for
//! whoever wants to look; then the copy gets theirs. A stop in between is finished by the next salvage.

mod copy;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::error::OpenError;
use crate::files::{DATABASE, Directory, INDEX, WAL};
use crate::limits::WRITER_CACHE_KIB;
use crate::open::Names;
use crate::scan::{self, Wrong};
use crate::schema::{self, Format};
use crate::trouble::is_damage;
use crate::{sql, wal, writer};

/// The copy, while it is made.
const COPY: &str = "salvaged.db";

/// Salvages a directory if it is damaged; returns how many messages had to be left behind, as far as they
/// can be counted: those that do not check, and the writes behind a break of the file for writing ahead.
pub(crate) fn if_damaged(
    directory: &Directory,
    vfs: Option<&str>,
    names: &Names<'_>,
) -> Result<u64, OpenError> {
    let copy = directory.file(COPY);
    if !directory.file(DATABASE).exists() {
        if copy.exists() {
            put_in_place(directory, &copy).map_err(|e| names.disk(&e))?;
        }
        return Ok(0);
    }
    let behind = match wal::look(&directory.file(WAL)).map_err(|e| names.disk(&e))? {
        wal::Found::Damaged { lost, .. } => lost,
        wal::Found::Sound { .. } if checks(directory, vfs, names)? => return Ok(0),
        wal::Found::Sound { .. } => 0,
    };
    for name in [COPY, "salvaged.db-wal", "salvaged.db-shm"] {
        remove(&directory.file(name)).map_err(|e| names.disk(&e))?;
    }
    let lost = behind + copy_whole(&directory.file(DATABASE), &copy, vfs, names)?;
    put_in_place(directory, &copy).map_err(|e| names.disk(&e))?;
    Ok(lost)
}

/// An interrupted salvage must be finished before anything is opened.
pub(crate) fn is_unfinished(directory: &Directory) -> bool {
    !directory.file(DATABASE).exists() && directory.file(COPY).exists()
}

/// The pages of the database are in order, and an opening would understand what stands on them.
fn checks(directory: &Directory, vfs: Option<&str>, names: &Names<'_>) -> Result<bool, OpenError> {
    match look(&directory.file(DATABASE), vfs) {
        Ok(()) => Ok(true),
        Err(wrong) if wrong.is_damage() => Ok(false),
        Err(wrong) => Err(names.wrong(&wrong)),
    }
}

fn look(database: &Path, vfs: Option<&str>) -> Result<(), Wrong> {
    let connection = open(database, vfs)?;
    let format = schema::format(&connection)?;
    if let Format::Other(_) | Format::New = format {
        // It is not ours to salvage, or nothing is in it; opening says so.
        return Ok(());
    }
    let said: String = connection.query_row(sql::CHECK_ALL_SCAN, [], |row| row.get(0))?;
    if said != "ok" {
        return Err(Wrong::Value(said));
    }
    if let Format::Before = format {
        // Never committed: opening does it.
        schema::begin_migration(&connection)?;
    }
    schema::look(&connection)?;
    scan::all(&connection)
}

fn open(path: &Path, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    let connection = schema::open(path, vfs)?;
    writer::never_copies_at_close(&connection)?;
    schema::set_up(&connection, WRITER_CACHE_KIB, u64::from(u32::MAX - 1))?;
    Ok(connection)
}

/// Gives the damaged files another name, and the copy theirs.
fn put_in_place(directory: &Directory, copy: &Path) -> std::io::Result<()> {
    let aside =
        (1..).map(|number| directory.file(&format!("damaged-{number}.db"))).find(|path| !path.exists());
    let aside = aside.unwrap_or_else(|| directory.file("damaged.db"));
    if directory.file(DATABASE).exists() {
        std::fs::rename(directory.file(DATABASE), &aside)?;
    }
    if directory.file(WAL).exists() {
        let mut name = aside.into_os_string();
        name.push("-wal");
        std::fs::rename(directory.file(WAL), PathBuf::from(name))?;
    }
    remove(&directory.file(INDEX))?;
    std::fs::rename(copy, directory.file(DATABASE))?;
    directory.flush_names()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the copy; returns how many messages are not in it, at least.
fn copy_whole(damaged: &Path, copy: &Path, vfs: Option<&str>, names: &Names<'_>) -> Result<u64, OpenError> {
    let sqlite = |e: rusqlite::Error| names.sqlite(&e);
    let source = match open_damaged(damaged, vfs) {
        Ok(source) => Some(source),
        // Not even its first page can be read: nobody knows how much is lost.
        Err(error) if is_damage(&error) => None,
        Err(error) => return Err(names.sqlite(&error)),
    };
    let target = open(copy, vfs).map_err(sqlite)?;
    schema::create(&target, true).map_err(sqlite)?;
    target.execute_batch(sql::BEGIN_WRITE).map_err(sqlite)?;
    let lost = match &source {
        Some(source) => copy::everything(source, &target).map_err(sqlite)?,
        None => 1,
    };
    target.execute_batch(sql::COMMIT).map_err(sqlite)?;
    target.query_row(sql::CHECKPOINT_TRUNCATE, [], |_| Ok(())).map_err(sqlite)?;
    target.close().map_err(|(_, e)| names.sqlite(&e))?;
    for name in ["-wal", "-shm"] {
        let mut path = copy.as_os_str().to_owned();
        path.push(name);
        remove(&PathBuf::from(path)).map_err(|e| names.disk(&e))?;
    }
    Ok(lost)
}

/// As [`open`]; a database that is shorter than its first page says is read as far as it goes, and the format
/// before ours as if it were ours, which nobody commits.
fn open_damaged(path: &Path, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    let connection = schema::open(path, vfs)?;
    connection.execute_batch(sql::READ_ANYWAY)?;
    writer::never_copies_at_close(&connection)?;
    schema::set_up(&connection, WRITER_CACHE_KIB, u64::from(u32::MAX - 1))?;
    if let Ok(Format::Before) = schema::format(&connection) {
        // Where that fails, what was written before it goes all the same.
        let _ = schema::begin_migration(&connection);
    }
    Ok(connection)
}
