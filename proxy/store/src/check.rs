//! check: after a stop without a close all pages are looked through, behind everybody's back.
//!
//! It takes a second for a million messages, so it does not hold an opening up, and its read transaction
//! keeps the file for writing ahead from beginning again, so it stops when that must and tries again later.
//! What it finds is told and ends no trust: what is read is checked on its own, and a page of which SQLite
//! can make no sense poisons whoever writes it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::ffi::{Error as Failure, SQLITE_INTERRUPT};
use rusqlite::{Connection, ErrorCode};

use crate::limits::{CHECK_NICE, CHECK_PAUSE, CHECK_PAUSE_MAX, CHECK_STEPS};
use crate::shared::{Ends, Shared};
use crate::sql;
use crate::trouble::{described, is_damage};

/// The thread that looks.
pub(crate) struct Check {
    /// Dropped to end a pause.
    goes_on: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Check {
    /// Starts it over a connection of its own.
    pub(crate) fn start(mut connection: Connection, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (goes_on, ends) = sync_channel(0);
        let thread = std::thread::Builder::new().name("store-check".to_owned()).spawn(move || {
            look(&mut connection, &ends, &shared);
        })?;
        Ok(Self { goes_on, thread })
    }

    /// Ends it, once the store is closed or poisoned; returns when its connection is closed.
    pub(crate) fn stop(self) {
        drop(self.goes_on);
        // A panic over there has ended it all the same, and nobody waits for what it looked for.
        let _ = self.thread.join();
    }
}

fn look(connection: &mut Connection, ends: &Receiver<()>, shared: &Arc<Shared>) {
    // On Linux that is this thread's alone. Without it the look is as quick as anything else.
    let _ = rustix::process::nice(CHECK_NICE);
    let gives_way = Arc::clone(shared);
    if connection.progress_handler(CHECK_STEPS, Some(move || gives_way.must_give_way())).is_err() {
        return;
    }
    let mut pause = CHECK_PAUSE;
    loop {
        match look_once(connection, shared) {
            Ok(said) if said == "ok" => return,
            Ok(said) => return shared.set_damaged(&said),
            Err(stopped) if is_for_now(&stopped) => {
                if ends.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                pause = (pause * 2).min(CHECK_PAUSE_MAX);
            }
            Err(damage) if is_damage(&damage) => return shared.set_damaged(&described(&damage)),
            // The disk failed: whoever reads for somebody finds that out and says so.
            Err(_) => return,
        }
    }
}

/// The writer waits for its end once the file for writing ahead must begin again.
fn look_once(connection: &Connection, shared: &Shared) -> rusqlite::Result<String> {
    shared.check.begins();
    let _ends = Ends(&shared.check);
    if shared.must_give_way() {
        return Err(rusqlite::Error::SqliteFailure(Failure::new(SQLITE_INTERRUPT), None));
    }
    connection.query_row(sql::CHECK_SCAN, [], |row| row.get(0))
}

fn is_for_now(error: &rusqlite::Error) -> bool {
    let for_now = [ErrorCode::OperationInterrupted, ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
    error.sqlite_error_code().is_some_and(|code| for_now.contains(&code))
}
