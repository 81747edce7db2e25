//! tests/found: what a stop at a bad moment left behind, and what is damaged.

use super::crash::{directory, open};
use super::*;
use crate::state::tests::entry;

/// A message that is a day old when it is redriven, and its attempt then under way.
async fn redriven_late(house: &House) -> MessageId {
    house.receiver.will([answer(400)]);
    let id = house.add("1").await;
    house.until(id, MessageState::DeadLettered).await;
    advance(25 * 3600).await;
    house.receiver.hold();
    house.queue.redrive(id).await.unwrap();
    house.seen(2).await;
    id
}

#[test]
fn a_redriven_message_whose_first_attempt_a_crash_cut_off_keeps_its_fresh_age() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        let id = redriven_late(&house).await;
        house.close().await;
        let house = open(&directory, policy()).await;
        advance(600).await;
        house.until(id, MessageState::Succeeded).await;
        house.close().await;
    });
}

#[test]
fn a_redriven_message_whose_first_attempt_a_drain_cut_off_keeps_its_fresh_age() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        let id = redriven_late(&house).await;
        assert_eq!(house.queue.drained(Duration::ZERO).await.unwrap().in_flight, 1);
        house.close().await;
        let house = open(&directory, policy()).await;
        house.until(id, MessageState::Succeeded).await;
        house.close().await;
    });
}

#[test]
fn a_head_that_was_pushed_back_is_not_overtaken_after_a_restart() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        house.receiver.will([later(429, 60)]);
        house.add_keyed("1", "a").await;
        house.retrying(1).await;
        house.add_keyed("2", "a").await;
        house.close().await;
        let house = open(&directory, policy()).await;
        house.still(0).await;
        advance(60).await;
        house.seen(2).await;
        assert_eq!(house.receiver.bodies(), ["1", "2"]);
        house.close().await;
    });
}

#[test]
fn what_a_crash_cut_off_waits_as_its_policy_says() {
    directory(|directory| async move {
        let mut policy = policy();
        let wait = Duration::from_millis(1);
        (policy.delivery.backoff_delay, policy.delivery.backoff_max) = (wait, wait);
        let house = open(&directory, policy.clone()).await;
        house.receiver.hold();
        for at in 0..8 {
            house.add(&at.to_string()).await;
        }
        house.seen(8).await;
        house.close().await;
        let house = open(&directory, policy).await;
        tokio::time::advance(Duration::from_millis(2)).await;
        house.seen(8).await;
        house.close().await;
    });
}

#[test]
fn a_queue_goes_one_by_one_until_what_a_crash_cut_off_was_attempted_not_only_taken() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        house.receiver.hold();
        let id = house.add("1").await;
        house.seen(1).await;
        house.close().await;
        let house = open(&directory, policy()).await;
        house.receiver.hold();
        // It is taken and put back: the id is of another time.
        let other = MessageId::new(Class::Local, Timestamp(5), id.position(), POD);
        assert!(matches!(house.queue.cancel(other).await, Err(CancelError::Unknown)));
        for body in ["2", "3"] {
            house.add(body).await;
        }
        house.seen(1).await;
        house.still(1).await;
        house.receiver.let_through(2);
        until(|| async { house.view().await.messages == 1 }, "the others are done").await;
        // Attempted, it is as any other, whatever came of it.
        house.receiver.will([answer(500)]);
        advance(1).await;
        house.seen(3).await;
        house.receiver.let_through(1);
        house.retrying(1).await;
        for body in ["4", "5"] {
            house.add(body).await;
        }
        house.seen(5).await;
        assert_eq!(house.receiver.bodies(), ["2", "3", "1", "4", "5"]);
        house.close().await;
    });
}

/// Writes `other` where `text` stands in the closed database.
fn overwrite(directory: &std::path::Path, text: &str, other: &str) {
    let file = directory.join("messages.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at..at + text.len()].copy_from_slice(other.as_bytes());
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_message_is_told_as_dead_and_its_key_as_known() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        house.add("0").await;
        house.queue.pause(NAME).await.unwrap();
        let idempotency = Some(Idempotency { key: "k".into(), fingerprint: [1; 32] });
        let message = Enqueue { idempotency, ..house.message("a sound body") };
        let id = house.queue.enqueue(message.clone()).await.unwrap().id;
        let headless = Enqueue { about: "a sound head".into(), ..house.message("2") };
        let headless = house.queue.enqueue(headless).await.unwrap().id;
        house.close().await;
        overwrite(&directory, "a sound body", "another body");
        overwrite(&directory, "a sound head", "another head");
        let house = open(&directory, policy()).await;
        let told = async || {
            let status = house.status(id).await;
            assert_eq!((status.state, status.reason), (MessageState::DeadLettered, Some(Reason::Damaged)));
            assert_eq!((&*status.owner, &*status.queue), (&*message.owner, NAME), "its head is sound");
            let status = house.status(headless).await;
            assert_eq!((status.state, status.reason), (MessageState::DeadLettered, Some(Reason::Damaged)));
            assert_eq!(status.owner, "", "nobody knows");
            assert!(matches!(house.queue.result(id).await.unwrap(), Some(Outcome::Without(_))));
            let again = Enqueue { policy: house.policy.clone(), ..message.clone() };
            assert!(house.queue.enqueue(again).await.unwrap().duplicate);
        };
        told().await;
        house.queue.resume(NAME, false).await.unwrap();
        until(|| async { house.view().await.quarantined == 2 }, "they are set aside").await;
        told().await;
        let dead = MessageState::DeadLettered;
        assert!(matches!(house.queue.cancel(id).await, Err(CancelError::Ended(state)) if state == dead));
        assert!(matches!(house.queue.redrive(id).await, Err(RedriveError::NotDead(state)) if state == dead));
        house.close().await;
    });
}

