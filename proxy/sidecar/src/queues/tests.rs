//! tests: when a store is opened, by whom, and when no more.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use queue::{CallbackCall, CallbackOf, Delivering, Outgoing};
use tempfile::TempDir;

use super::*;

/// Nobody is reached.
struct Nobody;

impl Deliver for Nobody {
    fn deliver(&self, _: Outgoing) -> Delivering {
        Box::pin(std::future::pending())
    }

    fn callback(&self, _: &CallbackOf<'_>) -> Option<CallbackCall> {
        None
    }
}

pub(crate) fn queues(directory: Option<PathBuf>) -> Arc<Queues> {
    counted(directory).0
}

/// The same with what it counts.
fn counted(directory: Option<PathBuf>) -> (Arc<Queues>, Metrics) {
    let place = Place {
        directory,
        bytes_max: 64 << 20,
        memory_bytes_max: 64 << 20,
        messages_max: policy::limits::MESSAGES_TOTAL,
        keys_max: store::limits::DEDUPE_ROWS_MAX,
        salvage: false,
        allow_volatile: true,
        key_file: None,
    };
    let owner = Owner { identity: "spiffe://d/ns/shop/sa/web".into(), address: Ipv4Addr::LOCALHOST };
    let (keys, metrics) = (Keys::new(&place), Metrics::new());
    let nobody = Arc::new(Nobody);
    (Queues::new(place, owner, keys, nobody, &metrics, Arc::default(), Drain::new()), metrics)
}

#[tokio::test]
async fn a_directory_that_is_not_open_is_a_condition_until_it_is() {
    let directory = TempDir::new().unwrap();
    let damaged = directory.path().join("messages.db");
    std::fs::write(&damaged, [0xa5; 16384]).unwrap();
    let (queues, metrics) = counted(Some(directory.path().to_owned()));
    queues.open_what_was_left().await;
    assert_eq!(queues.trouble().map(|trouble| trouble.condition), Some("damaged"));
    let line = |condition, holds| {
        let labels = format!("durability=\"local\",condition=\"{condition}\"");
        format!("tidegate_queue_store_condition{{{labels}}} {holds}\n")
    };
    let text = metrics.text();
    assert!(text.contains(&line("damaged", 1)) && text.contains(&line("in_use", 0)), "{text}");
    std::fs::remove_file(damaged).unwrap();
    tokio::time::sleep(RETRY).await;
    queues.open(Durability::Local).await.unwrap();
    let text = metrics.text();
    assert!(text.contains(&line("damaged", 0)) && !text.contains(&line("damaged", 1)), "{text}");
    let (second, metrics) = counted(Some(directory.path().to_owned()));
    second.open_what_was_left().await;
    assert_eq!(second.trouble().map(|trouble| trouble.condition), Some("in_use"));
    assert!(metrics.text().contains(&line("in_use", 1)));
}

#[tokio::test]
async fn an_opening_goes_on_when_who_asked_for_it_goes_away() {
    let directory = TempDir::new().unwrap();
    let queues = queues(Some(directory.path().to_owned()));
    {
        let asked = pin!(queues.open(Durability::Local));
        assert!(asked.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    // Were it begun anew, the directory would still be in use.
    assert!(queues.open(Durability::Local).await.is_ok(), "{:?}", queues.trouble());
}

#[tokio::test]
async fn nothing_is_opened_once_the_drain_has_begun() {
    let queues = queues(None);
    queues.begin_drain();
    let refused = queues.open(Durability::Memory).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after.is_some()), (problem::DRAINING, true));
    assert!(queues.opened(Durability::Memory).is_none());
}

#[tokio::test]
async fn what_is_being_opened_when_the_drain_begins_is_drained_and_closed() {
    let directory = TempDir::new().unwrap();
    let queues = queues(Some(directory.path().to_owned()));
    {
        let asked = pin!(queues.open(Durability::Local));
        assert!(asked.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    queues.begin_drain();
    queues.drain(tokio::time::Instant::now() + Duration::from_secs(5)).await;
    let queue = queues.opened(Durability::Local).expect("it was waited for");
    assert!(queue.queues().await.is_err(), "it is closed");
}
