//! shared: what every handle and thread of one store may ask at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::Condition;
use crate::error::StoreError;

/// The state of a store, beside its files.
#[derive(Default)]
pub(crate) struct Shared {
    poisoned: OnceLock<Arc<str>>,
    full: Mutex<Option<Arc<str>>>,
    closed: AtomicBool,
    bytes: AtomicU64,
    bytes_max: u64,
    /// A checkpoint runs in the background.
    checkpoint_runs: Mutex<bool>,
    checkpoint_ended: Condvar,
}

impl Shared {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Ends all trust. The first reason stays.
    pub(crate) fn poison(&self, reason: &str) -> StoreError {
        StoreError::Poisoned(Arc::clone(self.poisoned.get_or_init(|| Arc::from(reason))))
    }

    /// Why nothing can be asked of the store, if so.
    pub(crate) fn refusal(&self) -> Option<StoreError> {
        match self.poisoned.get() {
            Some(reason) => Some(StoreError::Poisoned(Arc::clone(reason))),
            None => self.closed.load(Ordering::Acquire).then_some(StoreError::Closed),
        }
    }

    /// What an answer that never came means.
    pub(crate) fn unanswered(&self) -> StoreError {
        self.refusal().unwrap_or_else(|| self.poison("its thread ended without a word"))
    }

    pub(crate) fn poisoned(&self) -> bool {
        self.poisoned.get().is_some()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn set_full(&self, reason: Option<&Arc<str>>) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if full.as_ref() != reason {
            *full = reason.cloned();
        }
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Marks that a checkpoint runs in the background; `false` if one did already.
    pub(crate) fn checkpoint_begins(&self) -> bool {
        !std::mem::replace(&mut *self.checkpoint(), true)
    }

    pub(crate) fn checkpoint_ends(&self) {
        *self.checkpoint() = false;
        self.checkpoint_ended.notify_all();
    }

    pub(crate) fn checkpoint_runs(&self) -> bool {
        *self.checkpoint()
    }

    /// Returns when none runs in the background. It ends by itself, however slow the disk is.
    pub(crate) fn wait_for_checkpoint(&self) {
        let ended = self.checkpoint_ended.wait_while(self.checkpoint(), |runs| *runs);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    fn checkpoint(&self) -> MutexGuard<'_, bool> {
        self.checkpoint_runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn condition(&self) -> Condition {
        Condition {
            poisoned: self.poisoned.get().cloned(),
            full: self.full.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
        }
    }
}
