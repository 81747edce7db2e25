//! slab: 32 bytes for each waiting message, found by slot or by position.
//!
//! Messages come in ascending positions, so they are put into chunks one after another, and a chunk is
//! a sorted run: a position is found by two binary searches and no table pays for it. Nothing is put
//! into a gap of a run; a run that empties is given back. Were a few messages of each run to stay for
//! long, memory would be kept for their gone neighbours: when more than half of it is gaps, the
//! survivors of sparse runs **move** among the strays, and whoever points at them is told
//! ([`Slab::crowded`], [`Slab::stray`]). Strays also hold what comes out of order (redriven messages);
//! they reuse their slots, and a table finds them.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashTable;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// Messages in a chunk, as a power of two: 16 KiB of memory at a time.
const CHUNK_BITS: u32 = 9;
/// Messages' worth of gaps that are never worth a move: 128 KiB.
const SLACK: u32 = 8 << CHUNK_BITS;

/// Where in the index a message is; decides what its links mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: the slot is free.
    Free,
    /// In its queue's list of fresh messages: `a` and `b` are the neighbours.
    Fresh,
    /// In its queue's heap of messages that came back: `a` is the index in it.
    Returned,
    /// In the heap of due times: `a` is the index in it.
    Delayed,
    /// Behind others of its lane: `a` and `b` are the neighbours.
    Behind,
    /// As before, and taken by somebody who will end it.
    BehindTaken,
    /// Taken: being attempted, cancelled or buried.
    Taken,
    /// Waits for its own value of the rate limit's key.
    Parked,
}

const PLACES: [Place; 8] = [
    Place::Free,
    Place::Fresh,
    Place::Returned,
    Place::Delayed,
    Place::Behind,
    Place::BehindTaken,
    Place::Taken,
    Place::Parked,
];

/// A waiting message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    /// From the lowest bit: position 40, queue 10, priority 3, place 3, keyed 1, odd 1, tried 1, size 5.
    word: u64,
    /// The lane's hash, if keyed.
    pub(crate) lane: u64,
    /// See [`Place`].
    pub(crate) a: u32,
    /// See [`Place`].
    pub(crate) b: u32,
    /// The head of a lane: the second. The second: the last. Others: none.
    pub(crate) c: u32,
    /// When it was accepted, in seconds of Unix time: what its age is told by.
    pub(crate) enqueued: u32,
}

const _: () = assert!(size_of::<Message>() == 32);

const QUEUE: u32 = 40;
const PRIORITY: u32 = 50;
const PLACE: u32 = 53;
const KEYED: u32 = 56;
const ODD: u32 = 57;
const TRIED: u32 = 58;
const SIZE: u32 = 59;

