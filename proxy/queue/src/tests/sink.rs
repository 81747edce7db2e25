//! tests/sink: what dies leaves for its policy's sink, once, and nothing is lost on the way.

use policy::queue::Sink;

use super::*;

const SINK: &str = "shop/orders/dead-letter-sink";

fn sink(service: &str) -> Sink {
    Sink { service: service.parse().unwrap(), uri: "/d".into() }
}

fn sinking() -> AsyncPolicy {
    let mut policy = policy();
    policy.delivery.sink = Some(sink("dead.ops.svc:80"));
    policy
}

impl House {
    async fn sink(&self) -> QueueView {
        self.queue.queues().await.unwrap().into_iter().find(|view| view.name == SINK).unwrap()
    }

    async fn sink_has(&self, messages: u64, dead: u64) {
        let so = || async {
            let sink = self.sink().await;
            (sink.messages, sink.dead) == (messages, dead)
        };
        until(so, "the sink's queue").await;
    }

    /// Waits until nothing more happens.
    async fn quiet(&self) {
        loop {
            let before = self.receiver.count();
            for _ in 0..3 {
                self.queue.shared().store.sweep(Timestamp(0)).await.unwrap();
                let _ = self.queue.queues().await;
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            }
            if self.receiver.count() == before {
                return;
            }
        }
    }

    /// The one that is told of at `at`.
    fn seen_at(&self, at: usize) -> Outgoing {
        self.receiver.seen.lock().unwrap()[at].clone()
    }
}

#[test]
fn what_dies_leaves_for_the_sink_with_its_body_and_is_known_as_dead() {
    house(sinking(), |house| async move {
        house.receiver.will([answer(400)]);
        let id = house.add("1").await;
        house.seen(2).await;
        let sunk = house.seen_at(1);
        assert_eq!((&*sunk.queue, &*sunk.destination, sunk.attempt), (SINK, "dead.ops.svc:80", 1));
        assert_eq!(sunk.call, format!("b\"POST /orders\" {id} NonRetryable 400"));
        assert_eq!(&sunk.body[..], b"1");
        assert_ne!(sunk.id, id);
        let status = house.until(id, MessageState::DeadLettered).await;
        assert_eq!((status.reason, status.attempts_used), (Some(Reason::NonRetryable), 1));
        assert_eq!(status.attempts[0].status, Some(400));
        assert!(status.ended_at.is_some());
        let said = house.queue.result(id).await.unwrap();
        assert!(matches!(said, Some(Outcome::Response(_, ref said)) if &said.head[..] == b"400"), "{said:?}");
        let settled = || async {
            let all = house.queue.queues().await.unwrap();
            all.iter().all(|view| (view.messages, view.bytes, view.dead, view.dead_bytes) == (0, 0, 0, 0))
        };
        until(settled, "the books are right").await;
        house.still(2).await;
        assert!(matches!(house.queue.redrive(id).await, Err(RedriveError::Sunk)));
        assert!(matches!(house.queue.cancel(id).await, Err(CancelError::Ended(MessageState::DeadLettered))));
    });
}

#[test]
fn attempts_and_age_that_are_used_up_lead_to_the_sink_too() {
    house(sinking(), |house| async move {
        house.receiver.will([answer(500), answer(500), answer(500)]);
        house.add("1").await;
        let all_seen = || async {
            advance(1).await;
            house.receiver.count() == 4
        };
        until(all_seen, "three attempts and the sink").await;
        assert!(house.seen_at(3).call.ends_with(b"Exhausted 500"));
        house.receiver.will([away()]);
        let expires = Some(house.after(5));
        house.queue.enqueue(Enqueue { expires, ..house.message("2") }).await.unwrap();
        house.seen(5).await;
        advance(6).await;
        house.seen(6).await;
        let sunk = house.seen_at(5);
        assert_eq!((&*sunk.queue, &sunk.body[..]), (SINK, b"2".as_slice()));
        assert!(sunk.call.ends_with(b"Expired 0"), "{:?}", sunk.call);
    });
}

