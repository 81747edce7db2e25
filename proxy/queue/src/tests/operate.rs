//! tests/operate: what an operator sees and does.

use super::*;

#[test]
fn a_queue_shows_how_it_stands() {
    house(one_by_one(), |house| async move {
        house.receiver.hold();
        for body in ["1", "2", "3"] {
            house.add(body).await;
        }
        let message = Enqueue { not_before: Some(house.after(600)), ..house.message("4") };
        house.queue.enqueue(message).await.unwrap();
        house.seen(1).await;
        assert!(house.view().await.arrivals > 0.0);
        advance(25).await;
        house.still(1).await;
        let view = house.view().await;
        assert_eq!((view.messages, view.scheduled, view.in_flight, view.dead), (4, 1, 1, 0));
        assert_eq!((view.messages_max, view.bytes_max), (1000, 1 << 20));
        assert_eq!((view.arrived_total, view.served_total), (4, 0));
        assert!(view.bytes > 4 && view.drain_seconds.is_infinite());
        assert!(view.oldest_age >= Duration::from_secs(25) && view.oldest_age < Duration::from_secs(27));
        assert_eq!(view.history.len(), 1, "a sample every ten seconds in which the clock stood still");
        assert_eq!(view.history[0].messages, 4);
    });
}

#[test]
fn every_metric_of_the_contract_is_there() {
    house(one_by_one(), |house| async move {
        house.receiver.will([answer(200), answer(400), answer(500)]);
        for body in ["1", "2", "3"] {
            house.add(body).await;
        }
        house.seen(3).await;
        house.retrying(1).await;
        let text = house.metrics();
        let queue = "queue=\"shop/orders/target\"";
        for line in [
            format!("tidegate_queue_messages{{{queue},state=\"retrying\"}} 1"),
            format!("tidegate_queue_bytes{{{queue}}}"),
            format!("tidegate_queue_oldest_message_age_seconds{{{queue}}} 0"),
            format!("tidegate_queue_enqueue_total{{{queue},result=\"accepted\"}} 3"),
            "tidegate_queue_commit_seconds_count{durability=\"memory\"}".into(),
            format!("tidegate_queue_delivery_attempts_total{{{queue},outcome=\"delivered\"}} 1"),
            format!("tidegate_queue_delivery_attempts_total{{{queue},outcome=\"dead_lettered\"}} 1"),
            format!("tidegate_queue_delivery_attempts_total{{{queue},outcome=\"retried\"}} 1"),
            format!("tidegate_queue_in_flight{{{queue}}} 0"),
            format!("tidegate_queue_dead_letter_messages{{{queue}}} 1"),
            format!("tidegate_queue_drain_estimate_seconds{{{queue}}}"),
            format!("tidegate_queue_utilisation{{{queue}}}"),
        ] {
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        house.queue.pause(NAME).await.unwrap();
        house.add("4").await;
        house.still(3).await;
        advance(7).await;
        house.still(3).await;
        let line = format!("tidegate_queue_throttled_seconds_total{{{queue},reason=\"paused_by_operator\"}}");
        assert!(house.metrics().contains(&line), "{}", house.metrics());
    });
}

#[test]
fn peeking_shows_messages_page_by_page_and_no_call() {
    house(policy(), |house| async move {
        house.receiver.hold();
        let mut ids = Vec::new();
        for body in ["1", "2", "3"] {
            ids.push(house.add_keyed(body, "key").await);
        }
        let page = house.queue.peek(NAME, Part::Waiting, None, 2).await.unwrap();
        let of = |page: &Page<Peeked>| page.items.iter().map(|peeked| peeked.status.id).collect::<Vec<_>>();
        assert_eq!(of(&page), ids[..2]);
        let peeked = &page.items[1];
        assert_eq!((peeked.about.as_str(), peeked.key.as_deref()), ("POST /orders", Some("key")));
        assert_eq!(peeked.expires_at, Some(house.after(24 * 3600)));
        let page = house.queue.peek(NAME, Part::Waiting, page.next, 2).await.unwrap();
        assert_eq!(of(&page), ids[2..]);
        let page = house.queue.peek(NAME, Part::Waiting, page.next, 2).await.unwrap();
        assert!(page.items.is_empty() && page.next.is_none());
        let unknown = house.queue.peek("no/such/queue", Part::Dead, None, 2).await;
        assert!(matches!(unknown, Err(Failed::UnknownQueue)));
    });
}

#[test]
fn an_export_holds_messages_whole() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400)]);
        let id = house.add("the body").await;
        house.until(id, MessageState::DeadLettered).await;
        let page = house.queue.export(NAME, Part::Dead, None, 10).await.unwrap();
        let exported = &page.items[0];
        assert_eq!((&exported.call[..], &exported.body[..]), (&b"POST /orders"[..], &b"the body"[..]));
        assert_eq!(exported.response.as_ref().unwrap().head, "400");
        assert_eq!(exported.peeked.status.reason, Some(Reason::NonRetryable));
    });
}

#[test]
fn a_purge_removes_what_its_filter_means_and_nothing_under_way() {
    house(one_by_one(), |house| async move {
        house.receiver.hold();
        for at in 0..600 {
            house.add_keyed(&at.to_string(), if at % 2 == 0 { "even" } else { "odd" }).await;
        }
        house.seen(1).await;
        let filter = Filter { key: Some("even".into()), ..Filter::default() };
        assert_eq!(house.queue.purge(NAME, Part::Waiting, &filter).await.unwrap(), 299);
        assert_eq!(house.view().await.messages, 301);
        assert_eq!(house.queue.purge(NAME, Part::Waiting, &Filter::default()).await.unwrap(), 300);
        house.receiver.let_through(9);
        house.empty().await;
        assert_eq!((house.view().await.bytes, house.receiver.count()), (0, 1));
    });
}

