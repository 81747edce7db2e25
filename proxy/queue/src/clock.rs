//! clock: the time of day, which comes in from outside.
//!
//! What is stored is wall time; what waits, waits on tokio's clock, which never jumps. [`Steady`]
//! ties them together: the wall time when the queue was opened plus what has passed since. A wall
//! clock that is set while messages wait moves none of them; times that come from disk or from a
//! caller are translated when they come in.

use std::time::SystemTime;

use store::message::Timestamp;
use tokio::time::Instant;

/// The time of day.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Wall time that only moves forward, at the pace of tokio's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    wall: u64,
    from: Instant,
}

impl Steady {
    /// Begins now, which is `wall`. Must be called inside the runtime whose clock is meant.
    pub(crate) fn begin(wall: Timestamp) -> Self {
        Self { wall: wall.0, from: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.from.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.wall.saturating_add(passed))
    }

    /// The wall's `at` in steady time, while the wall says `wall_now`.
    pub(crate) fn translate(&self, at: Timestamp, wall_now: Timestamp) -> Timestamp {
        let now = self.now().0;
        Timestamp(match at.0.checked_sub(wall_now.0) {
            Some(ahead) => now.saturating_add(ahead),
            None => now.saturating_sub(wall_now.0 - at.0),
        })
    }

    /// When tokio's clock shows the steady `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.from + std::time::Duration::from_millis(at.0.saturating_sub(self.wall))
    }
}
