//! store: one message on disk, written, found again, removed.
//!
//! # What it is
//! A table of messages in SQLite, laid out so that storing one only ever appends. Whoever uses it keeps
//! the index of what waits, is due, or is next in a lane, in memory: it is shown every message at opening
//! and told of every one stored since. So nothing on disk has to be searched, and no message pays for an
//! index it may not need. This crate has no clock, knows no queue's rules, and is the only one with SQL.
//!
//! # On disk
//! A directory holds `messages.db`, what was written ahead of it (`-wal`, and `-shm`, SQLite's index of
//! that), `lock`, held by the one process that has it and naming whose it is, and `ballast`, room for settles on a full disk. After a
//! failure there is `poisoned`, which says what failed.
//! - `messages`: one row of about 40 bytes for each, by *position*: a number that goes up and is never
//!   given twice. Positions are set aside 65,536 at a time in `meta`, so a stop without a close skips some.
//! - `contents`: head and body in pieces of at most 64 KiB, apart, so that a scan of `messages` passes
//!   none of them. A sum in the row covers all that never changes; it is checked when the message is read.
//! - `history` (what was said of attempts) and `verdicts` (the response kept with a dead letter).
//! - `ended` and `results`: what is left of ended messages until their time is over, or room is needed.
//!   All four have sums of their own. A response that does not fit its sum is as good as none.
//! - `dedupe`: keys by which repetitions are known, appended too, and found by a table in memory that
//!   takes 5.4 bytes for each ([`limits::DEDUPE_ROWS_MAX`] at most).
//! - `queues`, by number and name. A number that messages name and no row has is given a row at opening,
//!   `lost-<number>` without settings, so that the messages are seen and nobody else gets it. Dead and
//!   quarantined messages alone have an index (`apart`).
//!
//! # Who writes
//! One thread owns the only connection that writes. It takes what has gathered, applies it in one
//! transaction, commits, which flushes (`synchronous=FULL`), tells ([`Event::Committed`]), and answers.
//! There is no timer: what arrives during a flush is the next batch. Each [`Store::write`] is all or
//! nothing: whether its drafts fit is decided before its first step, and any later failure undoes the
//! batch.
//!
//! # Who reads
//! A thread with a connection of its own, in read transactions that end with what has gathered, since an
//! open one keeps the file for writing ahead from beginning again. A store in memory has one connection,
//! and its writer reads.
//!
//! # Who copies
//! What was written ahead is copied into the database by a third thread, and the last of it by the writer
//! itself, after which the file begins again. It has a bound; the writer makes a checkpoint before it
//! would pass it and refuses writes ([`StoreError::Full`]) when even that does not help.
//!
//! # Space
//! The bytes given are divided once: file for writing ahead, ballast, pages only settles may take, pages
//! for messages. Before drafts are refused, the oldest results and then the oldest records make room.
//! When the disk itself is full, drafts are refused, settles go on, with the ballast's room if they must,
//! and drafts are taken again once the disk has room for the ballast and more. Free pages of the database stand in
//! for half of the ballast, and the file for writing ahead is cut where that makes the difference.
//!
//! # How it fails
//! After a failed write or flush nobody knows what the disk holds: a later flush that succeeds, and even
//! what is read back, prove nothing (Rebello et al., "Can Applications Recover from fsync Failures?",
//! USENIX ATC 2020). The store is *poisoned*: it answers everything with [`StoreError::Poisoned`] until
//! the process has been started again, and leaves a note. An opening first makes the kernel forget the pages
//! of the files. If there is a note, it copies what checks into a fresh database, where there is room for that
//! ([`AfterPoison`]). It looks through the file for writing ahead for commits that SQLite would lose silently,
//! and refuses a damaged directory unless it is to be salvaged; a database that is gone, although the ballast says
//! that there was one, is damage too. After a stop without a close all pages are looked
//! through behind everybody's back; what is found is told ([`Event::Damaged`]).
//!
//! # How it ends
//! [`Store::close`], or the last handle's drop, writes what is on its way, notes the exact next position,
//! copies all that was written ahead, and lets the directory go.

mod check;
mod checkpoint;
mod contents;
mod dedupe;
pub mod error;
mod files;
pub mod limits;
pub mod message;
mod open;
mod prefetch;
mod reader;
mod renew;
mod rows;
mod salvage;
mod scan;
mod schema;
mod shared;
mod space;
mod sql;
mod sums;
#[cfg(test)]
mod tests;
mod told;
mod trouble;
mod wal;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use error::{OpenError, StoreError};
use limits::{LIST_MAX, WAITING_KIB_MAX};
use message::{Change, Changed, Dedupe, Ended, Entry, Loaded, Position, QueueId, State, Timestamp};
pub use open::{AfterPoison, Opened};
use reader::{Answer, ListSlice, Read};
use shared::Shared;
use told::Told;
pub use told::{Condition, Event};
use writer::{Job, Reply, Task, Work};

