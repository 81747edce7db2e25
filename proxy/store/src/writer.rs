//! writer: the one thread that changes the files: gather, write, flush, tell, answer.
//!
//! There is no timer: what arrives while a flush runs is the next batch.

pub(crate) mod apply;
mod batch;
mod chores;
mod disk;
mod room;
mod statements;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::check::Check;
use crate::checkpoint::{Background, WalState};
use crate::dedupe::Generations;
use crate::error::StoreError;
use crate::files::Directory;
use crate::message::{Change, Changed, Dedupe, Entry, QueueId, Timestamp};
use crate::reader::{Read, Reader};
use crate::shared::{Alive, Shared};
use crate::space::{Budget, waiting_bytes};
use crate::sql;
use crate::trouble::described;

use chores::{Expiry, Looked};
use statements::Statements;

/// Something for the writer to do.
pub(crate) enum Job {
    Write(Task),
    /// A store in memory has no reader.
    Read(Read),
    /// Nothing comes behind it.
    Close,
}

/// A write and where its answer goes.
pub(crate) struct Task {
    pub(crate) work: Work,
    pub(crate) answer: oneshot::Sender<Result<Reply, StoreError>>,
    /// Its share of what may be on its way.
    #[expect(dead_code, reason = "held until it is answered")]
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// What is to be written.
pub(crate) enum Work {
    Changes(Vec<Change>),
    PutQueue { name: String, settings: Bytes },
    RemoveQueue(QueueId),
    Sweep { now: Timestamp, removed: u64 },
    Find(Dedupe),
}

/// What was written.
pub(crate) enum Reply {
    Changed(Vec<Changed>),
    Queue(QueueId),
    Removed,
    /// It is not removed: it has so many messages.
    Holds(u64),
    Swept(u64),
    Found(Option<Changed>),
}

impl Work {
    fn changes(&self) -> &[Change] {
        match self {
            Self::Changes(changes) => changes,
            Self::PutQueue { .. } | Self::RemoveQueue(_) | Self::Sweep { .. } | Self::Find(_) => &[],
        }
    }

    /// Bytes that wait with it.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        match self {
            Self::Changes(changes) => waiting_bytes(changes),
            Self::PutQueue { name, settings } => (name.len() + settings.len()) as u64,
            Self::RemoveQueue(_) | Self::Sweep { .. } | Self::Find(_) => 0,
        }
    }

    fn appends(&self) -> bool {
        self.changes().iter().any(|change| matches!(change, Change::Append(_)))
    }

    /// It ends or buries something: what it appends beside that tells of it, and goes where settles go.
    fn settles(&self) -> bool {
        self.changes().iter().any(|change| matches!(change, Change::End { .. } | Change::Bury { .. }))
    }

    /// It changes nothing.
    fn asks(&self) -> bool {
        matches!(self, Self::Find(_))
    }
}

/// What the writer's thread is given.
pub(crate) struct Parts {
    pub(crate) connection: Connection,
    /// `None`: in memory.
    pub(crate) directory: Option<Directory>,
    pub(crate) background: Option<Background>,
    /// The reader's thread and the way to end it.
    pub(crate) reader: Option<(mpsc::Sender<Read>, JoinHandle<()>)>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) budget: Budget,
    /// Bytes that are set aside for settles.
    pub(crate) ballast: u64,
    pub(crate) keys_max: u64,
    pub(crate) next_position: u64,
    pub(crate) messages: HashMap<QueueId, u64>,
    pub(crate) dedupe: Generations,
    /// It was closed, not stopped.
    pub(crate) clean: bool,
    pub(crate) check: Option<Check>,
}

/// The numbers of positions: handed out, and set aside on disk.
#[derive(Debug, Clone, Copy)]
struct Positions {
    next: u64,
    reserved: u64,
}

