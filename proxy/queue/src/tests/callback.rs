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
