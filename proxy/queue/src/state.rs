//! state: which message is next.
//!
//! Pure: no clock, no disk, no tasks. It is told what happened ([`State::appended`],
//! [`State::back`], [`State::gone`], …) and asked what is next ([`State::next`]) and when to ask again
//! ([`State::wake_at`]). Who takes a message, to attempt, cancel or bury it, holds it until it says
//! that the end is **flushed** (`gone`) or that it waits again (`back`): so a lane never shows its next
//! message before the disk knows about the one before.
//!
//! Rules of order, for one named queue: of the messages that may go, the most urgent priority first,
//! then the lowest order. A message with a key may go when it is the head of its lane; one that is not
//! due is in no lane unless it was the head when it failed. Between queues it goes round.

use std::collections::{HashMap, HashSet, VecDeque};

use policy::limits;
use store::message::{Entry, Position, Timestamp};

use crate::heap::Heap;
use crate::lanes::Lanes;
use crate::schedule::{Limits, Line, plus};
use crate::slab::{Message, NONE, Place, Slab};

/// A message to be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatch {
    pub(crate) position: Position,
    pub(crate) line: u16,
    /// Its bytes, rounded up.
    pub(crate) size: u32,
    pub(crate) step: Step,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Attempt it, in the name of this value of the rate limit's key.
    Attempt { rate: Option<u16> },
    /// Read it to learn that value, and tell it to [`State::classified`].
    Classify,
}

/// Whether a message could be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// It is yours; it was to wait until then.
    Taken(Option<Timestamp>),
    /// Somebody else has it.
    Busy,
    /// It does not wait.
    Unknown,
}

/// What few messages have.
#[derive(Debug, Default, Clone, Copy)]
struct Odd {
    order: Option<u64>,
    expires: Option<Timestamp>,
    rate: Option<u16>,
}

/// The index of a store's waiting messages.
#[derive(Debug, Default)]
pub(crate) struct State {
    slab: Slab,
    lanes: Lanes,
    due: Heap,
    odd: HashMap<u64, Odd>,
    /// Messages that may have killed their sender.
    suspects: HashSet<u64>,
    lines: Vec<Option<Line>>,
    turn: usize,
    /// Nothing expires before.
    expires_at: Option<Timestamp>,
    /// Found to be over, and not handed out yet.
    over: VecDeque<Position>,
}

impl State {
    pub(crate) fn len(&self) -> u32 {
        self.slab.len()
    }

    // ---- what happened ------------------------------------------------------------------------

    /// A message was stored: `enqueued` is what its age counts from, in steady time like everything.
    pub(crate) fn appended(&mut self, entry: &Entry, line: u16, enqueued: Timestamp, now: Timestamp) {
        let slot = self.insert(entry, line, enqueued);
        match entry.due_at.filter(|due| *due > now) {
            Some(due) => self.delay(slot, due),
            None => self.enter(slot),
        }
        self.tidy();
    }

    /// A message was found on disk. Those that were attempted before, be it for nothing, are in front of
    /// their lanes: only a head is ever attempted.
    pub(crate) fn recovered(&mut self, entry: &Entry, line: u16, enqueued: Timestamp, now: Timestamp) {
        if entry.attempts == 0 && !entry.begun && !entry.tried {
            return self.appended(entry, line, enqueued, now);
        }
        let slot = self.insert(entry, line, enqueued);
        self.slab.get_mut(slot).set_tried(true);
        self.suspect(entry, line);
        let lane = entry.lane.map(|lane| (lane, self.lanes.head(&self.slab, line, lane)));
        match lane {
            Some((_, Some(head))) => {
                self.unlink(head);
                self.lanes.push_front(&mut self.slab, head, slot);
            }
            Some((_, None)) => self.lanes.open(&mut self.slab, slot),
            None => {}
        }
        match entry.due_at.filter(|due| *due > now) {
            Some(due) => self.delay(slot, due),
            None => self.make_ready(slot),
        }
    }

