//! pace: what holds a queue back, and what lets it go again.

use super::*;

#[test]
fn no_more_are_under_way_than_may_be() {
    let mut state = with(|limits| limits.concurrent_max = 2);
    (1..=4).for_each(|position| state.add(entry(position)));
    assert_eq!(state.all(), [1, 2]);
    assert_eq!(state.line(0).blocked(NOW), Some(Blocked::Concurrency));
    assert_eq!(state.wake_at(NOW), None);
    state.end(1);
    assert_eq!(state.all(), [3]);
}

#[test]
fn no_more_begin_in_a_second_than_may() {
    let mut state = with(|limits| (limits.per_second, limits.burst_max) = (Some(10.0), 3));
    (1..=100).for_each(|position| state.add(entry(position)));
    assert_eq!(state.all().len(), 3, "the burst");
    assert_eq!(state.line(0).blocked(NOW), Some(Blocked::Rate));
    let (mut now, mut count) = (NOW, 0);
    while let Some(at) = state.wake_at(now).filter(|at| *at <= after(2)) {
        now = at;
        count += std::iter::from_fn(|| state.next_at(now)).count();
    }
    assert_eq!(count, 20);
}

/// A drain ended here with a backlog: between two looks the time for the next message came, and there was no
/// later one to wait for.
#[test]
fn what_has_come_to_its_time_since_the_last_look_is_more_to_be_handed_out() {
    let mut state = with(|limits| (limits.per_second, limits.burst_max) = (Some(10.0), 1));
    (1..=2).for_each(|position| state.add(entry(position)));
    assert_eq!(state.all(), [1]);
    state.end(1);
    let at = state.wake_at(NOW).unwrap();
    assert_eq!(state.wake_at(at), None, "it is not for the clock any more");
    assert!(state.has_more_by(at, at) && state.has_more_by(NOW, at));
    assert!(!state.has_more_by(NOW, NOW), "its time comes later");
    state.set_line(0, limits(), true);
    assert!(!state.has_more_by(after(9), after(9)), "nobody lets it go");
    state.set_line(0, limits(), false);
    assert_eq!(state.next_at(after(9)), Some(2));
    assert!(!state.has_more_by(after(9), after(9)), "it is under way");
    let mut state = with(|_| {});
    state.add(entry(1));
    assert!(state.has_more_by(NOW, NOW), "nothing holds it, and nobody has looked yet");
}

#[test]
fn thousands_a_second_are_possible_although_the_clock_ticks_in_milliseconds() {
    let mut state = with(|limits| (limits.per_second, limits.burst_max) = (Some(8000.0), 1));
    (1..=20_000).for_each(|position| state.add(entry(position)));
    let count: usize = (0..1000)
        .map(|ms| {
            std::iter::from_fn(|| {
                state.next(Timestamp(NOW.0 + ms)).map(|d| {
                    state.gone(d.position);
                    state.landed(0, None, NOW);
                })
            })
            .count()
        })
        .sum();
    assert!((7990..=8010).contains(&count), "{count}");
}

#[test]
fn a_paused_queue_hands_out_nothing() {
    let mut state = state();
    state.add(entry(1));
    state.set_line(0, limits(), true);
    assert_eq!(state.all(), Vec::<u64>::new());
    assert_eq!(state.line(0).blocked(NOW), Some(Blocked::PausedByOperator));
    state.set_line(0, Limits { paused: true, ..limits() }, false);
    assert_eq!(state.all(), Vec::<u64>::new());
    state.set_line(0, limits(), false);
    assert_eq!(state.all(), [1]);
}

#[test]
fn a_full_dead_letter_stops_its_queue() {
    let mut state = state();
    state.add(entry(1));
    state.line_mut(0).dead_full = true;
    assert_eq!(state.all(), Vec::<u64>::new());
    assert_eq!(state.line(0).blocked(NOW), Some(Blocked::DeadLetterFull));
}

#[test]
fn a_receiver_that_is_away_is_probed_by_one_at_a_time_and_touches_no_other_message() {
    let mut state = state();
    (1..=10).for_each(|position| state.add(entry(position)));
    assert_eq!(state.all().len(), 10);
    // All ten come back: the queue waits once, not ten times as long.
    for position in 1..=10 {
        state.line_mut(0).unavailable("connection_refused", NOW, 1.0);
        state.back(Position(position), None, true, NOW);
        state.landed(0, None, NOW);
    }
    assert_eq!(state.line(0).blocked(NOW), Some(Blocked::Unavailable("connection_refused")));
    assert_eq!(state.wake_at(NOW), Some(after(1)));
    assert_eq!(state.next_at(after(1)), Some(1));
    assert_eq!(state.next_at(after(1)), None, "one probe");
    state.line_mut(0).unavailable("connection_refused", after(1), 1.0);
    state.back(Position(1), None, true, after(1));
    state.landed(0, None, after(1));
    assert_eq!(state.wake_at(after(1)), Some(after(3)), "twice as long");
    assert_eq!(state.next_at(after(3)), Some(1));
    state.line_mut(0).answered();
    state.end(1);
    assert_eq!(std::iter::from_fn(|| state.next_at(after(3))).count(), 9);
}

