//! tests/accept: what is taken in, what is not, and what the books say.

use super::*;

fn repeated(house: &House, body: &str, fingerprint: u8) -> Enqueue {
    let idempotency = Some(Idempotency { key: "k".into(), fingerprint: [fingerprint; 32] });
    Enqueue { idempotency, ..house.message(body) }
}

#[test]
fn a_repetition_is_answered_with_the_first_one_also_after_it_ended() {
    house(policy(), |house| async move {
        house.receiver.hold();
        let first = house.queue.enqueue(repeated(&house, "1", 1)).await.unwrap();
        advance(1).await;
        let again = house.queue.enqueue(repeated(&house, "1", 1)).await.unwrap();
        assert_eq!((again.id, again.enqueued_at, again.duplicate), (first.id, first.enqueued_at, true));
        house.receiver.let_through(1);
        house.until(first.id, MessageState::Succeeded).await;
        let again = house.queue.enqueue(repeated(&house, "1", 1)).await.unwrap();
        assert_eq!((again.id, again.duplicate), (first.id, true));
        assert_eq!(house.view().await.messages, 0, "a repetition takes no room");
        house.still(1).await;
    });
}

#[test]
fn the_same_key_with_another_content_is_refused() {
    house(policy(), |house| async move {
        house.queue.enqueue(repeated(&house, "1", 1)).await.unwrap();
        let refused = house.queue.enqueue(repeated(&house, "2", 2)).await;
        assert_eq!(refused, Err(Refused::OtherFingerprint));
    });
}

#[test]
fn a_key_belongs_to_its_caller_and_queue() {
    house(policy(), |house| async move {
        let mine = house.queue.enqueue(repeated(&house, "1", 1)).await.unwrap();
        let owner = "spiffe://cluster.local/ns/shop/sa/other".into();
        let other = Enqueue { owner, ..repeated(&house, "2", 2) };
        let elsewhere = Enqueue { destination: "elsewhere".into(), ..repeated(&house, "3", 3) };
        for message in [other, elsewhere] {
            let accepted = house.queue.enqueue(message).await.unwrap();
            assert!(!accepted.duplicate && accepted.id != mine.id);
        }
    });
}

#[test]
fn a_key_is_forgotten_after_its_window() {
    house(policy(), |house| async move {
        let first = house.queue.enqueue(repeated(&house, "1", 1)).await.unwrap();
        house.until(first.id, MessageState::Succeeded).await;
        advance(3601).await;
        let accepted = house.queue.enqueue(repeated(&house, "2", 2)).await.unwrap();
        assert!(!accepted.duplicate);
    });
}

#[test]
fn a_full_queue_refuses_with_a_time_and_takes_again_when_there_is_room() {
    let mut policy = policy();
    policy.queue_messages_max = 2;
    house(policy, |house| async move {
        house.receiver.hold();
        house.add("1").await;
        let id = house.add("2").await;
        let refused = house.queue.enqueue(house.message("3")).await.unwrap_err();
        assert!(refused.retry_after() >= Some(Duration::from_secs(1)), "{refused:?}");
        let said = "the queue is full: as many messages wait as may, 2 (queue.maxMessages)";
        assert_eq!(refused.to_string(), said);
        house.receiver.let_through(2);
        house.until(id, MessageState::Succeeded).await;
        house.empty().await;
        house.add("3").await;
        assert!(
            house.metrics().contains(
                "tidegate_queue_enqueue_total{queue=\"shop/orders/target\",result=\"queue_full\"} 1"
            )
        );
    });
}

#[test]
fn an_idle_queue_is_asked_again_soon() {
    house(policy(), |house| async move {
        let asked = async || house.queue.enqueue(house.message("x")).await.unwrap();
        for pause in [0, 5, 9, 60, 3600] {
            advance(pause).await;
            let accepted = asked().await;
            assert_eq!(accepted.retry_after, Duration::from_secs(1), "after {pause} s");
            house.until(accepted.id, MessageState::Succeeded).await;
            house.empty().await;
        }
        advance(60).await;
        let view = house.view().await;
        assert_eq!((view.utilisation, view.drain_seconds, view.arrivals), (0.0, 0.0, 0.0));
        house.receiver.hold();
        asked().await;
        advance(60).await;
        assert!(house.view().await.drain_seconds.is_infinite(), "a backlog of which nothing goes");
        let line = "tidegate_queue_drain_estimate_seconds{queue=\"shop/orders/target\"} inf";
        assert!(house.metrics().to_lowercase().contains(&line.to_lowercase()), "{}", house.metrics());
    });
}

#[test]
fn bytes_are_bounded_too_and_come_back_to_nothing() {
    let mut policy = policy();
    policy.queue_bytes_max = 2000;
    house(policy, |house| async move {
        house.receiver.hold();
        house.add(&"x".repeat(1000)).await;
        let refused = house.queue.enqueue(house.message(&"x".repeat(1000))).await.unwrap_err();
        assert!(matches!(refused, Refused::QueueFull { .. }), "{refused:?}");
        assert!(refused.to_string().contains("more than 2000 bytes"), "{refused}");
        let id = house.add("small").await;
        house.receiver.let_through(9);
        house.until(id, MessageState::Succeeded).await;
        until(|| async { house.view().await.bytes == 0 }, "no bytes").await;
        assert_eq!(house.view().await.messages, 0);
    });
}

