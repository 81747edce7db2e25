//! shared: what every handle and thread of one store may ask at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::StoreError;
use crate::files::PoisonNote;
use crate::{Condition, Event, Told};

/// The state of a store, beside its files.
#[derive(Default)]
pub(crate) struct Shared {
    told: Mutex<Option<Told>>,
    poisoned: OnceLock<Arc<str>>,
    damaged: OnceLock<Arc<str>>,
    full: Mutex<Option<Arc<str>>>,
    closed: AtomicBool,
    bytes: AtomicU64,
    bytes_max: u64,
    /// The checkpoint in the background.
    pub(crate) checkpoint: Running,
    /// The look through all pages.
    pub(crate) check: Running,
    /// The file for writing ahead is to begin again: whoever reads for long gives way.
    wal_waits: AtomicBool,
    /// `None`: in memory.
    note: Option<PoisonNote>,
    /// Why its files are in doubt since before it was opened.
    doubted: Option<Arc<str>>,
}

/// Something that runs in the background now and then, and that the writer may have to wait for.
#[derive(Default)]
pub(crate) struct Running {
    runs: Mutex<bool>,
    ended: Condvar,
}

impl Running {
    /// It is to run; `false` if it did already.
    pub(crate) fn begins(&self) -> bool {
        !std::mem::replace(&mut *self.state(), true)
    }

    pub(crate) fn ends(&self) {
        *self.state() = false;
        self.ended.notify_all();
    }

    pub(crate) fn runs(&self) -> bool {
        *self.state()
    }

    /// Returns when it does not run. It ends by itself, however slow the disk is.
    pub(crate) fn wait(&self) {
        let ended = self.ended.wait_while(self.state(), |runs| *runs);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> MutexGuard<'_, bool> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that it has ended when this is dropped, be it by a panic.
pub(crate) struct Ends<'a>(pub(crate) &'a Running);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ends();
    }
}

/// Held by a thread: if that panics, the store has lost it and says so.
pub(crate) struct Alive(pub(crate) Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.distrust(GONE);
        }
    }
}

/// What is said of a thread that has panicked.
const GONE: &str = "its thread ended without a word";

impl Shared {
    pub(crate) fn new(bytes_max: u64, told: Told) -> Self {
        Self { bytes_max, told: Mutex::new(Some(told)), ..Self::default() }
    }

    /// The same over a directory, whose files may be in doubt.
    pub(crate) fn over(self, note: PoisonNote, doubted: Option<Arc<str>>) -> Self {
        Self { note: Some(note), doubted, ..self }
    }

    /// Tells whoever wanted to be told.
    pub(crate) fn tell(&self, event: Event<'_>) {
        if let Some(told) = &mut *self.told.lock().unwrap_or_else(PoisonError::into_inner) {
            told(event);
        }
    }

    /// Ends all trust in the disk, and writes that down for the next opening. The first reason stays.
    pub(crate) fn poison(&self, reason: &str) -> StoreError {
        let (first, refusal) = self.distrust(reason);
        if first && let Some(note) = &self.note {
            // The disk fails: nobody counts on it.
            let _ = note.write(reason);
        }
        refusal
    }

    /// Ends all trust, and tells so; says whether this was the first reason.
    fn distrust(&self, reason: &str) -> (bool, StoreError) {
        let mut first = false;
        let stays = self.poisoned.get_or_init(|| {
            first = true;
            Arc::from(reason)
        });
        if first {
            self.tell(Event::Failed);
        }
        (first, StoreError::Poisoned(Arc::clone(stays)))
    }

    /// Its pages are in no order, though nothing that was read was wrong so far: that is told alone.
    pub(crate) fn set_damaged(&self, found: &str) {
        let said = format!("damaged: {found}; stop it and open it once with --queue-salvage");
        self.tell(Event::Damaged(self.damaged.get_or_init(|| Arc::from(said))));
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
        self.refusal().unwrap_or_else(|| self.distrust(GONE).1)
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

    /// The file for writing ahead is to begin again soon, or has.
    pub(crate) fn set_wal_waits(&self, waits: bool) {
        self.wal_waits.store(waits, Ordering::Release);
    }

    /// Whether whoever reads for long must stop: nothing waits for what it reads.
    pub(crate) fn must_give_way(&self) -> bool {
        self.wal_waits.load(Ordering::Acquire) || self.refusal().is_some()
    }

    pub(crate) fn condition(&self) -> Condition {
        Condition {
            poisoned: self.poisoned.get().cloned(),
            damaged: self.damaged.get().cloned(),
            doubted: self.doubted.clone(),
            full: self.full.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
        }
    }
}
