//! scan: what stands in a database, read once when it is opened; every row must be one that we write.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::Connection;

use crate::dedupe::{Generations, Rebuild};
use crate::limits::{DEDUPE_ROW_MAX, POSITION_MAX};
use crate::message::{Entry, QueueId, QueueRow, Timestamp};
use crate::rows::{MessageRow, Unreadable};
use crate::sql;
use crate::trouble::is_damage;

/// Why it was not read.
pub(crate) enum Wrong {
    /// A statement failed.
    Sqlite(rusqlite::Error),
    /// A row says what no writer of ours says.
    Value(String),
}

impl Wrong {
    /// It is not what was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) => is_damage(error),
            Self::Value(_) => true,
        }
    }
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Unreadable> for Wrong {
    fn from(Unreadable(why): Unreadable) -> Self {
        Self::Value(why)
    }
}

/// What stands in a database.
pub(crate) struct Contents {
    pub(crate) queues: Vec<QueueRow>,
    pub(crate) messages: HashMap<QueueId, u64>,
    pub(crate) dedupe: Generations,
    pub(crate) meta: Meta,
}

/// What a store notes of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    /// No position or rank so high was given.
    pub(crate) next_position: u64,
    /// It was closed, not stopped.
    pub(crate) clean: bool,
}

/// Whether all of it can be read.
pub(crate) fn all(connection: &Connection) -> Result<(), Wrong> {
    let meta = meta(connection)?;
    messages(connection, meta, &mut |_| {})?;
    keys(connection)?;
    queues(connection).map(|_| ())
}

pub(crate) fn meta(connection: &Connection) -> Result<Meta, Wrong> {
    let (next, clean): (i64, bool) =
        connection.query_row(sql::META, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    match u64::try_from(next) {
        Ok(next_position) if (1..=POSITION_MAX + 1).contains(&next_position) => {
            Ok(Meta { next_position, clean })
        }
        _ => Err(Wrong::Value(format!("the next position, {next}, is none"))),
    }
}

/// Counts the messages of each queue, and shows every one to `each`.
pub(crate) fn messages(
    connection: &Connection,
    meta: Meta,
    each: &mut dyn FnMut(Entry),
) -> Result<HashMap<QueueId, u64>, Wrong> {
    let mut counts: HashMap<QueueId, u64> = HashMap::new();
    let mut scan = connection.prepare(sql::MESSAGES_SCAN)?;
    let mut rows = scan.query([i64::MIN])?;
    let mut last = 0;
    // No check of SQLite's looks at the root of an index that is empty.
    connection.prepare(sql::MESSAGES_APART)?.exists((0, 1, 0, 1))?;
    while let Some(row) = rows.next()? {
        let entry = MessageRow::read(row)?.entry;
        let Entry { position, order, queue, .. } = entry;
        if position.0 <= last || position.0.max(order) >= meta.next_position {
            return Err(Wrong::Value(format!(
                "position {position} with rank {order} stands behind {last}, {} comes next",
                meta.next_position
            )));
        }
        last = position.0;
        *counts.entry(queue).or_default() += 1;
        each(entry);
    }
    Ok(counts)
}

pub(crate) fn queues(connection: &Connection) -> Result<Vec<QueueRow>, Wrong> {
    connection.prepare(sql::QUEUE_BY_NAME)?.exists([""])?;
    let mut scan = connection.prepare(sql::QUEUES_SCAN)?;
    let rows = scan.query_map([], |row| {
        Ok(QueueRow {
            id: QueueId(row.get(0)?),
            name: row.get(1)?,
            settings: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn keys(connection: &Connection) -> Result<Generations, Wrong> {
    let mut rebuild = Rebuild::default();
    let mut scan = connection.prepare(sql::DEDUPE_SCAN)?;
    let mut rows = scan.query([i64::MIN])?;
    let mut last = -1;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let ascends = number > last && number <= DEDUPE_ROW_MAX;
        let readable = row.get_ref(3)?.as_blob().is_ok_and(|print| print.len() == 16)
            && row.get_ref(4)?.as_i64().is_ok();
        if !ascends || !readable {
            return Err(Wrong::Value(format!("row {number} of the keys stands behind {last}")));
        }
        last = number;
        rebuild.row(number, &row.get(1)?, Timestamp(row.get::<_, i64>(2)? as u64));
    }
    Ok(rebuild.done())
}
