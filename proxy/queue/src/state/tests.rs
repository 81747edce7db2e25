//! state/tests: the rules of order, one by one, then all of them against a naive model.

use std::time::Duration;

use policy::queue::Backoff;
use proptest::prelude::*;
use store::message::{QueueId, State as Kept};

use super::*;
use crate::schedule::Blocked;

mod model;
mod pace;
mod size;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn limits() -> Limits {
    Limits {
        concurrent_max: 1000,
        per_second: None,
        burst_max: 1,
        keyed: false,
        age_max: Duration::from_secs(3600),
        backoff: Backoff::Exponential,
        backoff_delay: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        paused: false,
    }
}

fn state() -> State {
    let mut state = State { slab: Slab::with_chunks_of(2, 0), ..State::default() };
    state.set_line(0, limits(), false);
    state
}

fn with(change: impl FnOnce(&mut Limits)) -> State {
    let mut state = state();
    let mut limits = limits();
    change(&mut limits);
    state.set_line(0, limits, false);
    state
}

pub(crate) fn entry(position: u64) -> Entry {
    Entry {
        position: Position(position),
        order: position,
        queue: QueueId(1),
        lane: None,
        priority: 3,
        due_at: None,
        attempts: 0,
        begun: false,
        tried: false,
        bytes: 1000,
        state: Kept::Waiting,
    }
}

fn keyed(position: u64, lane: u64) -> Entry {
    Entry { lane: Some(lane), ..entry(position) }
}

fn after(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1000)
}

impl State {
    fn add(&mut self, entry: Entry) {
        self.appended(&entry, 0, NOW, NOW);
    }

    fn add_to(&mut self, line: u16, entry: Entry) {
        self.appended(&entry, line, NOW, NOW);
    }

    fn next_at(&mut self, now: Timestamp) -> Option<u64> {
        let dispatch = self.next(now)?;
        Some(dispatch.position.0)
    }

    fn all(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.next_at(NOW)).collect()
    }

    fn retry(&mut self, position: u64, due: Timestamp) {
        self.back(Position(position), Some(due), true, NOW);
        self.landed(0, None, NOW);
    }

    fn end(&mut self, position: u64) {
        self.gone(Position(position));
        self.landed(0, None, NOW);
    }
}

#[test]
fn messages_without_a_key_go_as_they_came() {
    let mut state = state();
    (1..=20).for_each(|position| state.add(entry(position)));
    assert_eq!(state.all(), (1..=20).collect::<Vec<_>>());
}

#[test]
fn the_most_urgent_go_first() {
    let mut state = state();
    for (position, priority) in [(1, 7), (2, 3), (3, 0), (4, 3), (5, 0)] {
        state.add(Entry { priority, ..entry(position) });
    }
    assert_eq!(state.all(), [3, 5, 2, 4, 1]);
}

#[test]
fn a_lane_shows_its_next_only_after_the_one_before_is_gone() {
    let mut state = state();
    (1..=3).for_each(|position| state.add(keyed(position, 9)));
    state.add(entry(4));
    assert_eq!(state.all(), [1, 4]);
    state.end(1);
    assert_eq!(state.all(), [2]);
    state.end(2);
    assert_eq!(state.all(), [3]);
}

#[test]
fn a_head_that_waits_for_a_retry_holds_up_its_own_lane_alone() {
    let mut state = state();
    state.add(keyed(1, 9));
    state.add(keyed(2, 9));
    state.add(keyed(3, 8));
    assert_eq!(state.next_at(NOW), Some(1));
    state.retry(1, after(10));
    assert_eq!(state.all(), [3]);
    assert_eq!(state.wake_at(NOW), Some(after(10)));
    assert_eq!(state.next_at(after(10)), Some(1));
    state.end(1);
    assert_eq!(state.next_at(after(10)), Some(2));
}

#[test]
fn priority_compares_the_heads_of_lanes() {
    let mut state = state();
    state.add(Entry { priority: 5, ..keyed(1, 9) });
    state.add(Entry { priority: 0, ..keyed(2, 9) });
    state.add(Entry { priority: 3, ..keyed(3, 8) });
    assert_eq!(state.all(), [3, 1]);
    state.end(1);
    assert_eq!(state.all(), [2]);
}

