//! tests: keys are found while they are valid, and gone for little when they are not.

use std::collections::HashMap;
use std::convert::Infallible;

use super::*;

/// Rows as the disk would hold them.
#[derive(Default)]
struct Rows(HashMap<i64, ([u8; 16], Timestamp)>);

impl Rows {
    fn take_in(&mut self, generations: &mut Generations, number: u64, now: u64, until: u64) {
        let key = key(number);
        let row = generations.insert(&key, Timestamp(now), Timestamp(until));
        assert!(self.0.insert(row, (key, Timestamp(until))).is_none(), "row {row} is given once");
    }

    fn has(&self, generations: &Generations, number: u64, now: u64, reads: &mut u64) -> bool {
        let found = generations.find(&key(number), Timestamp(now), |row| {
            *reads += 1;
            let known = self.0.get(&row).map(|(key, until)| Known {
                key: *key,
                fingerprint: [0; 16],
                position: Position(0),
                until: *until,
            });
            Ok::<_, Infallible>(known)
        });
        found.is_ok_and(|known| known.is_some())
    }
}

fn key(number: u64) -> [u8; 16] {
    let mut random = fastrand::Rng::with_seed(number);
    random.u128(..).to_le_bytes()
}

#[test]
fn of_many_keys_each_is_found_with_one_read_and_others_with_almost_none() {
    let (mut generations, mut rows) = (Generations::default(), Rows::default());
    for number in 0..300_000 {
        rows.take_in(&mut generations, number, 0, 1_000_000);
    }
    let mut reads = 0;
    for number in (0..300_000).step_by(100) {
        assert!(rows.has(&generations, number, 1, &mut reads));
    }
    assert!(reads < 3_100, "{reads} reads for 3,000 known keys");
    let mut reads = 0;
    for number in 1_000_000..1_010_000 {
        assert!(!rows.has(&generations, number, 1, &mut reads));
    }
    assert!(reads < 200, "{reads} reads for 10,000 new keys");
    let slots: usize = generations.all.iter().map(|generation| generation.slots.len()).sum();
    assert!(slots * 3 < (300_000 + GENERATION_ROWS_MAX) * 4, "{slots} slots, one generation may be empty");
}

#[test]
fn a_generation_that_is_over_is_dropped_in_parts_and_makes_room() {
    let (mut generations, mut rows) = (Generations::default(), Rows::default());
    for number in 0..10_000 {
        rows.take_in(&mut generations, number, 0, 100);
    }
    rows.take_in(&mut generations, 10_000, 0, 100_000);
    assert_eq!(generations.rows(), 10_001);
    generations.expire(Timestamp(100));
    assert_eq!(generations.rows(), 1, "only the one of the long window is left");
    assert!(rows.has(&generations, 10_000, 100, &mut 0));
    while let Some((first, last)) = generations.next_drop() {
        assert!(last - first < DEDUPE_DROP_ROWS as i64);
        rows.0.retain(|row, _| !(first..=last).contains(row));
        generations.dropped(last);
    }
    assert_eq!(rows.0.len(), 1, "every row that is over is gone from the disk");
}

#[test]
fn a_slow_window_is_cut_so_that_its_first_keys_go_before_its_last() {
    let (mut generations, mut rows) = (Generations::default(), Rows::default());
    for number in 0..100 {
        rows.take_in(&mut generations, number, number, number + 64);
    }
    generations.expire(Timestamp(99 + 64 / 2));
    assert!(generations.rows() <= 50, "about half are over and gone");
    assert!(rows.has(&generations, 99, 99 + 32, &mut 0));
}

#[test]
fn what_is_rebuilt_from_the_disk_knows_what_was_known() {
    let (mut generations, mut rows) = (Generations::default(), Rows::default());
    for number in 0..20_000 {
        rows.take_in(&mut generations, number, 0, 100 + number % 7 * 1_000);
    }
    let mut on_disk: Vec<_> = rows.0.iter().map(|(row, (key, until))| (*row, *key, *until)).collect();
    on_disk.sort_unstable();
    let mut rebuild = Rebuild::default();
    for (row, key, until) in on_disk {
        rebuild.row(row, &key, until);
    }
    let mut rebuilt = rebuild.done();
    for number in (0..20_000).step_by(13) {
        assert!(rows.has(&rebuilt, number, 99, &mut 0));
    }
    // Rows are never given twice.
    rows.take_in(&mut rebuilt, 20_000, 99, 200);
    assert!(rows.has(&rebuilt, 20_000, 99, &mut 0));
}
