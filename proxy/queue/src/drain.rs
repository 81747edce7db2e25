//! drain: as much as the budget lets through, then nothing more; what is left stays.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use policy::limits;
use store::message::{Change, Timestamp};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::handle::Left;
use crate::worker::{Phase, Worker};

impl Worker {
    /// Goes on at full speed until nothing more can be delivered within `budget`, or its last part has
    /// begun; then hands nothing out and waits for what is under way.
    pub(crate) fn drain(self: &Rc<Self>, budget: Duration, answer: oneshot::Sender<Left>) {
        let worker = self.clone();
        self.spawn(async move {
            let end = Instant::now() + budget;
            let tail = limits::DRAIN_TAIL.min(budget / 10);
            let last = crate::schedule::plus(worker.now(), budget - tail);
            let _ = timeout_at(end - tail, worker.until(|| worker.nothing_more(last))).await;
            if worker.phase.get() != Phase::Poisoned {
                worker.phase.set(Phase::Stopping);
            }
            let _ = timeout_at(end, worker.until(|| worker.under_way() == 0)).await;
            worker.cut.set(true);
            // They are flushed, or refused, with what else the store has gathered.
            worker.until(|| worker.beginning.get() == 0).await;
            worker.give_back().await;
            let _ = answer.send(worker.left_behind());
        });
    }

    /// Attempts that the end of the budget cuts off use nothing up, be it before their first byte has left: no
    /// dead letter because of a shutdown.
    /// One that ends after all, before the store is closed, settles as ever, but is not given back again.
    async fn give_back(&self) {
        let cut = self.carried.take();
        let free = |position| Change::Retry { position, due_at: None, free: true, history: None };
        let changes: Vec<Change> = cut.into_iter().map(free).collect();
        let (done, error) = self.write_in_parts(&changes).await;
        if let Some(error) = error {
            let attempts = changes.len() - done.len();
            tracing::warn!(attempts, %error, "attempts that were cut off count as used up");
        }
    }

    /// Waits until `done` holds after a turn of the thread.
    async fn until(&self, done: impl Fn() -> bool) {
        // What came in just now is handed out first.
        self.changed.notify_one();
        self.turned.notified().await;
        loop {
            let turned = self.turned.notified();
            if done() {
                return;
            }
            turned.await;
        }
    }

    fn under_way(&self) -> u64 {
        let attempts: u64 = self.state.borrow().lines().map(|(_, line)| u64::from(line.in_flight)).sum();
        attempts + self.expiring.get() as u64
    }

    /// Whether nothing is under way, being written, or due before `last`.
    fn nothing_more(&self, last: Timestamp) -> bool {
        if !self.may_dispatch() {
            return self.under_way() == 0;
        }
        let state = self.state.borrow();
        let written = self.shared.total.load(Ordering::SeqCst) <= u64::from(state.len());
        // Time has passed since the last look for what may go: what it did not find yet is more, too.
        self.under_way() == 0 && written && !state.has_more_by(self.now(), last)
    }

    fn left_behind(&self) -> Left {
        let named = self.shared.named();
        Left {
            messages: named.iter().map(|named| named.messages.load(Ordering::SeqCst)).sum(),
            bytes: named.iter().map(|named| named.bytes.load(Ordering::SeqCst)).sum(),
            in_flight: self.under_way(),
        }
    }

    /// Ends the thread; answers when the store is closed.
    pub(crate) fn stop(&self, answer: oneshot::Sender<()>) {
        self.stopping.borrow_mut().push(answer);
        self.phase.set(Phase::Stopped);
    }
}
