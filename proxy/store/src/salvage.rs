//! salvage: what checks is copied out of a damaged directory into a fresh database beside it.
//!
//! First the copy is made whole; then the damaged files get another name (`damaged-1.db`, ...), kept for
//! whoever wants to look; then the copy gets theirs. A stop in between is finished by the next salvage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Row};

use crate::contents::{Fixed, Pieces, keys, prefix, whole_sum};
use crate::error::OpenError;
use crate::files::{DATABASE, Directory, INDEX, WAL};
use crate::limits::{CHUNK_BITS, POSITION_MAX, SALVAGE_POSITIONS_AHEAD, WRITER_CACHE_KIB};
use crate::message::{Loaded, Position};
use crate::open::Names;
use crate::reader::Reader;
use crate::rows::{BEGUN, HISTORY, kept_sum, number};
use crate::schema::{self, Format};
use crate::shared::Shared;
use crate::trouble::is_damage;
use crate::{sql, wal, writer};

/// The copy, while it is made.
const COPY: &str = "salvaged.db";
/// Messages copied in one transaction.
const TOGETHER: u64 = 1000;

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
    let lost = behind + copy_all(&directory.file(DATABASE), &copy, vfs, names)?;
    put_in_place(directory, &copy).map_err(|e| names.disk(&e))?;
    Ok(lost)
}

/// An interrupted salvage must be finished before anything is opened.
pub(crate) fn is_unfinished(directory: &Directory) -> bool {
    !directory.file(DATABASE).exists() && directory.file(COPY).exists()
}

/// The pages of the database are in order.
fn checks(directory: &Directory, vfs: Option<&str>, names: &Names<'_>) -> Result<bool, OpenError> {
    let checked = open(&directory.file(DATABASE), vfs).and_then(|connection| {
        if let Format::Other(_) = schema::format(&connection)? {
            // It is not ours to salvage; opening says so.
            return Ok(true);
        }
        connection.query_row(sql::CHECK_SCAN, [], |row| Ok(row.get::<_, String>(0)? == "ok"))
    });
    match checked {
        Ok(sound) => Ok(sound),
        Err(error) if is_damage(&error) => Ok(false),
        Err(error) => Err(names.sqlite(&error)),
    }
}

fn open(path: &Path, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    let connection = schema::open(path, vfs)?;
    writer::never_copies_at_close(&connection)?;
    schema::set_up(&connection, WRITER_CACHE_KIB, u64::from(u32::MAX - 1))?;
    Ok(connection)
}

/// As [`open`]; a database that is shorter than its first page says is read as far as it goes.
fn open_damaged(path: &Path, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    let connection = schema::open(path, vfs)?;
    connection.execute_batch(sql::READ_ANYWAY)?;
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

/// Copies what checks; returns how many messages do not, at least.
fn copy_all(damaged: &Path, copy: &Path, vfs: Option<&str>, names: &Names<'_>) -> Result<u64, OpenError> {
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
        Some(source) => everything(source, &target).map_err(sqlite)?,
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

/// Copies everything that can be read; returns how many messages cannot.
fn everything(source: &Connection, target: &Connection) -> rusqlite::Result<u64> {
    let mut salvage = Salvage { source, target, copied: 0, highest: 0, lost: 0 };
    salvage.queues()?;
    salvage.messages()?;
    salvage.records()?;
    salvage.keys()?;
    salvage.positions()?;
    Ok(salvage.lost)
}

/// A copy on its way. Errors are the target's alone: what cannot be read of the source is passed by.
struct Salvage<'c> {
    source: &'c Connection,
    target: &'c Connection,
    copied: u64,
    /// The highest position or rank seen.
    highest: u64,
    lost: u64,
}

impl Salvage<'_> {
    fn queues(&mut self) -> rusqlite::Result<()> {
        walk(self.source, sql::QUEUES_AFTER, &mut |row| {
            let (name, settings) = (row.get::<_, String>(1), row.get::<_, Vec<u8>>(2));
            if let (Ok(name), Ok(settings)) = (name, settings) {
                self.target.execute(sql::QUEUE_INSERT, (row.get::<_, i64>(0)?, name, settings))?;
            }
            Ok(())
        })
        .map(|_| ())
    }

    fn messages(&mut self) -> rusqlite::Result<()> {
        let shared = Arc::new(Shared::new(0));
        // Not even the tables may be there.
        let Ok(mut reader) = Reader::over(self.source, &shared) else { return Ok(()) };
        let (source, target) = (self.source, self.target);
        let gaps = walk(source, sql::MESSAGES_SCAN, &mut |row| {
            let position = row.get::<_, i64>(0)? as u64;
            self.highest = self.highest.max(position);
            let Some(loaded) = reader.load_sound(Position(position)) else {
                self.lost += 1;
                return Ok(());
            };
            self.highest = self.highest.max(loaded.entry.order);
            insert(target, &loaded)?;
            self.copied += 1;
            if self.copied.is_multiple_of(TOGETHER) {
                target.execute_batch(sql::COMMIT)?;
                target.execute_batch(sql::BEGIN_WRITE)?;
            }
            Ok(())
        })?;
        for (after, before) in gaps {
            self.lost += self.contents_between(after, before);
        }
        Ok(())
    }

    /// Messages whose rows cannot be read, by their contents.
    fn contents_between(&self, after: i64, before: i64) -> u64 {
        let before = before.min(POSITION_MAX as i64);
        let (from, to) = ((after + 1) << CHUNK_BITS, before << CHUNK_BITS);
        let mut found = 0;
        let count =
            |row: &Row<'_>| row.get::<_, i64>(0).map(|key| key < to && key.trailing_zeros() >= CHUNK_BITS);
        if let Ok(mut scan) = self.source.prepare(sql::CONTENT_KEYS_SCAN)
            && let Ok(rows) = scan.query_map((from, to), count)
        {
            found += rows.map_while(Result::ok).filter(|first| *first).count() as u64;
        }
        found.max(1)
    }

    fn records(&mut self) -> rusqlite::Result<()> {
        let shared = Arc::new(Shared::new(0));
        let Ok(mut reader) = Reader::over(self.source, &shared) else { return Ok(()) };
        let target = self.target;
        walk(self.source, sql::ENDED_COPY_SCAN, &mut |row| {
            let position = Position(row.get::<_, i64>(0)? as u64);
            let (queue, until) = (row.get::<_, i64>(1), row.get::<_, i64>(2));
            let (Ok(queue), Ok(until), Some(ended)) = (queue, until, reader.ended_sound(position)) else {
                return Ok(());
            };
            target.execute(sql::ENDED_INSERT, (position.0 as i64, queue, until, ended.record.as_ref()))?;
            match ended.result {
                Some(result) => {
                    insert_pieces(target, sql::RESULT_INSERT, position, Pieces::of([result.as_ref()]))
                }
                None => Ok(()),
            }
        })
        .map(|_| ())
    }

    fn keys(&mut self) -> rusqlite::Result<()> {
        let target = self.target;
        walk(self.source, sql::DEDUPE_SCAN, &mut |row| {
            let (key, until) = (row.get::<_, [u8; 16]>(1), row.get::<_, i64>(2));
            let (fingerprint, position) = (row.get::<_, [u8; 16]>(3), row.get::<_, i64>(4));
            if let (Ok(key), Ok(until), Ok(fingerprint), Ok(position)) = (key, until, fingerprint, position) {
                let row = row.get::<_, i64>(0)?;
                target.execute(
                    sql::DEDUPE_INSERT,
                    (row, key.as_slice(), fingerprint.as_slice(), position, until),
                )?;
            }
            Ok(())
        })
        .map(|_| ())
    }

    /// Positions that were given out behind the break are not given out again.
    fn positions(&mut self) -> rusqlite::Result<()> {
        let noted = self.source.query_row(sql::META, [], |row| row.get::<_, i64>(0)).unwrap_or(0) as u64;
        let next = noted.max(self.highest + 1) + SALVAGE_POSITIONS_AHEAD;
        self.target.execute(sql::META_NEXT, [next as i64]).map(|_| ())
    }
}