#[test]
fn an_end_its_callback_and_what_is_sunk_are_one_write_and_a_callback_is_never_sunk() {
    house(sinking(), |house| async move {
        house.receiver.otherwise(answer(400));
        let message = Enqueue { callback: Some("http://l".into()), ..house.message("1") };
        house.queue.enqueue(message).await.unwrap();
        house.seen(3).await;
        house.sink_has(0, 1).await;
        let callbacks = || async {
            let all = house.queue.queues().await.unwrap();
            all.iter().any(|view| view.name.ends_with("/callbacks") && view.dead == 1)
        };
        until(callbacks, "the callback is dead").await;
        house.still(3).await;
    });
}

#[test]
fn what_the_sink_refuses_is_kept_and_never_sunk_again_and_redriven_goes_where_the_policy_says_now() {
    house(sinking(), |house| async move {
        house.receiver.will([answer(400), answer(422)]);
        house.add("1").await;
        house.seen(2).await;
        house.sink_has(0, 1).await;
        house.still(2).await;
        let sunk = house.seen_at(1).id;
        let status = house.status(sunk).await;
        assert_eq!((status.state, status.reason), (MessageState::DeadLettered, Some(Reason::NonRetryable)));
        let mut other = sinking();
        other.delivery.sink = Some(sink("other.ops.svc:81"));
        house.queue.update(&Arc::new(other)).await.unwrap();
        house.queue.redrive(sunk).await.unwrap();
        house.seen(3).await;
        let again = house.seen_at(2);
        assert_eq!((&*again.destination, again.id), ("other.ops.svc:81", sunk));
        house.sink_has(0, 0).await;
        // Without a sink the built-in dead letter holds again.
        house.queue.update(&Arc::new(policy())).await.unwrap();
        house.receiver.will([answer(400)]);
        let id = house.queue.enqueue(Enqueue { policy: Arc::new(policy()), ..house.message("2") }).await;
        house.until(id.unwrap().id, MessageState::DeadLettered).await;
        assert_eq!(house.view().await.dead, 1);
        house.still(4).await;
    });
}

#[test]
fn a_sink_that_is_away_holds_up_nobody_until_its_queue_is_full() {
    let mut policy = sinking();
    (policy.queue_messages_max, policy.rate.concurrent_max) = (2, 1);
    house(policy, |house| async move {
        house.receiver.will([answer(400), away(), answer(400)]);
        for body in ["1", "2"] {
            house.add(body).await;
            house.empty().await;
            // The sink's queue has its turn: it learns that the sink is away.
            house.seen(if body == "1" { 2 } else { 3 }).await;
        }
        house.sink_has(2, 0).await;
        house.add("3").await;
        house.still(3).await;
        let view = house.view().await;
        assert_eq!((view.messages, view.dead, view.blocked), (1, 0, Some(Blocked::DeadLetterFull)));
        // The sink is back.
        advance(600).await;
        house.seen(6).await;
        house.sink_has(0, 0).await;
        let mut bodies = house.receiver.bodies()[3..].to_vec();
        bodies.sort();
        assert_eq!(bodies, ["1", "2", "3"]);
    });
}

