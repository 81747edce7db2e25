//! reader: messages and records read back on a thread of their own, in short read transactions.
//!
//! A read transaction pins the file for writing ahead, so none lives longer than what has gathered, or
//! than [`READ_BYTES_MAX`]. A store in memory has one connection, and its writer reads.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, Statement};
use tokio::sync::{mpsc, oneshot};

use crate::contents::{Content, keys};
use crate::error::StoreError;
use crate::limits::{CHUNK_BITS, LIST_BYTES_MAX, LIST_SCAN_ROWS, READ_BYTES_MAX, READS_TOGETHER_MAX};
use crate::message::{Ended, Entry, Loaded, Position, QueueId, State};
use crate::rows::{EndedRow, MessageRow, Unreadable, number};
use crate::shared::{Alive, Shared};
use crate::trouble::{described, is_damage, is_io};
use crate::{sql, sums};

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to be read.
pub(crate) enum Read {
    Load(Position, Answer<Option<Loaded>>),
    Ended(Position, Answer<Option<Ended>>),
    List(ListSlice, Answer<Listed>),
    /// The reader ends.
    Stop,
}

/// A bounded part of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListSlice {
    pub(crate) queue: QueueId,
    pub(crate) state: State,
    pub(crate) after: Option<Position>,
    pub(crate) limit: usize,
}

/// What a part of a list held.
pub(crate) struct Listed {
    pub(crate) found: Vec<Loaded>,
    /// Behind which the next part begins; `None` at the end, or when enough was read.
    pub(crate) goes_on: Option<Position>,
}

/// Why something was not read.
enum Failed {
    Sqlite(rusqlite::Error),
    Damaged(Position, String),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Serves until it is told to stop or nobody is left to ask.
pub(crate) fn serve(connection: &Connection, asked: &mut mpsc::Receiver<Read>, shared: &Arc<Shared>) {
    let _alive = Alive(Arc::clone(shared));
    let mut reader = match Reader::over(connection, shared) {
        Ok(reader) => reader,
        Err(error) => {
            shared.poison(&described(&error));
            return;
        }
    };
    let mut gathered = Vec::with_capacity(READS_TOGETHER_MAX);
    while asked.blocking_recv_many(&mut gathered, READS_TOGETHER_MAX) > 0 {
        if !reader.answer(&mut gathered) {
            return;
        }
    }
}

/// The statements that read.
pub(crate) struct Reader<'c> {
    connection: &'c Connection,
    shared: Arc<Shared>,
    message: Statement<'c>,
    contents: Statement<'c>,
    history: Statement<'c>,
    verdicts: Statement<'c>,
    ended: Statement<'c>,
    results: Statement<'c>,
    scan: Statement<'c>,
    apart: Statement<'c>,
    /// Bytes read in the running transaction.
    bytes: u64,
    /// What the disk said to a salvage, last.
    disk: Option<String>,
}

