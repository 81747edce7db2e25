//! pace: when what came in goes on: one change at once, a burst as one.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that come closer together than this are one burst.
const QUIET: Duration = Duration::from_millis(10);
/// A burst that does not end goes on in pieces of this length.
const BURST_MAX: Duration = Duration::from_millis(30);

/// When what came in goes on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    first: Option<Instant>,
    due: Option<Instant>,
    went: Option<Instant>,
}

impl Pace {
    /// Something came in.
    pub(super) fn came(&mut self, now: Instant) {
        let first = *self.first.get_or_insert(now);
        let lone = self.went.is_none_or(|went| first.duration_since(went) >= QUIET);
        self.due = Some(if lone { first } else { (now + QUIET).min(first + BURST_MAX) });
    }

    /// When it goes on, if there is anything.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It went on.
    pub(super) fn went(&mut self, now: Instant) {
        (self.first, self.due, self.went) = (None, None, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_goes_at_once_and_a_burst_as_one() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.came(at(0));
        assert_eq!(pace.due(), Some(at(0)));
        pace.went(at(0));
        // A burst waits until it is quiet,
        pace.came(at(5));
        pace.came(at(12));
        assert_eq!(pace.due(), Some(at(22)));
        // but not for ever.
        for ms in (15..100).step_by(5) {
            pace.came(at(ms));
        }
        assert_eq!(pace.due(), Some(at(35)));
        pace.went(at(35));
        pace.came(at(45));
        assert_eq!(pace.due(), Some(at(45)));
    }
}