/// Whether `directory` holds a store, or did.
#[must_use]
pub fn is_used(directory: &std::path::Path) -> bool {
    // What may not be looked at may be there: opening it says why it cannot be.
    [files::DATABASE, files::BALLAST].iter().any(|name| directory.join(name).try_exists().unwrap_or(true))
}

/// How a store is opened.
pub struct Options {
    /// Where it is; `None` keeps everything in memory.
    pub directory: Option<PathBuf>,
    /// Whose messages it keeps: a directory that is another's is refused, and one that is nobody's yet becomes
    /// theirs. `None` asks nothing.
    pub owner: Option<String>,
    /// Bytes it may take, files for writing ahead and reserve included.
    pub bytes_max: u64,
    /// Keys it may remember, each with 5.4 bytes of memory; at most [`limits::DEDUPE_ROWS_MAX`].
    pub keys_max: u64,
    /// Keep what can be read of a damaged directory.
    pub salvage: bool,
    /// Open it also on a file system that keeps nothing over a crash. For demonstrations and for tests of
    /// everything but durability.
    pub allow_volatile: bool,
    /// The name of a registered SQLite VFS to open the files with. For tests that make the disk fail.
    pub vfs: Option<String>,
    /// Told of what the store does, on the writer's thread mostly: must be short.
    pub told: Told,
}

impl Default for Options {
    /// A store of 256 MiB in memory that tells nobody.
    fn default() -> Self {
        Self {
            directory: None,
            owner: None,
            bytes_max: 256 * 1024 * 1024,
            keys_max: limits::DEDUPE_ROWS_MAX,
            salvage: false,
            allow_volatile: false,
            vfs: None,
            told: Box::new(|_| {}),
        }
    }
}

/// A handle; cheap to clone. The last one's drop closes the store and waits for that.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What all handles share. The order of the fields is that of their drop: the ways to the threads go
/// before they are waited for.
struct Inner {
    shared: Arc<Shared>,
    on_its_way: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
    /// `None`: the writer reads.
    reads: Option<mpsc::Sender<Read>>,
    /// Has no sender any more once the files are closed.
    done: watch::Receiver<()>,
    _thread: Joined,
}

/// A thread that is waited for.
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // If it has panicked, it has ended all the same.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn new(
        jobs: mpsc::Sender<Job>,
        reads: Option<mpsc::Sender<Read>>,
        shared: Arc<Shared>,
        done: watch::Receiver<()>,
        thread: JoinHandle<()>,
    ) -> Self {
        let on_its_way = Arc::new(Semaphore::new(WAITING_KIB_MAX));
        Self { shared, on_its_way, jobs, reads, done, _thread: Joined(Some(thread)) }
    }
}

impl Store {
    /// Opens or makes a directory; `each` sees every message in it, in the order of positions. Blocks
    /// for as long as reading that takes.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed.
    pub fn open(options: Options, each: &mut dyn FnMut(Entry)) -> Result<Opened, OpenError> {
        open::open(options, each)
    }

    /// Writes `changes` as one: returns after the flush that made all of them durable. Waits while too
    /// much is on its way.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::TooManyKeys`]: none was done. [`StoreError::TooLarge`]: none ever
    /// will be.
    /// [`StoreError::Poisoned`]: nobody knows.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the write on its way: it is done, unheard. Only one that still waits
    /// for its turn is not done.
    pub async fn write(&self, changes: Vec<Change>) -> Result<Vec<Changed>, StoreError> {
        match self.ask(Work::Changes(changes)).await? {
            Reply::Changed(changed) => Ok(changed),
            _ => Err(self.inner.shared.unanswered()),
        }
    }