#[test]
fn a_probe_that_came_to_nothing_is_followed_by_another() {
    let mut state = state();
    (1..=2).for_each(|position| state.add(entry(position)));
    assert_eq!(state.next_at(NOW), Some(1));
    state.line_mut(0).unavailable("dns_error", NOW, 1.0);
    state.retry(1, NOW);
    assert_eq!(state.next_at(after(1)), Some(1));
    // It had grown too old when it was looked at: nobody was asked.
    state.end(1);
    assert_eq!(state.next_at(after(1)), Some(2));
}

#[test]
fn a_receiver_that_only_pushes_back_makes_the_queue_wait() {
    let mut state = state();
    (1..=20).for_each(|position| state.add(entry(position)));
    let retry_after = Some(Duration::from_secs(30));
    for position in 1..=5 {
        assert_eq!(state.next_at(NOW), Some(position));
        state.line_mut(0).pushed_back(retry_after, NOW, 0.0);
        state.retry(position, after(30));
    }
    assert_eq!(state.next_at(NOW), None);
    assert_eq!(state.line(0).blocked(NOW), Some(Blocked::PushedBack));
    assert_eq!(state.wake_at(NOW), Some(after(30)));
    // One bad message among good ones does not.
    let mut state = with(|_| {});
    (1..=20).for_each(|position| state.add(entry(position)));
    for position in 1..=20 {
        assert_eq!(state.next_at(NOW), Some(position));
        if position % 4 == 0 {
            state.line_mut(0).pushed_back(retry_after, NOW, 0.0);
        } else {
            state.line_mut(0).answered();
        }
        state.end(position);
    }
}

#[test]
fn each_value_of_the_rate_limits_key_has_limits_of_its_own() {
    let mut state = with(|limits| (limits.keyed, limits.concurrent_max) = (true, 1));
    // 1..=3 are a's, 4 is b's.
    (1..=4).for_each(|position| state.add(entry(position)));
    let mut begun = Vec::new();
    while let Some(dispatch) = state.next(NOW) {
        match dispatch.step {
            Step::Classify => {
                let name = if dispatch.position.0 < 4 { "a" } else { "b" };
                state.classified(dispatch.position, 0, name, NOW);
            }
            Step::Attempt { rate } => begun.push((dispatch.position.0, rate)),
        }
    }
    assert_eq!(begun.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(state.line(0).blocked(NOW), Some(Blocked::Concurrency));
    assert_eq!(state.take(Position(3)), Take::Taken(None), "a parked one can be cancelled");
    state.gone(Position(3));
    let (position, rate) = begun[0];
    state.gone(Position(position));
    state.landed(0, rate, NOW);
    assert_eq!(state.next_at(NOW), Some(2));
    // The policy drops the key: what is parked goes on.
    state.add(entry(5));
    let dispatch = state.next(NOW).unwrap();
    assert_eq!(dispatch.step, Step::Classify);
    state.classified(dispatch.position, 0, "a", NOW);
    state.set_line(0, limits(), false);
    assert_eq!(state.all(), [5]);
}

#[test]
fn a_queue_that_drops_its_key_leaves_what_is_parked_in_another() {
    let keyed = Limits { keyed: true, concurrent_max: 1, ..limits() };
    let mut state = State::default();
    for line in 0..2 {
        state.set_line(line, keyed.clone(), false);
        (1..=3).for_each(|at| state.add_to(line, entry(u64::from(line) * 10 + at)));
    }
    let mut begun = Vec::new();
    while let Some(dispatch) = state.next(NOW) {
        match dispatch.step {
            Step::Classify => state.classified(dispatch.position, dispatch.line, "a", NOW),
            Step::Attempt { rate } => begun.push((dispatch.position.0, rate)),
        }
    }
    assert_eq!(begun.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 11]);
    state.set_line(0, limits(), false);
    let mut end = |position: u64, line, rate| {
        state.gone(Position(position));
        state.landed(line, rate, NOW);
        std::iter::from_fn(|| state.next_at(NOW)).collect::<Vec<_>>()
    };
    assert_eq!(end(1, 0, begun[0].1), [2, 3], "one of the other queue is under way");
    assert_eq!(end(11, 1, begun[1].1), [12]);
    assert_eq!(end(12, 1, begun[1].1), [13]);
    assert_eq!(end(13, 1, begun[1].1), Vec::<u64>::new());
}

#[test]
fn too_many_values_share_one() {
    let mut state = with(|limits| (limits.keyed, limits.concurrent_max) = (true, 1));
    let count = limits::RATE_KEYS_MAX as u64 + 10;
    (1..=count).for_each(|position| state.add(entry(position)));
    let mut begun = 0;
    while let Some(dispatch) = state.next(NOW) {
        match dispatch.step {
            Step::Classify => {
                state.classified(dispatch.position, 0, &dispatch.position.0.to_string(), NOW);
            }
            Step::Attempt { .. } => begun += 1,
        }
    }
    assert_eq!(begun, limits::RATE_KEYS_MAX + 1);
}

#[test]
fn what_stands_still_is_accounted_for() {
    let mut state = with(|limits| limits.concurrent_max = 1);
    (1..=2).for_each(|position| state.add(entry(position)));
    assert_eq!(state.line_mut(0).note(NOW, true), None);
    let stopped = state.line_mut(0).note(after(2), false);
    assert_eq!(stopped, Some((Blocked::Stopped, Duration::from_secs(2))));
    assert_eq!(state.next_at(after(2)), Some(1));
    state.line_mut(0).note(after(2), false);
    let full = state.line_mut(0).note(after(5), false);
    assert_eq!(full, Some((Blocked::Concurrency, Duration::from_secs(3))));
}