/// What a running transaction will have done.
#[derive(Default)]
struct Pending {
    entries: Vec<Entry>,
    /// Messages more or fewer, by queue.
    messages: HashMap<QueueId, i64>,
    dedupe_rows: u64,
    /// The last row of keys that was removed because they are over.
    dropped: Option<i64>,
    looked: Option<Looked>,
}

/// The writer over its connection.
struct Writer<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    directory: Option<&'c Directory>,
    background: Option<&'c Background>,
    /// In memory only.
    reader: Option<Reader<'c>>,
    shared: Arc<Shared>,
    budget: Budget,
    keys_max: u64,
    /// It is noted on disk that there is nothing to be looked through.
    clean: bool,
    /// Gathered and not yet written.
    waiting: VecDeque<Task>,
    positions: Positions,
    messages: HashMap<QueueId, u64>,
    dedupe: Generations,
    expiry: Expiry,
    pending: Pending,
    wal: WalState,
    /// A piece of a body on its way into its row.
    piece: Vec<u8>,
    /// Why appends are refused at the moment.
    full: Option<Arc<str>>,
    /// Pages that the last append refused for our own bound would have taken.
    wanted: u64,
    /// It is the disk that is full, not our own bound that is reached.
    disk_full: bool,
    /// Bytes set aside for settles: none once they were given back to make room.
    ballast: u64,
    /// There may be results or records that can make room.
    evictable: bool,
}

/// Runs the writer until it is told to close or every handle is gone; then closes the files and lets
/// the directory go.
pub(crate) fn run(parts: Parts, mut jobs: mpsc::Receiver<Job>) {
    let Parts { connection, directory, background, reader, shared, check, .. } = parts;
    let _alive = Alive(Arc::clone(&shared));
    let next_position = {
        let statements = Statements::over(&connection);
        let inner_reader = match reader {
            Some(_) => Ok(None),
            None => Reader::over(&connection, &shared).map(Some),
        };
        match statements.and_then(|statements| inner_reader.map(|reader| (statements, reader))) {
            Ok((statements, inner_reader)) => {
                let mut writer = Writer {
                    connection: &connection,
                    statements,
                    directory: directory.as_ref(),
                    background: background.as_ref(),
                    reader: inner_reader,
                    shared: Arc::clone(&shared),
                    budget: parts.budget,
                    keys_max: parts.keys_max,
                    clean: parts.clean,
                    waiting: VecDeque::new(),
                    positions: Positions { next: parts.next_position, reserved: parts.next_position },
                    messages: parts.messages,
                    dedupe: parts.dedupe,
                    expiry: Expiry::unknown_below(parts.next_position),
                    pending: Pending::default(),
                    wal: WalState::default(),
                    piece: Vec::new(),
                    full: None,
                    wanted: 0,
                    disk_full: false,
                    ballast: parts.ballast,
                    evictable: true,
                };
                writer.serve(&mut jobs);
                writer.positions.next
            }
            Err(error) => {
                shared.poison(&described(&error));
                parts.next_position
            }
        }
    };
    shared.close();
    drop(jobs);
    if let Some((asks, thread)) = reader {
        // Gone already if nobody is left to ask.
        let _ = asks.blocking_send(Read::Stop);
        let _ = thread.join();
    }
    if let Some(background) = background {
        background.stop();
    }
    if let Some(check) = check {
        check.stop();
    }
    if !shared.poisoned()
        && let Err(error) = leave_clean(&connection, next_position)
    {
        shared.poison(&format!("closing failed: {}", described(&error)));
    }
    drop(connection);
    drop(directory);
}

/// Writes the exact next position, copies all that was written ahead, and cuts that file.
fn leave_clean(connection: &Connection, next_position: u64) -> rusqlite::Result<()> {
    connection.execute(sql::META_CLEAN, [next_position as i64])?;
    connection.query_row(sql::CHECKPOINT_TRUNCATE, [], |_| Ok(()))
}

/// A poisoned store must not copy what it does not trust when its last connection closes; a clean one
/// has done it already.
pub(crate) fn never_copies_at_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(|_| ())
}
