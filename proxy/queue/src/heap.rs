//! heap: slots in the order of a number, each knowing where it stands.
//!
//! A binary heap (Williams 1964) whose items can be taken out of the middle: the index of each is
//! written back to its owner by `placed`, here always into the slab's `a`.

/// One item: what it is ordered by, and its slot.
pub(crate) type Item = (u64, u32);

/// The smallest on top.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    items: Vec<Item>,
}

#[allow(clippy::cast_possible_truncation, reason = "no more items than slots, which are u32")]
impl Heap {
    pub(crate) fn top(&self) -> Option<Item> {
        self.items.first().copied()
    }

    #[cfg(test)]
    pub(crate) fn get(&self, index: u32) -> Option<Item> {
        self.items.get(index as usize).copied()
    }

    pub(crate) fn push(&mut self, item: Item, mut placed: impl FnMut(u32, u32)) {
        self.items.push(item);
        self.up(self.items.len() - 1, &mut placed);
    }

    /// Takes out the item at `index`.
    pub(crate) fn remove(&mut self, index: u32, mut placed: impl FnMut(u32, u32)) -> Item {
        let index = index as usize;
        let item = self.items.swap_remove(index);
        if index < self.items.len() {
            self.up(index, &mut placed);
            self.down(index, &mut placed);
        }
        if self.items.len() * 4 < self.items.capacity() && self.items.capacity() > 1024 {
            self.items.shrink_to(self.items.len() * 2);
        }
        item
    }

    /// The slot at `index` has another number now.
    pub(crate) fn renamed(&mut self, index: u32, slot: u32) {
        self.items[index as usize].1 = slot;
    }

    fn up(&mut self, mut at: usize, placed: &mut impl FnMut(u32, u32)) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.items[parent] <= self.items[at] {
                break;
            }
            self.items.swap(parent, at);
            placed(self.items[at].1, at as u32);
            at = parent;
        }
        placed(self.items[at].1, at as u32);
    }

    fn down(&mut self, mut at: usize, placed: &mut impl FnMut(u32, u32)) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.items.len() && self.items[child] < self.items[least] {
                    least = child;
                }
            }
            if least == at {
                break;
            }
            self.items.swap(least, at);
            placed(self.items[at].1, at as u32);
            at = least;
        }
        placed(self.items[at].1, at as u32);
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_heap_gives_the_smallest_and_finds_each(steps in prop::collection::vec((0u8..4, 0u64..50), 1..400)) {
            let (mut heap, mut model, mut at) = (Heap::default(), BTreeSet::new(), HashMap::new());
            for (slot, (kind, key)) in (0u32..).zip(steps) {
                if kind < 3 || model.is_empty() {
                    model.insert((key, slot));
                    heap.push((key, slot), |slot, index| { at.insert(slot, index); });
                } else {
                    let item: Item = *model.iter().nth(usize::try_from(key).unwrap() % model.len()).unwrap();
                    model.remove(&item);
                    let index = at[&item.1];
                    prop_assert_eq!(heap.remove(index, |slot, index| { at.insert(slot, index); }), item);
                }
                prop_assert_eq!(heap.top(), model.first().copied());
                prop_assert!(model.iter().all(|item| heap.get(at[&item.1]) == Some(*item)));
            }
        }
    }
}