#[test]
fn a_client_that_hangs_up_in_the_middle_leaves_a_message_or_nothing() {
    house(policy(), |house| async move {
        house.add("before").await;
        let message = Enqueue { expires: Some(house.after(60)), ..house.message("unheard") };
        // Polled once, so that the write is on its way, and dropped.
        let mut enqueue = Box::pin(house.queue.enqueue(message));
        let waker = std::task::Waker::noop();
        assert!(enqueue.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        drop(enqueue);
        house.seen(2).await;
        house.empty().await;
        assert_eq!(house.queue.shared().total.load(std::sync::atomic::Ordering::SeqCst), 0);
    });
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    house(policy(), |house| async move {
        let long = Some("x".repeat(policy::limits::MESSAGE_KEY_BYTES_MAX + 1));
        let far = Some(house.after(31 * 24 * 3600));
        for message in [
            Enqueue { key: long.clone(), ..house.message("") },
            Enqueue { callback: long, ..house.message("") },
            Enqueue { not_before: far, ..house.message("") },
        ] {
            assert!(matches!(house.queue.enqueue(message).await, Err(Refused::Invalid(_))));
        }
        assert!(house.metrics().contains("{queue=\"other\",result=\"invalid\"} 3"));
    });
}

/// The store's own bound may be below its policy's.
#[test]
fn what_does_not_fit_the_store_is_refused_with_its_bound_and_counted() {
    let policy = AsyncPolicy { queue_bytes_max: 64 << 20, body_bytes_max: 16 << 20, ..policy() };
    paused(|| async {
        let house = House::open_in(None, 8 << 20, policy, Arc::new(Receiver::new()));
        let refused = house.queue.enqueue(house.message(&"x".repeat(8 << 20))).await.unwrap_err();
        let Refused::TooLarge { bytes_max, .. } = refused else { panic!("{refused:?}") };
        assert!(refused.to_string().contains(&bytes_max.to_string()), "{refused}");
        assert!(house.metrics().contains("{queue=\"shop/orders/target\",result=\"too_large\"} 1"));
        house.add("small").await;
        house.close().await;
    });
}

#[test]
fn more_messages_than_the_process_may_hold_are_refused_until_there_is_room() {
    house(policy(), |house| async move {
        let (total, many) = (&house.queue.shared().total, policy::limits::MESSAGES_TOTAL);
        total.fetch_add(many, std::sync::atomic::Ordering::SeqCst);
        match house.queue.enqueue(house.message("")).await {
            Err(Refused::SourceOverQuota { retry_after }) => {
                assert!(retry_after >= policy::limits::QUEUE_RETRY_AFTER_MIN, "{retry_after:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(total.fetch_sub(many, std::sync::atomic::Ordering::SeqCst), many, "nothing was taken");
        house.add("").await;
    });
}

#[test]
fn more_queues_than_may_be_are_refused_until_one_is_empty() {
    house(policy(), |house| async move {
        house.receiver.hold();
        house.receiver.otherwise(away());
        house.queue.pause(NAME).await.unwrap_err();
        let to = |at: usize| Enqueue { destination: at.to_string().into(), ..house.message("") };
        for at in 0..policy::limits::QUEUES_MAX {
            house.queue.enqueue(to(at)).await.unwrap();
        }
        assert_eq!(house.queue.enqueue(to(9999)).await, Err(Refused::TooManyQueues));
        let name = "shop/orders/17";
        until(
            || async {
                house.queue.purge(name, Part::Waiting, &Filter::default()).await.unwrap();
                house.receiver.let_through(2000);
                advance(1).await;
                let all = house.queue.queues().await.unwrap();
                all.iter().any(|view| view.name == name && view.messages == 0)
            },
            "one is empty",
        )
        .await;
        house.queue.enqueue(to(9999)).await.unwrap();
        let all = house.queue.queues().await.unwrap();
        assert!(all.len() == policy::limits::QUEUES_MAX && !all.iter().any(|view| view.name == name));
    });
}

#[test]
fn an_id_of_another_pod_or_time_is_unknown() {
    house(policy(), |house| async move {
        let id = house.add("1").await;
        let other = [
            MessageId::new(Class::Local, id.enqueued_at(), id.position(), POD),
            MessageId::new(Class::Memory, id.enqueued_at(), id.position(), Ipv4Addr::LOCALHOST),
            MessageId::new(Class::Memory, Timestamp(5), id.position(), POD),
        ];
        for other in other {
            assert_eq!(house.queue.status(other).await.unwrap(), None);
            assert!(matches!(house.queue.cancel(other).await, Err(CancelError::Unknown)));
            assert!(matches!(house.queue.redrive(other).await, Err(RedriveError::Unknown)));
        }
    });
}

#[test]
fn what_a_worker_awaits_may_move_between_threads() {
    fn moves<T: Send>(_: T) {}
    house(policy(), |house| async move {
        let (id, queue) = (house.add("1").await, &house.queue);
        moves(queue.enqueue(house.message("")));
        moves(queue.wait(id, Duration::ZERO));
        moves(queue.cancel(id));
        moves(queue.redrive(id));
        moves(queue.drained(Duration::ZERO));
        moves(queue.close());
    });
}
