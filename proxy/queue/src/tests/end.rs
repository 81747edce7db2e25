//! tests/end: results, cancelling, waiting, draining.

use super::*;

#[test]
fn a_waiting_message_is_cancelled_once_and_for_all() {
    house(one_by_one(), |house| async move {
        house.receiver.hold();
        let running = house.add("1").await;
        let id = house.add("2").await;
        house.seen(1).await;
        house.queue.cancel(id).await.unwrap();
        assert_eq!(house.state(id).await, MessageState::Cancelled);
        house.queue.cancel(id).await.unwrap();
        assert!(matches!(house.queue.result(id).await.unwrap(), Some(Outcome::Without(_))));
        assert!(matches!(house.queue.cancel(running).await, Err(CancelError::Running)));
        house.receiver.let_through(9);
        house.until(running, MessageState::Succeeded).await;
        let ended = house.queue.cancel(running).await;
        assert!(matches!(ended, Err(CancelError::Ended(MessageState::Succeeded))));
        house.still(1).await;
        assert_eq!(house.view().await.messages, 0);
    });
}

#[test]
fn a_scheduled_or_retrying_message_can_be_cancelled() {
    house(policy(), |house| async move {
        let message = Enqueue { not_before: Some(house.after(60)), ..house.message("1") };
        let scheduled = house.queue.enqueue(message).await.unwrap().id;
        house.receiver.will([answer(500)]);
        let retrying = house.add("2").await;
        house.until(retrying, MessageState::Retrying).await;
        for id in [scheduled, retrying] {
            house.queue.cancel(id).await.unwrap();
            assert_eq!(house.state(id).await, MessageState::Cancelled);
        }
        advance(100).await;
        house.still(1).await;
        assert_eq!((house.view().await.scheduled, house.view().await.retrying), (0, 0));
    });
}

#[test]
fn a_dead_message_cannot_be_cancelled_and_a_live_one_not_redriven() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400)]);
        let id = house.add("1").await;
        house.until(id, MessageState::DeadLettered).await;
        let ended = house.queue.cancel(id).await;
        assert!(matches!(ended, Err(CancelError::Ended(MessageState::DeadLettered))));
        let id = house.add("2").await;
        house.until(id, MessageState::Succeeded).await;
        let live = house.queue.redrive(id).await;
        assert!(matches!(live, Err(RedriveError::NotDead(MessageState::Succeeded))));
    });
}

#[test]
fn a_result_is_gone_after_its_time_and_the_message_later() {
    house(policy(), |house| async move {
        let id = house.add("1").await;
        house.until(id, MessageState::Succeeded).await;
        advance(601).await;
        assert!(matches!(house.queue.result(id).await.unwrap(), Some(Outcome::Gone(_))));
        advance(3601).await;
        assert_eq!(house.queue.result(id).await.unwrap(), None);
    });
}

#[test]
fn a_response_that_is_too_long_is_not_kept() {
    let mut policy = policy();
    policy.result_bytes_max = 2;
    house(policy, |house| async move {
        let id = house.add("1").await;
        house.until(id, MessageState::Succeeded).await;
        assert!(matches!(house.queue.result(id).await.unwrap(), Some(Outcome::TooLarge(_))));
    });
}

#[test]
fn without_a_time_for_results_the_end_is_known_and_no_response() {
    let mut policy = policy();
    policy.result_ttl = Duration::ZERO;
    house(policy, |house| async move {
        let id = house.add("1").await;
        house.until(id, MessageState::Succeeded).await;
        let outcome = house.queue.result(id).await.unwrap();
        assert!(matches!(outcome, Some(Outcome::Without(_))), "{outcome:?}");
    });
}

#[test]
fn a_client_that_waits_gets_the_response_when_it_is_there() {
    house(policy(), |house| async move {
        house.receiver.hold();
        let id = house.add("1").await;
        let queue = house.queue.clone();
        let waits = tokio::task::spawn_local(async move { queue.wait(id, Duration::from_secs(30)).await });
        house.seen(1).await;
        assert!(!waits.is_finished());
        house.receiver.let_through(1);
        assert!(matches!(waits.await.unwrap().unwrap(), Some(Outcome::Response(..))));
        // One execution, not two.
        assert_eq!(house.receiver.count(), 1);
    });
}