#[test]
fn a_delayed_message_joins_its_lane_when_it_is_due() {
    let mut state = state();
    state.add(Entry { due_at: Some(after(5)), ..keyed(1, 9) });
    state.add(keyed(2, 9));
    state.add(keyed(3, 9));
    assert_eq!(state.line(0).scheduled, 1);
    assert_eq!(state.all(), [2]);
    assert_eq!(state.next_at(after(5)), None);
    state.end(2);
    assert_eq!(state.next_at(after(5)), Some(3));
    state.end(3);
    assert_eq!(state.next_at(after(5)), Some(1));
}

#[test]
fn a_message_that_comes_back_keeps_its_rank() {
    let mut state = state();
    (1..=3).for_each(|position| state.add(entry(position)));
    assert_eq!(state.next_at(NOW), Some(1));
    state.retry(1, after(1));
    assert_eq!(state.next_at(NOW), Some(2));
    assert_eq!(state.next_at(after(1)), Some(1));
    assert_eq!(state.next_at(after(1)), Some(3));
}

#[test]
fn one_that_is_cancelled_lets_its_lane_go_on() {
    let mut state = state();
    (1..=4).for_each(|position| state.add(keyed(position, 9)));
    assert_eq!(state.next_at(NOW), Some(1));
    assert_eq!(state.take(Position(1)), Take::Busy);
    // In the middle, at the end, and one that is at the head by then.
    for position in [3, 4, 2] {
        assert_eq!(state.take(Position(position)), Take::Taken(None));
        assert_eq!(state.take(Position(position)), Take::Busy);
    }
    state.gone(Position(3));
    state.end(1);
    assert_eq!(state.next_at(NOW), None, "2 is being cancelled, and not flushed yet");
    state.gone(Position(2));
    assert_eq!(state.next_at(NOW), None, "4 is being cancelled");
    state.back(Position(4), None, false, NOW);
    assert_eq!(state.next_at(NOW), Some(4));
    state.end(4);
    assert!(state.lane_is_empty(0, 9));
    assert_eq!(state.take(Position(4)), Take::Unknown);
}

#[test]
fn a_delayed_one_that_could_not_be_cancelled_waits_on() {
    let mut state = state();
    state.add(Entry { due_at: Some(after(5)), ..keyed(1, 9) });
    assert_eq!(state.take(Position(1)), Take::Taken(Some(after(5))));
    state.back(Position(1), Some(after(5)), false, NOW);
    assert_eq!(state.all(), Vec::<u64>::new());
    assert_eq!(state.next_at(after(5)), Some(1));
}

#[test]
fn a_redriven_one_joins_at_the_tail() {
    let mut state = state();
    (2..=3).for_each(|position| state.add(keyed(position, 9)));
    state.add(Entry { order: 4, ..keyed(1, 9) });
    state.add(entry(5));
    assert_eq!(state.all(), [2, 5]);
    state.end(2);
    assert_eq!(state.all(), [3]);
    state.end(3);
    assert_eq!(state.all(), [1]);
}

#[test]
fn one_that_was_attempted_before_a_crash_is_in_front_of_its_lane() {
    let mut state = state();
    state.recovered(&keyed(1, 9), 0, NOW, NOW);
    state.recovered(&keyed(2, 9), 0, NOW, NOW);
    state.recovered(&Entry { attempts: 1, begun: true, ..keyed(3, 9) }, 0, NOW, NOW);
    for position in [3, 1, 2] {
        assert_eq!(state.all(), [position]);
        state.end(position);
    }
}

#[test]
fn a_retry_that_was_not_due_at_a_crash_still_holds_its_lane() {
    let mut state = state();
    let waits = Entry { attempts: 1, due_at: Some(after(7)), ..keyed(1, 9) };
    state.recovered(&waits, 0, NOW, NOW);
    state.recovered(&keyed(2, 9), 0, NOW, NOW);
    assert_eq!(state.all(), Vec::<u64>::new());
    assert_eq!(state.line(0).retrying, 1);
    assert_eq!(state.next_at(after(7)), Some(1));
}

