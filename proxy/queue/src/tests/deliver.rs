//! tests/deliver: what becomes of attempts.

use super::*;

#[test]
fn a_message_is_delivered_and_its_response_kept() {
    house(policy(), |house| async move {
        let id = house.add("hello").await;
        let status = house.until(id, MessageState::Succeeded).await;
        assert_eq!((status.attempts_used, status.attempts.len(), status.has_result), (1, 1, true));
        assert_eq!(status.attempts[0].status, Some(200));
        let Some(Outcome::Response(_, response)) = house.queue.result(id).await.unwrap() else {
            panic!("a response");
        };
        assert_eq!((&response.head[..], &response.body[..]), (&b"200"[..], &b"said"[..]));
        let seen = house.receiver.seen.lock().unwrap()[0].clone();
        assert_eq!((seen.id, seen.attempt, &*seen.queue), (id, 1, NAME));
        assert_eq!((&*seen.destination, &seen.call[..]), ("target", &b"POST /orders"[..]));
        assert_eq!(seen.enqueued_at, id.enqueued_at());
        house.empty().await;
    });
}

#[test]
fn the_beginning_of_an_attempt_is_stored_before_its_bytes_leave() {
    house(policy(), |house| async move {
        house.receiver.hold();
        let id = house.add("hello").await;
        house.seen(1).await;
        let loaded = house.queue.shared().store.load(id.position()).await.unwrap().unwrap();
        assert!(loaded.entry.begun);
        assert_eq!(loaded.entry.attempts, 1);
        assert_eq!(house.state(id).await, MessageState::Delivering);
    });
}

#[test]
fn a_failed_attempt_is_repeated_after_its_wait_until_they_are_used_up() {
    house(policy(), |house| async move {
        house.receiver.otherwise(answer(500));
        let id = house.add("hello").await;
        let status = house.until(id, MessageState::Retrying).await;
        assert_eq!(status.attempts[0].status, Some(500));
        advance(1).await;
        house.seen(2).await;
        house.retrying(1).await;
        advance(2).await;
        let status = house.until(id, MessageState::DeadLettered).await;
        assert_eq!((status.reason, status.attempts_used), (Some(Reason::Exhausted), 3));
        assert_eq!(house.receiver.attempts(), [1, 2, 3]);
        assert!(matches!(house.queue.result(id).await.unwrap(), Some(Outcome::Response(..))));
        assert_eq!((house.view().await.messages, house.view().await.dead), (0, 1));
        advance(10_000).await;
        house.still(3).await;
    });
}

#[test]
fn what_another_attempt_would_not_help_is_dead_at_once() {
    house(policy(), |house| async move {
        house.receiver.will([answer(422), answer(410), Delivered::bare(Answer::Misconfigured)]);
        for reason in [Reason::NonRetryable, Reason::Gone, Reason::Misconfigured] {
            let id = house.add("hello").await;
            let status = house.until(id, MessageState::DeadLettered).await;
            assert_eq!((status.reason, status.attempts_used), (Some(reason), 1));
        }
    });
}

#[test]
fn an_attempt_that_takes_too_long_is_dropped() {
    house(policy(), |house| async move {
        house.receiver.hold();
        let id = house.add("hello").await;
        house.seen(1).await;
        advance(29).await;
        house.still(1).await;
        advance(1).await;
        let status = house.until(id, MessageState::Retrying).await;
        assert_eq!(status.attempts[0].duration, Duration::from_secs(30));
        assert!(status.attempts[0].error.as_ref().unwrap().contains("30000 ms"));
    });
}

