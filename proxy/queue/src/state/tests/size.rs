//! size: what the index takes of memory, and how it gives it back.

use super::*;

#[test]
fn survivors_of_sparse_runs_move_and_keep_their_places() {
    // Of each ten, one stays: in turn fresh, returned, delayed, a head, and two behind it.
    let mut state = state();
    for position in 0..600u64 {
        let stays = position % 10 == 0;
        let lane = (stays && position / 10 % 6 > 2).then_some(position / 60);
        let due_at = (stays && position / 10 % 6 == 2).then(|| after(10));
        state.add(Entry { lane, due_at, ..entry(position) });
    }
    let handed_out: Vec<u64> = state.all();
    assert_eq!(handed_out.len(), 600 - 10 - 20);
    let comes_back = |position: &u64| position.is_multiple_of(10);
    for position in handed_out.iter().filter(|position| comes_back(position)).rev() {
        state.back(Position(*position), None, false, NOW);
    }
    for position in handed_out.iter().filter(|position| !comes_back(position)) {
        state.end(*position);
    }
    assert_eq!(state.len(), 60);
    assert!(state.slab.bytes() < 600 * 32, "they moved together: {}", state.slab.bytes());
    let mut out = Vec::new();
    while let Some(position) = state.next_at(NOW) {
        out.push(position);
        if position / 10 % 6 > 2 {
            state.end(position);
        }
    }
    assert_eq!(out, (0..60).filter(|at| at % 6 != 2).map(|at| at * 10).collect::<Vec<u64>>());
    let due: Vec<u64> = std::iter::from_fn(|| state.next_at(after(10))).collect();
    assert_eq!(due.len(), 10);
}

#[test]
fn a_million_messages_with_a_million_keys_fit_forty_mebibytes() {
    let mut state = State::default();
    state.set_line(0, limits(), false);
    for position in 0..1_000_000u64 {
        let lane = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state.appended(&keyed(position, lane), 0, NOW, NOW);
    }
    let each = state.bytes() as f64 / 1e6;
    println!("{each} bytes for each of a million lanes");
    assert!(state.bytes() <= 40 * 1024 * 1024, "{each} bytes each");
}

#[test]
fn nine_hundred_thousand_behind_one_key_cost_no_more_and_no_time() {
    let mut state = State::default();
    state.set_line(0, limits(), false);
    for position in 0..1_000_000u64 {
        let lane = if position < 900_000 { 1 } else { position };
        state.appended(&keyed(position, lane), 0, NOW, NOW);
    }
    let each = state.bytes() as f64 / 1e6;
    println!("{each} bytes for each, nine tenths in one lane");
    assert!(state.bytes() <= 34 * 1024 * 1024, "{each} bytes each");
    // The blocked lane's head does not come back; all others go.
    let mut gone = 0;
    while let Some(dispatch) = state.next(NOW) {
        state.landed(0, None, NOW);
        if dispatch.position.0 == 0 {
            state.retry(0, after(3000));
        } else {
            state.gone(dispatch.position);
            gone += 1;
        }
    }
    assert_eq!(gone, 100_000);
}
