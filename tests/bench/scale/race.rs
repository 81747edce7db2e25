//! race: which change has reached which proxy, and how long the last one took.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::plan::Plan;

/// Changes under way.
pub(crate) struct Race {
    inner: Mutex<Inner>,
}

/// What came in so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) answers: u64,
    pub(crate) documents: u64,
    pub(crate) bytes: u64,
}

struct Inner {
    /// How many proxies need each Service.
    needing: Vec<usize>,
    /// Of each Service its changes under way: when each was made and how many still wait for it.
    running: Vec<BTreeMap<u64, (Instant, usize)>>,
    mark: u64,
    times: Vec<Duration>,
    counts: Counts,
}

impl Race {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut needing = vec![0; plan.services];
        for proxy in 0..plan.proxies {
            plan.needed(proxy).for_each(|service| needing[service] += 1);
        }
        let running = vec![BTreeMap::new(); plan.services];
        let inner = Inner { needing, running, mark: 0, times: Vec::new(), counts: Counts::default() };
        Self { inner: Mutex::new(inner) }
    }

    /// The next change is made now: of which Service, and its mark.
    pub(crate) fn begin(&self) -> (usize, u64) {
        let mut inner = self.lock();
        inner.mark += 1;
        let mark = inner.mark;
        let service = usize::try_from(mark).unwrap_or_default() % inner.needing.len();
        let needing = inner.needing[service];
        inner.running[service].insert(mark, (Instant::now(), needing));
        (service, mark)
    }

    /// A proxy that had seen `before` of a Service sees `mark`, and with it all that lies between.
    pub(crate) fn reach(&self, service: usize, before: u64, mark: u64) {
        let mut inner = self.lock();
        let Inner { running, times, .. } = &mut *inner;
        let mut done = Vec::new();
        for (number, (begun, waiting)) in running[service].range_mut(before + 1..=mark) {
            *waiting -= 1;
            if *waiting == 0 {
                times.push(begun.elapsed());
                done.push(*number);
            }
        }
        for number in done {
            running[service].remove(&number);
        }
    }

    /// An answer came in.
    pub(crate) fn count(&self, documents: usize, bytes: usize) {
        let counts = &mut self.lock().counts;
        counts.answers += 1;
        counts.documents += documents as u64;
        counts.bytes += bytes as u64;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lock().running.iter().any(|changes| !changes.is_empty())
    }

    /// The times of the changes that reached everybody, sorted; those still under way are given up.
    pub(crate) fn finish(&self) -> Vec<Duration> {
        let mut inner = self.lock();
        inner.running.iter_mut().for_each(BTreeMap::clear);
        let mut times = std::mem::take(&mut inner.times);
        times.sort();
        times
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
