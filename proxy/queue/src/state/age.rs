//! state/age: which messages have waited for too long.
//!
//! No heap of ages: a message whose turn comes is looked at exactly anyway, so the index needs to find
//! only those that are stuck. It keeps the earliest time at which one may be over, and passes through
//! all of them then: about five nanoseconds each, at most once a second unless there is a harvest.

use std::time::Duration;

use super::{Place, Position, State, Take, Timestamp, plus};

/// Positions kept of one pass; there is another one when they are handed out.
const HARVEST_MAX: usize = 4096;

/// How long after a pass those are looked at again that could not be taken.
const AGAIN: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn expires_by(&mut self, at: Timestamp) {
        self.expires_at = Some(self.expires_at.map_or(at, |known| known.min(at)));
    }

    /// What the head of a waiting message says about its age.
    pub(crate) fn learned(&mut self, position: Position, enqueued: Timestamp, expires: Option<Timestamp>) {
        let Some(slot) = self.slab.find(position.0) else { return };
        let seconds = u32::try_from(enqueued.0 / 1000).unwrap_or(u32::MAX);
        let message = self.slab.get_mut(slot);
        message.enqueued = seconds;
        let line = message.queue();
        let known = self.line_mut(line);
        known.oldest = known.oldest.min(seconds);
        let by_age = plus(Timestamp(u64::from(seconds) * 1000), known.limits.age_max);
        self.expires_by(by_age);
        if let Some(expires) = expires {
            self.expires(position, expires);
        }
    }

    /// A waiting message's caller wants it to end then.
    pub(crate) fn expires(&mut self, position: Position, at: Timestamp) {
        if let Some(slot) = self.slab.find(position.0) {
            self.slab.get_mut(slot).set_odd();
            self.odd.entry(position.0).or_default().expires = Some(at);
            self.expires_by(at);
        }
    }

    /// Messages whose time is over, at most `max`, each taken, with the time it was to wait until.
    pub(crate) fn expired(&mut self, now: Timestamp, max: usize) -> Vec<(Position, Option<Timestamp>)> {
        let mut taken = Vec::new();
        while taken.len() < max {
            if self.over.is_empty() && !self.harvest(now) {
                break;
            }
            let Some(position) = self.over.pop_front() else { break };
            if let Take::Taken(due) = self.take(position) {
                taken.push((position, due));
            }
        }
        taken
    }

    /// Passes through all messages if one may be over; whether it did.
    fn harvest(&mut self, now: Timestamp) -> bool {
        if self.expires_at.is_none_or(|at| at > now) {
            return false;
        }
        for line in self.lines.iter_mut().flatten() {
            line.oldest = u32::MAX;
        }
        let mut next: Option<Timestamp> = None;
        for (_, message) in self.slab.iter() {
            let Some(line) = self.lines[usize::from(message.queue())].as_mut() else { continue };
            line.oldest = line.oldest.min(message.enqueued);
            let by_age = plus(Timestamp(u64::from(message.enqueued) * 1000 + 999), line.limits.age_max);
            let own = message.odd().then(|| self.odd.get(&message.position())?.expires).flatten();
            let mut at = own.map_or(by_age, |own| own.min(by_age));
            if at <= now {
                let taken = matches!(message.place(), Place::Taken | Place::BehindTaken);
                if taken || line.dead_full {
                    at = plus(now, AGAIN);
                } else if self.over.len() < HARVEST_MAX {
                    self.over.push_back(Position(message.position()));
                    at = plus(now, AGAIN);
                }
            }
            next = Some(next.map_or(at, |known| known.min(at)));
        }
        self.expires_at = next;
        !self.over.is_empty()
    }

    /// When [`State::expired`] may find something.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        if self.over.is_empty() { self.expires_at } else { Some(Timestamp(0)) }
    }

    /// Looks at every message to tell each queue's oldest.
    pub(crate) fn survey(&mut self) {
        for line in self.lines.iter_mut().flatten() {
            line.oldest = u32::MAX;
        }
        for (_, message) in self.slab.iter() {
            if let Some(line) = self.lines[usize::from(message.queue())].as_mut() {
                line.oldest = line.oldest.min(message.enqueued);
            }
        }
    }
}
