//! backoff: how long to wait before the API server is asked again.

use std::time::Duration;

use policy::limits;

/// Doubles from [`limits::API_BACKOFF_MIN`] to [`limits::API_BACKOFF_MAX`]; of each a random half to
/// all is waited, so that those who lost one server together do not come to the next together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// From the beginning.
    pub(crate) fn new() -> Self {
        Self { next: limits::API_BACKOFF_MIN }
    }

    /// Something went well: the next wait is short.
    pub(crate) fn reset(&mut self) {
        self.next = limits::API_BACKOFF_MIN;
    }

    /// How long to wait now.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(fastrand::f64().mul_add(0.5, 0.5));
        self.next = (self.next * 2).min(limits::API_BACKOFF_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_and_begin_anew() {
        let mut backoff = Backoff::new();
        let mut whole = limits::API_BACKOFF_MIN;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
            whole = (whole * 2).min(limits::API_BACKOFF_MAX);
        }
        assert_eq!(whole, limits::API_BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.pause() <= limits::API_BACKOFF_MIN);
    }
}
