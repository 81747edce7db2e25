//! chores: queues, sweeps, and what makes room.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rusqlite::OptionalExtension;

use super::{Reply, Writer};
use crate::contents::keys;
use crate::error::StoreError;
use crate::limits::{CHUNK_BITS, EVICT_ROWS, SWEEP_BLOCK, SWEEP_ROWS};
use crate::message::{Change, Position, QueueId, Timestamp};
use crate::sql;
use crate::trouble::Trouble;

/// When the first record of each block of positions is over, so that a sweep passes by what is not.
///
/// A time here may be too early, after a rollback or an eviction: then a block is looked at in vain.
#[derive(Default)]
pub(super) struct Expiry {
    soonest: BTreeMap<u64, Timestamp>,
    /// Records from here to `unknown_to` have not been looked at since the store was opened.
    unknown: u64,
    unknown_to: u64,
    /// Where the running sweep is; `None` when it is through.
    at: Option<u64>,
}

impl Expiry {
    /// Records below `position` are there from before.
    pub(super) fn unknown_below(position: u64) -> Self {
        Self { unknown_to: position, ..Self::default() }
    }

    /// A record is kept until then.
    pub(super) fn keeps(&mut self, position: Position, until: Timestamp) {
        let soonest = self.soonest.entry(position.0 / SWEEP_BLOCK).or_insert(until);
        *soonest = until.min(*soonest);
    }

    /// Where to look next.
    fn next(&self, now: Timestamp) -> Option<Stretch> {
        if self.unknown < self.unknown_to {
            return Some(Stretch { first: self.unknown, behind: self.unknown_to, known: false });
        }
        let from = self.at.unwrap_or(0).div_ceil(SWEEP_BLOCK);
        let (block, _) = self.soonest.range(from..).find(|(_, soonest)| **soonest <= now)?;
        Some(Stretch { first: block * SWEEP_BLOCK, behind: (block + 1) * SWEEP_BLOCK, known: true })
    }

    /// What was looked at is committed.
    pub(super) fn looked(&mut self, looked: Looked) {
        self.at = looked.stretch.map(|stretch| {
            if stretch.known {
                self.soonest.remove(&(stretch.first / SWEEP_BLOCK));
                stretch.behind
            } else {
                self.unknown = looked.reached;
                0
            }
        });
        for (position, until) in looked.kept {
            self.keeps(position, until);
        }
    }
}

/// Positions whose records are looked at together.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    first: u64,
    behind: u64,
    /// It is one block.
    known: bool,
}

/// What a part of a sweep found, to be remembered once it is committed.
pub(super) struct Looked {
    kept: Vec<(Position, Timestamp)>,
    /// `None`: there was nothing more.
    stretch: Option<Stretch>,
    reached: u64,
}

