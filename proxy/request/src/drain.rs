//! drain: how everything that is under way comes to its end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The word to stop, and who still has something to finish.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Nothing new is taken in any more.
    shut: CancellationToken,
    doors: TaskTracker,
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

    /// Runs a loop that takes connections in, until the doors are shut.
    pub async fn door(&self, accept: impl Future<Output = ()>) {
        let _open = self.doors.token();
        tokio::select! {
            () = self.shut.cancelled() => {}
            () = accept => {}
        }
    }

    /// Waits until nothing is under way, `grace` at most; then shuts the doors, and waits for what
    /// slipped in before. Returns how many tasks were left.
    pub async fn finished(&self, grace: Duration) -> usize {
        self.tasks.close();
        self.doors.close();
        let all = async {
            self.tasks.wait().await;
            self.shut.cancel();
            self.doors.wait().await;
            self.tasks.wait().await;
        };
        let _ = tokio::time::timeout(grace, all).await;
        self.tasks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_while_the_last_task_ends_is_waited_for_or_never_taken() {
        for early in [Duration::ZERO, Duration::from_millis(1)] {
            let drain = Drain::new();
            let last = Duration::from_secs(1);
            drain.spawn(tokio::time::sleep(last));
            let (door, took) =
                (drain.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
            let taken = took.clone();
            let accepting = tokio::spawn(async move {
                let inner = door.clone();
                let accept = async move {
                    tokio::time::sleep(last - early).await;
                    taken.store(true, std::sync::atomic::Ordering::Relaxed);
                    inner.spawn(tokio::time::sleep(Duration::from_secs(5)));
                    std::future::pending().await
                };
                door.door(accept).await;
            });
            drain.begin();
            let began = tokio::time::Instant::now();
            assert_eq!(drain.finished(Duration::from_secs(25)).await, 0);
            let waited = if took.load(std::sync::atomic::Ordering::Relaxed) { 6 } else { 1 };
            assert_eq!((began.elapsed() + early).as_secs(), waited);
            accepting.await.unwrap();
        }
    }
}
