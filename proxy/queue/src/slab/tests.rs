//! slab/tests: found, moved, given back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn message(position: u64) -> Message {
    let mut message = Message::new(position, 1, 3, None, 100);
    message.set_place(Place::Taken);
    message
}

#[test]
fn a_message_keeps_what_is_packed_into_its_word() {
    let mut message = Message::new((1 << 40) - 2, 1023, 7, Some(9), 1500);
    message.set_place(Place::Parked);
    message.set_odd();
    message.set_tried(true);
    assert_eq!((message.position(), message.queue(), message.priority()), ((1 << 40) - 2, 1023, 7));
    assert_eq!((message.place(), message.keyed(), message.size()), (Place::Parked, true, 2048));
    assert!(message.odd() && message.tried());
    message.set_tried(false);
    message.set_place(Place::Fresh);
    assert_eq!((message.place(), message.tried(), message.odd()), (Place::Fresh, false, true));
}

#[test]
fn memory_of_gone_messages_is_given_back() {
    let mut slab = Slab::default();
    let slots: Vec<u32> = (0..100_000).map(|at| slab.insert(message(at))).collect();
    for slot in slots {
        slab.remove(slot);
    }
    assert!(slab.bytes() < 64 * 1024, "{}", slab.bytes());
}

#[test]
fn a_few_that_stay_do_not_keep_the_memory_of_all() {
    let mut slab = Slab::default();
    for position in 0..400_000 {
        let slot = slab.insert(message(position));
        if position % 256 != 0 {
            slab.remove(slot);
        }
        while let Some(slots) = slab.crowded() {
            for slot in slots {
                slab.stray(slot);
                slab.remove(slot);
            }
        }
    }
    assert_eq!(slab.len(), 400_000u32.div_ceil(256));
    assert!((0..400_000).step_by(256).all(|position| slab.find(position).is_some()));
    assert!(slab.bytes() < 1024 * 1024, "{}", slab.bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_in_is_found_and_what_is_out_is_not(
        steps in prop::collection::vec((0u8..10, 0u64..4000), 1..3000),
    ) {
        let (mut slab, mut model, mut next) = (Slab::with_chunks_of(3, 64), BTreeMap::new(), 0);
        for (kind, value) in steps {
            match kind {
                0..=5 => {
                    next += 1 + value % 3;
                    model.insert(next, ());
                    slab.insert(message(next));
                }
                6 if value < next && !model.contains_key(&value) => {
                    model.insert(value, ());
                    slab.insert(message(value));
                }
                _ => {
                    let Some(position) = model.range(value..).next().map(|(at, ())| *at) else { continue };
                    model.remove(&position);
                    slab.remove(slab.find(position).unwrap());
                }
            }
            if value % 50 == 0 && let Some(chunk) = slab.sparse.first().copied() {
                let run = &slab.chunks[chunk as usize].messages;
                let slots: Vec<u32> = (0..u32::try_from(run.len()).unwrap())
                    .filter(|at| run[*at as usize].place() != Place::Free)
                    .map(|at| chunk * 8 + at)
                    .collect();
                for slot in slots {
                    slab.stray(slot);
                    slab.remove(slot);
                }
            }
        }
        prop_assert_eq!(slab.len() as usize, model.len());
        for position in 0..=next + 1 {
            prop_assert_eq!(slab.find(position).is_some(), model.contains_key(&position));
        }
        let mut listed: Vec<u64> = slab.iter().map(|(_, message)| message.position()).collect();
        listed.sort_unstable();
        prop_assert_eq!(listed, model.into_keys().collect::<Vec<_>>());
    }
}