    fn insert(&mut self, entry: &Entry, line: u16, enqueued: Timestamp) -> u32 {
        let mut message = Message::new(entry.position.0, line, entry.priority, entry.lane, entry.bytes);
        message.enqueued = u32::try_from(enqueued.0 / 1000).unwrap_or(u32::MAX);
        if entry.order != entry.position.0 {
            message.set_odd();
            self.odd.entry(entry.position.0).or_default().order = Some(entry.order);
        }
        message.set_place(Place::Taken);
        let seconds = message.enqueued;
        let slot = self.slab.insert(message);
        let known = self.line_mut(line);
        known.waiting += 1;
        known.oldest = known.oldest.min(seconds);
        let expires = plus(Timestamp(u64::from(seconds) * 1000), known.limits.age_max);
        self.expires_by(expires);
        slot
    }

    /// Takes a message out of turn, to cancel or bury it.
    pub(crate) fn take(&mut self, position: Position) -> Take {
        let Some(slot) = self.slab.find(position.0) else { return Take::Unknown };
        match self.slab.get(slot).place() {
            Place::Taken | Place::BehindTaken => Take::Busy,
            Place::Behind => {
                self.slab.get_mut(slot).set_place(Place::BehindTaken);
                Take::Taken(None)
            }
            _ => Take::Taken(self.unlink(slot)),
        }
    }

    /// A taken message waits again: an attempt failed (`tried`), or what it was taken for did.
    pub(crate) fn back(&mut self, position: Position, due: Option<Timestamp>, tried: bool, now: Timestamp) {
        let Some(slot) = self.slab.find(position.0) else { return };
        let message = self.slab.get_mut(slot);
        if tried {
            message.set_tried(true);
        }
        match message.place() {
            Place::BehindTaken => message.set_place(Place::Behind),
            Place::Taken => {
                let keyed = message.keyed();
                match due.filter(|due| *due > now) {
                    Some(due) => self.delay(slot, due),
                    None if keyed && !self.lanes.is_head(&self.slab, slot) => self.enter(slot),
                    None => self.make_ready(slot),
                }
            }
            _ => {}
        }
    }

    /// A taken message waits no more: it ended or is in the dead letter, and that is flushed.
    pub(crate) fn gone(&mut self, position: Position) {
        self.cleared(position);
        let Some(slot) = self.slab.find(position.0) else { return };
        match self.slab.get(slot).place() {
            Place::Behind | Place::BehindTaken => self.lanes.remove(&mut self.slab, slot),
            Place::Taken => {}
            _ => {
                self.unlink(slot);
            }
        }
        let message = *self.slab.get(slot);
        let behind = matches!(message.place(), Place::Behind | Place::BehindTaken);
        let next = (!behind && self.lanes.is_head(&self.slab, slot))
            .then(|| self.lanes.pop(&mut self.slab, slot))
            .flatten();
        if message.odd() {
            self.odd.remove(&position.0);
        }
        self.slab.remove(slot);
        let line = self.line_mut(message.queue());
        line.waiting -= 1;
        if line.waiting == 0 {
            line.oldest = u32::MAX;
        }
        if let Some(next) = next {
            match self.slab.get(next).place() {
                Place::BehindTaken => self.slab.get_mut(next).set_place(Place::Taken),
                _ => self.make_ready(next),
            }
        }
        self.tidy();
    }

    /// An attempt has ended, and its end is flushed: its place is free.
    pub(crate) fn landed(&mut self, line: u16, rate: Option<u16>, now: Timestamp) {
        let line = self.line_mut(line);
        line.landed(now);
        if let (Some(rates), Some(rate)) = (&mut line.rates, rate) {
            rates.landed(rate);
        }
    }

    /// A message that was read for it has this value of the rate limit's key.
    pub(crate) fn classified(&mut self, position: Position, line: u16, name: &str, now: Timestamp) {
        self.read(line);
        let Some(slot) = self.slab.find(position.0) else { return };
        if let Some(rates) = &mut self.line_mut(line).rates {
            let value = rates.value(name, now);
            self.slab.get_mut(slot).set_odd();
            self.odd.entry(position.0).or_default().rate = Some(value);
        }
        self.make_ready(slot);
    }

    /// A read for the rate limit's key is over.
    pub(crate) fn read(&mut self, line: u16) {
        if let Some(rates) = &mut self.line_mut(line).rates {
            rates.reading = rates.reading.saturating_sub(1);
        }
    }

    // ---- what is next -------------------------------------------------------------------------

