//! checkpoint: what was written ahead goes into the database, mostly behind the writer's back.
//!
//! A thread copies while the writer goes on appending; since it never catches up with a busy writer,
//! the writer makes the last steps itself once little is left, and the file begins again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode};

use crate::shared::{Alive, Ends, Shared};
use crate::sql;
use crate::trouble::{described, is_full};

/// How far the file for writing ahead has come, in frames.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WalState {
    /// Written.
    pub(crate) written: u64,
    /// Of those, copied into the database.
    pub(crate) copied: u64,
}

impl WalState {
    /// Written and not copied.
    pub(crate) fn left(&self) -> u64 {
        self.written.saturating_sub(self.copied)
    }

    /// Reads one out of a checkpoint's answer: busy, written, copied.
    pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let frames = |index| row.get::<_, i64>(index).map(|frames| frames.max(0) as u64);
        Ok(Self { written: frames(1)?, copied: frames(2)? })
    }
}

/// The thread that copies.
pub(crate) struct Background {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Background {
    /// Starts it over a connection of its own.
    pub(crate) fn start(connection: Connection, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || {
            let _alive = Alive(Arc::clone(&shared));
            copy_when_woken(&connection, &woken, &shared);
        })?;
        Ok(Self { wake, thread })
    }

    /// Makes it copy, unless it does already.
    pub(crate) fn wake(&self, shared: &Shared) {
        if shared.checkpoint.begins() && self.wake.try_send(()).is_err() {
            shared.checkpoint.ends();
        }
    }

    /// Ends it; returns when its connection is closed.
    pub(crate) fn stop(self) {
        drop(self.wake);
        // A panic over there has ended it all the same.
        let _ = self.thread.join();
    }
}

fn copy_when_woken(connection: &Connection, woken: &Receiver<()>, shared: &Shared) {
    while woken.recv().is_ok() {
        let _ends = Ends(&shared.checkpoint);
        if !shared.poisoned() {
            copy(connection, shared);
        }
    }
}

/// A full disk is no poison here: nothing was lost, and the writer sees the file grow to its bound.
fn copy(connection: &Connection, shared: &Shared) {
    let copied = connection.query_row(sql::CHECKPOINT, [], |_| Ok(()));
    if let Err(error) = copied {
        let harmless = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked].map(Some);
        if !is_full(&error) && !harmless.contains(&error.sqlite_error_code()) {
            shared.poison(&format!("a checkpoint failed: {}", described(&error)));
        }
    }
}
