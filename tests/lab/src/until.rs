//! until: waits for something to become so.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks every 20 ms until an answer comes.
///
/// # Errors
/// When none came in time, or the question itself failed.
pub fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("waited {} ms in vain for {what}", patience.as_millis());
        }
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "the lab has no runtime whose worker this could block")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