#[test]
fn a_purge_takes_steps_that_a_small_store_can_write() {
    directory(|directory| async move {
        let receiver = Receiver::new();
        let house = House::open_in(Some(directory), 8 << 20, policy(), Arc::new(receiver));
        for at in 0..300 {
            house.add(&at.to_string()).await;
        }
        assert_eq!(house.queue.purge(NAME, Part::Waiting, &Filter::default()).await.unwrap(), 300);
        let view = house.view().await;
        assert_eq!((view.messages, view.bytes), (0, 0));
        house.close().await;
    });
}

#[test]
fn messages_of_a_queue_whose_row_was_lost_stand_still_and_hold_up_nobody() {
    house(policy(), |house| async move {
        let lost = house.queue.ask(|worker, answer| {
            let entry = store::message::Entry { queue: store::message::QueueId(77), ..entry(9999) };
            let (mut state, now) = (worker.state.borrow_mut(), worker.now());
            state.set_line(77, crate::schedule::Limits::unknown(), false);
            state.recovered(&entry, 77, now, now);
            let _ = answer.send(());
        });
        lost.await.unwrap();
        // A turn in which it notes how its queues stand, and one in which it notes it for plots.
        let id = house.add("1").await;
        house.until(id, MessageState::Succeeded).await;
        advance(20).await;
        house.still(1).await;
    });
}

#[test]
fn an_id_stays_what_its_caller_was_told_when_the_pod_comes_back_at_another_address() {
    directory(|directory| async move {
        let house = House::open(Some(directory.clone()), policy());
        let keyed = |house: &House| Enqueue {
            idempotency: Some(Idempotency { key: "k".into(), fingerprint: [1; 32] }),
            ..house.message("1")
        };
        let id = house.queue.enqueue(keyed(&house)).await.unwrap().id;
        let (cancelled, dead) = (house.add("2").await, house.add("3").await);
        house.close().await;
        let receiver = Receiver::new();
        receiver.hold();
        receiver.will([answer(200), answer(400)]);
        let there = Ipv4Addr::new(10, 0, 9, 9);
        let house = House::open_at(Some(directory), 64 << 20, policy(), Arc::new(receiver.clone()), there);
        assert_eq!(house.state(id).await, MessageState::Queued);
        house.queue.cancel(cancelled).await.unwrap();
        assert_eq!(house.queue.enqueue(keyed(&house)).await.unwrap().id, id, "the repetition's first");
        house.queue.start().await.unwrap();
        receiver.let_through(9);
        house.until(id, MessageState::Succeeded).await;
        house.until(dead, MessageState::DeadLettered).await;
        assert_eq!(house.state(cancelled).await, MessageState::Cancelled);
        let seen = || receiver.seen.lock().unwrap().iter().map(|seen| seen.id).collect::<Vec<_>>();
        assert_eq!(seen(), [id, dead]);
        let page = house.queue.peek(NAME, Part::Dead, None, 9).await.unwrap();
        assert_eq!(page.items[0].status.id, dead);
        house.queue.redrive(dead).await.unwrap();
        house.until(dead, MessageState::Succeeded).await;
        assert_eq!(house.queue.enqueue(keyed(&house)).await.unwrap().id, id, "also when it has ended");
        // Only the whole id is one: another pod may have given out the same number.
        let foreign = MessageId::new(id.class(), id.enqueued_at(), id.position(), Ipv4Addr::new(10, 0, 0, 8));
        assert_eq!(house.queue.status(foreign).await.unwrap(), None);
        let new = house.add("new").await;
        assert_eq!((id.holder(), new.holder()), (POD, there));
        house.close().await;
    });
}

#[test]
fn a_message_that_was_stored_without_an_address_is_found_by_the_one_of_its_id() {
    use prost::Message as _;
    house(policy(), |house| async move {
        house.receiver.hold();
        let first = house.add("1").await;
        let head = crate::stored::Head { enqueued_at: BEGIN, call: "POST /".into(), ..Default::default() };
        let draft = store::message::Draft {
            queue: house.queue.find(NAME).unwrap().id,
            lane: None,
            priority: 3,
            due_at: None,
            head: head.encode_to_vec().into(),
            body: "2".into(),
            dedupe: None,
        };
        let store = house.queue.shared().store.clone();
        store.write(vec![store::message::Change::Append(draft)]).await.unwrap();
        let position = store::message::Position(first.position().0 + 1);
        for holder in [POD, Ipv4Addr::new(10, 0, 9, 9)] {
            let id = MessageId::new(first.class(), Timestamp(BEGIN), position, holder);
            assert_eq!(house.status(id).await.id, id);
        }
        let other = MessageId::new(first.class(), Timestamp(BEGIN + 1), position, POD);
        assert_eq!(house.queue.status(other).await.unwrap(), None);
    });
}
