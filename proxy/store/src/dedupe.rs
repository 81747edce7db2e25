//! dedupe: which keys are known, by generations that are dropped whole.
//!
//! On disk a key is a row appended at the right edge of its generation (`row` = generation · 2¹⁸ +
//! offset), so that random keys cost no random page. In memory each generation is one open-addressed
//! table of 32-bit slots: 18 bits of offset and 14 bits of the key; a slot that matches is looked up on
//! disk, where the whole key decides. A slot left behind by a transaction that was rolled back points to
//! a row that is not there or another key's, and does no harm.
//!
//! Windows of about the same length share a generation, so that all of it is over at about the same time.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::{DEDUPE_DROP_ROWS, GENERATION_BITS, GENERATION_ROWS_MIN, GENERATION_WINDOW_SHARE};
use crate::message::{Position, Timestamp};

const TAG_BITS: u32 = u32::BITS - GENERATION_BITS;
/// Offset 0 is never given, so that an empty slot is 0.
const GENERATION_ROWS_MAX: usize = (1 << GENERATION_BITS) - 1;

/// A row of `dedupe`.
pub(crate) struct Known {
    pub(crate) key: [u8; 16],
    pub(crate) fingerprint: [u8; 16],
    pub(crate) position: Position,
    pub(crate) until: Timestamp,
}

/// The keys of one store.
#[derive(Default)]
pub(crate) struct Generations {
    all: Vec<Generation>,
    /// The one that takes keys, by the length of their window as a power of two.
    open: BTreeMap<u32, u64>,
    next: u64,
    rows: u64,
    /// Rows of generations that are over and still on disk: the first and the last.
    over: VecDeque<(i64, i64)>,
}

struct Generation {
    id: u64,
    slots: Box<[u32]>,
    rows: usize,
    rows_max: usize,
    first: Timestamp,
    until: Timestamp,
}

impl Generations {
    /// Keys there are.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Finds a key that is still valid; `read` reads a row from the disk.
    pub(crate) fn find<E>(
        &self,
        key: &[u8; 16],
        now: Timestamp,
        mut read: impl FnMut(i64) -> Result<Option<Known>, E>,
    ) -> Result<Option<Known>, E> {
        let print = Print::of(key);
        for generation in self.all.iter().rev().filter(|generation| generation.until > now) {
            for offset in generation.candidates(print) {
                let row = row_of(generation.id, offset);
                if let Some(known) = read(row)?.filter(|known| known.key == *key && known.until > now) {
                    return Ok(Some(known));
                }
            }
        }
        Ok(None)
    }

    /// Takes a key in; returns the row where it is to be written.
    pub(crate) fn insert(&mut self, key: &[u8; 16], now: Timestamp, until: Timestamp) -> i64 {
        let window = until.0.saturating_sub(now.0).max(1);
        let index = self.generation_for(window.ilog2(), now, window);
        let generation = &mut self.all[index];
        generation.until = generation.until.max(until);
        generation.rows += 1;
        let offset = generation.rows;
        generation.put(Print::of(key), offset);
        self.rows += 1;
        row_of(generation.id, offset)
    }

    /// `rows` keys were rolled back.
    pub(crate) fn forget(&mut self, rows: u64) {
        self.rows -= rows;
    }

