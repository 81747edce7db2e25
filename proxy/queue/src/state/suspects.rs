//! suspects: messages whose attempts a crash cut off.
//!
//! One of them may be what kills the sender. Until each has been attempted again, their queue sends one
//! message at a time: so that it dies alone, and takes nobody's attempts with it.

use store::message::{Entry, Position};

use super::State;

impl State {
    /// A message was found on disk.
    pub(super) fn suspect(&mut self, entry: &Entry, line: u16) {
        if entry.begun && self.suspects.insert(entry.position.0) {
            self.line_mut(line).suspects += 1;
        }
    }

    /// Bytes of a message left, and the sender lives; or it is gone.
    pub(crate) fn cleared(&mut self, position: Position) {
        if self.suspects.remove(&position.0)
            && let Some(slot) = self.slab.find(position.0)
        {
            let line = self.slab.get(slot).queue();
            self.line_mut(line).suspects -= 1;
        }
    }
}
