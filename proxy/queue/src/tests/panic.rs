//! tests/panic: the way out fails, and the queue goes on.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Panics before there is a future, once.
struct Panics(AtomicU32);

impl Deliver for Panics {
    fn deliver(&self, _: Outgoing) -> Delivering {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
        Box::pin(async { answer(200) })
    }

    fn callback(&self, _: &CallbackOf<'_>) -> Option<CallbackCall> {
        panic!("on purpose")
    }
}

#[test]
fn a_delivery_that_panics_before_it_begins_uses_an_attempt_up_and_holds_up_nobody() {
    paused(|| async {
        let house = House::open_with(None, one_by_one(), Arc::new(Panics(0.into())));
        house.queue.start().await.unwrap();
        let id = house.add_keyed("1", "a").await;
        let status = house.until(id, MessageState::Retrying).await;
        assert_eq!(status.attempts_used, 1);
        assert!(status.attempts[0].error.as_ref().unwrap().contains("the proxy failed"));
        until(|| async { house.view().await.in_flight == 0 }, "it has landed").await;
        let behind = house.add_keyed("2", "a").await;
        advance(1).await;
        house.until(id, MessageState::Succeeded).await;
        house.until(behind, MessageState::Succeeded).await;
        house.close().await;
    });
}

#[test]
fn a_callback_that_panics_leaves_the_end_as_it_is() {
    paused(|| async {
        let house = House::open_with(None, one_by_one(), Arc::new(Panics(1.into())));
        house.queue.start().await.unwrap();
        let message = Enqueue { callback: Some("http://l".into()), ..house.message("1") };
        let id = house.queue.enqueue(message).await.unwrap().id;
        house.until(id, MessageState::Succeeded).await;
        until(|| async { house.view().await.in_flight == 0 }, "it has landed").await;
        house.close().await;
    });
}

#[test]
fn a_step_that_panics_says_so_and_ends_alone() {
    paused(|| async {
        assert!(crate::panics::ended(tokio::task::yield_now()).await);
        let panics = async {
            tokio::task::yield_now().await;
            panic!("on purpose");
        };
        assert!(!crate::panics::ended(panics).await);
    });
}
