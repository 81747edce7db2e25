//! tests/crash: what is left on disk, and how it is found.

use super::*;

/// A test over one directory that is opened again and again.
pub(super) fn directory<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F) {
    let directory = tempfile::tempdir().unwrap();
    paused(|| test(directory.path().to_path_buf()));
}

pub(super) async fn open(directory: &std::path::Path, policy: AsyncPolicy) -> House {
    let house = House::open(Some(directory.to_path_buf()), policy);
    house.queue.start().await.unwrap();
    house
}

#[test]
fn what_was_accepted_is_delivered_after_a_restart_without_a_word_of_its_policy() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        house.receiver.hold();
        let id = house.add("1").await;
        house.close().await;
        let house = open(&directory, policy()).await;
        // Its attempt had begun.
        advance(600).await;
        house.until(id, MessageState::Succeeded).await;
        assert_eq!(id.class(), Class::Local);
        assert_eq!(house.receiver.bodies(), ["1"]);
        house.empty().await;
        assert_eq!(house.view().await.bytes, 0);
        house.close().await;
    });
}

#[test]
fn a_message_that_kills_its_sender_reaches_the_dead_letter() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        let id = house.add("poison").await;
        house.until(id, MessageState::Succeeded).await;
        house.receiver.hold();
        let id = house.add("poison").await;
        house.seen(2).await;
        house.close().await;
        for _ in 0..2 {
            let house = House::open(Some(directory.clone()), policy());
            house.receiver.hold();
            house.queue.start().await.unwrap();
            // As after any lost connection.
            house.still(0).await;
            advance(600).await;
            house.seen(1).await;
            house.close().await;
        }
        let house = open(&directory, policy()).await;
        advance(600).await;
        let status = house.until(id, MessageState::DeadLettered).await;
        assert_eq!((status.reason, status.attempts_used), (Some(Reason::Exhausted), 3));
        assert!(status.attempts.last().unwrap().error.as_ref().unwrap().contains("stopped"));
        house.still(0).await;
        house.close().await;
    });
}

#[test]
fn order_priority_delay_and_retries_survive() {
    directory(|directory| async move {
        let house = open(&directory, one_by_one()).await;
        house.receiver.will([answer(500)]);
        house.add_keyed("a1", "a").await;
        house.seen(1).await;
        house.retrying(1).await;
        house.queue.pause(NAME).await.unwrap();
        house.add_keyed("a2", "a").await;
        let message = Enqueue { not_before: Some(house.after(3600)), ..house.message("delayed") };
        house.queue.enqueue(message).await.unwrap();
        let message = Enqueue { priority: 0, ..house.message("urgent") };
        house.queue.enqueue(message).await.unwrap();
        house.close().await;
        advance(10).await;
        let house = open(&directory, one_by_one()).await;
        house.still(0).await;
        assert_eq!(house.view().await.blocked, Some(Blocked::PausedByOperator), "kept over a restart");
        house.queue.resume(NAME, false).await.unwrap();
        house.seen(3).await;
        assert_eq!(house.receiver.bodies(), ["urgent", "a1", "a2"]);
        assert_eq!(house.receiver.attempts(), [1, 2, 1]);
        house.still(3).await;
        advance(3600).await;
        house.seen(4).await;
        house.close().await;
    });
}

#[test]
fn ages_are_learned_again() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        house.receiver.hold();
        house.queue.pause(NAME).await.unwrap_err();
        house.add("made").await;
        house.queue.pause(NAME).await.unwrap();
        let message = Enqueue { expires: Some(house.after(7200)), ..house.message("own") };
        let own = house.queue.enqueue(message).await.unwrap().id;
        let by_age = house.add("by age").await;
        house.close().await;
        advance(3600).await;
        let house = open(&directory, policy()).await;
        until(|| async { house.view().await.oldest_age >= Duration::from_secs(3600) }, "learned").await;
        advance(3601).await;
        assert_eq!(house.until(own, MessageState::DeadLettered).await.reason, Some(Reason::Expired));
        assert_eq!(house.state(by_age).await, MessageState::Queued);
        advance(22 * 3600).await;
        assert_eq!(house.until(by_age, MessageState::DeadLettered).await.reason, Some(Reason::Expired));
        house.close().await;
    });
}