#[test]
fn pushing_back_uses_no_attempt_up_and_retry_after_wins() {
    house(policy(), |house| async move {
        house.receiver.will((0..4).map(|_| later(429, 60)));
        let id = house.add("hello").await;
        for n in 1..=4 {
            house.seen(n).await;
            let status = house.until(id, MessageState::Retrying).await;
            assert_eq!(status.attempts_used, 0);
            assert_eq!(status.next_attempt_at, Some(house.after(60)));
            advance(59).await;
            house.still(n).await;
            advance(1).await;
        }
        let status = house.until(id, MessageState::Succeeded).await;
        assert_eq!(house.receiver.attempts(), [1, 1, 1, 1, 1]);
        assert_eq!((status.attempts_used, status.attempts.len()), (1, 5));
    });
}

#[test]
fn a_receiver_that_is_away_costs_no_attempt_and_is_probed_by_one() {
    house(policy(), |house| async move {
        house.receiver.otherwise(away());
        let mut ids = Vec::new();
        house.receiver.hold();
        for at in 0..5 {
            ids.push(house.add(&at.to_string()).await);
        }
        house.seen(5).await;
        house.receiver.let_through(5);
        house.still(5).await;
        let view = house.view().await;
        assert_eq!(view.blocked, Some(Blocked::Unavailable("connection_refused")));
        assert_eq!((view.messages, view.in_flight), (5, 0));
        house.receiver.let_through(1);
        advance(1).await;
        house.seen(6).await;
        house.still(6).await;
        house.receiver.otherwise(answer(200));
        house.receiver.let_through(1000);
        advance(2).await;
        for id in ids {
            assert_eq!(house.until(id, MessageState::Succeeded).await.attempts_used, 1);
        }
        assert_eq!(house.receiver.attempts(), [1; 11]);
    });
}

#[test]
fn a_message_that_grew_too_old_is_never_delivered() {
    house(one_by_one(), |house| async move {
        house.receiver.hold();
        let key = || Some("a".to_string());
        house.add_keyed("head", "a").await;
        let expires = Some(house.after(20));
        let message = Enqueue { key: key(), expires, ..house.message("behind a head") };
        let own = house.queue.enqueue(message).await.unwrap().id;
        let by_age = house.add_keyed("a day", "a").await;
        advance(21).await;
        assert_eq!(house.until(own, MessageState::DeadLettered).await.reason, Some(Reason::Expired));
        assert_eq!(house.state(by_age).await, MessageState::Queued);
        advance(24 * 3600).await;
        assert_eq!(house.until(by_age, MessageState::DeadLettered).await.reason, Some(Reason::Expired));
        assert_eq!(house.receiver.bodies()[0], "head");
        assert!(!house.receiver.bodies().contains(&"a day".to_string()));
    });
}

#[test]
fn a_message_that_grew_too_old_while_nobody_was_there_has_used_no_attempt_up() {
    for answered in [away(), later(503, 60)] {
        house(policy(), |house| async move {
            house.receiver.hold();
            house.receiver.otherwise(answered);
            let expires = Some(house.after(2));
            let message = Enqueue { expires, ..house.message("waits for an endpoint") };
            let id = house.queue.enqueue(message).await.unwrap().id;
            house.seen(1).await;
            advance(3).await;
            house.receiver.let_through(1);
            let status = house.until(id, MessageState::DeadLettered).await;
            assert_eq!((status.reason, status.attempts_used), (Some(Reason::Expired), 0));
        });
    }
}

#[test]
fn a_delay_is_not_taken_off_an_age() {
    house(policy(), |house| async move {
        let not_before = Some(house.after(48 * 3600));
        let message = Enqueue { not_before, ..house.message("delayed") };
        let id = house.queue.enqueue(message).await.unwrap().id;
        advance(25 * 3600).await;
        house.still(0).await;
        assert_eq!(house.state(id).await, MessageState::Scheduled);
        advance(23 * 3600).await;
        house.until(id, MessageState::Succeeded).await;
    });
}

#[test]
fn a_redriven_message_has_a_fresh_age() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400), answer(500)]);
        let id = house.add("hello").await;
        house.until(id, MessageState::DeadLettered).await;
        advance(23 * 3600).await;
        house.queue.redrive(id).await.unwrap();
        house.until(id, MessageState::Retrying).await;
        advance(2 * 3600).await;
        house.until(id, MessageState::Succeeded).await;
    });
}

