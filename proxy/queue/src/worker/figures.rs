//! worker/figures: how each queue stands, told now and noted for plots.

use std::sync::atomic::Ordering;

use policy::limits;
use store::message::Timestamp;

use super::Worker;
use crate::pressure::Sample;

impl Worker {
    /// Publishes how each queue stands.
    pub(super) fn note(&self) {
        let (now, stopped) = (self.now(), !self.may_dispatch());
        let all = self.named.borrow();
        for (at, line) in self.state.borrow_mut().lines_mut() {
            // One whose row was lost stands still, and nobody asks for its figures.
            let Some(named) = all.get(usize::from(at)).and_then(Option::as_ref) else { continue };
            if line.waiting == 0 && named.oldest.load(Ordering::Relaxed) == u32::MAX && line.noted().is_none()
            {
                continue;
            }
            named.scheduled.store(line.scheduled, Ordering::Relaxed);
            named.retrying.store(line.retrying, Ordering::Relaxed);
            named.oldest.store(line.oldest, Ordering::Relaxed);
            if let Some((blocked, span)) = line.note(now, stopped)
                && !span.is_zero()
            {
                named.series.throttled(blocked, span);
            }
        }
    }

    pub(super) fn sample(&self, now: Timestamp) {
        self.state.borrow_mut().survey();
        let mut samples = self.samples.borrow_mut();
        for (at, line) in self.state.borrow().lines() {
            let Some(named) = self.named.borrow().get(usize::from(at)).cloned().flatten() else { continue };
            named.oldest.store(line.oldest, Ordering::Relaxed);
            let pressure = named.pressed(|pressure| *pressure);
            let kept = samples.entry(at).or_default();
            if kept.len() == limits::QUEUE_SAMPLES_MAX {
                kept.pop_front();
            }
            kept.push_back(Sample {
                at: now,
                messages: named.messages.load(Ordering::Relaxed),
                oldest_age: self.shared.age(&named, now),
                arrivals: pressure.arrivals(now),
                served: pressure.served(now),
            });
        }
    }
}
