//! attempt/opened: a message is read; what if it cannot be.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use policy::queue::AsyncPolicy;
use store::StoreError;
use store::message::{Change, Entry, Loaded, Position, Timestamp};

use crate::named::Named;
use crate::stored::{Head, History, Settings};
use crate::worker::Worker;

/// When a message last came back from the dead letter. The store keeps no time of it, but a due time
/// that we set; the first attempt afterwards moves it into the history before it begins.
pub(crate) fn redriven_at(entry: &Entry, history: &History) -> Option<Timestamp> {
    if entry.order == entry.position.0 {
        return None;
    }
    history.redriven_at.map(Timestamp).or(entry.due_at)
}

/// A message that was read, and all that is said about it.
pub(crate) struct Opened {
    pub(crate) loaded: Loaded,
    pub(crate) head: Head,
    pub(crate) history: History,
    pub(crate) settings: Arc<Settings>,
    /// The history says more than what is stored.
    pub(super) changed: bool,
}

impl Opened {
    pub(crate) fn position(&self) -> Position {
        self.loaded.entry.position
    }

    pub(crate) fn policy(&self) -> &AsyncPolicy {
        &self.settings.policy
    }

    /// When it last came back from the dead letter.
    pub(crate) fn redriven_at(&self) -> Option<Timestamp> {
        self.history.redriven_at.map(Timestamp)
    }

    pub(crate) fn expires_at(&self) -> Timestamp {
        self.head.expires_at(self.policy().delivery.age_max, self.redriven_at())
    }
}

impl Worker {
    /// Reads a message that is ours; if it cannot be read it is set aside, or waits again until `due`,
    /// and is ours no more.
    pub(crate) async fn open_message(
        &self,
        named: &Named,
        position: Position,
        due: Option<Timestamp>,
    ) -> Option<Opened> {
        let loaded = match self.shared.store.load(position).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                self.vanished(named, position, 0);
                return None;
            }
            Err(StoreError::Damaged { details, .. }) => {
                self.set_aside(named, position, &details).await;
                return None;
            }
            Err(error) => {
                self.not_now(named, position, due, &error);
                return None;
            }
        };
        let read = Head::read(&loaded.head).and_then(|head| Ok((head, History::read(&loaded.history)?)));
        match read {
            Ok((head, mut history)) => {
                // The due time it stands in is overwritten by the next step.
                let redriven_at = redriven_at(&loaded.entry, &history).map(|at| at.0);
                let changed = history.redriven_at != redriven_at;
                history.redriven_at = redriven_at;
                Some(Opened { loaded, head, history, settings: named.settings(), changed })
            }
            Err(error) => {
                self.set_aside(named, position, &error.to_string()).await;
                None
            }
        }
    }

    // ---- what may go wrong --------------------------------------------------------------------

    /// The store has no room, or cannot read: the queue waits as if its receiver were away, rather
    /// than take up every message in turn.
    pub(crate) fn not_now(
        &self,
        named: &Named,
        position: Position,
        due: Option<Timestamp>,
        error: &StoreError,
    ) {
        if matches!(error, StoreError::Poisoned(_) | StoreError::Closed) {
            // Nothing is handed out any more; the message stays as it is.
            return;
        }
        tracing::warn!(%error, %position, queue = %named.name, "a queue waits for the store");
        let (now, jitter) = (self.now(), self.jitter());
        let mut state = self.state.borrow_mut();
        state.line_mut(named.line).unavailable("store_unavailable", now, jitter);
        state.back(position, due, false, now);
    }

    pub(super) fn vanished(&self, named: &Named, position: Position, bytes: u32) {
        tracing::error!(%position, queue = %named.name, "a message of the index is not in the store");
        self.left(named, position, bytes);
        self.ended(position);
    }

    /// Its bytes are wrong: kept for an operator, never delivered.
    async fn set_aside(&self, named: &Named, position: Position, details: &str) {
        tracing::error!(%position, queue = %named.name, details, "a damaged message is set aside");
        if self.write(vec![Change::Quarantine(position)]).await.is_ok() {
            named.quarantined.fetch_add(1, Ordering::SeqCst);
            let bytes = self.state.borrow().size_min(position);
            self.left(named, position, bytes);
            self.ended(position);
        }
    }
}