impl Writer<'_> {
    pub(super) fn put_queue(&mut self, name: &str, settings: &Bytes) -> Result<QueueId, Trouble> {
        let known: Option<i64> =
            self.connection.query_row(sql::QUEUE_BY_NAME, [name], |row| row.get(0)).optional()?;
        if let Some(id) = known {
            self.connection.execute(sql::QUEUE_SETTINGS, (id, settings.as_ref()))?;
            return queue_id(id);
        }
        let id = self.free_number()?;
        self.connection.execute(sql::QUEUE_INSERT, (i64::from(id), name, settings.as_ref()))?;
        Ok(QueueId(id))
    }

    /// A number that neither a queue has nor messages name: above all others, or else in the first gap.
    fn free_number(&mut self) -> Result<u16, Trouble> {
        let mut scan = self.connection.prepare(sql::QUEUE_NUMBERS_SCAN)?;
        let rows = scan.query_map([], |row| row.get::<_, u16>(0))?;
        let mut taken = rows.collect::<rusqlite::Result<BTreeSet<_>>>()?;
        let named = self.messages.keys().chain(self.pending.messages.keys());
        taken.extend(named.filter(|queue| self.left_in(**queue) > 0).map(|queue| queue.0));
        let above = taken.last().map_or(Some(1), |last| last.checked_add(1));
        above
            .or_else(|| (1..=u16::MAX).find(|number| !taken.contains(number)))
            .ok_or_else(|| Trouble::Full("all queue numbers are used up".to_owned()))
    }

    fn left_in(&self, queue: QueueId) -> u64 {
        let stored = self.messages.get(&queue).copied().unwrap_or(0);
        let more = self.pending.messages.get(&queue).copied().unwrap_or(0);
        stored.saturating_add_signed(more)
    }

    pub(super) fn remove_queue(&mut self, queue: QueueId) -> Result<Reply, Trouble> {
        let left = self.left_in(queue);
        if left == 0 {
            self.connection.execute(sql::QUEUE_DELETE, [i64::from(queue.0)])?;
            return Ok(Reply::Removed);
        }
        Ok(Reply::Holds(left))
    }

    /// Removes a bounded number of records that are over.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Result<u64, Trouble> {
        self.dedupe.expire(now);
        let Some(stretch) = self.expiry.next(now) else {
            self.pending.looked = Some(Looked { kept: Vec::new(), stretch: None, reached: 0 });
            return Ok(0);
        };
        let (mut over, mut kept, mut reached) = (Vec::new(), Vec::new(), stretch.behind);
        let mut rows = self.statements.ended_scan.query([stretch.first as i64])?;
        while let Some(row) = rows.next()? {
            let position = row.get::<_, i64>(0)? as u64;
            if position >= stretch.behind {
                break;
            }
            if over.len() + kept.len() >= SWEEP_ROWS {
                reached = position;
                break;
            }
            // One that does not say until when it is kept is damaged, and over.
            let until = Timestamp(row.get::<_, i64>(1).unwrap_or(0) as u64);
            if until <= now { over.push(Position(position)) } else { kept.push((Position(position), until)) }
        }
        drop(rows);
        for position in &over {
            self.statements.ended_delete.execute([position.0 as i64])?;
            self.statements.result_delete.execute(keys(*position))?;
        }
        self.pending.looked = Some(Looked { kept, stretch: Some(stretch), reached });
        Ok(over.len() as u64)
    }

    /// The running sweep has more to do.
    pub(super) fn sweep_goes_on(&self) -> bool {
        self.expiry.at.is_some() || self.dedupe.next_drop().is_some()
    }

    /// Makes room: the oldest results first, records when no result is left; `false` when there are none.
    pub(super) fn evict(&mut self) -> Result<bool, Trouble> {
        let oldest = self.statements.result_first.query_map([EVICT_ROWS], |row| row.get::<_, i64>(0))?;
        let oldest: Vec<i64> = oldest.collect::<Result<_, _>>()?;
        for key in &oldest {
            self.statements.result_delete.execute(keys(Position(*key as u64 >> CHUNK_BITS)))?;
        }
        if !oldest.is_empty() {
            return Ok(true);
        }
        let oldest = self.statements.ended_first.query_map((0, EVICT_ROWS), |row| row.get::<_, i64>(0))?;
        let oldest: Vec<i64> = oldest.collect::<Result<_, _>>()?;
        for position in &oldest {
            self.statements.ended_delete.execute([*position])?;
        }
        Ok(!oldest.is_empty())
    }

    /// Removes a bounded number of rows of keys that are over.
    pub(super) fn drop_known_keys(&mut self) -> Result<(), Trouble> {
        if let Some((first, last)) = self.dedupe.next_drop() {
            self.statements.dedupe_delete.execute((first, last))?;
            self.pending.dropped = Some(last);
        }
        Ok(())
    }

    /// Why the keys of these drafts cannot be remembered: only new ones need room.
    pub(super) fn keys_refused(&mut self, changes: &[Change]) -> Result<Option<StoreError>, Trouble> {
        let keys = changes.iter().filter_map(|change| match change {
            Change::Append(draft) => draft.dedupe.as_ref(),
            _ => None,
        });
        if self.dedupe.rows() + keys.clone().count() as u64 <= self.keys_max {
            return Ok(None);
        }
        let mut new = 0;
        for dedupe in keys {
            self.dedupe.expire(dedupe.now);
            new += u64::from(self.known(dedupe)?.is_none());
        }
        let fits = self.dedupe.rows() + new <= self.keys_max;
        Ok((!fits).then_some(StoreError::TooManyKeys(self.keys_max)))
    }
}

fn queue_id(id: i64) -> Result<QueueId, Trouble> {
    u16::try_from(id).map(QueueId).map_err(|_| Trouble::Broken(format!("queue number {id} is none")))
}
