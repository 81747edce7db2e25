//! apply: one step of one message, within the transaction of its batch.

use bytes::Bytes;
use rusqlite::{OptionalExtension, Statement};

use super::{Positions, Reply, Work, Writer};
use crate::contents::{Fixed, PREFIX_BYTES, Pieces, keys, pieces, prefix, whole_sum};
use crate::dedupe::Known;
use crate::limits::{CHUNK_BYTES, POSITION_MAX, POSITIONS_AHEAD};
use crate::message::{Change, Changed, Dedupe, Draft, Entry, Position, QueueId, State, Timestamp};
use crate::rows::{HISTORY, kept_sum, number};
use crate::sums;
use crate::trouble::Trouble;

/// What a step must know of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stands {
    queue: QueueId,
    state: i64,
    pub(super) bytes: u64,
    history: bool,
}

impl Writer<'_> {
    /// Performs a write; an error undoes the whole batch.
    pub(super) fn perform(&mut self, work: &Work) -> Result<Reply, Trouble> {
        match work {
            Work::Changes(changes) => {
                changes.iter().map(|change| self.apply(change)).collect::<Result<_, _>>().map(Reply::Changed)
            }
            Work::PutQueue { name, settings } => self.put_queue(name, settings).map(Reply::Queue),
            Work::RemoveQueue(queue) => self.remove_queue(*queue),
            Work::Find(dedupe) => {
                Ok(Reply::Found(self.known(dedupe)?.map(|known| duplicate(&known, dedupe))))
            }
            Work::Sweep { now, .. } => self.sweep(*now).map(Reply::Swept),
        }
    }

    fn apply(&mut self, change: &Change) -> Result<Changed, Trouble> {
        match change {
            Change::Append(draft) => self.append(draft),
            Change::Begin(position) => {
                let done = self.statements.message_begin.execute([position.0 as i64])?;
                Ok(done_or_missing(done))
            }
            Change::Retry { position, due_at, free, history } => {
                self.retry(*position, *due_at, *free, history.as_ref())
            }
            Change::End { position, of, record, result } => {
                self.end(*position, *of, record.as_ref(), result.as_ref())
            }
            Change::Bury { position, history, result } => self.bury(*position, history, result.as_ref()),
            Change::Redrive { position, due_at } => self.redrive(*position, *due_at),
            Change::Quarantine(position) => {
                let done = self.statements.message_quarantine.execute([position.0 as i64])?;
                Ok(done_or_missing(done))
            }
        }
    }

    fn append(&mut self, draft: &Draft) -> Result<Changed, Trouble> {
        if let Some(dedupe) = &draft.dedupe
            && let Some(known) = self.known(dedupe)?
        {
            return Ok(duplicate(&known, dedupe));
        }
        let position = self.next_position()?;
        let entry = entry_of(draft, position);
        let fixed = Fixed { position, queue: draft.queue, lane: draft.lane, priority: draft.priority };
        let head_sum = fixed.head_sum(&draft.head, draft.body.len());
        self.statements.message_insert.execute((
            position.0 as i64,
            i64::from(draft.queue.0),
            draft.lane.map(|lane| lane as i64),
            i64::from(draft.priority),
            draft.due_at.map(|at| at.0 as i64),
            i64::from(entry.bytes),
            kept_sum(whole_sum(head_sum, &draft.body)),
        ))?;
        let prefix = prefix(u32::try_from(draft.head.len()).unwrap_or(u32::MAX), head_sum);
        let parts = Pieces::of([&prefix, &draft.head, &draft.body]);
        insert_pieces(&mut self.statements.content_insert, &mut self.piece, position, parts)?;
        if let Some(dedupe) = &draft.dedupe {
            self.know(dedupe, position)?;
        }
        *self.pending.messages.entry(draft.queue).or_default() += 1;
        self.pending.entries.push(entry);
        Ok(Changed::Stored(position))
    }

    /// The next position, or rank after a redrive; a block of them is set aside on disk at a time.
    fn next_position(&mut self) -> Result<Position, Trouble> {
        let Positions { next, reserved } = self.positions;
        if next > POSITION_MAX {
            return Err(Trouble::Full("all positions are used up".to_owned()));
        }
        if next >= reserved {
            self.positions.reserved = next + POSITIONS_AHEAD;
            self.statements.meta_next.execute([self.positions.reserved as i64])?;
        }
        self.positions.next = next + 1;
        Ok(Position(next))
    }

    /// A key that is still valid.
    pub(super) fn known(&mut self, dedupe: &Dedupe) -> Result<Option<Known>, Trouble> {
        let statement = &mut self.statements.dedupe_row;
        let found = self.dedupe.find(&dedupe.key, dedupe.now, |row| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(Known {
                    key: row.get(0)?,
                    fingerprint: row.get(1)?,
                    position: Position(row.get::<_, i64>(2)? as u64),
                    until: Timestamp(row.get::<_, i64>(3)? as u64),
                })
            };
            statement.query_row([row], read).optional()
        })?;
        Ok(found)
    }

    fn know(&mut self, dedupe: &Dedupe, position: Position) -> Result<(), Trouble> {
        self.dedupe.expire(dedupe.now);
        let row = self.dedupe.insert(&dedupe.key, dedupe.now, dedupe.until);
        self.pending.dedupe_rows += 1;
        self.statements.dedupe_insert.execute((
            row,
            dedupe.key.as_slice(),
            dedupe.fingerprint.as_slice(),
            position.0 as i64,
            dedupe.until.0 as i64,
        ))?;
        Ok(())
    }

    fn retry(
        &mut self,
        position: Position,
        due_at: Option<Timestamp>,
        free: bool,
        history: Option<&Bytes>,
    ) -> Result<Changed, Trouble> {
        let marks = if history.is_some() { HISTORY } else { 0 };
        let given_back = i64::from(free);
        let due_at = due_at.map(|at| at.0 as i64);
        let done = self.statements.message_retry.execute((position.0 as i64, given_back, due_at, marks))?;
        if let Some(history) = history.filter(|_| done > 0) {
            self.put_history(position, history)?;
        }
        Ok(done_or_missing(done))
    }

    fn end(
        &mut self,
        position: Position,
        of: State,
        record: Option<&(Bytes, Timestamp)>,
        result: Option<&Bytes>,
    ) -> Result<Changed, Trouble> {
        let Some(stands) = self.stands(position)?.filter(|stands| stands.state == number(of)) else {
            return Ok(Changed::Missing);
        };
        self.remove(position, stands)?;
        if let Some((record, keep_until)) = record {
            self.statements.ended_insert.execute((
                position.0 as i64,
                i64::from(stands.queue.0),
                keep_until.0 as i64,
                record.as_ref(),
                kept_sum(sums::of_record(position, stands.queue, *keep_until, record)),
            ))?;
            self.expiry.keeps(position, *keep_until);
            self.evictable = true;
            if let Some(result) = result {
                insert_response(&mut self.statements.result_insert, position, result)?;
            }
        }
        Ok(Changed::Done { order: 0 })
    }

    fn put_history(&mut self, position: Position, history: &Bytes) -> Result<(), Trouble> {
        let sum = kept_sum(sums::of_history(position, history));
        self.statements.history_put.execute((position.0 as i64, history.as_ref(), sum))?;
        Ok(())
    }

    /// Takes a message out, with all that hangs on it.
    fn remove(&mut self, position: Position, stands: Stands) -> Result<(), Trouble> {
        self.statements.message_delete.execute([position.0 as i64])?;
        let (first, _) = keys(position);
        for piece in 0..pieces(stands.bytes + PREFIX_BYTES as u64) {
            self.statements.content_delete.execute([first + piece as i64])?;
        }
        self.remove_verdict(position, stands)?;
        *self.pending.messages.entry(stands.queue).or_default() -= 1;
        Ok(())
    }

    fn remove_verdict(&mut self, position: Position, stands: Stands) -> Result<(), Trouble> {
        if stands.history {
            self.statements.history_delete.execute([position.0 as i64])?;
        }
        if stands.state != 0 {
            self.statements.verdict_delete.execute(keys(position))?;
        }
        Ok(())
    }

    fn bury(
        &mut self,
        position: Position,
        history: &Bytes,
        result: Option<&Bytes>,
    ) -> Result<Changed, Trouble> {
        if self.statements.message_bury.execute([position.0 as i64])? == 0 {
            return Ok(Changed::Missing);
        }
        self.put_history(position, history)?;
        if let Some(result) = result {
            insert_response(&mut self.statements.verdict_insert, position, result)?;
        }
        Ok(Changed::Done { order: 0 })
    }

    fn redrive(&mut self, position: Position, due_at: Option<Timestamp>) -> Result<Changed, Trouble> {
        let Some(stands) = self.stands(position)?.filter(|stands| stands.state == 1) else {
            return Ok(Changed::Missing);
        };
        let order = self.next_position()?;
        let due_at = due_at.map(|at| at.0 as i64);
        self.statements.message_redrive.execute((position.0 as i64, due_at, order.0 as i64))?;
        self.remove_verdict(position, stands)?;
        Ok(Changed::Done { order: order.0 })
    }

    pub(super) fn stands(&mut self, position: Position) -> Result<Option<Stands>, Trouble> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Stands {
                queue: QueueId(row.get(0)?),
                state: row.get(1)?,
                bytes: u64::from(row.get::<_, u32>(2)?),
                history: row.get::<_, i64>(3)? & HISTORY != 0,
            })
        };
        Ok(self.statements.message_stands.query_row([position.0 as i64], read).optional()?)
    }
}

