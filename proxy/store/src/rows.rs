//! rows: what stands in a row of `messages`, as the words of the crate.

use rusqlite::Row;
use rusqlite::types::FromSql;

use crate::contents::Fixed;
use crate::message::{Entry, Position, QueueId, State, Timestamp};

/// An attempt was begun.
pub(crate) const BEGUN: i64 = 1;
/// It has a history.
pub(crate) const HISTORY: i64 = 2;

/// A row that says what no writer of ours says.
pub(crate) struct Unreadable(pub(crate) String);

/// A row of `messages`, in the order of columns that [`crate::sql::MESSAGE`] has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageRow {
    pub(crate) entry: Entry,
    /// The sum over all that never changes.
    pub(crate) sum: u32,
    /// It has a history.
    pub(crate) history: bool,
}

impl MessageRow {
    /// Reads one.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, Unreadable> {
        let position = column::<i64>(row, 0)? as u64;
        let marks = column::<i64>(row, 7)?;
        let entry = Entry {
            position: Position(position),
            order: column::<Option<i64>>(row, 5)?.map_or(position, |order| order as u64),
            queue: QueueId(column(row, 1)?),
            lane: column::<Option<i64>>(row, 2)?.map(|lane| lane as u64),
            priority: column(row, 3)?,
            due_at: column::<Option<i64>>(row, 4)?.map(|at| Timestamp(at as u64)),
            attempts: column(row, 6)?,
            begun: marks & BEGUN != 0,
            bytes: column(row, 8)?,
            state: state(column(row, 9)?)?,
        };
        Ok(Self { entry, sum: column::<i32>(row, 10)? as u32, history: marks & HISTORY != 0 })
    }

    /// What its sum is over, beside the content.
    pub(crate) fn fixed(&self) -> Fixed {
        let Entry { position, queue, lane, priority, .. } = self.entry;
        Fixed { position, queue, lane, priority }
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
