//! redrive: a whole dead letter comes back, at its rate, in the background, and what came is counted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use policy::limits;
use store::message::{Loaded, State as Kept};

use crate::dead_letter::RedriveError;
use crate::handle::Queue;
use crate::message::Filter;
use crate::named::Named;
use crate::worker::Worker;

/// A redrive of a whole dead letter: how far it is, or how far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Which one, since the queue was opened.
    pub number: u64,
    /// Messages in the dead letter when it began.
    pub of: u64,
    /// Messages that its filter means, of those that were looked at so far.
    pub meant: u64,
    /// Messages that it has brought back.
    pub redriven: u64,
    /// It goes on.
    pub under_way: bool,
    /// Why it ended early.
    pub failed: Option<Arc<str>>,
}

impl Queue {
    /// Brings a whole dead letter back in the background, `per_second`, as far as `filter` means it. Messages
    /// that die meanwhile come again: it ends when it has passed the last one. One that is under way goes on,
    /// unless this one `replaces` it.
    ///
    /// # Errors
    /// [`RedriveError::UnderWay`], [`RedriveError::Failed`]: it did not begin.
    pub async fn redrive_all(
        &self,
        queue: &str,
        per_second: f64,
        filter: Filter,
        replaces: bool,
    ) -> Result<Redrive, RedriveError> {
        let named = self.find(queue)?;
        self.ask(move |worker, answer| {
            let _ = answer.send(worker.redrive_all(named, per_second, filter, replaces));
        })
        .await?
    }
}

impl Worker {
    fn redrive_all(
        self: &Rc<Self>,
        named: Arc<Named>,
        per_second: f64,
        filter: Filter,
        replaces: bool,
    ) -> Result<Redrive, RedriveError> {
        let line = named.line;
        if let Some(running) = self.redrive_of(line).filter(|running| running.under_way && !replaces) {
            return Err(RedriveError::UnderWay(running));
        }
        let number = self.redrives_begun.get() + 1;
        self.redrives_begun.set(number);
        let of = named.dead_messages.load(std::sync::atomic::Ordering::SeqCst);
        let begun = Redrive { number, of, meant: 0, redriven: 0, under_way: true, failed: None };
        self.redrives.borrow_mut().insert(line, begun.clone());
        let worker = self.clone();
        self.spawn(async move {
            let per_second = per_second.clamp(0.01, limits::REDRIVE_PER_SECOND_MAX);
            let pause = Duration::from_secs_f64(1.0 / per_second);
            let failed = worker.redrive_pages(&named, pause, &filter, number).await.err();
            if let Some(error) = &failed {
                tracing::warn!(%error, queue = %named.name, "a redrive of the dead letter ended early");
            }
            worker.noted(line, number, |redrive| {
                redrive.under_way = false;
                redrive.failed = failed.map(|error| error.to_string().into());
            });
        });
        Ok(begun)
    }

    /// The last one of a queue.
    pub(crate) fn redrive_of(&self, line: u16) -> Option<Redrive> {
        self.redrives.borrow().get(&line).cloned()
    }

    /// Whether it is still the one that was asked for last.
    fn still(&self, line: u16, number: u64) -> bool {
        self.redrives.borrow().get(&line).is_some_and(|redrive| redrive.number == number)
    }

    fn noted(&self, line: u16, number: u64, note: impl FnOnce(&mut Redrive)) {
        let mut redrives = self.redrives.borrow_mut();
        if let Some(redrive) = redrives.get_mut(&line).filter(|redrive| redrive.number == number) {
            note(redrive);
        }
    }

    async fn redrive_pages(
        &self,
        named: &Named,
        pause: Duration,
        filter: &Filter,
        number: u64,
    ) -> Result<(), RedriveError> {
        let mut after = None;
        let mut next = tokio::time::Instant::now();
        loop {
            let page = self.shared.store.list(named.id, Kept::Dead, after, limits::PURGE_STEP).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.entry.position);
            for loaded in page.iter().filter(|loaded| filter.means(loaded)) {
                self.noted(named.line, number, |redrive| redrive.meant += 1);
                next += pause;
                tokio::time::sleep_until(next).await;
                if !self.still(named.line, number) {
                    return Ok(());
                }
                if self.redrive_when_there_is_room(loaded, named.line, number).await? {
                    self.noted(named.line, number, |redrive| redrive.redriven += 1);
                }
            }
        }
    }

    /// Whether it came back by this.
    async fn redrive_when_there_is_room(
        &self,
        loaded: &Loaded,
        line: u16,
        number: u64,
    ) -> Result<bool, RedriveError> {
        loop {
            match self.redrive_entry(loaded.entry).await {
                Ok(()) => return Ok(true),
                Err(RedriveError::QueueFull) if self.still(line, number) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                // Another has taken its place, or somebody else was faster.
                Err(RedriveError::QueueFull | RedriveError::NotDead(_)) => return Ok(false),
                Err(other) => return Err(other),
            }
        }
    }
}