#[test]
fn redriven_messages_keep_their_rank_and_age() {
    directory(|directory| async move {
        let house = open(&directory, one_by_one()).await;
        house.receiver.will([answer(400)]);
        let id = house.add_keyed("redriven", "a").await;
        house.until(id, MessageState::DeadLettered).await;
        advance(23 * 3600).await;
        house.queue.pause(NAME).await.unwrap();
        house.add_keyed("before", "a").await;
        house.queue.redrive(id).await.unwrap();
        house.add_keyed("after", "a").await;
        house.close().await;
        advance(2 * 3600).await;
        let house = open(&directory, one_by_one()).await;
        assert_eq!((house.view().await.messages, house.view().await.dead), (3, 0));
        house.queue.resume(NAME, false).await.unwrap();
        house.seen(3).await;
        assert_eq!(house.receiver.bodies(), ["before", "redriven", "after"]);
        house.close().await;
    });
}

#[test]
fn dead_letters_results_and_keys_survive() {
    directory(|directory| async move {
        let house = open(&directory, policy()).await;
        house.receiver.will([answer(400)]);
        let dead = house.add("dead").await;
        house.until(dead, MessageState::DeadLettered).await;
        let idempotency = Some(Idempotency { key: "k".into(), fingerprint: [1; 32] });
        let message = Enqueue { idempotency, ..house.message("done") };
        let done = house.queue.enqueue(message.clone()).await.unwrap().id;
        house.until(done, MessageState::Succeeded).await;
        house.close().await;
        let house = open(&directory, policy()).await;
        assert_eq!(house.view().await.dead, 1);
        assert!(house.view().await.dead_bytes > 0);
        assert!(matches!(house.queue.result(done).await.unwrap(), Some(Outcome::Response(..))));
        assert_eq!(house.status(dead).await.reason, Some(Reason::NonRetryable));
        let again = house.queue.enqueue(Enqueue { policy: house.policy.clone(), ..message }).await.unwrap();
        assert_eq!((again.id, again.duplicate), (done, true));
        house.queue.redrive(dead).await.unwrap();
        house.until(dead, MessageState::Succeeded).await;
        assert_eq!(house.view().await.dead_bytes, 0);
        house.close().await;
    });
}

#[test]
fn no_secret_is_written_to_the_disk() {
    directory(|directory| async move {
        let mut policy = policy();
        policy.callback_secret = Some(policy::queue::Secret::new("whsec_c2VjcmV0"));
        let house = open(&directory, policy).await;
        let message = Enqueue { callback: Some("http://l".into()), ..house.message("1") };
        house.queue.enqueue(message).await.unwrap();
        house.seen(2).await;
        assert!(house.receiver.seen.lock().unwrap()[1].policy.callback_secret.is_some());
        house.close().await;
        for file in std::fs::read_dir(&directory).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(14).any(|window| window == b"whsec_c2VjcmV0"));
        }
    });
}

#[test]
fn a_queue_on_a_thread_of_its_own_works_too() {
    let (receiver, mut registry) = (Receiver::new(), Registry::default());
    let options = Options {
        directory: None,
        owner: None,
        bytes_max: 64 << 20,
        messages_max: policy::limits::MESSAGES_TOTAL,
        keys_max: store::limits::DEDUPE_ROWS_MAX,
        salvage: false,
        allow_volatile: false,
        vfs: None,
        holder: POD,
        deliver: Arc::new(receiver.clone()),
        clock: Arc::new(WallClock),
        metrics: Metrics::new(&mut registry),
    };
    let queue = Queue::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        queue.start().await.unwrap();
        let message = Enqueue {
            policy: Arc::new(policy()),
            destination: "target".into(),
            call: Bytes::new(),
            body: "hello".into(),
            about: String::new(),
            key: None,
            rate_key: None,
            priority: 3,
            not_before: None,
            expires: None,
            idempotency: None,
            callback: None,
            owner: String::new(),
        };
        let id = queue.enqueue(message).await.unwrap().id;
        let outcome = queue.wait(id, Duration::from_secs(5)).await.unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Response(..)));
        assert_eq!(queue.drained(Duration::from_secs(5)).await.unwrap().messages, 0);
        queue.close().await;
    });
}
