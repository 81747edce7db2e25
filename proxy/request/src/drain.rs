//! drain: how everything that is under way comes to its end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The word to stop, and who still has something to finish.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Nothing under way, nobody told to stop.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` as something that a stop waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Tells everybody: connections are finished politely, new ones serve one request each.
    pub fn begin(&self) {
        self.stop.cancel();
    }

    /// Whether the word was given.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for the word.
    pub async fn draining(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until nothing is under way, `grace` at most. Returns how many tasks were left.
    pub async fn finished(&self, grace: Duration) -> usize {
        self.tasks.close();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        self.tasks.len()
    }
}
