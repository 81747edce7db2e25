//! health: whether the sidecar is ready, and why not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// What stands between the sidecar and being ready.
#[derive(Debug, Default)]
pub(crate) struct Health {
    state: Mutex<State>,
    draining: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    certificate_until: Option<SystemTime>,
    certificate_trouble: Option<String>,
    snapshot: bool,
    feed_trouble: Option<String>,
}

impl Health {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn certified(&self, until: SystemTime) {
        self.with(|state| (state.certificate_until, state.certificate_trouble) = (Some(until), None));
    }

    pub(crate) fn not_certified(&self, trouble: String) {
        self.with(|state| state.certificate_trouble = Some(trouble));
    }

    pub(crate) fn informed(&self) {
        self.with(|state| (state.snapshot, state.feed_trouble) = (true, None));
    }

    pub(crate) fn connected(&self) {
        self.with(|state| state.feed_trouble = None);
    }

    pub(crate) fn not_informed(&self, trouble: String) {
        self.with(|state| state.feed_trouble = Some(trouble));
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether a Watch stream is open, for metrics.
    pub(crate) fn is_informed(&self) -> bool {
        self.with(|state| state.snapshot && state.feed_trouble.is_none())
    }

    /// Until when the certificate holds.
    pub(crate) fn certificate_until(&self) -> Option<SystemTime> {
        self.with(|state| state.certificate_until)
    }

    /// Everything that is missing; empty when ready.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            missing.push("draining: told to stop".to_owned());
        }
        self.with(|state| {
            let why = |trouble: &Option<String>| trouble.as_ref().map_or(String::new(), |t| format!(": {t}"));
            match state.certificate_until {
                None => missing.push(format!("no certificate yet{}", why(&state.certificate_trouble))),
                Some(until) if until <= SystemTime::now() => {
                    missing.push(format!("the certificate has expired{}", why(&state.certificate_trouble)));
                }
                Some(_) => {}
            }
            if !state.snapshot {
                missing.push(format!("no snapshot from the controller yet{}", why(&state.feed_trouble)));
            }
        });
        missing
    }
}