#[test]
fn a_client_that_waits_in_vain_is_told_how_it_stands() {
    house(policy(), |house| async move {
        house.receiver.hold();
        let id = house.add("1").await;
        let queue = house.queue.clone();
        let waits = tokio::task::spawn_local(async move { queue.wait(id, Duration::from_secs(5)).await });
        house.seen(1).await;
        house.still(1).await;
        advance(5).await;
        let outcome = waits.await.unwrap().unwrap().unwrap();
        assert_eq!(outcome.status().state, MessageState::Delivering);
        assert_eq!(house.queue.shared().waiting.load(std::sync::atomic::Ordering::SeqCst), 0);
    });
}

#[test]
fn waiting_ends_with_a_dead_letter_and_with_a_cancel_too() {
    house(policy(), |house| async move {
        house.receiver.hold();
        house.receiver.will([answer(400)]);
        let dies = house.add_keyed("1", "a").await;
        let goes = house.add_keyed("2", "a").await;
        house.seen(1).await;
        let wait = |id| {
            let queue = house.queue.clone();
            tokio::task::spawn_local(async move { queue.wait(id, Duration::from_secs(30)).await })
        };
        let (first, second) = (wait(dies), wait(goes));
        house.still(1).await;
        house.queue.cancel(goes).await.unwrap();
        house.receiver.let_through(1);
        let state = |outcome: Option<Outcome>| outcome.unwrap().status().state;
        assert_eq!(state(second.await.unwrap().unwrap()), MessageState::Cancelled);
        assert_eq!(state(first.await.unwrap().unwrap()), MessageState::DeadLettered);
    });
}

#[test]
fn a_drain_delivers_what_it_can_and_refuses_what_comes() {
    house(policy(), |house| async move {
        house.receiver.hold();
        for at in 0..30 {
            house.add(&at.to_string()).await;
        }
        let queue = house.queue.clone();
        let drain = tokio::task::spawn_local(async move { queue.drained(Duration::from_secs(20)).await });
        house.seen(20).await;
        until(|| async { house.queue.shared().draining() }, "the drain has begun").await;
        assert_eq!(house.queue.enqueue(house.message("late")).await, Err(Refused::Draining));
        house.receiver.let_through(30);
        let left = drain.await.unwrap().unwrap();
        assert_eq!(left, Left { messages: 0, bytes: 0, in_flight: 0 });
        assert_eq!(house.receiver.count(), 30);
    });
}

#[test]
fn a_drain_does_not_wait_for_what_is_due_after_it() {
    house(policy(), |house| async move {
        let message = Enqueue { not_before: Some(house.after(60)), ..house.message("1") };
        house.queue.enqueue(message).await.unwrap();
        let left = house.queue.drained(Duration::from_secs(20)).await.unwrap();
        assert_eq!((left.messages, left.in_flight), (1, 0));
    });
}

#[test]
fn a_drain_ends_with_its_budget_and_buries_nobody() {
    house(one_by_one(), |house| async move {
        house.receiver.hold();
        let id = house.add("1").await;
        let waits = house.add("2").await;
        let queue = house.queue.clone();
        let drain = tokio::task::spawn_local(async move { queue.drained(Duration::from_secs(20)).await });
        house.seen(1).await;
        house.still(1).await;
        // In the last part of the budget nothing begins any more.
        tokio::time::advance(Duration::from_millis(19_500)).await;
        house.still(1).await;
        house.receiver.let_through(1);
        house.until(id, MessageState::Succeeded).await;
        house.still(1).await;
        let left = drain.await.unwrap().unwrap();
        assert_eq!((left.messages, left.in_flight), (1, 0));
        assert_eq!(house.state(waits).await, MessageState::Queued);
    });
}

#[test]
fn a_drain_counts_what_it_cuts_off() {
    house(policy(), |house| async move {
        house.receiver.hold();
        let id = house.add("1").await;
        house.seen(1).await;
        let queue = house.queue.clone();
        let drain = tokio::task::spawn_local(async move { queue.drained(Duration::from_secs(20)).await });
        house.still(1).await;
        advance(19).await;
        house.still(1).await;
        advance(1).await;
        let left = drain.await.unwrap().unwrap();
        assert_eq!((left.messages, left.in_flight), (1, 1));
        assert_eq!(house.status(id).await.attempts_used, 0, "a shutdown uses nothing up");
    });
}

