//! salvage: what checks is copied out of a damaged directory into a fresh database beside it.
//!
//! First the copy is made whole; then the damaged files get another name (`damaged-1.db`, ...), kept for
//! whoever wants to look; then the copy gets theirs. A stop in between is finished by the next salvage.
//! The same way a directory whose disk has failed is made anew ([`crate::renew`]); if all of it could be
//! copied, nothing of the files before stays.

mod copy;

pub(crate) use copy::Copied;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::error::OpenError;
use crate::files::{DATABASE, Directory, INDEX, JOURNAL, WAL, remove};
use crate::limits::{PAGE_BYTES, WRITER_CACHE_KIB};
use crate::open::Names;
use crate::scan::{self, Wrong};
use crate::schema::{self, Format};
use crate::trouble::{has_no_room, is_damage, is_full};
use crate::{sql, wal, writer};

/// The copy, while it is made.
const COPY: &str = "salvaged.db";
/// What the copy replaces, if all of it was copied.
const REPLACED: &str = "replaced.db";
/// What SQLite adds to the name of a database.
const ADDED: [&str; 3] = ["", "-wal", "-shm"];

/// Why there is no copy.
pub(crate) enum NotCopied {
    /// The disk had no room for it.
    Full,
    /// The disk failed.
    Failed(OpenError),
}

impl NotCopied {
    fn told(self, names: &Names<'_>) -> OpenError {
        match self {
            Self::Full => names.disk(&"there is no room for a copy of what can be read"),
            Self::Failed(error) => error,
        }
    }
}

/// Salvages a directory if it is damaged; returns how many messages had to be left behind, as far as they
/// can be counted: those that do not check, and the writes behind a break of the file for writing ahead; and why
/// there may be more.
pub(crate) fn if_damaged(
    directory: &Directory,
    vfs: Option<&str>,
    names: &Names<'_>,
) -> Result<(u64, Option<String>), OpenError> {
    finish(directory).map_err(|e| names.disk(&e))?;
    if !directory.file(DATABASE).exists() {
        return Ok((0, None));
    }
    let behind = match wal::look(&directory.file(WAL)).map_err(|e| names.disk(&e))? {
        wal::Found::Damaged { lost, .. } => lost,
        wal::Found::Sound { .. } if checks(directory, vfs, names)? => return Ok((0, None)),
        wal::Found::Sound { .. } => 0,
    };
    let copied = copy(directory, vfs, names).map_err(|not| not.told(names))?;
    put_in_place(directory, false).map_err(|e| names.disk(&e))?;
    Ok((behind + copied.lost, copied.uncounted))
}

/// Puts an empty database in the place of one that is gone; whatever is left of that is kept beside.
pub(crate) fn begin_anew(
    directory: &Directory,
    vfs: Option<&str>,
    names: &Names<'_>,
) -> Result<(), OpenError> {
    let disk = |e: std::io::Error| names.disk(&e);
    directory.make_database().map_err(disk)?;
    copy_of(directory, None, vfs, names).map_err(|not| not.told(names))?;
    // Of the one that is gone: it belongs to no other.
    remove(&directory.file(JOURNAL)).map_err(disk)?;
    put_in_place(directory, false).map_err(disk)
}

/// Makes a copy of what checks, beside the database.
pub(crate) fn copy(directory: &Directory, vfs: Option<&str>, names: &Names<'_>) -> Result<Copied, NotCopied> {
    copy_of(directory, Some(&directory.file(DATABASE)), vfs, names)
}

fn copy_of(
    directory: &Directory,
    database: Option<&Path>,
    vfs: Option<&str>,
    names: &Names<'_>,
) -> Result<Copied, NotCopied> {
    remove_half_made(directory).map_err(|e| NotCopied::Failed(names.disk(&e)))?;
    copy_whole(database, &directory.file(COPY), vfs).map_err(|failed| {
        // What is left of it is in the way of everybody; the next copy begins with that too.
        let _ = remove_half_made(directory);
        failed.told(names)
    })
}

/// Finishes what a stop has cut off while the copy was put in its place.
pub(crate) fn finish(directory: &Directory) -> std::io::Result<()> {
    match is_unfinished(directory) {
        true => put_in_place(directory, directory.file(REPLACED).exists()),
        false => Ok(()),
    }
}