#[allow(clippy::cast_possible_truncation, reason = "every cast is masked to its field")]
impl Message {
    pub(crate) fn new(position: u64, queue: u16, priority: u8, lane: Option<u64>, bytes: u32) -> Self {
        let size = u64::from(bytes.max(1).next_power_of_two().trailing_zeros().min(31));
        let word = position & ((1 << QUEUE) - 1)
            | u64::from(queue & 0x3ff) << QUEUE
            | u64::from(priority.min(7)) << PRIORITY
            | u64::from(lane.is_some()) << KEYED
            | size << SIZE;
        Self { word, lane: lane.unwrap_or(0), a: NONE, b: NONE, c: NONE, enqueued: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.word & ((1 << QUEUE) - 1)
    }

    pub(crate) fn queue(&self) -> u16 {
        (self.word >> QUEUE) as u16 & 0x3ff
    }

    pub(crate) fn priority(&self) -> usize {
        (self.word >> PRIORITY) as usize & 7
    }

    pub(crate) fn place(&self) -> Place {
        PLACES[(self.word >> PLACE) as usize & 7]
    }

    pub(crate) fn set_place(&mut self, place: Place) {
        self.word = self.word & !(7 << PLACE) | (place as u64) << PLACE;
    }

    pub(crate) fn keyed(&self) -> bool {
        self.word >> KEYED & 1 == 1
    }

    /// Something about it stands in the table of odd ones.
    pub(crate) fn odd(&self) -> bool {
        self.word >> ODD & 1 == 1
    }

    pub(crate) fn set_odd(&mut self) {
        self.word |= 1 << ODD;
    }

    /// An attempt failed already.
    pub(crate) fn tried(&self) -> bool {
        self.word >> TRIED & 1 == 1
    }

    pub(crate) fn set_tried(&mut self, tried: bool) {
        self.word = self.word & !(1 << TRIED) | u64::from(tried) << TRIED;
    }

    /// Its bytes, rounded up to a power of two.
    pub(crate) fn size(&self) -> u32 {
        1 << (self.word >> SIZE & 31)
    }
}

#[derive(Debug, Default)]
struct Chunk {
    messages: Vec<Message>,
    live: u32,
    /// Its slots are reused.
    strays: bool,
}

/// All waiting messages of a store.
#[derive(Debug)]
pub(crate) struct Slab {
    bits: u32,
    slack: u32,
    chunks: Vec<Chunk>,
    free_chunks: Vec<u32>,
    /// The runs by their first position.
    runs: BTreeMap<u64, u32>,
    /// The run that grows.
    growing: Option<u32>,
    /// The highest position of a run.
    highest: Option<u64>,
    /// Closed runs of which more than half is gone.
    sparse: BTreeSet<u32>,
    stray_table: HashTable<u32>,
    stray_free: Vec<u32>,
    stray_chunks: u32,
    len: u32,
}

fn hash(position: u64) -> u64 {
    // Fibonacci hashing: Knuth, TAOCP 6.4.
    position.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl Default for Slab {
    fn default() -> Self {
        Self::with_chunks_of(CHUNK_BITS, SLACK)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "slots and chunks are below 2^32: MESSAGES_TOTAL")]
impl Slab {
    /// A slab whose chunks hold 2 to the `bits` messages, with `slack` gaps; tests make them small.
    pub(crate) fn with_chunks_of(bits: u32, slack: u32) -> Self {
        Self {
            bits,
            slack,
            chunks: Vec::new(),
            free_chunks: Vec::new(),
            runs: BTreeMap::new(),
            growing: None,
            highest: None,
            sparse: BTreeSet::new(),
            stray_table: HashTable::new(),
            stray_free: Vec::new(),
            stray_chunks: 0,
            len: 0,
        }
    }

    fn chunk_len(&self) -> u32 {
        1 << self.bits
    }

    fn split(&self, slot: u32) -> (usize, usize) {
        ((slot >> self.bits) as usize, (slot & (self.chunk_len() - 1)) as usize)
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn get(&self, slot: u32) -> &Message {
        let (chunk, at) = self.split(slot);
        &self.chunks[chunk].messages[at]
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut Message {
        let (chunk, at) = self.split(slot);
        &mut self.chunks[chunk].messages[at]
    }

    /// Puts a message in; its place must be set to something afterwards.
    pub(crate) fn insert(&mut self, message: Message) -> u32 {
        let position = message.position();
        if self.highest.is_some_and(|highest| position <= highest) {
            return self.insert_stray(message);
        }
        self.highest = Some(position);
        let chunk = match self.growing {
            Some(chunk) if (self.chunks[chunk as usize].messages.len() as u32) < self.chunk_len() => chunk,
            _ => self.grow(position),
        };
        let run = &mut self.chunks[chunk as usize];
        run.messages.push(message);
        run.live += 1;
        self.len += 1;
        let at = run.messages.len() as u32 - 1;
        (chunk << self.bits) + at
    }

    /// Begins a new run at `position`.
    fn grow(&mut self, position: u64) -> u32 {
        if let Some(full) = self.growing.take() {
            self.looked_at(full);
        }
        let chunk = self.chunk();
        self.chunks[chunk as usize].strays = false;
        self.runs.insert(position, chunk);
        self.growing = Some(chunk);
        chunk
    }

    fn chunk(&mut self) -> u32 {
        let chunk = self.free_chunks.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() as u32 - 1
        });
        self.chunks[chunk as usize].messages = Vec::with_capacity(self.chunk_len() as usize);
        chunk
    }

    fn insert_stray(&mut self, message: Message) -> u32 {
        let slot = match self.stray_free.pop() {
            Some(slot) => slot,
            None => self.more_strays(),
        };
        *self.get_mut(slot) = message;
        let (chunk, _) = self.split(slot);
        self.chunks[chunk].live += 1;
        self.len += 1;
        let (bits, chunks) = (self.bits, &self.chunks);
        let again = |slot: &u32| {
            let at = (slot & ((1 << bits) - 1)) as usize;
            hash(chunks[(slot >> bits) as usize].messages[at].position())
        };
        self.stray_table.insert_unique(hash(message.position()), slot, again);
        slot
    }

    fn more_strays(&mut self) -> u32 {
        let chunk = self.chunk();
        self.stray_chunks += 1;
        let (first, len) = (chunk << self.bits, self.chunk_len());
        let strays = &mut self.chunks[chunk as usize];
        strays.strays = true;
        strays.messages.resize(len as usize, Message::new(0, 0, 0, None, 0));
        self.stray_free.extend((1..len).rev().map(|at| first + at));
        first
    }

    /// Takes a message out; its slot means nothing any more.
    pub(crate) fn remove(&mut self, slot: u32) {
        let position = self.get(slot).position();
        self.get_mut(slot).set_place(Place::Free);
        self.len -= 1;
        let chunk = slot >> self.bits;
        self.chunks[chunk as usize].live -= 1;
        if self.chunks[chunk as usize].strays {
            if let Ok(found) = self.stray_table.find_entry(hash(position), |other| *other == slot) {
                found.remove();
            }
            self.stray_free.push(slot);
            self.give_strays_back();
        } else {
            self.looked_at(chunk);
        }
    }

    /// A run lost a message or does not grow any more.
    fn looked_at(&mut self, chunk: u32) {
        let run = &self.chunks[chunk as usize];
        let may_grow = self.growing == Some(chunk) && (run.messages.len() as u32) < self.chunk_len();
        if run.live == 0 && !may_grow {
            let first = run.messages[0].position();
            self.runs.remove(&first);
            self.sparse.remove(&chunk);
            self.chunks[chunk as usize].messages = Vec::new();
            self.free_chunks.push(chunk);
            if self.growing == Some(chunk) {
                self.growing = None;
            }
        } else if self.growing != Some(chunk) && run.live < self.chunk_len() / 2 {
            self.sparse.insert(chunk);
        }
    }

    fn give_strays_back(&mut self) {
        if !self.stray_table.is_empty() || self.stray_chunks == 0 {
            return;
        }
        for chunk in 0..self.chunks.len() {
            if self.chunks[chunk].strays {
                self.chunks[chunk] = Chunk::default();
                self.free_chunks.push(chunk as u32);
            }
        }
        self.stray_chunks = 0;
        self.stray_free = Vec::new();
        self.stray_table = HashTable::new();
    }

    /// The slot of a position.
    pub(crate) fn find(&self, position: u64) -> Option<u32> {
        if let Some(slot) =
            self.stray_table.find(hash(position), |slot| self.get(*slot).position() == position)
        {
            return Some(*slot);
        }
        let (_, chunk) = self.runs.range(..=position).next_back()?;
        let run = &self.chunks[*chunk as usize].messages;
        let at = run.binary_search_by_key(&position, Message::position).ok()?;
        (run[at].place() != Place::Free).then_some((chunk << self.bits) + at as u32)
    }

    /// A sparse run's messages, if too much memory is kept for gaps: each is to be moved by
    /// [`Slab::stray`], after which the run is gone.
    pub(crate) fn crowded(&self) -> Option<Vec<u32>> {
        let kept = (self.runs.len() as u32) << self.bits;
        if kept <= 2 * self.len + self.slack {
            return None;
        }
        let chunk = *self.sparse.first()?;
        let run = &self.chunks[chunk as usize].messages;
        let live = (0..run.len()).filter(|at| run[*at].place() != Place::Free);
        Some(live.map(|at| (chunk << self.bits) + at as u32).collect())
    }

    /// Copies a message of a run among the strays; returns its new slot. The old one is to be removed
    /// when nobody points at it any more.
    pub(crate) fn stray(&mut self, slot: u32) -> u32 {
        let message = *self.get(slot);
        self.insert_stray(message)
    }

    /// Every slot in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Message)> {
        self.chunks.iter().enumerate().flat_map(|(chunk, messages)| {
            let first = (chunk as u32) << self.bits;
            let live = messages.messages.iter().enumerate();
            live.filter(|(_, message)| message.place() != Place::Free)
                .map(move |(at, message)| (first + at as u32, message))
        })
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let messages: usize = self.chunks.iter().map(|chunk| chunk.messages.capacity()).sum();
        messages * size_of::<Message>()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.stray_table.capacity() * 8 / 7 * 5
            + (self.stray_free.capacity() + self.free_chunks.capacity()) * 4
            + self.runs.len() * 24
    }
}

#[cfg(test)]
mod tests;