impl<'c> Reader<'c> {
    pub(crate) fn over(connection: &'c Connection, shared: &Arc<Shared>) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            shared: Arc::clone(shared),
            message: connection.prepare(sql::MESSAGE)?,
            contents: connection.prepare(sql::CONTENT_PIECES)?,
            history: connection.prepare(sql::HISTORY)?,
            verdicts: connection.prepare(sql::VERDICT_PIECES)?,
            ended: connection.prepare(sql::ENDED)?,
            results: connection.prepare(sql::RESULT_PIECES)?,
            scan: connection.prepare(sql::MESSAGES_SCAN)?,
            apart: connection.prepare(sql::MESSAGES_APART)?,
            bytes: 0,
            disk: None,
        })
    }

    /// Answers what has gathered, in as few read transactions as its bytes allow; `false` to stop.
    pub(crate) fn answer(&mut self, gathered: &mut Vec<Read>) -> bool {
        let mut goes_on = true;
        self.begin();
        for read in gathered.drain(..) {
            if self.bytes > READ_BYTES_MAX {
                self.end();
                self.begin();
            }
            goes_on &= !matches!(read, Read::Stop);
            self.answer_one(read);
        }
        self.end();
        goes_on
    }

    /// Without a transaction each statement has its own: then a read may see a message half gone, and
    /// says so. An error shows again in the first statement.
    fn begin(&mut self) {
        self.bytes = 0;
        let _ = self.connection.prepare_cached(sql::BEGIN_READ).and_then(|mut begin| begin.execute([]));
    }

    fn end(&mut self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.prepare_cached(sql::COMMIT).and_then(|mut commit| commit.execute([]));
        }
    }

    /// Reads one thing within whatever transaction is open. A caller that has gone away is no matter.
    pub(crate) fn answer_one(&mut self, read: Read) {
        match read {
            Read::Load(position, answer) => {
                let loaded = self.trusted(position, |reader| reader.load(position));
                let _ = answer.send(loaded);
            }
            Read::Ended(position, answer) => {
                let ended = self.trusted(position, |reader| reader.ended(position));
                let _ = answer.send(ended);
            }
            Read::List(slice, answer) => {
                let listed = self.trusted(slice.after.unwrap_or_default(), |reader| match slice.state {
                    State::Waiting => reader.list_waiting(slice),
                    State::Dead | State::Quarantined => reader.list_apart(slice),
                });
                let _ = answer.send(listed);
            }
            Read::Stop => {}
        }
    }

    fn trusted<T>(
        &mut self,
        position: Position,
        read: impl FnOnce(&mut Self) -> Result<T, Failed>,
    ) -> Result<T, StoreError> {
        if let Some(StoreError::Poisoned(reason)) = self.shared.refusal() {
            return Err(StoreError::Poisoned(reason));
        }
        read(self).map_err(|failed| match failed {
            Failed::Damaged(position, details) => StoreError::Damaged { position, details: details.into() },
            Failed::Sqlite(error) if is_damage(&error) => {
                StoreError::Damaged { position, details: described(&error).into() }
            }
            Failed::Sqlite(error) if is_io(&error) => {
                self.shared.poison(&format!("a read failed: {}", described(&error)))
            }
            Failed::Sqlite(error) => StoreError::Read(described(&error).into()),
        })
    }

    /// A message that checks, for a salvage.
    pub(crate) fn sound(&mut self, row: &MessageRow) -> Option<Loaded> {
        let whole = self.whole(row);
        self.unless_the_disk_failed(whole)
    }

    /// The response kept with a record, for a salvage.
    pub(crate) fn sound_result(&mut self, position: Position) -> Option<Bytes> {
        let kept = response(&mut self.results, position);
        self.unless_the_disk_failed(kept).flatten()
    }

    /// What the disk said when something was not read for its sake, and not for what stands there.
    pub(crate) fn disk_failed(self) -> Option<String> {
        self.disk
    }

    fn unless_the_disk_failed<T>(&mut self, read: Result<T, Failed>) -> Option<T> {
        if let Err(Failed::Sqlite(error)) = &read
            && is_io(error)
        {
            self.disk = Some(described(error));
        }
        read.ok()
    }

    fn load(&mut self, position: Position) -> Result<Option<Loaded>, Failed> {
        let Some(row) = self.row(position)? else { return Ok(None) };
        self.whole(&row).map(Some)
    }

    fn whole(&mut self, row: &MessageRow) -> Result<Loaded, Failed> {
        let (entry, position) = (row.entry, row.entry.position);
        let data = pieces(&mut self.contents, keys(position), entry.bytes as usize)?;
        self.bytes += data.len() as u64;
        let damaged = |details| Failed::Damaged(position, details);
        let content = Content::split(data).ok_or_else(|| damaged("its content has no head".to_owned()))?;
        content.check(&row.fixed(), entry.bytes, row.sum).map_err(damaged)?;
        let result = match entry.state {
            State::Waiting => None,
            State::Dead | State::Quarantined => response(&mut self.verdicts, position)?,
        };
        let history = self.history(row)?;
        Ok(Loaded { entry, head: content.head, body: content.body, history, result })
    }

    fn row(&mut self, position: Position) -> Result<Option<MessageRow>, Failed> {
        let mut rows = self.message.query([position.0 as i64])?;
        match rows.next()? {
            Some(row) => {
                MessageRow::read(row).map(Some).map_err(|Unreadable(why)| Failed::Damaged(position, why))
            }
            None => Ok(None),
        }
    }

    fn history(&mut self, row: &MessageRow) -> Result<Bytes, Failed> {
        if !row.entry.tried {
            return Ok(Bytes::new());
        }
        let position = row.entry.position;
        let mut rows = self.history.query([position.0 as i64])?;
        let Some(row) = rows.next()? else { return Ok(Bytes::new()) };
        let fits = |history: &Bytes| {
            row.get(1).is_ok_and(|sum| sums::fits(sum, sums::of_history(position, history)))
        };
        let history = row.get_ref(0)?.as_blob().ok().map(Bytes::copy_from_slice).filter(fits);
        history.ok_or_else(|| {
            Failed::Damaged(position, "its history is not the one that was written".to_owned())
        })
    }

    fn ended(&mut self, position: Position) -> Result<Option<Ended>, Failed> {
        let mut rows = self.ended.query([position.0 as i64])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let read = EndedRow::read(row).map_err(|Unreadable(why)| Failed::Damaged(position, why))?;
        let EndedRow { keep_until, record, .. } = read;
        drop(rows);
        let result = response(&mut self.results, position)?;
        self.bytes += result.as_ref().map_or(0, Bytes::len) as u64;
        Ok(Some(Ended { record, result, keep_until }))
    }

    /// Passes a bounded number of rows, whosever they are.
    fn list_waiting(&mut self, slice: ListSlice) -> Result<Listed, Failed> {
        let mut wanted = Vec::new();
        let mut passed = 0;
        let mut last = None;
        let mut rows = self.scan.query([slice.after.unwrap_or_default().0 as i64])?;
        while wanted.len() < slice.limit && passed < LIST_SCAN_ROWS {
            let Some(row) = rows.next()? else { break };
            passed += 1;
            last = Some(Position(row.get::<_, i64>(0)? as u64));
            wanted.extend(MessageRow::read(row).ok().filter(|row| is_of(&row.entry, &slice)));
        }
        drop(rows);
        let goes_on = last.filter(|_| wanted.len() == slice.limit || passed == LIST_SCAN_ROWS);
        let (found, cut) = self.heads(&wanted)?;
        Ok(Listed { found, goes_on: goes_on.filter(|_| !cut) })
    }

    fn list_apart(&mut self, slice: ListSlice) -> Result<Listed, Failed> {
        let (mut wanted, mut passed, mut last) = (Vec::new(), 0, None);
        let mut rows = self.apart.query((
            i64::from(slice.queue.0),
            number(slice.state),
            slice.after.unwrap_or_default().0 as i64,
            slice.limit as i64,
        ))?;
        while let Some(row) = rows.next()? {
            passed += 1;
            last = Some(Position(row.get::<_, i64>(0)? as u64));
            wanted.extend(MessageRow::read(row).ok().filter(|row| is_of(&row.entry, &slice)));
        }
        drop(rows);
        let goes_on = last.filter(|_| passed == slice.limit);
        let (found, cut) = self.heads(&wanted)?;
        Ok(Listed { found, goes_on: goes_on.filter(|_| !cut) })
    }

    /// Reads the heads and histories; says whether it ended early for their bytes.
    fn heads(&mut self, rows: &[MessageRow]) -> Result<(Vec<Loaded>, bool), Failed> {
        let mut found = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        for row in rows {
            if bytes >= LIST_BYTES_MAX {
                return Ok((found, true));
            }
            let head = match (self.head(row)?, row.entry.state) {
                (Some(head), _) => head,
                (None, State::Waiting) => continue,
                // An operator must see it to remove it.
                (None, State::Dead | State::Quarantined) => Bytes::new(),
            };
            let history = match self.history(row) {
                Err(Failed::Damaged(..)) => Bytes::new(),
                read => read?,
            };
            bytes += (head.len() + history.len()) as u64;
            found.push(Loaded { entry: row.entry, head, body: Bytes::new(), history, result: None });
        }
        Ok((found, false))
    }

    /// The head alone, copied out of the pieces that hold it; `None` if it is damaged.
    fn head(&mut self, row: &MessageRow) -> Result<Option<Bytes>, Failed> {
        let (first, last) = keys(row.entry.position);
        let read = pieces(&mut self.contents, (first, first), 0);
        let mut data = match read {
            Err(Failed::Sqlite(error)) if !is_damage(&error) => return Err(error.into()),
            Err(_) => return Ok(None),
            Ok(data) => data,
        };
        if Content::split(data.clone()).is_none() {
            data.extend(pieces(&mut self.contents, (first + 1, last), 0)?);
        }
        let content = Content::split(data);
        let checked = content.filter(|content| content.check_head(&row.fixed(), row.entry.bytes));
        Ok(checked.map(|content| Bytes::copy_from_slice(&content.head)))
    }
}

