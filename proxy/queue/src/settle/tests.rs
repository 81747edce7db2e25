//! settle/tests: the table, row by row.

use std::time::Duration;

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn status(code: u16) -> Answer {
    Answer::Status { code, retry_after: None }
}

fn grpc(code: u8) -> Answer {
    Answer::Grpc { code, pushback: None }
}

fn all(answers: impl IntoIterator<Item = Answer>, should: Meaning) {
    for answer in answers {
        assert_eq!(meaning(answer), should, "{answer:?}");
    }
}

const RETRY: Meaning = Meaning::Retry { pushback: None };
const PUSHED_BACK: Meaning = Meaning::PushedBack { retry_after: None };

#[test]
fn every_2xx_is_done() {
    all((200..300).map(status), Meaning::Done);
}

#[test]
fn what_another_attempt_would_not_help_is_dead_at_once() {
    let some =
        [300, 301, 302, 304, 307, 308, 399, 400, 401, 403, 405, 406, 411, 413, 414, 415, 418, 422, 451];
    all(some.map(status), Meaning::Bury(Reason::NonRetryable));
    let others = (300..500).filter(|code| ![404, 408, 409, 410, 425, 429].contains(code));
    all(others.map(status), Meaning::Bury(Reason::NonRetryable));
}

#[test]
fn what_may_pass_is_tried_again_and_uses_an_attempt_up() {
    let codes = [404, 408, 409, 425].into_iter().chain((500..600).filter(|code| *code != 503));
    all(codes.map(status), RETRY);
    all([Answer::TimedOut, Answer::Broken], RETRY);
}

#[test]
fn what_is_no_final_status_is_as_good_as_a_lost_connection() {
    all([0, 100, 199, 600, 999].map(status), RETRY);
}

#[test]
fn too_many_and_unavailable_push_back() {
    all([429, 503].map(status), PUSHED_BACK);
    let after = Some(Duration::from_secs(7));
    let answer = Answer::Status { code: 503, retry_after: after };
    assert_eq!(meaning(answer), Meaning::PushedBack { retry_after: after });
}

#[test]
fn gone_is_a_reason_of_its_own() {
    all([status(410)], Meaning::Bury(Reason::Gone));
}

#[test]
fn what_never_left_uses_nothing_up() {
    for token in ["destination_unavailable", "connection_refused", "tls_certificate_error"] {
        assert_eq!(meaning(Answer::Unavailable { token }), Meaning::Unavailable(token));
    }
}

#[test]
fn what_cannot_be_sent_is_dead_at_once() {
    all([Answer::Misconfigured], Meaning::Bury(Reason::Misconfigured));
}

#[test]
fn grpc_zero_is_done() {
    all([grpc(0)], Meaning::Done);
}

#[test]
fn grpc_unavailable_and_resource_exhausted_push_back() {
    all([8, 14].map(grpc), PUSHED_BACK);
    let pushback = Some(Duration::from_millis(250));
    let means = Meaning::PushedBack { retry_after: pushback };
    assert_eq!(meaning(Answer::Grpc { code: 14, pushback }), means);
}

#[test]
fn grpc_aborted_and_deadline_exceeded_are_tried_again() {
    all([4, 10].map(grpc), RETRY);
    let pushback = Some(Duration::from_millis(250));
    assert_eq!(meaning(Answer::Grpc { code: 10, pushback }), Meaning::Retry { pushback });
}

#[test]
fn every_other_grpc_code_is_dead_at_once() {
    let others = (1..=255).filter(|code| ![4, 8, 10, 14].contains(code));
    all(others.map(grpc), Meaning::Bury(Reason::NonRetryable));
}

// ---- what follows ---------------------------------------------------------------------------------

fn delivery() -> Delivery {
    Delivery {
        retry: 3,
        backoff_delay: Duration::from_secs(1),
        backoff_max: Duration::from_secs(10),
        retry_after_max: Duration::from_secs(60),
        ..Delivery::default()
    }
}

fn facts(delivery: &Delivery, attempts: u32) -> Facts<'_> {
    Facts { now: NOW, expires_at: Timestamp(NOW.0 + 86_400_000), delivery, attempts, pushed_back: 0 }
}

fn after(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1000)
}

#[test]
fn waits_double_up_to_the_longest() {
    let delivery = Delivery { retry: 10, ..delivery() };
    for (attempts, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (9, 10)] {
        let again = Verdict::Again { due: after(seconds), free: false };
        assert_eq!(verdict(RETRY, facts(&delivery, attempts), 1.0), again);
    }
}

#[test]
fn linear_waits_grow_by_one_delay() {
    let delivery = Delivery { retry: 20, backoff: policy::queue::Backoff::Linear, ..delivery() };
    for (attempts, seconds) in [(1, 1), (2, 2), (3, 3), (9, 9), (15, 10)] {
        let again = Verdict::Again { due: after(seconds), free: false };
        assert_eq!(verdict(RETRY, facts(&delivery, attempts), 1.0), again);
    }
}

#[test]
fn jitter_is_full() {
    let delivery = delivery();
    for (jitter, ms) in [(0.0, 0), (0.25, 500), (1.0, 2000)] {
        let again = Verdict::Again { due: Timestamp(NOW.0 + ms), free: false };
        assert_eq!(verdict(RETRY, facts(&delivery, 2), jitter), again);
    }
}

#[test]
fn used_up_attempts_end_in_the_dead_letter() {
    let delivery = delivery();
    assert!(matches!(verdict(RETRY, facts(&delivery, 3), 1.0), Verdict::Again { .. }));
    assert_eq!(verdict(RETRY, facts(&delivery, 4), 1.0), Verdict::Bury(Reason::Exhausted));
}

#[test]
fn pushing_back_uses_no_attempt_up_while_there_is_time() {
    let delivery = delivery();
    let facts = Facts { pushed_back: 500, ..facts(&delivery, 4) };
    assert_eq!(verdict(PUSHED_BACK, facts, 1.0), Verdict::Again { due: after(10), free: true });
    let late = Facts { now: facts.expires_at, ..facts };
    assert_eq!(verdict(PUSHED_BACK, late, 1.0), Verdict::Bury(Reason::Expired));
}

#[test]
fn retry_after_wins_if_it_is_later_and_is_capped() {
    let delivery = delivery();
    for (asked, seconds) in [(0, 1), (5, 5), (3600, 60)] {
        let means = Meaning::PushedBack { retry_after: Some(Duration::from_secs(asked)) };
        let again = Verdict::Again { due: after(seconds), free: true };
        assert_eq!(verdict(means, facts(&delivery, 1), 1.0), again);
    }
}

#[test]
fn a_wait_ends_when_the_message_is_too_old() {
    let delivery = delivery();
    let facts = Facts { expires_at: after(2), ..facts(&delivery, 3) };
    assert_eq!(verdict(RETRY, facts, 1.0), Verdict::Again { due: after(2), free: false });
}

#[test]
fn what_never_left_stays_where_it_is() {
    let delivery = delivery();
    let means = Meaning::Unavailable("connection_refused");
    assert_eq!(verdict(means, facts(&delivery, 1000), 1.0), Verdict::Stay);
    let late = Facts { now: after(86_400), ..facts(&delivery, 1) };
    assert_eq!(verdict(means, late, 1.0), Verdict::Bury(Reason::Expired));
}

#[test]
fn what_arrived_late_is_done_all_the_same() {
    let delivery = delivery();
    let late = Facts { now: after(90_000), ..facts(&delivery, 1) };
    assert_eq!(verdict(Meaning::Done, late, 1.0), Verdict::Done);
}