#[test]
fn attempts_that_a_drain_cuts_off_are_given_back_together_and_once() {
    house(policy(), |house| async move {
        house.receiver.will([answer(500)]);
        let id = house.add("0").await;
        house.retrying(1).await;
        house.receiver.hold();
        for at in 1..10 {
            house.add(&at.to_string()).await;
        }
        advance(1).await;
        house.seen(11).await;
        house.still(11).await;
        let commits = || -> u64 {
            let (text, name) =
                (house.metrics(), "tidegate_queue_commit_seconds_count{durability=\"memory\"} ");
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
        };
        let before = commits();
        assert_eq!(house.queue.drained(Duration::ZERO).await.unwrap().in_flight, 10);
        assert_eq!(commits(), before + 1);
        assert_eq!(house.status(id).await.attempts_used, 1, "what was used up before stays so");
        // It ends before the store is closed.
        house.receiver.otherwise(later(429, 1));
        house.receiver.let_through(10);
        house.retrying(10).await;
        assert_eq!(house.status(id).await.attempts_used, 1);
    });
}

#[test]
fn an_attempt_whose_beginning_is_being_written_at_the_end_of_the_budget_uses_none_up() {
    use store::message::{Change, Position};

    super::crash::directory(|directory| async move {
        let mut policy = policy();
        policy.delivery.retry = 0;
        let house = House::open(Some(directory.clone()), policy.clone());
        let mut ids = Vec::new();
        for at in 0..8 {
            ids.push(house.add(&at.to_string()).await);
        }
        // What the store does first.
        let nothing = vec![Change::Quarantine(Position(1 << 39)); 500];
        for _ in 0..200 {
            let (store, nothing) = (house.queue.shared().store.clone(), nothing.clone());
            tokio::task::spawn_local(async move { store.write(nothing).await });
        }
        tokio::task::yield_now().await;
        house.queue.start().await.unwrap();
        let begins = || async {
            let asked = house.queue.ask(|worker, answer| {
                // Whoever asked waits.
                let _ = answer.send(worker.beginning.get());
            });
            asked.await.unwrap() == ids.len()
        };
        until(begins, "all of them begin").await;
        house.queue.drained(Duration::ZERO).await.unwrap();
        assert_eq!(house.receiver.count(), 0, "none has gone out");
        house.close().await;
        let house = super::crash::open(&directory, policy).await;
        for id in ids {
            assert_eq!(house.until(id, MessageState::Succeeded).await.attempts_used, 1);
        }
        house.close().await;
    });
}

#[test]
fn clients_that_went_are_forgotten_although_their_messages_wait_on() {
    let policy = AsyncPolicy { queue_messages_max: 10_000, paused: true, ..policy() };
    house(policy, |house| async move {
        let most = policy::limits::RESULT_WAITERS_MAX;
        for at in 0..=most {
            let id = house.add(&at.to_string()).await;
            house.queue.wait(id, Duration::ZERO).await.unwrap();
        }
        let watched = house.queue.ask(|worker, answer| {
            let _ = answer.send(worker.watchers.borrow().len());
        });
        assert!(watched.await.unwrap() <= 1);
    });
}

#[test]
fn a_client_that_waits_is_told_of_a_message_that_vanished() {
    house(policy(), |house| async move {
        house.add("0").await;
        house.queue.pause(NAME).await.unwrap();
        let id = house.add("1").await;
        let queue = house.queue.clone();
        let waits = tokio::task::spawn_local(async move { queue.wait(id, Duration::from_secs(30)).await });
        house.still(1).await;
        let (position, of) = (id.position(), store::message::State::Waiting);
        let end = store::message::Change::End { position, of, record: None, result: None };
        house.queue.shared().store.write(vec![end]).await.unwrap();
        house.queue.resume(NAME, false).await.unwrap();
        until(|| async { waits.is_finished() }, "it is told").await;
        assert_eq!(waits.await.unwrap().unwrap(), None);
    });
}

#[test]
fn a_closed_queue_says_so() {
    paused(|| async {
        let house = House::open(None, policy());
        let (queue, message) = (house.queue.clone(), house.message("1"));
        house.close().await;
        assert_eq!(queue.enqueue(message).await, Err(Refused::Draining));
        assert!(matches!(queue.queues().await, Err(Failed::Stopped)));
        queue.close().await;
    });
}
