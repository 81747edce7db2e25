//! admission: room for one message, taken before it is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::enqueue::Refused;
use crate::handle::Shared;
use crate::named::Named;

/// A bound of a queue that its policy sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bound {
    /// `queue.maxMessages`.
    #[error("as many messages wait as may, {0} (queue.maxMessages)")]
    Messages(u64),
    /// `queue.maxBytes`.
    #[error("with this message more than {0} bytes would wait (queue.maxBytes)")]
    Bytes(u64),
}

/// Room that was taken; given back when dropped, unless [`Reserved::keep`] was called.
#[derive(Debug)]
pub(crate) struct Reserved {
    named: Arc<Named>,
    shared: Arc<Shared>,
    bytes: u64,
    kept: bool,
}

impl Reserved {
    /// The message is stored: its room is its own until it leaves.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            self.named.left(self.bytes);
            self.shared.total.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Shared {
    /// Takes room in a queue and in the whole.
    ///
    /// # Errors
    /// [`Refused::QueueFull`], [`Refused::SourceOverQuota`]: nothing was taken.
    pub(crate) fn reserve(self: &Arc<Self>, named: &Arc<Named>, bytes: u64) -> Result<Reserved, Refused> {
        let now = self.steady.now();
        if self.total.fetch_add(1, Ordering::SeqCst) >= self.messages_max {
            self.total.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::SourceOverQuota { retry_after: named.retry_after(now) });
        }
        if !named.take_room(bytes) {
            self.total.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::QueueFull { bound: named.bound(), retry_after: named.retry_after(now) });
        }
        Ok(Reserved { named: named.clone(), shared: self.clone(), bytes, kept: false })
    }
}