/// Removes what is left of a copy, and of what one has replaced; only while there is a database.
pub(crate) fn remove_half_made(directory: &Directory) -> std::io::Result<()> {
    for name in [COPY, REPLACED] {
        for added in ADDED {
            remove(&directory.file(&format!("{name}{added}")))?;
        }
    }
    Ok(())
}

/// Bytes that a copy of all that is stored takes, at most; `None`: there is nothing of ours to copy.
pub(crate) fn bytes_of_copy(directory: &Directory, vfs: Option<&str>) -> Result<Option<u64>, Wrong> {
    let connection = open(&directory.file(DATABASE), vfs)?;
    if let Format::Other(_) | Format::New = schema::format(&connection)? {
        return Ok(None);
    }
    let pages = |of| connection.query_row(of, [], |row| row.get::<_, i64>(0));
    let used = pages(sql::PAGE_COUNT)? - pages(sql::FREE_COUNT)?;
    Ok(Some(used.max(0) as u64 * PAGE_BYTES))
}

/// An interrupted salvage must be finished before anything is opened.
pub(crate) fn is_unfinished(directory: &Directory) -> bool {
    !directory.file(DATABASE).exists() && directory.file(COPY).exists()
}

/// The pages of the database are in order, and an opening would understand what stands on them.
pub(crate) fn checks(directory: &Directory, vfs: Option<&str>, names: &Names<'_>) -> Result<bool, OpenError> {
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

/// Gives the files another name, and the copy theirs. With `replaces` nothing of them is left afterwards.
pub(crate) fn put_in_place(directory: &Directory, replaces: bool) -> std::io::Result<()> {
    let damaged = || {
        let free =
            (1..).map(|number| directory.file(&format!("damaged-{number}.db"))).find(|path| !path.exists());
        free.unwrap_or_else(|| directory.file("damaged.db"))
    };
    let aside = if replaces { directory.file(REPLACED) } else { damaged() };
    // Not before the copy's own name is kept; and no file written ahead may be found beside another database.
    directory.flush_names()?;
    if directory.file(DATABASE).exists() {
        std::fs::rename(directory.file(DATABASE), &aside)?;
    }
    if directory.file(WAL).exists() {
        let mut name = aside.into_os_string();
        name.push("-wal");
        std::fs::rename(directory.file(WAL), PathBuf::from(name))?;
    }
    remove(&directory.file(INDEX))?;
    directory.flush_names()?;
    std::fs::rename(directory.file(COPY), directory.file(DATABASE))?;
    directory.flush_names()?;
    if replaces {
        remove_half_made(directory)?;
    }
    Ok(())
}

/// What went wrong with a copy.
enum Failed {
    Sqlite(rusqlite::Error),
    /// As that, for want of room.
    Full,
    Io(std::io::Error),
}

impl Failed {
    fn told(self, names: &Names<'_>) -> NotCopied {
        match self {
            Self::Full => NotCopied::Full,
            Self::Sqlite(error) => NotCopied::Failed(names.sqlite(&error)),
            Self::Io(error) => NotCopied::Failed(names.disk(&error)),
        }
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Sqlite(error) }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        if has_no_room(&error) { Self::Full } else { Self::Io(error) }
    }
}

/// Copies what can be read of a database; without one the copy is empty.
fn copy_whole(damaged: Option<&Path>, copy: &Path, vfs: Option<&str>) -> Result<Copied, Failed> {
    let source = match damaged.map(|path| open_damaged(path, vfs)).transpose() {
        Ok(source) => source,
        // Not even its first page can be read: nobody knows how much is lost.
        Err(error) if is_damage(&error) => None,
        Err(error) => return Err(error.into()),
    };
    let target = open(copy, vfs)?;
    schema::create(&target, true)?;
    target.execute_batch(sql::BEGIN_WRITE)?;
    let copied = match &source {
        Some(source) => copy::everything(source, &target)?,
        None => copy::nothing(&target)?,
    };
    target.execute_batch(sql::COMMIT)?;
    target.query_row(sql::CHECKPOINT_TRUNCATE, [], |_| Ok(()))?;
    target.close().map_err(|(_, e)| Failed::from(e))?;
    for added in &ADDED[1..] {
        let mut path = copy.as_os_str().to_owned();
        path.push(added);
        remove(&PathBuf::from(path))?;
    }
    Ok(copied)
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