#[test]
fn a_head_that_was_pushed_back_for_nothing_still_holds_its_lane_after_a_crash() {
    let mut state = state();
    let waits = Entry { tried: true, due_at: Some(after(60)), ..keyed(1, 9) };
    state.recovered(&waits, 0, NOW, NOW);
    state.recovered(&keyed(2, 9), 0, NOW, NOW);
    assert_eq!(state.all(), Vec::<u64>::new());
    assert_eq!(state.next_at(after(60)), Some(1));
}

#[test]
fn a_queue_sends_one_at_a_time_until_its_suspect_was_attempted_or_is_gone() {
    let mut state = state();
    state.recovered(&Entry { attempts: 1, begun: true, ..entry(1) }, 0, NOW, NOW);
    (2..=3).for_each(|position| state.add(entry(position)));
    assert_eq!(state.all(), [1]);
    // Nothing of it left: the store had no room, its receiver was away.
    state.back(Position(1), None, false, NOW);
    state.landed(0, None, NOW);
    assert_eq!(state.take(Position(1)), Take::Taken(None));
    state.back(Position(1), None, false, NOW);
    assert_eq!(state.all(), [1]);
    state.cleared(Position(1));
    assert_eq!(state.all(), [2, 3]);
    state.recovered(&Entry { attempts: 1, begun: true, ..entry(4) }, 0, NOW, NOW);
    (1..=3).for_each(|position| state.end(position));
    (5..=6).for_each(|position| state.add(entry(position)));
    assert_eq!(state.take(Position(4)), Take::Taken(None));
    state.gone(Position(4));
    assert_eq!(state.all(), [5, 6]);
}

#[test]
fn queues_take_turns() {
    let mut state = state();
    state.set_line(1, limits(), false);
    state.set_line(2, limits(), false);
    for position in 1..=3 {
        state.add_to(0, entry(position));
    }
    state.add_to(1, entry(4));
    state.add_to(1, entry(5));
    state.add_to(2, entry(6));
    assert_eq!(state.all(), [1, 4, 6, 2, 5, 3]);
}

#[test]
fn a_message_expires_wherever_it_waits() {
    let mut state = with(|limits| limits.age_max = Duration::from_secs(60));
    state.add(keyed(1, 9));
    state.add(keyed(2, 9));
    state.add(Entry { due_at: Some(after(300)), ..entry(3) });
    state.add(entry(4));
    assert_eq!(state.all(), [1, 4]);
    state.retry(1, after(1000));
    assert!(state.expired(after(59), 10).is_empty());
    assert!(state.expires_at().is_some_and(|at| at <= after(60)));
    let over: Vec<u64> = state.expired(after(62), 10).into_iter().map(|(at, _)| at.0).collect();
    assert_eq!(over, [1, 2, 3], "4 is under way");
    assert!(state.expired(after(62), 10).is_empty(), "they are taken");
}

#[test]
fn a_message_may_expire_before_the_others() {
    let mut state = state();
    (1..=3).for_each(|position| state.add(entry(position)));
    state.expires(Position(2), after(5));
    assert!(state.expired(after(4), 10).is_empty());
    assert_eq!(state.expired(after(5), 10), [(Position(2), None)]);
    state.gone(Position(2));
    assert!(state.expired(after(7), 10).is_empty());
    assert_eq!(state.expires_at().map(|at| at > after(3000)), Some(true));
}

#[test]
fn a_great_harvest_is_brought_in_without_a_pause() {
    let mut state = with(|limits| limits.age_max = Duration::from_secs(60));
    (1..=10_000).for_each(|position| state.add(keyed(position, position % 7)));
    let mut over = 0;
    while state.expires_at().is_some_and(|at| at <= after(62)) {
        let some = state.expired(after(62), 64);
        over += some.len();
        some.into_iter().for_each(|(position, _)| state.gone(position));
    }
    assert_eq!((over, state.len()), (10_000, 0));
}

#[test]
fn nothing_is_buried_in_a_full_dead_letter() {
    let mut state = with(|limits| limits.age_max = Duration::from_secs(1));
    state.add(entry(1));
    state.line_mut(0).dead_full = true;
    assert!(state.expired(after(60), 10).is_empty());
    state.line_mut(0).dead_full = false;
    assert!(state.expires_at().is_some_and(|at| at <= after(62)));
    assert_eq!(state.expired(after(62), 10).len(), 1);
}
