//! rows: what stands in a row of `messages`, as the words of the crate.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::FromSql;

use crate::contents::Fixed;
use crate::message::{Entry, Position, QueueId, State, Timestamp};
use crate::sums;

/// An attempt was begun.
pub(crate) const BEGUN: i64 = 1;
/// It has a history.
pub(crate) const HISTORY: i64 = 2;

/// The least urgent.
const PRIORITY_MAX: u8 = 7;

/// A row that says what no writer of ours says.
pub(crate) struct Unreadable(pub(crate) String);

/// A row of `messages`, in the order of columns that [`crate::sql::MESSAGE`] has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageRow {
    pub(crate) entry: Entry,
    /// The sum over all that never changes.
    pub(crate) sum: u32,
}

impl MessageRow {
    /// Reads one.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, Unreadable> {
        let position = column::<i64>(row, 0)? as u64;
        let marks = column::<i64>(row, 7)?;
        let priority = column(row, 3)?;
        if marks & !(BEGUN | HISTORY) != 0 || priority > PRIORITY_MAX {
            return Err(Unreadable(format!("position {position} has marks {marks}, priority {priority}")));
        }
        let entry = Entry {
            position: Position(position),
            order: column::<Option<i64>>(row, 5)?.map_or(position, |order| order as u64),
            queue: QueueId(column(row, 1)?),
            lane: column::<Option<i64>>(row, 2)?.map(|lane| lane as u64),
            priority,
            due_at: column::<Option<i64>>(row, 4)?.map(|at| Timestamp(at as u64)),
            attempts: column(row, 6)?,
            begun: marks & BEGUN != 0,
            tried: marks & HISTORY != 0,
            bytes: column(row, 8)?,
            state: state(column(row, 9)?)?,
        };
        Ok(Self { entry, sum: column::<i32>(row, 10)? as u32 })
    }

    /// What its sum is over, beside the content.
    pub(crate) fn fixed(&self) -> Fixed {
        let Entry { position, queue, lane, priority, .. } = self.entry;
        Fixed { position, queue, lane, priority }
    }
}

/// A row of `ended`, in the order of columns that [`crate::sql::ENDED`] has.
pub(crate) struct EndedRow {
    pub(crate) position: Position,
    pub(crate) queue: QueueId,
    pub(crate) keep_until: Timestamp,
    pub(crate) record: Bytes,
}

impl EndedRow {
    /// Reads one and holds it against its sum.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, Unreadable> {
        let read = Self {
            position: Position(column::<i64>(row, 0)? as u64),
            queue: QueueId(column(row, 1)?),
            keep_until: Timestamp(column::<i64>(row, 2)? as u64),
            record: Bytes::from(column::<Vec<u8>>(row, 3)?),
        };
        if !sums::fits(column(row, 4)?, read.sum()) {
            return Err(Unreadable("its record is not the one that was written".to_owned()));
        }
        Ok(read)
    }

    /// The sum over all of it.
    pub(crate) fn sum(&self) -> u32 {
        sums::of_record(self.position, self.queue, self.keep_until, &self.record)
    }
}

/// The state of a number.
pub(crate) fn state(number: i64) -> Result<State, Unreadable> {
    match number {
        0 => Ok(State::Waiting),
        1 => Ok(State::Dead),
        2 => Ok(State::Quarantined),
        other => Err(Unreadable(format!("state {other} is none"))),
    }
}

/// The number of a state.
pub(crate) fn number(state: State) -> i64 {
    match state {
        State::Waiting => 0,
        State::Dead => 1,
        State::Quarantined => 2,
    }
}

/// A sum as SQLite keeps it in four bytes.
pub(crate) fn kept_sum(sum: u32) -> i64 {
    i64::from(sum as i32)
}

fn column<T: FromSql>(row: &Row<'_>, index: usize) -> Result<T, Unreadable> {
    row.get(index).map_err(|found| Unreadable(found.to_string()))
}