fn is_of(entry: &Entry, slice: &ListSlice) -> bool {
    entry.queue == slice.queue && entry.state == slice.state
}

/// Reads pieces and puts them together.
fn pieces(
    statement: &mut Statement<'_>,
    (first, last): (i64, i64),
    bytes_expected: usize,
) -> Result<Vec<u8>, Failed> {
    let mut whole = Vec::new();
    let mut rows = statement.query((first, last))?;
    while let Some(row) = rows.next()? {
        let piece = row.get_ref(0)?.as_blob().map_err(|e| {
            Failed::Damaged(Position(first as u64 >> CHUNK_BITS), format!("a piece of it is no bytes: {e}"))
        })?;
        if whole.is_empty() {
            whole.reserve_exact(bytes_expected.max(piece.len()) + crate::contents::PREFIX_BYTES);
        }
        whole.extend_from_slice(piece);
    }
    Ok(whole)
}

/// Reads a response; one that is not what was written is as good as none.
fn response(statement: &mut Statement<'_>, position: Position) -> Result<Option<Bytes>, Failed> {
    let (mut whole, mut sum) = (Vec::new(), None);
    let mut rows = statement.query(keys(position))?;
    while let Some(row) = rows.next()? {
        let (Ok(piece), Ok(kept)) = (row.get_ref(0)?.as_blob(), row.get::<_, Option<i32>>(1)) else {
            return Ok(None);
        };
        sum.get_or_insert(kept);
        whole.extend_from_slice(piece);
    }
    let fits = sum.is_some_and(|sum| sums::fits(sum, sums::of_response(position, &whole)));
    Ok(fits.then(|| Bytes::from(whole)))
}
