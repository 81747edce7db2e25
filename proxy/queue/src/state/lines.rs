//! state/lines: the named queues of the index.

use super::{Limits, Line, State, Timestamp};
use crate::rates::Rates;

impl State {
    /// Adds a named queue, or tells it its policy's words again.
    pub(crate) fn set_line(&mut self, line: u16, limits: Limits, paused: bool) {
        let at = usize::from(line);
        if self.lines.len() <= at {
            self.lines.resize_with(at + 1, || None);
        }
        let Some(known) = self.lines[at].as_mut() else {
            self.lines[at] = Some(Line::new(limits, paused));
            return;
        };
        let keyed = limits.keyed;
        known.paused = paused;
        known.set_limits(limits);
        // Nothing is older than the oldest: a shorter age may end something sooner.
        self.expires_at = Some(Timestamp(0)).filter(|_| known.waiting > 0).or(self.expires_at);
        if keyed && known.rates.is_none() {
            known.rates = Some(Box::new(Rates::new(&known.limits)));
        } else if !keyed && let Some(rates) = known.rates.take() {
            for position in rates.positions() {
                if let Some(slot) = self.slab.find(position) {
                    self.unlink(slot);
                    self.make_ready(slot);
                }
            }
            let slab = &self.slab;
            for (position, odd) in &mut self.odd {
                // What is parked in another queue needs its value to be found again.
                if slab.find(*position).is_some_and(|slot| slab.get(slot).queue() == line) {
                    odd.rate = None;
                }
            }
        }
    }

    /// Forgets a queue without messages.
    pub(crate) fn remove_line(&mut self, line: u16) {
        self.lines[usize::from(line)] = None;
    }

    pub(crate) fn line(&self, line: u16) -> &Line {
        self.lines[usize::from(line)].as_ref().expect("a message's queue is known as long as it waits")
    }

    pub(crate) fn line_mut(&mut self, line: u16) -> &mut Line {
        self.lines[usize::from(line)].as_mut().expect("a message's queue is known as long as it waits")
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = (u16, &Line)> {
        (0u16..).zip(&self.lines).filter_map(|(at, line)| line.as_ref().map(|line| (at, line)))
    }

    pub(crate) fn lines_mut(&mut self) -> impl Iterator<Item = (u16, &mut Line)> {
        (0u16..).zip(&mut self.lines).filter_map(|(at, line)| line.as_mut().map(|line| (at, line)))
    }
}
