//! open: take the directory, look before SQLite does, read what stands in it, start the threads.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use crate::checkpoint::Background;
use crate::dedupe::{Generations, Rebuild};
use crate::error::OpenError;
use crate::files::{DATABASE, Directory, WAL};
use crate::limits::{
    CHECKPOINT_CACHE_KIB, READER_CACHE_KIB, WAITING_READS_MAX, WAITING_WRITES_MAX, WRITER_CACHE_KIB,
};
use crate::message::{Entry, QueueId, QueueRow, Timestamp};
use crate::reader::{self, Read};
use crate::rows::{MessageRow, Unreadable};
use crate::schema::{self, Format};
use crate::shared::Shared;
use crate::space::Budget;
use crate::trouble::{described, is_damage};
use crate::writer::{self, Job, Parts};
use crate::{Inner, Opened, Options, Store, prefetch, salvage, sql, wal};

/// What an opening says when it fails.
pub(crate) struct Names<'a> {
    pub(crate) directory: &'a Path,
}

impl Names<'_> {
    /// A failed statement: damage or the disk.
    pub(crate) fn sqlite(&self, error: &rusqlite::Error) -> OpenError {
        if is_damage(error) {
            return self.damaged(described(error));
        }
        self.disk(&described(error))
    }

    pub(crate) fn damaged(&self, details: String) -> OpenError {
        OpenError::Damaged { directory: self.directory.to_owned(), details }
    }

    pub(crate) fn disk(&self, details: &dyn std::fmt::Display) -> OpenError {
        OpenError::Disk { directory: self.directory.to_owned(), details: details.to_string() }
    }
}

/// What stands in a database.
struct Contents {
    queues: Vec<QueueRow>,
    messages: HashMap<QueueId, u64>,
    dedupe: Generations,
    next_position: u64,
    clean: bool,
}

/// Opens a store. See [`Store::open`].
pub(crate) fn open(options: Options, each: &mut dyn FnMut(Entry)) -> Result<Opened, OpenError> {
    let budget = Budget::of(options.bytes_max, options.directory.is_some())?;
    match &options.directory {
        None => in_memory(options, budget, each),
        Some(path) => {
            let directory = Directory::take(path, options.allow_volatile)?;
            on_disk(options, directory, budget, each)
        }
    }
}

fn in_memory(options: Options, budget: Budget, each: &mut dyn FnMut(Entry)) -> Result<Opened, OpenError> {
    let names = Names { directory: Path::new(":memory:") };
    let connection = Connection::open_in_memory().map_err(|e| names.sqlite(&e))?;
    let made = schema::set_up(&connection, WRITER_CACHE_KIB, budget.pages)
        .and_then(|()| schema::create(&connection, false));
    made.map_err(|e| names.sqlite(&e))?;
    let messages = read_messages(&connection, &names, each)?;
    let contents = read_rest(&connection, &names, messages, Ok(Generations::default()))?;
    let shared = Arc::new(Shared::new(options.bytes_max));
    start(
        options,
        Ready {
            connection,
            directory: None,
            background: None,
            reads: None,
            shared,
            budget,
            contents,
            lost: 0,
        },
    )
}

fn on_disk(
    options: Options,
    mut directory: Directory,
    budget: Budget,
    each: &mut dyn FnMut(Entry),
) -> Result<Opened, OpenError> {
    let path = directory.path().to_owned();
    let names = Names { directory: &path };
    let vfs = options.vfs.as_deref();
    directory.forget_pages().map_err(|e| names.disk(&e))?;
    let lost = if options.salvage { salvage::if_damaged(&directory, vfs, &names)? } else { 0 };
    match wal::look(&directory.file(WAL)).map_err(|e| names.disk(&e))? {
        wal::Found::Sound { commits: 0 } => {
            directory.forget_half_made().map_err(|e| names.disk(&e))?;
        }
        wal::Found::Sound { .. } => {}
        wal::Found::Damaged { commits, at, lost } => {
            return Err(names.damaged(format!(
                "{WAL} is broken at byte {at}, behind {commits} commits: {lost} more stand behind it"
            )));
        }
    }
    if salvage::is_unfinished(&directory) {
        return Err(names.damaged("a salvage was interrupted".to_owned()));
    }
    directory.hold_database().map_err(|e| names.disk(&e))?;
    let connection = database(&directory, vfs, budget, &names)?;
    let further = |cache_kib| further(&directory, vfs, cache_kib, budget).map_err(|e| names.sqlite(&e));
    let reads = further(READER_CACHE_KIB)?;
    prefetch(&connection, &directory).map_err(|e| names.sqlite(&e))?;
    // Beside the messages, on the other core.
    let keys = std::thread::spawn(move || (read_keys(&reads), reads));
    let messages = read_messages(&connection, &names, each);
    let (keys, reads) = keys.join().map_err(|_| names.disk(&"the reader of its keys ended"))?;
    let contents = read_rest(&connection, &names, messages?, keys)?;
    directory.hold_ballast(budget.ballast).map_err(|e| names.disk(&e))?;
    let shared = Arc::new(Shared::new(options.bytes_max));
    let background = Background::start(further(CHECKPOINT_CACHE_KIB)?, Arc::clone(&shared));
    let background = Some(background.map_err(|e| names.disk(&e))?);
    let (directory, reads) = (Some(directory), Some(reads));
    start(options, Ready { connection, directory, background, reads, shared, budget, contents, lost })
}

