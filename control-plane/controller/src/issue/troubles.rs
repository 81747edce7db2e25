//! troubles: what of identity does not work now, said once and shown as long as it lasts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Counts;

/// What does not work, by the object it is about.
#[derive(Debug)]
pub(crate) struct Troubles {
    standing: Mutex<BTreeMap<String, String>>,
    counts: Counts,
}

impl Troubles {
    pub(crate) fn new(counts: Counts) -> Self {
        Self { standing: Mutex::default(), counts }
    }

    /// Takes how a work on `object` ended; says so in the log when that is news.
    pub(crate) fn note(&self, object: &str, done: Result<(), &anyhow::Error>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(()) => {
                if standing.remove(object).is_some() {
                    tracing::info!(object, "is in order again");
                }
            }
            Err(error) => {
                let text = format!("{error:#}");
                if standing.get(object) != Some(&text) {
                    tracing::error!(object, error = text, "what was last good goes on");
                    standing.insert(object.to_owned(), text);
                }
            }
        }
        self.counts.troubles.set(i64::try_from(standing.len()).unwrap_or(i64::MAX));
    }

    /// Forgets what is no business of ours any more.
    pub(crate) fn forget(&self, object: &str) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.remove(object);
        self.counts.troubles.set(i64::try_from(standing.len()).unwrap_or(i64::MAX));
    }

    /// All of it, object and trouble.
    pub(crate) fn list(&self) -> BTreeMap<String, String> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
