//! checks: what is wrong between the objects of a cluster, looked for now and then.
//!
//! It takes all of them together, which is too much for every change of many.

use std::time::Duration;

use resources::{Problem, validate_all};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::objects::Objects;

/// How long after a change it is looked at the earliest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How many times as long as the last look took it is waited at the least.
const PAUSE_SHARE: u32 = 20;

/// The looks at all objects.
#[derive(Debug)]
pub(crate) struct Checks {
    pause: Duration,
    due: Option<Instant>,
    running: Option<JoinHandle<(Duration, Vec<Problem>)>>,
}

impl Checks {
    /// None is due.
    pub(crate) fn new() -> Self {
        Self { pause: PAUSE_MIN, due: None, running: None }
    }

    /// Objects changed: a look is due.
    pub(crate) fn changed(&mut self) {
        self.due.get_or_insert(Instant::now() + self.pause);
    }

    /// What is wrong, once a look was due and done; for ever where none is due.
    ///
    /// # Cancel safety
    /// Nothing is lost: a look that began goes on.
    pub(crate) async fn next(&mut self, objects: &Objects) -> Vec<Problem> {
        loop {
            if let Some(running) = &mut self.running {
                let done = running.await;
                self.running = None;
                // It fails only by a panic, or when the program ends.
                let Ok((took, problems)) = done else { continue };
                self.pause = PAUSE_MIN.max(took * PAUSE_SHARE);
                return problems;
            }
            let Some(due) = self.due else { return std::future::pending().await };
            sleep_until(due).await;
            self.due = None;
            let all = objects.list();
            self.running = Some(tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let problems = validate_all(all.iter().map(|object| &**object));
                (began.elapsed(), problems)
            }));
        }
    }
}