/// Opens the database for writing, and makes it if it is new.
fn database(
    directory: &Directory,
    vfs: Option<&str>,
    budget: Budget,
    names: &Names<'_>,
) -> Result<Connection, OpenError> {
    let sqlite = |e: rusqlite::Error| names.sqlite(&e);
    let connection = schema::open(&directory.file(DATABASE), vfs).map_err(sqlite)?;
    writer::never_copies_at_close(&connection).map_err(sqlite)?;
    schema::set_up(&connection, WRITER_CACHE_KIB, budget.pages).map_err(sqlite)?;
    match schema::format(&connection).map_err(sqlite)? {
        Format::Known => {}
        Format::Other(found) => {
            return Err(OpenError::Version {
                directory: names.directory.to_owned(),
                found,
                known: crate::limits::FORMAT,
            });
        }
        Format::New => {
            schema::create(&connection, true).map_err(sqlite)?;
            directory.flush_names().map_err(|e| names.disk(&e))?;
        }
    }
    Ok(connection)
}

/// One more connection to the same database.
fn further(
    directory: &Directory,
    vfs: Option<&str>,
    cache_kib: i64,
    budget: Budget,
) -> rusqlite::Result<Connection> {
    let connection = schema::open(&directory.file(DATABASE), vfs)?;
    writer::never_copies_at_close(&connection)?;
    schema::set_up(&connection, cache_kib, budget.pages)?;
    Ok(connection)
}

/// Asks for the pages of what is read now, since the kernel was made to forget them.
fn prefetch(connection: &Connection, directory: &Directory) -> rusqlite::Result<()> {
    let Some(database) = directory.database() else { return Ok(()) };
    let mut roots = connection.prepare(sql::ROOTS)?;
    let roots = roots.query_map([], |row| row.get::<_, i64>(0).map(|page| page as u64))?;
    prefetch::leaves_of(database, &roots.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(())
}

/// Reads the little that is left to read.
fn read_rest(
    connection: &Connection,
    names: &Names<'_>,
    messages: HashMap<QueueId, u64>,
    keys: rusqlite::Result<Generations>,
) -> Result<Contents, OpenError> {
    let sqlite = |e: rusqlite::Error| names.sqlite(&e);
    let meta = connection.query_row(sql::META, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)));
    let (next_position, clean) = meta.map_err(sqlite)?;
    let queues = read_queues(connection).map_err(sqlite)?;
    let dedupe = keys.map_err(sqlite)?;
    Ok(Contents { queues, messages, dedupe, next_position: next_position as u64, clean })
}

/// Counts the messages of each queue, and shows every one to `each`.
fn read_messages(
    connection: &Connection,
    names: &Names<'_>,
    each: &mut dyn FnMut(Entry),
) -> Result<HashMap<QueueId, u64>, OpenError> {
    let sqlite = |e: rusqlite::Error| names.sqlite(&e);
    let mut counts: HashMap<QueueId, u64> = HashMap::new();
    let mut scan = connection.prepare(sql::MESSAGES_SCAN).map_err(sqlite)?;
    let mut rows = scan.query([0_i64]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let read = MessageRow::read(row).map_err(|Unreadable(why)| names.damaged(why))?;
        *counts.entry(read.entry.queue).or_default() += 1;
        each(read.entry);
    }
    Ok(counts)
}

fn read_queues(connection: &Connection) -> rusqlite::Result<Vec<QueueRow>> {
    let mut scan = connection.prepare(sql::QUEUES_SCAN)?;
    let rows = scan.query_map([], |row| {
        Ok(QueueRow {
            id: QueueId(row.get(0)?),
            name: row.get(1)?,
            settings: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        })
    })?;
    rows.collect()
}

fn read_keys(connection: &Connection) -> rusqlite::Result<Generations> {
    let mut rebuild = Rebuild::default();
    let mut scan = connection.prepare(sql::DEDUPE_SCAN)?;
    let mut rows = scan.query([-1_i64])?;
    while let Some(row) = rows.next()? {
        rebuild.row(row.get(0)?, &row.get(1)?, Timestamp(row.get::<_, i64>(2)? as u64));
    }
    Ok(rebuild.done())
}

/// All that the threads are started with.
struct Ready {
    connection: Connection,
    directory: Option<Directory>,
    background: Option<Background>,
    reads: Option<Connection>,
    shared: Arc<Shared>,
    budget: Budget,
    contents: Contents,
    lost: u64,
}

fn start(options: Options, ready: Ready) -> Result<Opened, OpenError> {
    let Ready { connection, directory, background, reads, shared, budget, contents, lost } = ready;
    let path = directory.as_ref().map_or(Path::new(":memory:"), Directory::path).to_owned();
    let no_thread = |e: std::io::Error| Names { directory: &path }.disk(&e);
    let (reads, reader) = match reads {
        None => (None, None),
        Some(reads) => {
            let (asks, mut asked) = mpsc::channel::<Read>(WAITING_READS_MAX);
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name("store-reader".to_owned())
                .spawn(move || reader::serve(&reads, &mut asked, &shared))
                .map_err(no_thread)?;
            (Some(asks.clone()), Some((asks, thread)))
        }
    };
    let parts = Parts {
        connection,
        directory,
        background,
        reader,
        shared: Arc::clone(&shared),
        budget,
        next_position: contents.next_position,
        messages: contents.messages,
        dedupe: contents.dedupe,
        told: options.told,
    };
    let (jobs, taken) = mpsc::channel::<Job>(WAITING_WRITES_MAX);
    let (running, done) = watch::channel(());
    let thread = std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || {
            writer::run(parts, taken);
            drop(running);
        })
        .map_err(no_thread)?;
    let store = Store { inner: Arc::new(Inner::new(jobs, reads, shared, done, thread)) };
    Ok(Opened { store, queues: contents.queues, lost, clean: contents.clean })
}
