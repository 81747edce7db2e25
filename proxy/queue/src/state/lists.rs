//! state/lists: moving a message between the places of the index.

use super::{Message, NONE, Odd, Place, Slab, State, Timestamp, limits};

/// Writes a heap's index back into the slab.
fn placed(slab: &mut Slab) -> impl FnMut(u32, u32) + '_ {
    |slot, index| slab.get_mut(slot).a = index
}

impl State {
    pub(super) fn order(&self, message: &Message) -> u64 {
        let odd = message.odd().then(|| self.odd.get(&message.position())).flatten();
        odd.and_then(|odd| odd.order).unwrap_or_else(|| message.position())
    }

    fn odd_of(&self, message: &Message) -> Option<&Odd> {
        message.odd().then(|| self.odd.get(&message.position())).flatten()
    }

    /// A message that is due joins its lane, or may go.
    pub(super) fn enter(&mut self, slot: u32) {
        let message = self.slab.get(slot);
        if !message.keyed() {
            return self.make_ready(slot);
        }
        match self.lanes.head(&self.slab, message.queue(), message.lane) {
            Some(head) => self.lanes.push_back(&mut self.slab, head, slot),
            None => {
                self.lanes.open(&mut self.slab, slot);
                self.make_ready(slot);
            }
        }
    }

    /// A message that is in no list may go.
    pub(super) fn make_ready(&mut self, slot: u32) {
        let message = *self.slab.get(slot);
        let (order, priority) = (self.order(&message), message.priority());
        let rate = self.odd_of(&message).and_then(|odd| odd.rate);
        let last = self.line(message.queue()).ready[priority].last;
        let follows = last == NONE || self.order(self.slab.get(last)) < order;
        let line = self.lines[usize::from(message.queue())].as_mut().expect("its queue is known");
        if let (Some(rate), Some(rates)) = (rate, &mut line.rates) {
            rates.park(rate, (priority, order), message.position());
            self.slab.get_mut(slot).set_place(Place::Parked);
            return;
        }
        line.ready_len += 1;
        let ready = &mut line.ready[priority];
        if !follows {
            self.slab.get_mut(slot).set_place(Place::Returned);
            ready.returned.push((order, slot), placed(&mut self.slab));
            return;
        }
        ready.last = slot;
        match last {
            NONE => ready.first = slot,
            last => self.slab.get_mut(last).b = slot,
        }
        let message = self.slab.get_mut(slot);
        message.set_place(Place::Fresh);
        (message.a, message.b) = (last, NONE);
    }

    /// A message that is in no list waits until `due`.
    pub(super) fn delay(&mut self, slot: u32, due: Timestamp) {
        let message = self.slab.get_mut(slot);
        message.set_place(Place::Delayed);
        let (line, tried) = (message.queue(), message.tried());
        let line = self.line_mut(line);
        *(if tried { &mut line.retrying } else { &mut line.scheduled }) += 1;
        self.due.push((due.0, slot), placed(&mut self.slab));
    }

    /// Takes a message out of whatever list it is in, its lane excepted; returns until when it was to
    /// wait.
    pub(super) fn unlink(&mut self, slot: u32) -> Option<Timestamp> {
        let message = *self.slab.get(slot);
        let (order, rate) = (self.order(&message), self.odd_of(&message).and_then(|odd| odd.rate));
        let line = self.lines[usize::from(message.queue())].as_mut().expect("its queue is known");
        let ready = &mut line.ready[message.priority()];
        let mut due = None;
        match message.place() {
            Place::Fresh => {
                line.ready_len -= 1;
                match message.a {
                    NONE => ready.first = message.b,
                    before => self.slab.get_mut(before).b = message.b,
                }
                match message.b {
                    NONE => ready.last = message.a,
                    after => self.slab.get_mut(after).a = message.a,
                }
            }
            Place::Returned => {
                line.ready_len -= 1;
                ready.returned.remove(message.a, placed(&mut self.slab));
            }
            Place::Delayed => {
                *(if message.tried() { &mut line.retrying } else { &mut line.scheduled }) -= 1;
                due = Some(Timestamp(self.due.remove(message.a, placed(&mut self.slab)).0));
            }
            Place::Parked => {
                if let (Some(rates), Some(rate)) = (&mut line.rates, rate) {
                    rates.unpark(rate, (message.priority(), order));
                }
            }
            Place::Free | Place::Behind | Place::BehindTaken | Place::Taken => return None,
        }
        self.slab.get_mut(slot).set_place(Place::Taken);
        due
    }

    /// The first of those that may go: its rank and slot.
    pub(super) fn first_ready(&self, line: u16) -> Option<((usize, u64), u32)> {
        self.line(line).ready.iter().enumerate().find_map(|(priority, ready)| {
            let fresh = (ready.first != NONE).then(|| (self.order(self.slab.get(ready.first)), ready.first));
            let first = fresh.into_iter().chain(ready.returned.top()).min()?;
            Some(((priority, first.0), first.1))
        })
    }

    /// Those whose time has come may go, or join their lanes.
    pub(super) fn come_due(&mut self, now: Timestamp) {
        while let Some((due, slot)) = self.due.top() {
            if due > now.0 {
                break;
            }
            self.unlink(slot);
            if self.lanes.is_head(&self.slab, slot) {
                self.make_ready(slot);
            } else {
                self.enter(slot);
            }
        }
    }

    /// Gives memory of gone messages back.
    pub(super) fn tidy(&mut self) {
        while let Some(slots) = self.slab.crowded() {
            for slot in slots {
                self.relocate(slot);
            }
        }
    }

    fn relocate(&mut self, from: u32) {
        let to = self.slab.stray(from);
        let message = *self.slab.get(from);
        let line = self.lines[usize::from(message.queue())].as_mut().expect("its queue is known");
        let ready = &mut line.ready[message.priority()];
        match message.place() {
            Place::Fresh => {
                match message.a {
                    NONE => ready.first = to,
                    before => self.slab.get_mut(before).b = to,
                }
                match message.b {
                    NONE => ready.last = to,
                    after => self.slab.get_mut(after).a = to,
                }
            }
            Place::Returned => ready.returned.renamed(message.a, to),
            Place::Delayed => self.due.renamed(message.a, to),
            _ => {}
        }
        let behind = matches!(message.place(), Place::Behind | Place::BehindTaken);
        if behind || self.lanes.is_head(&self.slab, from) {
            self.lanes.moved(&mut self.slab, from, to);
        }
        self.slab.remove(from);
    }
}

// A slot fits its 32 bits even when half of all runs are gaps.
const _: () = assert!(limits::MESSAGES_TOTAL < 1 << 30);
