//! copy: everything that can be read of one database, row by row, into another.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, Row};

use crate::contents::{Fixed, Pieces, keys, prefix, whole_sum};
use crate::limits::{
    CHUNK_BITS, COPY_BYTES, COPY_ROWS, DEDUPE_ROW_MAX, POSITION_MAX, SALVAGE_POSITIONS_AHEAD,
};
use crate::message::{Loaded, Position};
use crate::reader::Reader;
use crate::rows::{BEGUN, EndedRow, HISTORY, MessageRow, kept_sum, number};
use crate::shared::Shared;
use crate::trouble::{described, is_io};
use crate::writer::apply::insert_response;
use crate::{sql, sums};

/// What was copied.
pub(crate) struct Copied {
    /// Messages that were not, as far as they can be counted.
    pub(crate) lost: u64,
    /// Why there may be more of them.
    pub(crate) uncounted: Option<String>,
    /// What the disk said where something could not be read at all: it may be there all the same.
    pub(crate) disk_failed: Option<String>,
}

/// Copies everything that can be read.
pub(super) fn everything(source: &Connection, target: &Connection) -> rusqlite::Result<Copied> {
    let disk = Disk::default();
    let noted = disk.heard(source.query_row(sql::META, [], |row| row.get::<_, i64>(0)));
    let noted = noted.map(|noted| noted as u64).filter(|noted| (1..=POSITION_MAX).contains(noted));
    let mut salvage = Salvage {
        source,
        target,
        disk,
        noted,
        highest: 0,
        lost: HashSet::new(),
        uncounted: 0,
        unknown: false,
    };
    salvage.queues()?;
    salvage.messages()?;
    salvage.records()?;
    salvage.keys()?;
    salvage.positions()?;
    let lost = salvage.lost.len() as u64 + salvage.uncounted;
    let uncounted =
        salvage.unknown.then(|| format!("{} pages of the database could not be read", unread_pages(source)));
    Ok(Copied { lost, uncounted, disk_failed: salvage.disk.0.into_inner() })
}

/// A database of which not even the first page can be read.
pub(super) fn nothing(target: &Connection) -> rusqlite::Result<Copied> {
    target.execute(sql::META_NEXT, [SALVAGE_POSITIONS_AHEAD as i64])?;
    let uncounted = Some("not even the first page of the database could be read".to_owned());
    Ok(Copied { lost: 1, uncounted, disk_failed: None })
}

/// Pages that are in no order, or that nothing leads to any more.
fn unread_pages(source: &Connection) -> u64 {
    let number = |of| source.query_row(of, [], |row| row.get::<_, i64>(0)).map_or(0, |number| number.max(0));
    let used = number(sql::PAGE_COUNT) - number(sql::FREE_COUNT);
    let mut sound: HashSet<i64> = HashSet::new();
    let trees = source.prepare(sql::TREES_SCAN).and_then(|mut scan| {
        let names = scan.query_map([], |row| row.get::<_, String>(0))?;
        Ok(names.map_while(Result::ok).collect::<Vec<_>>())
    });
    let schema = std::iter::once("sqlite_schema".to_owned());
    for tree in schema.chain(trees.unwrap_or_default()) {
        let Ok(mut scan) = source.prepare(sql::TREE_PAGES_SCAN) else { continue };
        let Ok(pages) = scan.query_map([tree], |row| row.get::<_, i64>(0)) else { continue };
        sound.extend(pages.map_while(Result::ok));
    }
    u64::try_from(used).unwrap_or(0).saturating_sub(sound.len() as u64)
}

/// What the disk said when it was read, last.
#[derive(Default)]
struct Disk(RefCell<Option<String>>);

impl Disk {
    fn heard<T>(&self, read: rusqlite::Result<T>) -> Option<T> {
        if let Err(error) = &read
            && is_io(error)
        {
            self.said(Some(described(error)));
        }
        read.ok()
    }

    fn said(&self, said: Option<String>) {
        if said.is_some() {
            self.0.replace(said);
        }
    }
}

/// A copy on its way. Errors are the target's alone: what cannot be read of the source is passed by.
struct Salvage<'c> {
    source: &'c Connection,
    target: &'c Connection,
    disk: Disk,
    /// The next position, as far as that can be read.
    noted: Option<u64>,
    /// The highest position or rank seen.
    highest: u64,
    /// Positions of messages that do not check.
    lost: HashSet<u64>,
    /// Places where some cannot even be counted.
    uncounted: u64,
    /// There are such places, or contents that cannot be read.
    unknown: bool,
}

/// Copies a bounded number of rows in one transaction, so that what is written ahead of the copy takes little
/// room.
struct Steps<'c> {
    target: &'c Connection,
    rows: u64,
    bytes: u64,
}

