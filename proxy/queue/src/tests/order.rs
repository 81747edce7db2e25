//! tests/order: in which order messages go out.

use super::*;

#[test]
fn a_lane_hands_out_its_next_only_after_the_settle_of_the_one_before() {
    house(policy(), |house| async move {
        house.receiver.hold();
        for body in ["a1", "a2", "a3"] {
            house.add_keyed(body, "a").await;
        }
        house.add_keyed("b1", "b").await;
        house.seen(2).await;
        let lane = || -> Vec<String> {
            house.receiver.bodies().into_iter().filter(|body| body.starts_with('a')).collect()
        };
        assert_eq!(lane(), ["a1"]);
        house.receiver.let_through(2);
        house.seen(3).await;
        house.still(3).await;
        house.receiver.let_through(2);
        house.seen(4).await;
        assert_eq!(lane(), ["a1", "a2", "a3"]);
    });
}

#[test]
fn first_deliveries_of_a_key_ascend_although_attempts_fail() {
    house(policy(), |house| async move {
        house.receiver.will([answer(500), answer(200), answer(500), answer(200)]);
        for body in ["1", "2", "3"] {
            house.add_keyed(body, "a").await;
        }
        house.seen(1).await;
        house.retrying(1).await;
        advance(2).await;
        house.seen(3).await;
        house.retrying(1).await;
        advance(2).await;
        house.seen(5).await;
        assert_eq!(house.receiver.bodies(), ["1", "1", "2", "2", "3"]);
    });
}

#[test]
fn a_dead_letter_lets_its_lane_go_on() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400)]);
        let dead = house.add_keyed("1", "a").await;
        let id = house.add_keyed("2", "a").await;
        house.until(id, MessageState::Succeeded).await;
        assert_eq!(house.state(dead).await, MessageState::DeadLettered);
    });
}

#[test]
fn a_cancelled_message_lets_its_lane_go_on() {
    house(policy(), |house| async move {
        house.receiver.hold();
        house.add_keyed("1", "a").await;
        let id = house.add_keyed("2", "a").await;
        house.add_keyed("3", "a").await;
        house.seen(1).await;
        house.queue.cancel(id).await.unwrap();
        house.receiver.let_through(2);
        house.seen(2).await;
        assert_eq!(house.receiver.bodies(), ["1", "3"]);
    });
}

#[test]
fn a_redriven_message_joins_at_the_tail_with_its_id_and_fresh_attempts() {
    house(policy(), |house| async move {
        house.receiver.will([answer(400)]);
        let id = house.add_keyed("1", "a").await;
        house.until(id, MessageState::DeadLettered).await;
        house.receiver.hold();
        house.add_keyed("2", "a").await;
        house.add_keyed("3", "a").await;
        house.queue.redrive(id).await.unwrap();
        assert_eq!(house.state(id).await, MessageState::Queued);
        house.receiver.let_through(9);
        let status = house.until(id, MessageState::Succeeded).await;
        assert_eq!(house.receiver.bodies(), ["1", "2", "3", "1"]);
        assert_eq!(house.receiver.attempts(), [1, 1, 1, 1]);
        assert_eq!(status.attempts_used, 1);
    });
}

#[test]
fn a_delayed_message_is_scheduled_until_it_is_due_and_joins_its_lane_then() {
    house(one_by_one(), |house| async move {
        let key = Some("a".to_string());
        let not_before = Some(house.after(30));
        let message = Enqueue { key, not_before, ..house.message("delayed") };
        let id = house.queue.enqueue(message).await.unwrap().id;
        house.add_keyed("at once", "a").await;
        house.seen(1).await;
        let status = house.status(id).await;
        assert_eq!((status.state, status.next_attempt_at), (MessageState::Scheduled, not_before));
        advance(29).await;
        house.still(1).await;
        advance(2).await;
        house.seen(2).await;
        assert_eq!(house.receiver.bodies(), ["at once", "delayed"]);
    });
}

#[test]
fn the_most_urgent_go_first() {
    house(one_by_one(), |house| async move {
        house.receiver.hold();
        house.add("first").await;
        house.seen(1).await;
        for (body, priority) in [("later", 7), ("default", 3), ("urgent", 0)] {
            let message = Enqueue { priority, ..house.message(body) };
            house.queue.enqueue(message).await.unwrap();
        }
        house.receiver.let_through(9);
        house.seen(4).await;
        assert_eq!(house.receiver.bodies(), ["first", "urgent", "default", "later"]);
    });
}

#[test]
fn no_more_are_under_way_than_the_policy_says() {
    let mut policy = policy();
    policy.rate.concurrent_max = 3;
    house(policy, |house| async move {
        house.receiver.hold();
        for at in 0..10 {
            house.add(&at.to_string()).await;
        }
        house.seen(3).await;
        house.still(3).await;
        assert_eq!(
            (house.view().await.in_flight, house.view().await.blocked),
            (3, Some(Blocked::Concurrency))
        );
        house.receiver.let_through(2);
        house.seen(5).await;
    });
}

#[test]
fn no_more_begin_in_a_second_than_the_policy_says() {
    let mut policy = policy();
    (policy.rate.per_second, policy.rate.burst_max) = (Some(2.0), 2);
    house(policy, |house| async move {
        for at in 0..10 {
            house.add(&at.to_string()).await;
        }
        house.seen(2).await;
        house.still(2).await;
        for n in 3..=6 {
            tokio::time::advance(Duration::from_millis(500)).await;
            house.seen(n).await;
        }
    });
}

#[test]
fn each_value_of_the_rate_limits_key_has_its_own() {
    let mut policy = one_by_one();
    policy.rate.key_header = Some("tenant".into());
    house(policy, |house| async move {
        house.receiver.hold();
        for (body, tenant) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
            let message = Enqueue { rate_key: Some(tenant.into()), ..house.message(body) };
            house.queue.enqueue(message).await.unwrap();
        }
        house.seen(2).await;
        house.still(2).await;
        let mut bodies = house.receiver.bodies();
        bodies.sort();
        assert_eq!(bodies, ["a1", "b1"]);
        house.receiver.let_through(9);
        house.seen(4).await;
        assert_eq!(house.receiver.bodies()[2..], ["a2", "a3"]);
    });
}

#[test]
fn whether_a_lane_is_empty_can_be_asked() {
    house(policy(), |house| async move {
        let empty = || house.queue.lane_is_empty(&house.policy, "target", "a");
        assert!(empty().await.unwrap());
        house.receiver.hold();
        let id = house.add_keyed("1", "a").await;
        assert!(!empty().await.unwrap());
        house.receiver.let_through(1);
        house.until(id, MessageState::Succeeded).await;
        assert!(empty().await.unwrap());
    });
}