#[test]
fn a_dead_letter_is_redriven_at_a_rate_as_its_filter_means() {
    house(policy(), |house| async move {
        house.receiver.will((0..6).map(|at| answer(if at % 2 == 0 { 400 } else { 410 })));
        for at in 0..6 {
            let id = house.add(&at.to_string()).await;
            house.until(id, MessageState::DeadLettered).await;
        }
        let filter = Filter { reason: Some(Reason::Gone), ..Filter::default() };
        house.queue.redrive_all(NAME, 2.0, filter, false).await.unwrap();
        for n in 7..=9 {
            house.still(n - 1).await;
            tokio::time::advance(Duration::from_millis(500)).await;
            house.seen(n).await;
        }
        let redrive = redriven(&house).await;
        assert_eq!((redrive.of, redrive.meant, redrive.redriven), (6, 3, 3));
        assert_eq!(house.receiver.bodies()[6..], ["1", "3", "5"]);
        assert_eq!(house.view().await.dead, 3);
        let nobody = Filter { status: Some(500), ..Filter::default() };
        house.queue.redrive_all(NAME, 2.0, nobody, false).await.unwrap();
        let redrive = redriven(&house).await;
        assert_eq!((redrive.of, redrive.meant, redrive.redriven), (3, 0, 0));
    });
}

#[test]
fn a_filter_means_what_it_says() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400), answer(422)]);
        house.receiver.hold();
        house.receiver.let_through(2);
        let first = house.add("1").await;
        house.until(first, MessageState::DeadLettered).await;
        advance(10).await;
        let second = house.add("2").await;
        house.until(second, MessageState::DeadLettered).await;
        let purged = async |filter: Filter| house.queue.purge(NAME, Part::Dead, &filter).await.unwrap();
        let at = Some(first.enqueued_at());
        assert_eq!(purged(Filter { status: Some(500), ..Filter::default() }).await, 0);
        assert_eq!(purged(Filter { before: at, ..Filter::default() }).await, 0);
        assert_eq!(
            purged(Filter { since: Some(second.enqueued_at()), status: Some(422), ..Filter::default() })
                .await,
            1
        );
        assert_eq!(
            purged(Filter { since: at, reason: Some(Reason::NonRetryable), ..Filter::default() }).await,
            1
        );
        assert_eq!(house.view().await.dead_bytes, 0);
    });
}

#[test]
fn a_purged_message_is_not_taken_in_again_by_its_key() {
    house(policy(), |house| async move {
        house.receiver.hold();
        house.add("1").await;
        house.queue.pause(NAME).await.unwrap();
        let idempotency = Some(Idempotency { key: "k".into(), fingerprint: [1; 32] });
        let message = Enqueue { idempotency, ..house.message("2") };
        let first = house.queue.enqueue(message.clone()).await.unwrap();
        house.seen(1).await;
        assert_eq!(house.queue.purge(NAME, Part::Waiting, &Filter::default()).await.unwrap(), 1);
        let again = house.queue.enqueue(message).await.unwrap();
        assert_eq!((again.id, again.duplicate), (first.id, true));
        assert_eq!(house.state(first.id).await, MessageState::Cancelled);
    });
}

#[test]
fn a_redrive_under_way_is_only_replaced_by_one_that_says_so() {
    house(policy(), |house| async move {
        house.receiver.will((0..6).map(|_| answer(400)));
        for at in 0..6 {
            let id = house.add(&at.to_string()).await;
            house.until(id, MessageState::DeadLettered).await;
        }
        let first = house.queue.redrive_all(NAME, 0.5, Filter::default(), false).await.unwrap();
        let refused = house.queue.redrive_all(NAME, 2.0, Filter::default(), false).await.unwrap_err();
        assert!(
            matches!(&refused, RedriveError::UnderWay(running) if running.number == first.number),
            "{refused:?}"
        );
        assert!(refused.to_string().starts_with("0 of 6 dead letters"), "{refused}");
        let second = house.queue.redrive_all(NAME, 2.0, Filter::default(), true).await.unwrap();
        assert_ne!(first.number, second.number);
        for n in 7..=12 {
            house.still(n - 1).await;
            tokio::time::advance(Duration::from_millis(500)).await;
            house.seen(n).await;
        }
        let done = redriven(&house).await;
        assert_eq!((done.number, done.redriven, done.failed), (second.number, 6, None));
    });
}

/// The last redrive, once it is over.
async fn redriven(house: &House) -> Redrive {
    let redrive = || async { house.view().await.redrive.unwrap() };
    until(|| async { !redrive().await.under_way }, "the end").await;
    redrive().await
}

#[test]
fn a_purge_of_the_dead_letter_leaves_what_was_redriven_meanwhile() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400)]);
        let id = house.add("1").await;
        house.until(id, MessageState::DeadLettered).await;
        let filter = Filter::default();
        let mut purge = Box::pin(house.queue.purge(NAME, Part::Dead, &filter));
        // It asks what is dead; before the queue's thread gets its turn, a redrive is on its way to the disk.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(purge.as_mut().poll(&mut context).is_pending());
        let store = house.queue.shared().store.clone();
        let redrive = store::message::Change::Redrive { position: id.position(), due_at: None };
        store.write(vec![redrive]).await.unwrap();
        assert_eq!(purge.await.unwrap(), 0);
        let loaded = store.load(id.position()).await.unwrap().unwrap();
        assert_eq!(loaded.entry.state, store::message::State::Waiting);
        assert_eq!(house.view().await.dead, 1, "whoever redrives it counts it");
    });
}