impl<'c> Steps<'c> {
    fn over(target: &'c Connection) -> Self {
        Self { target, rows: 0, bytes: 0 }
    }

    /// A row of so many bytes was copied.
    fn copied(&mut self, bytes: usize) -> rusqlite::Result<()> {
        (self.rows, self.bytes) = (self.rows + 1, self.bytes + bytes as u64);
        if self.rows < COPY_ROWS && self.bytes < COPY_BYTES {
            return Ok(());
        }
        (self.rows, self.bytes) = (0, 0);
        self.target.execute_batch(sql::COMMIT)?;
        self.target.query_row(sql::CHECKPOINT_TRUNCATE, [], |_| Ok(()))?;
        self.target.execute_batch(sql::BEGIN_WRITE)
    }
}

impl Salvage<'_> {
    /// A row that is left out is made up at the next opening, if messages name it.
    fn queues(&mut self) -> rusqlite::Result<()> {
        walk(self.source, &self.disk, sql::QUEUES_AFTER, &mut |row, id| {
            let (name, settings) = (row.get::<_, String>(1), row.get::<_, Vec<u8>>(2));
            let (Ok(name), Ok(settings), Ok(1..)) = (name, settings, u16::try_from(id)) else {
                return Ok(None);
            };
            self.target.execute(sql::QUEUE_COPY, (id, name, settings))?;
            Ok(Some(id))
        })
        .map(|_| ())
    }

    fn messages(&mut self) -> rusqlite::Result<()> {
        let shared = Arc::new(Shared::default());
        // Not even the tables may be there.
        let reader = self.disk.heard(Reader::over(self.source, &shared));
        let Some(mut reader) = reader else {
            self.unknown = true;
            return Ok(());
        };
        let (source, target) = (self.source, self.target);
        let order_max = self.noted.unwrap_or(POSITION_MAX);
        let (mut last, mut steps) = (0, Steps::over(target));
        let gaps = walk(source, &self.disk, sql::MESSAGES_SCAN, &mut |row, position| {
            let sound = MessageRow::read(row).ok().and_then(|row| reader.sound(&row));
            let Some(mut loaded) = sound else {
                self.lost.insert(position as u64);
                return Ok(None);
            };
            if position <= last {
                // A page that is found twice.
                return Ok(None);
            }
            last = position;
            if loaded.entry.order > order_max {
                loaded.entry.order = loaded.entry.position.0;
            }
            self.highest = self.highest.max(loaded.entry.position.0).max(loaded.entry.order);
            insert(target, &loaded)?;
            steps.copied(loaded.head.len() + loaded.body.len())?;
            Ok(Some(position))
        })?;
        self.disk.said(reader.disk_failed());
        for (after, before) in gaps {
            self.contents_between(after, before);
        }
        Ok(())
    }

    /// Messages whose rows cannot be read, by their contents.
    fn contents_between(&mut self, after: i64, before: i64) {
        let before = before.min(POSITION_MAX as i64);
        let (from, to) = ((after + 1) << CHUNK_BITS, before << CHUNK_BITS);
        let (mut found, mut whole, first) = (0, false, (1 << CHUNK_BITS) - 1);
        if let Ok(mut scan) = self.source.prepare(sql::CONTENT_KEYS_SCAN)
            && let Ok(mut keys) = scan.query([from, to])
        {
            whole = loop {
                let key = match keys.next() {
                    Ok(Some(row)) => row.get::<_, i64>(0),
                    Ok(None) => break true,
                    Err(_) => break false,
                };
                if let Ok(key) = key.map(|key| key as u64)
                    && key < to as u64
                    && key & first == 0
                {
                    self.lost.insert(key >> CHUNK_BITS);
                    found += 1;
                }
            };
        }
        self.uncounted += u64::from(found == 0);
        self.unknown |= found == 0 || !whole;
    }

    fn records(&mut self) -> rusqlite::Result<()> {
        let shared = Arc::new(Shared::default());
        let reader = self.disk.heard(Reader::over(self.source, &shared));
        let Some(mut reader) = reader else { return Ok(()) };
        let target = self.target;
        let (mut last, mut steps) = (0, Steps::over(target));
        walk(self.source, &self.disk, sql::ENDED_COPY_SCAN, &mut |row, number| {
            let Some(ended) = EndedRow::read(row).ok().filter(|_| number > last) else { return Ok(None) };
            last = number;
            let (queue, until, sum) = (ended.queue.0, ended.keep_until.0 as i64, kept_sum(ended.sum()));
            target.execute(sql::ENDED_INSERT, (number, queue, until, ended.record.as_ref(), sum))?;
            if let Some(result) = reader.sound_result(ended.position) {
                let mut insert = target.prepare_cached(sql::RESULT_INSERT)?;
                insert_response(&mut insert, ended.position, &result)?;
                steps.copied(result.len())?;
            }
            steps.copied(ended.record.len())?;
            Ok(Some(number))
        })?;
        self.disk.said(reader.disk_failed());
        Ok(())
    }

    /// A number of a row that is out of order is one of two: the one that the next row follows stays.
    fn keys(&mut self) -> rusqlite::Result<()> {
        let target = self.target;
        let mut steps = Steps::over(target);
        let (mut held, mut last): (Option<Key>, i64) = (None, -1);
        walk(self.source, &self.disk, sql::DEDUPE_SCAN, &mut |row, number| {
            let Some(key) = Key::read(row).filter(|_| (last + 1..=DEDUPE_ROW_MAX).contains(&number)) else {
                return Ok(None);
            };
            let before = held.replace(key).filter(|before| before.number < number);
            if let Some(before) = before {
                before.insert(target)?;
                steps.copied(before.key.len())?;
                last = before.number;
            }
            Ok(Some(last))
        })?;
        held.map_or(Ok(()), |held| held.insert(target))
    }

    /// Positions that were given out behind the break are not given out again.
    fn positions(&mut self) -> rusqlite::Result<()> {
        let next = self.noted.unwrap_or(0).max(self.highest + 1) + SALVAGE_POSITIONS_AHEAD;
        self.target.execute(sql::META_NEXT, [next as i64]).map(|_| ())
    }
}