    /// Sets aside what is over.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let Self { all, over, rows, .. } = self;
        all.retain(|generation| {
            let stays = generation.until > now;
            if !stays {
                *rows = rows.saturating_sub(generation.rows as u64);
                over.push_back((row_of(generation.id, 0), row_of(generation.id, generation.rows)));
            }
            stays
        });
    }

    /// The next rows to delete: the first and the last. [`Generations::dropped`] says that they are gone.
    pub(crate) fn next_drop(&self) -> Option<(i64, i64)> {
        self.over.front().map(|(first, last)| (*first, (*last).min(first + DEDUPE_DROP_ROWS as i64 - 1)))
    }

    /// The rows up to `last` are gone.
    pub(crate) fn dropped(&mut self, last: i64) {
        if let Some(front) = self.over.front_mut() {
            front.0 = last + 1;
            if front.0 > front.1 {
                self.over.pop_front();
            }
        }
    }

    /// The generation that takes keys of this window: the open one, or a new one.
    fn generation_for(&mut self, class: u32, now: Timestamp, window: u64) -> usize {
        let open = self.open.get(&class);
        let found = open.and_then(|id| self.all.iter().position(|generation| generation.id == *id));
        let mut rows_max = GENERATION_ROWS_MIN;
        if let Some(index) = found {
            let generation = &self.all[index];
            let age = now.0.saturating_sub(generation.first.0);
            if generation.rows < generation.rows_max && age <= window / GENERATION_WINDOW_SHARE {
                return index;
            }
            // One that was filled is followed by a larger one, one that grew old by one of its size.
            let grown = if generation.rows < generation.rows_max { 1 } else { 2 };
            rows_max = (generation.rows_max * grown).min(GENERATION_ROWS_MAX);
        }
        self.open.insert(class, self.next);
        self.all.push(Generation::empty(self.next, rows_max, now));
        self.next += 1;
        self.all.len() - 1
    }
}

impl Generation {
    fn empty(id: u64, rows_max: usize, first: Timestamp) -> Self {
        // Three quarters full at most: a new key is told from all others after nine slots on average.
        let slots = vec![0; (rows_max * 4).div_ceil(3) + 1].into_boxed_slice();
        Self { id, slots, rows: 0, rows_max, first, until: Timestamp(0) }
    }

    fn candidates(&self, print: Print) -> impl Iterator<Item = usize> + '_ {
        let home = print.home(self.slots.len());
        let (behind, from_home) = self.slots.split_at(home);
        from_home
            .iter()
            .chain(behind)
            .take_while(|slot| **slot != 0)
            .filter(move |slot| **slot & ((1 << TAG_BITS) - 1) == print.tag)
            .map(|slot| (slot >> TAG_BITS) as usize)
    }

    fn put(&mut self, print: Print, offset: usize) {
        let mut at = print.home(self.slots.len());
        while self.slots[at] != 0 {
            at = (at + 1) % self.slots.len();
        }
        self.slots[at] = (u32::try_from(offset).unwrap_or(0) << TAG_BITS) | print.tag;
    }
}

/// What of a key is kept in memory.
#[derive(Clone, Copy)]
struct Print {
    spread: u32,
    tag: u32,
}

impl Print {
    /// Keys are hashes already: their bytes are as good as random.
    fn of(key: &[u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *key;
        Self {
            spread: u32::from_le_bytes([a, b, c, d]),
            tag: u32::from_le_bytes([e, f, g, h]) & ((1 << TAG_BITS) - 1),
        }
    }

    fn home(self, slots: usize) -> usize {
        ((u64::from(self.spread) * slots as u64) >> 32) as usize
    }
}

fn row_of(generation: u64, offset: usize) -> i64 {
    ((generation << GENERATION_BITS) | offset as u64) as i64
}

/// Builds the generations of a directory from its rows, which come in ascending order.
#[derive(Default)]
pub(crate) struct Rebuild {
    made: Generations,
    id: u64,
    prints: Vec<(Print, usize)>,
    until: Timestamp,
}

impl Rebuild {
    pub(crate) fn row(&mut self, row: i64, key: &[u8; 16], until: Timestamp) {
        let id = row as u64 >> GENERATION_BITS;
        if id != self.id {
            self.seal();
            self.id = id;
        }
        let offset = usize::try_from(row as u64 & GENERATION_ROWS_MAX as u64).unwrap_or(0);
        self.prints.push((Print::of(key), offset));
        self.until = self.until.max(until);
    }

    pub(crate) fn done(mut self) -> Generations {
        self.seal();
        self.made
    }

    /// Closes the generation: after an opening keys go to new ones.
    fn seal(&mut self) {
        let Some((_, last)) = self.prints.last() else { return };
        let mut generation = Generation::empty(self.id, self.prints.len(), Timestamp(0));
        generation.until = std::mem::take(&mut self.until);
        generation.rows = *last;
        self.made.rows += self.prints.len() as u64;
        for (print, offset) in self.prints.drain(..) {
            generation.put(print, offset);
        }
        self.made.all.push(generation);
        self.made.next = self.id + 1;
    }
}

#[cfg(test)]
mod tests;