#[test]
fn a_full_dead_letter_stops_its_queue_and_says_so_until_there_is_room() {
    let mut policy = one_by_one();
    policy.queue_messages_max = 4;
    house(policy, |house| async move {
        house.receiver.otherwise(answer(400));
        let ids = [house.add("1").await, house.add("2").await];
        house.until(ids[1], MessageState::DeadLettered).await;
        let waits = house.add("3").await;
        house.still(2).await;
        assert_eq!(house.view().await.blocked, Some(Blocked::DeadLetterFull));
        assert_eq!(house.state(waits).await, MessageState::Queued);
        house.receiver.otherwise(answer(200));
        assert_eq!(house.queue.purge(NAME, Part::Dead, &Filter::default()).await.unwrap(), 2);
        house.until(waits, MessageState::Succeeded).await;
    });
}

#[test]
fn a_paused_queue_stands_still() {
    house(policy(), |house| async move {
        house.add("1").await;
        house.seen(1).await;
        house.queue.pause(NAME).await.unwrap();
        house.add("2").await;
        house.still(1).await;
        assert_eq!(house.view().await.blocked, Some(Blocked::PausedByOperator));
        house.queue.resume(NAME, false).await.unwrap();
        house.seen(2).await;
        let paused = Arc::new(AsyncPolicy { paused: true, ..policy() });
        house.queue.update(&paused).await.unwrap();
        let message = Enqueue { policy: paused, ..house.message("3") };
        house.queue.enqueue(message).await.unwrap();
        house.still(2).await;
        assert_eq!(house.view().await.blocked, Some(Blocked::PausedByPolicy));
        house.queue.update(&house.policy).await.unwrap();
        house.seen(3).await;
    });
}

#[test]
fn a_queue_whose_paused_policy_is_gone_goes_on_when_an_operator_says_so() {
    let paused = AsyncPolicy { paused: true, ..policy() };
    house(paused, |house| async move {
        house.add("1").await;
        house.queue.resume(NAME, false).await.unwrap();
        house.still(0).await;
        assert_eq!(house.view().await.blocked, Some(Blocked::PausedByPolicy));
        house.queue.resume(NAME, true).await.unwrap();
        house.seen(1).await;
        // It comes back, and says what it said.
        house.queue.update(&house.policy).await.unwrap();
        house.add("2").await;
        house.still(1).await;
        assert_eq!(house.view().await.blocked, Some(Blocked::PausedByPolicy));
    });
}

#[test]
fn nothing_is_delivered_before_the_start() {
    paused(|| async {
        let house = House::open(None, policy());
        house.add("1").await;
        house.still(0).await;
        assert_eq!(house.view().await.blocked, Some(Blocked::Stopped));
        house.queue.start().await.unwrap();
        house.seen(1).await;
        house.close().await;
    });
}

#[test]
fn a_delivery_that_panics_uses_an_attempt_up_and_holds_up_nobody() {
    struct Panics(std::sync::atomic::AtomicU32);
    impl Deliver for Panics {
        fn deliver(&self, _: Outgoing) -> Delivering {
            let first = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            Box::pin(async move {
                assert!(!first, "on purpose");
                answer(200)
            })
        }

        fn callback(&self, _: &CallbackOf<'_>) -> Option<CallbackCall> {
            None
        }
    }
    paused(|| async {
        let house = House::open_with(None, policy(), Arc::new(Panics(0.into())));
        house.queue.start().await.unwrap();
        let id = house.add("1").await;
        let status = house.until(id, MessageState::Retrying).await;
        assert_eq!(status.attempts_used, 1);
        advance(1).await;
        house.until(id, MessageState::Succeeded).await;
        house.close().await;
    });
}