/// A row of `dedupe`.
struct Key {
    number: i64,
    key: [u8; 16],
    fingerprint: [u8; 16],
    position: i64,
    until: i64,
}

impl Key {
    fn read(row: &Row<'_>) -> Option<Self> {
        Some(Self {
            number: row.get(0).ok()?,
            key: row.get(1).ok()?,
            until: row.get(2).ok()?,
            fingerprint: row.get(3).ok()?,
            position: row.get(4).ok()?,
        })
    }

    fn insert(&self, target: &Connection) -> rusqlite::Result<()> {
        let (key, print) = (self.key.as_slice(), self.fingerprint.as_slice());
        let mut statement = target.prepare_cached(sql::DEDUPE_INSERT)?;
        statement.execute((self.number, key, print, self.position, self.until)).map(|_| ())
    }
}

fn insert(target: &Connection, loaded: &Loaded) -> rusqlite::Result<()> {
    let entry = loaded.entry;
    let fixed =
        Fixed { position: entry.position, queue: entry.queue, lane: entry.lane, priority: entry.priority };
    let head_sum = fixed.head_sum(&loaded.head, loaded.body.len());
    let position = entry.position.0 as i64;
    let history = if entry.tried { HISTORY } else { 0 };
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
    insert_pieces(target, entry.position, parts)?;
    if entry.tried {
        let sum = kept_sum(sums::of_history(entry.position, &loaded.history));
        target.execute(sql::HISTORY_PUT, (position, loaded.history.as_ref(), sum))?;
    }
    match &loaded.result {
        Some(result) => {
            let mut insert = target.prepare_cached(sql::VERDICT_INSERT)?;
            insert_response(&mut insert, entry.position, result)
        }
        None => Ok(()),
    }
}

fn insert_pieces<const N: usize>(
    target: &Connection,
    position: Position,
    mut parts: Pieces<'_, N>,
) -> rusqlite::Result<()> {
    let mut statement = target.prepare_cached(sql::CONTENT_INSERT)?;
    let mut piece = Vec::new();
    let (mut key, _) = keys(position);
    while parts.next_into(&mut piece) {
        statement.execute((key, piece.as_slice()))?;
        key += 1;
    }
    Ok(())
}

/// Shows every row that can be read, and the number in its first column, to `each`, which says up to where all
/// is sound now; what cannot be read is jumped over in growing steps. The numbers ascend, but for flipped bits.
/// Returns the gaps: the sound numbers before and behind.
fn walk(
    source: &Connection,
    disk: &Disk,
    scan: &str,
    each: &mut dyn FnMut(&Row<'_>, i64) -> rusqlite::Result<Option<i64>>,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let (mut after, mut jump, mut gaps) = (-1_i64, 0_i64, Vec::new());
    loop {
        let Some(mut statement) = disk.heard(source.prepare(scan)) else { return Ok(gaps) };
        let rows = disk.heard(statement.query([after.saturating_add(jump)]));
        let Some(mut rows) = rows else { return Ok(gaps) };
        let ended = loop {
            let Some(next) = disk.heard(rows.next()) else { break false };
            let Some(row) = next else { break true };
            let Ok(number) = row.get::<_, i64>(0) else { continue };
            let Some(sound) = each(row, number)?.filter(|sound| *sound > after) else { continue };
            if std::mem::take(&mut jump) > 0 {
                gaps.push((after, sound));
            }
            after = sound;
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