    /// The next message to hand out; it is taken.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<Dispatch> {
        self.come_due(now);
        let lines = self.lines.len();
        for step in 0..lines {
            let at = (self.turn + step) % lines;
            #[allow(clippy::cast_possible_truncation, reason = "at most QUEUES_MAX lines")]
            let line = at as u16;
            if self.lines[at].is_some()
                && let Some(dispatch) = self.next_of(line, now)
            {
                self.turn = (at + 1) % lines;
                return Some(dispatch);
            }
        }
        None
    }

    fn next_of(&mut self, line: u16, now: Timestamp) -> Option<Dispatch> {
        let known = self.line(line);
        if known.held(now).is_some() || (known.suspects > 0 && known.in_flight > 0) {
            return None;
        }
        if known.rates.is_some() {
            return self.next_of_values(line, now);
        }
        if known.ready_len == 0 || known.blocked(now).is_some() {
            return None;
        }
        let (_, slot) = self.first_ready(line)?;
        self.line_mut(line).begun(now);
        Some(self.hand_out(slot, Step::Attempt { rate: None }))
    }

    fn next_of_values(&mut self, line: u16, now: Timestamp) -> Option<Dispatch> {
        let known = self.line(line);
        let rates = known.rates.as_ref()?;
        let best = rates.best(known.limits.concurrent_max, now);
        let unread = self.first_ready(line).filter(|_| rates.may_read());
        if let Some((rank, slot)) = unread
            && best.is_none_or(|(parked, ..)| rank < parked)
        {
            self.line_mut(line).rates.as_mut()?.reading += 1;
            return Some(self.hand_out(slot, Step::Classify));
        }
        let (_, value, position) = best?;
        let slot = self.slab.find(position)?;
        let known = self.line_mut(line);
        known.begun(now);
        known.rates.as_mut()?.begun(value, now);
        Some(self.hand_out(slot, Step::Attempt { rate: Some(value) }))
    }

    fn hand_out(&mut self, slot: u32, step: Step) -> Dispatch {
        self.unlink(slot);
        let message = self.slab.get(slot);
        Dispatch { position: Position(message.position()), line: message.queue(), size: message.size(), step }
    }

    /// When there may be something next, if nothing else happens.
    pub(crate) fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.due.top().map(|(due, _)| Timestamp(due));
        let opens = self.lines.iter().flatten().filter_map(|line| {
            let parked = line.rates.as_ref().is_some_and(|rates| rates.parked() > 0);
            (line.ready_len > 0 || parked).then(|| line.opens_at(now)).flatten()
        });
        due.into_iter().chain(opens.filter(|at| *at > now)).min()
    }

    /// Whether something may be handed out by `last`, if nothing else happens: at once, what the next look
    /// will find among it, or when its time has come.
    pub(crate) fn has_more_by(&self, now: Timestamp, last: Timestamp) -> bool {
        let is_due = self.due.top().is_some_and(|(due, _)| Timestamp(due) <= last);
        is_due
            || self.lines.iter().flatten().any(|line| {
                let parked = line.rates.as_ref().is_some_and(|rates| rates.parked() > 0);
                let opens = || line.opens_at(now).is_some_and(|at| at <= last);
                (line.ready_len > 0 || parked) && (line.blocked(now).is_none() || opens())
            })
    }

    /// Whether nothing of a lane waits.
    pub(crate) fn lane_is_empty(&self, line: u16, lane: u64) -> bool {
        self.lanes.head(&self.slab, line, lane).is_none()
    }

    /// The bytes of a waiting message at the least: half of what they were rounded up to.
    pub(crate) fn size_min(&self, position: Position) -> u32 {
        self.slab.find(position.0).map_or(0, |slot| self.slab.get(slot).size() / 2)
    }

    /// The queue of a waiting message.
    pub(crate) fn line_of(&self, position: Position) -> Option<u16> {
        self.slab.find(position.0).map(|slot| self.slab.get(slot).queue())
    }

    /// Whether a message waits, and is in somebody's hands.
    pub(crate) fn place(&self, position: Position) -> Option<Place> {
        self.slab.find(position.0).map(|slot| self.slab.get(slot).place())
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.slab.bytes()
            + self.lanes.bytes()
            + self.due.bytes()
            + self.odd.capacity() * (size_of::<(u64, Odd)>() + 1)
            + self.lines.iter().flatten().map(Line::bytes).sum::<usize>()
    }
}

mod age;
mod lines;
mod lists;
mod suspects;
#[cfg(test)]
pub(crate) mod tests;