    /// Looks a key up without storing anything: [`Changed::Duplicate`] if it is still remembered.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn find(&self, dedupe: Dedupe) -> Result<Option<Changed>, StoreError> {
        match self.ask(Work::Find(dedupe)).await? {
            Reply::Found(found) => Ok(found),
            _ => Err(self.inner.shared.unanswered()),
        }
    }

    /// Stores or replaces a queue's settings; a new name gets a number.
    ///
    /// # Errors
    /// As [`Store::write`].
    ///
    /// # Cancel safety
    /// As [`Store::write`].
    pub async fn put_queue(&self, name: String, settings: Bytes) -> Result<QueueId, StoreError> {
        match self.ask(Work::PutQueue { name, settings }).await? {
            Reply::Queue(queue) => Ok(queue),
            _ => Err(self.inner.shared.unanswered()),
        }
    }

    /// Removes a queue that has no message left, in whatever state. What is left of its ended messages
    /// stays until its time is over. An unknown one is removed already.
    ///
    /// # Errors
    /// As [`Store::write`]; [`StoreError::Full`] also says that it still has messages.
    ///
    /// # Cancel safety
    /// As [`Store::write`].
    pub async fn remove_queue(&self, queue: QueueId) -> Result<(), StoreError> {
        match self.ask(Work::RemoveQueue(queue)).await? {
            Reply::Removed => Ok(()),
            Reply::Holds(left) => {
                Err(StoreError::Full(format!("queue {} still has {left} messages", queue.0).into()))
            }
            _ => Err(self.inner.shared.unanswered()),
        }
    }

    /// Removes records of ended messages whose time is over; returns how many. Other writes go on in
    /// between.
    ///
    /// # Errors
    /// As [`Store::write`].
    ///
    /// # Cancel safety
    /// As [`Store::write`].
    pub async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Work::Sweep { now, removed: 0 }).await? {
            Reply::Swept(removed) => Ok(removed),
            _ => Err(self.inner.shared.unanswered()),
        }
    }

    /// Reads a message, whatever its state.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it does not fit its checksum.
    pub async fn load(&self, position: Position) -> Result<Option<Loaded>, StoreError> {
        self.read(|answer| Read::Load(position, answer)).await
    }

    /// Reads what is left of an ended message.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ended(&self, position: Position) -> Result<Option<Ended>, StoreError> {
        self.read(|answer| Read::Ended(position, answer)).await
    }

    /// Reads up to `limit` (at most 1000) messages of a queue in `state` behind `after`, in the
    /// order of positions, without bodies and results (`body` is empty, `result` is `None`). Of one whose
    /// head is damaged the head is empty, if it does not wait; one that waits is left out. Fewer than
    /// `limit` are no sign of the end, since heads and histories may be large; an empty list is.
    ///
    /// Waiting messages are looked for among those of all queues: that takes a second for some millions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        queue: QueueId,
        state: State,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Loaded>, StoreError> {
        let limit = limit.min(LIST_MAX);
        let mut slice = ListSlice { queue, state, after, limit };
        let mut found = Vec::new();
        // Also behind a page of which all are damaged: an empty list says that nothing follows.
        while found.len() < limit {
            slice.limit = limit - found.len();
            let listed = self.read(|answer| Read::List(slice, answer)).await?;
            found.extend(listed.found);
            match listed.goes_on {
                Some(position) => slice.after = Some(position),
                None => break,
            }
        }
        Ok(found)
    }

    /// What the store is like now.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.inner.shared.condition()
    }

    /// Writes what is on its way, then closes the files; returns when that is done. Afterwards
    /// everything is [`StoreError::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the closing on its way.
    pub async fn close(&self) {
        self.inner.shared.close();
        // An error means that it is closed already.
        let _ = self.inner.jobs.send(Job::Close).await;
        let _ = self.inner.done.clone().changed().await;
    }

    async fn ask(&self, work: Work) -> Result<Reply, StoreError> {
        let Inner { shared, on_its_way, jobs, .. } = &*self.inner;
        if let Some(refusal) = shared.refusal() {
            return Err(refusal);
        }
        let kib = usize::try_from(work.waiting_bytes() / 1024).map_or(WAITING_KIB_MAX, |kib| kib + 1);
        let permits = u32::try_from(kib.min(WAITING_KIB_MAX)).unwrap_or(1);
        // Nobody closes the semaphore.
        let permit = Arc::clone(on_its_way).acquire_many_owned(permits).await.ok();
        let (answer, answered) = oneshot::channel();
        let task = Task { work, answer, permit };
        jobs.send(Job::Write(task)).await.map_err(|_| shared.unanswered())?;
        answered.await.unwrap_or_else(|_| Err(shared.unanswered()))
    }

    async fn read<T>(&self, read: impl FnOnce(Answer<T>) -> Read) -> Result<T, StoreError> {
        let Inner { shared, jobs, reads, .. } = &*self.inner;
        if let Some(refusal) = shared.refusal() {
            return Err(refusal);
        }
        let (answer, answered) = oneshot::channel();
        let read = read(answer);
        let sent = match reads {
            Some(reads) => reads.send(read).await.is_ok(),
            None => jobs.send(Job::Read(read)).await.is_ok(),
        };
        if !sent {
            return Err(shared.unanswered());
        }
        answered.await.unwrap_or_else(|_| Err(shared.unanswered()))
    }
}
