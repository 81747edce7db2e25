//! lanes: the messages of one ordering key, one behind another.
//!
//! A lane is its **head**, the only message that may be handed out; a table finds it by queue and
//! hash. Those behind it are linked through `a` and `b`, which the head needs for its place among the
//! ready ones, so the ends of that list hang at `c`: the head's `c` is the second, the second's `c` is
//! the last. A lane costs no memory but its messages and about seven bytes in the table.
//!
//! The table is many small ones, so that none is copied whole while messages wait. Their shares of
//! the hashes differ by up to two, so that they do not all grow at once: the load is then about five
//! eighths whatever the number of lanes is, rather than between seven sixteenths and seven eighths.

use hashbrown::HashTable;

use crate::slab::{NONE, Place, Slab};

const SHARDS: usize = 64;

/// The heads of all lanes.
#[derive(Debug)]
pub(crate) struct Lanes {
    shards: Vec<HashTable<u32>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect() }
    }
}

/// splitmix64's finaliser (Steele, Lea, Flood 2014): the shard takes high bits, the tables both ends.
fn hash(queue: u16, lane: u64) -> u64 {
    let mut x = lane ^ u64::from(queue).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share of 64")]
#[allow(clippy::cast_sign_loss, reason = "the logarithm of one or more")]
fn shard(hash: u64) -> usize {
    // The top 7 bits are hashbrown's own tag: others are taken here.
    let share = (hash >> 16 & 0xffff_ffff) as f64 / 4_294_967_296.0;
    ((1.0 + share).log2() * SHARDS as f64) as usize % SHARDS
}

impl Lanes {
    /// The head of a lane.
    pub(crate) fn head(&self, slab: &Slab, queue: u16, lane: u64) -> Option<u32> {
        let hash = hash(queue, lane);
        let same = |slot: &u32| {
            let head = slab.get(*slot);
            head.lane == lane && head.queue() == queue
        };
        self.shards[shard(hash)].find(hash, same).copied()
    }

    /// Whether `slot` is the head of its lane.
    pub(crate) fn is_head(&self, slab: &Slab, slot: u32) -> bool {
        let message = slab.get(slot);
        message.keyed() && self.head(slab, message.queue(), message.lane) == Some(slot)
    }

    /// Opens a lane with `slot` as its head.
    pub(crate) fn open(&mut self, slab: &mut Slab, slot: u32) {
        slab.get_mut(slot).c = NONE;
        let message = slab.get(slot);
        let hash = hash(message.queue(), message.lane);
        let again = |slot: &u32| {
            let head = slab.get(*slot);
            self::hash(head.queue(), head.lane)
        };
        self.shards[shard(hash)].insert_unique(hash, slot, again);
    }

    /// The head's entry points at `to`; `None` takes it out.
    fn repoint(&mut self, slab: &Slab, from: u32, to: Option<u32>) {
        let message = slab.get(from);
        let hash = hash(message.queue(), message.lane);
        let shard = &mut self.shards[shard(hash)];
        if let Ok(mut found) = shard.find_entry(hash, |slot| *slot == from) {
            match to {
                Some(to) => *found.get_mut() = to,
                None => drop(found.remove()),
            }
        }
        if to.is_none() && shard.len() * 4 < shard.capacity() && shard.capacity() > 64 {
            let again = |slot: &u32| {
                let head = slab.get(*slot);
                self::hash(head.queue(), head.lane)
            };
            shard.shrink_to(shard.len() * 2, again);
        }
    }

    /// Puts `slot` at the end of the lane of `head`.
    pub(crate) fn push_back(&mut self, slab: &mut Slab, head: u32, slot: u32) {
        let second = slab.get(head).c;
        let message = slab.get_mut(slot);
        message.set_place(Place::Behind);
        (message.b, message.c) = (NONE, NONE);
        if second == NONE {
            slab.get_mut(head).c = slot;
            let message = slab.get_mut(slot);
            (message.a, message.c) = (head, slot);
            return;
        }
        let last = slab.get(second).c;
        slab.get_mut(last).b = slot;
        slab.get_mut(slot).a = last;
        slab.get_mut(second).c = slot;
    }

    /// Puts `slot` in front of `head`, which must be in no list, and makes it the head.
    pub(crate) fn push_front(&mut self, slab: &mut Slab, head: u32, slot: u32) {
        self.repoint(slab, head, Some(slot));
        let second = slab.get(head).c;
        let last = if second == NONE { head } else { slab.get(second).c };
        if second != NONE {
            slab.get_mut(second).c = NONE;
            slab.get_mut(second).a = head;
        }
        let old = slab.get_mut(head);
        old.set_place(Place::Behind);
        (old.a, old.b, old.c) = (slot, second, last);
        slab.get_mut(slot).c = head;
    }

    /// Takes the head off its lane; the next one, if there is one, is the head now and in no list.
    pub(crate) fn pop(&mut self, slab: &mut Slab, head: u32) -> Option<u32> {
        let second = slab.get(head).c;
        if second == NONE {
            self.repoint(slab, head, None);
            return None;
        }
        self.repoint(slab, head, Some(second));
        let (third, last) = (slab.get(second).b, slab.get(second).c);
        slab.get_mut(second).c = third;
        if third != NONE {
            let third = slab.get_mut(third);
            (third.a, third.c) = (second, last);
        }
        Some(second)
    }

    /// Takes one out that is behind others.
    pub(crate) fn remove(&mut self, slab: &mut Slab, slot: u32) {
        let message = *slab.get(slot);
        let (before, after) = (message.a, message.b);
        if message.c != NONE {
            // The second: what is behind it takes its office.
            slab.get_mut(before).c = after;
            if after != NONE {
                let after = slab.get_mut(after);
                (after.a, after.c) = (before, message.c);
            }
            return;
        }
        slab.get_mut(before).b = after;
        if after != NONE {
            slab.get_mut(after).a = before;
        } else if let Some(head) = self.head(slab, message.queue(), message.lane) {
            let second = slab.get(head).c;
            slab.get_mut(second).c = before;
        }
    }

    /// The message of `from` lies at `to` now (both slots still hold it): those of its lane that
    /// point at it are told. `from` is in a lane.
    pub(crate) fn moved(&mut self, slab: &mut Slab, from: u32, to: u32) {
        let message = *slab.get(from);
        if !matches!(message.place(), Place::Behind | Place::BehindTaken) {
            self.repoint(slab, from, Some(to));
            if message.c != NONE {
                slab.get_mut(message.c).a = to;
            }
            return;
        }
        if message.b != NONE {
            slab.get_mut(message.b).a = to;
        }
        if message.c == NONE {
            slab.get_mut(message.a).b = to;
            if message.b == NONE
                && let Some(head) = self.head(slab, message.queue(), message.lane)
            {
                let second = slab.get(head).c;
                slab.get_mut(second).c = to;
            }
        } else {
            slab.get_mut(message.a).c = to;
            if message.c == from {
                slab.get_mut(to).c = to;
            }
        }
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        // A bucket is a slot and a byte of tag; seven of eight buckets count as capacity.
        self.shards.iter().map(|shard| shard.capacity() * 8 / 7 * 5).sum()
    }
}