fn insert(target: &Connection, loaded: &Loaded) -> rusqlite::Result<()> {
    let entry = loaded.entry;
    let fixed =
        Fixed { position: entry.position, queue: entry.queue, lane: entry.lane, priority: entry.priority };
    let head_sum = fixed.head_sum(&loaded.head, loaded.body.len());
    let position = entry.position.0 as i64;
    let history = if loaded.history.is_empty() { 0 } else { HISTORY };
    target.prepare_cached(sql::MESSAGE_COPY)?.execute((
        position,
        i64::from(entry.queue.0),
        entry.lane.map(|lane| lane as i64),
        i64::from(entry.priority),
        entry.due_at.map(|at| at.0 as i64),
        (entry.order != entry.position.0).then_some(entry.order as i64),
        i64::from(entry.attempts),
        if entry.begun { history | BEGUN } else { history },
        i64::from(entry.bytes),
        number(entry.state),
        kept_sum(whole_sum(head_sum, &loaded.body)),
    ))?;
    let prefix = prefix(u32::try_from(loaded.head.len()).unwrap_or(u32::MAX), head_sum);
    let parts = Pieces::of([&prefix, &loaded.head, &loaded.body]);
    insert_pieces(target, sql::CONTENT_INSERT, entry.position, parts)?;
    if !loaded.history.is_empty() {
        target.execute(sql::HISTORY_PUT, (position, loaded.history.as_ref()))?;
    }
    match &loaded.result {
        Some(result) => {
            insert_pieces(target, sql::VERDICT_INSERT, entry.position, Pieces::of([result.as_ref()]))
        }
        None => Ok(()),
    }
}

fn insert_pieces<const N: usize>(
    target: &Connection,
    insert: &str,
    position: Position,
    mut parts: Pieces<'_, N>,
) -> rusqlite::Result<()> {
    let mut statement = target.prepare_cached(insert)?;
    let mut piece = Vec::new();
    let (mut key, _) = keys(position);
    while parts.next_into(&mut piece) {
        statement.execute((key, piece.as_slice()))?;
        key += 1;
    }
    Ok(())
}

/// Shows every row that can be read to `each`, in the order of the number in its first column; what
/// cannot be read is jumped over in growing steps. Returns the gaps: the numbers before and behind.
fn walk(
    source: &Connection,
    scan: &str,
    each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let (mut after, mut jump, mut gaps) = (-1_i64, 0_i64, Vec::new());
    loop {
        let Ok(mut statement) = source.prepare(scan) else { return Ok(gaps) };
        let Ok(mut rows) = statement.query([after.saturating_add(jump)]) else { return Ok(gaps) };
        let ended = loop {
            let Ok(next) = rows.next() else { break false };
            let Some(row) = next else { break true };
            let Some(number) = row.get::<_, i64>(0).ok().filter(|number| *number > after) else {
                break false;
            };
            if std::mem::take(&mut jump) > 0 {
                gaps.push((after, number));
            }
            after = number;
            each(row)?;
        };
        if ended || jump > i64::MAX / 4 {
            if jump > 0 {
                gaps.push((after, i64::MAX));
            }
            return Ok(gaps);
        }
        jump = (jump * 2).max(1);
    }
}