fn duplicate(known: &Known, dedupe: &Dedupe) -> Changed {
    Changed::Duplicate { position: known.position, same: known.fingerprint == dedupe.fingerprint }
}

fn entry_of(draft: &Draft, position: Position) -> Entry {
    Entry {
        position,
        order: position.0,
        queue: draft.queue,
        lane: draft.lane,
        priority: draft.priority,
        due_at: draft.due_at,
        attempts: 0,
        begun: false,
        tried: false,
        bytes: u32::try_from(draft.head.len() + draft.body.len()).unwrap_or(u32::MAX),
        state: State::Waiting,
    }
}

fn done_or_missing(rows: usize) -> Changed {
    if rows == 0 { Changed::Missing } else { Changed::Done { order: 0 } }
}

fn insert_pieces<const N: usize>(
    statement: &mut Statement<'_>,
    piece: &mut Vec<u8>,
    position: Position,
    mut parts: Pieces<'_, N>,
) -> Result<(), Trouble> {
    let (mut key, _) = keys(position);
    while parts.next_into(piece) {
        statement.execute((key, piece.as_slice()))?;
        key += 1;
    }
    Ok(())
}

/// Writes a response, with its sum beside its first piece.
pub(crate) fn insert_response(
    statement: &mut Statement<'_>,
    position: Position,
    response: &[u8],
) -> rusqlite::Result<()> {
    let (mut key, _) = keys(position);
    let mut sum = Some(kept_sum(sums::of_response(position, response)));
    let mut rest = response;
    loop {
        let (piece, behind) = rest.split_at(rest.len().min(CHUNK_BYTES));
        statement.execute((key, piece, sum.take()))?;
        if behind.is_empty() {
            return Ok(());
        }
        (key, rest) = (key + 1, behind);
    }
}
