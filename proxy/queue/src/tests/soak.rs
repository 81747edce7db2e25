//! tests/soak: random messages, answers and restarts; what was accepted is never lost, and a key's
//! first deliveries ascend.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What a message's body says: its number.
fn number(body: &str) -> u64 {
    body.split(' ').next().and_then(|number| number.parse().ok()).unwrap()
}

struct Books {
    random: fastrand::Rng,
    accepted: BTreeMap<u64, MessageId>,
    cancelled: BTreeSet<u64>,
    /// By key, in the order of acceptance.
    keys: BTreeMap<String, Vec<u64>>,
    /// As the receiver saw them: key and number.
    seen: Vec<(String, u64)>,
    next: u64,
}

impl Books {
    async fn one_life(&mut self, directory: &std::path::Path, last: bool) {
        let house = House::open(Some(directory.to_path_buf()), policy());
        let random = self.random.fork();
        self.answers(&house, random);
        house.queue.start().await.unwrap();
        for _ in 0..60 {
            self.step(&house).await;
        }
        if last {
            house.receiver.answers.lock().unwrap().clear();
            house.receiver.otherwise(answer(200));
            house.receiver.let_through(10_000);
            let empty = || async {
                let view = house.view().await;
                if view.in_flight == 0 {
                    advance(1).await;
                }
                view.messages == 0
            };
            until(empty, "everything is delivered or dead").await;
            for (number, id) in &self.accepted {
                let state = house.state(*id).await;
                let should_be_cancelled = self.cancelled.contains(number);
                assert_eq!(state == MessageState::Cancelled, should_be_cancelled, "{number}");
                assert!(state.is_end(), "{number}: {state:?}");
            }
            assert_eq!(house.view().await.bytes, 0);
        }
        for outgoing in house.receiver.seen.lock().unwrap().iter() {
            let body = String::from_utf8_lossy(&outgoing.body).into_owned();
            let key = body.split(' ').nth(1).unwrap().to_string();
            self.seen.push((key, number(&body)));
        }
        // Whatever is under way is cut off.
        house.close().await;
    }

    fn answers(&self, house: &House, mut random: fastrand::Rng) {
        house.receiver.will((0..500).map(|_| match random.u8(..20) {
            0 => answer(500),
            1 => answer(400),
            2 => later(429, 3),
            3 => away(),
            4 => Delivered::bare(Answer::Broken),
            _ => answer(200),
        }));
        house.receiver.hold();
    }

    async fn step(&mut self, house: &House) {
        match self.random.u8(..10) {
            0..=4 => {
                self.next += 1;
                let key = ["a", "b", "c", "-"][self.random.usize(..4)];
                let body = format!("{} {key}", self.next);
                let keyed = (key != "-").then(|| key.to_string());
                let message = Enqueue { key: keyed, ..house.message(&body) };
                let accepted = house.queue.enqueue(message).await.unwrap();
                self.accepted.insert(self.next, accepted.id);
                self.keys.entry(key.into()).or_default().push(self.next);
            }
            5..=7 => house.receiver.let_through(self.random.usize(1..4)),
            8 => advance(self.random.u64(..3)).await,
            _ => {
                let Some(number) = self.random.choice(self.accepted.keys().copied().collect::<Vec<_>>())
                else {
                    return;
                };
                if house.queue.cancel(self.accepted[&number]).await.is_ok() {
                    self.cancelled.insert(number);
                }
            }
        }
        for _ in 0..self.random.usize(..20) {
            tokio::task::yield_now().await;
        }
    }

    fn check_order(&self) {
        for (key, numbers) in self.keys.iter().filter(|(key, _)| *key != "-") {
            let mut firsts = Vec::new();
            for (of, number) in &self.seen {
                if of == key && !firsts.contains(number) {
                    firsts.push(*number);
                }
            }
            let should: Vec<u64> = numbers.iter().copied().filter(|number| firsts.contains(number)).collect();
            assert_eq!(firsts, should, "first deliveries of {key} ascend");
            let lost = numbers.iter().filter(|at| !firsts.contains(at) && !self.cancelled.contains(at));
            assert_eq!(lost.count(), 0, "each of {key} was delivered or cancelled");
        }
    }
}

#[test]
fn nothing_accepted_is_lost_or_out_of_order_over_restarts() {
    let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TIDEGATE_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    paused(|| async {
        let mut books = Books {
            random: fastrand::Rng::with_seed(seed),
            accepted: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            keys: BTreeMap::new(),
            seen: Vec::new(),
            next: 0,
        };
        for life in 0..6 {
            books.one_life(directory.path(), life == 5).await;
        }
        books.check_order();
    });
}