#[test]
fn a_restart_keeps_what_is_on_its_way_to_the_sink_and_that_there_is_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    let mut policy = sinking();
    policy.queue_messages_max = 1;
    paused(|| async move {
        let house = House::open(Some(path.clone()), policy.clone());
        house.queue.start().await.unwrap();
        house.receiver.will([answer(400)]);
        house.receiver.otherwise(away());
        let id = house.add("1").await;
        house.until(id, MessageState::DeadLettered).await;
        house.add("2").await;
        house.sink_has(1, 0).await;
        house.close().await;

        let house = House::open(Some(path), policy);
        house.receiver.hold();
        house.queue.start().await.unwrap();
        house.seen(1).await;
        assert_eq!((&*house.seen_at(0).queue, &house.seen_at(0).body[..]), (SINK, b"1".as_slice()));
        assert_eq!(house.view().await.blocked, Some(Blocked::DeadLetterFull));
        let status = house.status(id).await;
        assert_eq!((status.state, status.reason), (MessageState::DeadLettered, Some(Reason::NonRetryable)));
        house.receiver.let_through(10);
        house.seen(2).await;
        assert_eq!(&house.seen_at(1).body[..], b"2");
        house.sink_has(0, 0).await;
        house.close().await;
    });
}

#[test]
fn what_does_not_fit_the_store_with_what_is_said_of_it_stays_in_the_built_in_dead_letter() {
    let mut policy = sinking();
    policy.queue_bytes_max = 1 << 30;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    paused(|| async move {
        let house = House::open(Some(path), policy);
        house.queue.start().await.unwrap();
        house.receiver.will([answer(400)]);
        // As large as a message of such a store may be, with the head it has now but not with a longer one.
        let id = house.add(&"x".repeat((4 << 20) - 120)).await;
        house.until(id, MessageState::DeadLettered).await;
        assert_eq!((house.view().await.dead, house.view().await.messages), (1, 0));
        house.sink_has(0, 0).await;
        house.still(1).await;
        house.queue.redrive(id).await.unwrap();
        house.until(id, MessageState::Succeeded).await;
        house.close().await;
    });
}

/// Whatever target and sink answer, and with a restart in between: each message ends in one place.
#[test]
fn every_message_ends_once_delivered_sunk_or_dead_at_the_sink() {
    let seed = fastrand::u64(..);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    paused(|| async move {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ends: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        let mut ids = Vec::new();
        for life in 0..3 {
            let house = House::open(Some(path.clone()), sinking());
            let answers: Vec<_> = (0..4000)
                .map(|_| match random.u8(..8) {
                    0 | 1 => answer(200),
                    2 | 3 => answer(400),
                    4 | 5 => answer(500),
                    6 => later(503, 1),
                    _ => away(),
                })
                .collect();
            house.receiver.will(answers.clone());
            house.queue.start().await.unwrap();
            for n in 0..30 {
                ids.push(house.add(&format!("{life}-{n}")).await);
            }
            // The last life ends when nothing waits any more.
            for _ in 0..if life == 2 { 2000 } else { random.usize(1..4) } {
                advance(20).await;
                house.quiet().await;
                let all = house.queue.queues().await.unwrap();
                if all.iter().all(|view| view.messages == 0) {
                    break;
                }
            }
            let seen = house.receiver.seen.lock().unwrap().clone();
            for (outgoing, answer) in seen.iter().zip(&answers) {
                if let Answer::Status { code: 200, .. } = answer.answer {
                    let body = String::from_utf8_lossy(&outgoing.body).into_owned();
                    ends.entry(body).or_default().push(outgoing.queue.to_string());
                }
            }
            if life == 2 {
                let dead = house.queue.export(SINK, Part::Dead, None, 100).await.unwrap().items;
                for exported in dead {
                    let body = String::from_utf8_lossy(&exported.body).into_owned();
                    ends.entry(body).or_default().push("dead".into());
                }
                assert_eq!((house.view().await.dead, house.view().await.messages), (0, 0), "seed {seed}");
                for id in &ids {
                    assert!(house.state(*id).await.is_end(), "seed {seed}");
                }
            }
            house.close().await;
        }
        assert_eq!(ends.len(), 90, "seed {seed}");
        assert!(ends.values().all(|ends| ends.len() == 1), "seed {seed}: {ends:?}");
        let places: std::collections::BTreeSet<_> = ends.into_values().flatten().collect();
        assert_eq!(places.len(), 3, "seed {seed}: {places:?}");
    });
}
