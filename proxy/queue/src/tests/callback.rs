//! tests/callback: whoever asked to be told of an end is told.

use super::*;

#[test]
fn a_callback_is_told_of_a_success_by_a_message_of_its_own() {
    house(policy(), |house| async move {
        let callback = Some("http://listener.shop.svc/done".to_string());
        let message = Enqueue { callback, ..house.message("1") };
        let id = house.queue.enqueue(message).await.unwrap().id;
        house.seen(2).await;
        let told = house.receiver.seen.lock().unwrap()[1].clone();
        assert_eq!((&*told.queue, &*told.destination), ("shop/orders/callbacks", "listener"));
        assert_eq!(&told.call[..], b"http://listener.shop.svc/done Succeeded");
        assert_eq!(&told.body[..], b"said");
        assert_ne!(told.id, id);
        let settled = || async {
            let all = house.queue.queues().await.unwrap();
            all.iter().all(|view| view.messages == 0 && view.bytes == 0)
        };
        until(settled, "the books are right").await;
    });
}

#[test]
fn a_callback_is_told_of_a_dead_letter_and_repeated_until_it_is_taken() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400), answer(500), away(), answer(200)]);
        let message = Enqueue { callback: Some("http://l".into()), ..house.message("1") };
        house.queue.enqueue(message).await.unwrap();
        house.seen(2).await;
        for n in 3..=4 {
            house.still(n - 1).await;
            advance(10).await;
            house.seen(n).await;
        }
        let seen = house.receiver.seen.lock().unwrap().clone();
        assert!(seen[1..].iter().all(|told| &told.call[..] == b"http://l DeadLettered"));
    });
}

#[test]
fn a_listener_that_is_away_holds_up_no_other() {
    house(policy(), |house| async move {
        house.receiver.will([answer(200), away()]);
        let message = || Enqueue { callback: Some("http://l".into()), ..house.message("1") };
        house.queue.enqueue(message()).await.unwrap();
        house.seen(2).await;
        house.still(2).await;
        house.queue.enqueue(message()).await.unwrap();
        house.seen(4).await;
    });
}

/// Puts a message into each of `count` queues of another policy.
async fn fill(house: &House, count: usize) {
    let other = Arc::new(AsyncPolicy { name: "shop/other".into(), ..policy() });
    for at in 0..count {
        let destination = at.to_string().into();
        let message = Enqueue { policy: other.clone(), destination, ..house.message("") };
        house.queue.enqueue(message).await.unwrap();
    }
}

#[test]
fn the_queue_of_callbacks_stays_as_long_as_a_message_may_need_it() {
    house(policy(), |house| async move {
        house.receiver.hold();
        fill(&house, policy::limits::QUEUES_MAX - 2).await;
        let message = Enqueue { callback: Some("http://l".into()), ..house.message("1") };
        let id = house.queue.enqueue(message).await.unwrap().id;
        let one_more = || Enqueue { destination: "more".into(), ..house.message("") };
        assert_eq!(house.queue.enqueue(one_more()).await, Err(Refused::TooManyQueues));
        house.receiver.let_through(5000);
        house.until(id, MessageState::Succeeded).await;
        let told = || async {
            let seen = house.receiver.seen.lock().unwrap();
            seen.iter().any(|outgoing| &outgoing.call[..] == b"http://l Succeeded")
        };
        until(told, "it is told").await;
        let empty = || async { house.queue.queues().await.unwrap().iter().all(|view| view.messages == 0) };
        until(empty, "nothing waits").await;
        house.queue.enqueue(one_more()).await.unwrap();
    });
}

#[test]
fn a_message_that_needs_two_queues_is_refused_when_there_is_room_for_one() {
    house(policy(), |house| async move {
        house.receiver.hold();
        fill(&house, policy::limits::QUEUES_MAX - 1).await;
        let message = Enqueue { callback: Some("http://l".into()), ..house.message("1") };
        assert_eq!(house.queue.enqueue(message).await, Err(Refused::TooManyQueues));
        assert_eq!((house.view().await.messages, house.view().await.bytes), (0, 0));
    });
}
