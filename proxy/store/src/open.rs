//! open: take the directory, look before SQLite does, read what stands in it, start the threads.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use crate::check::Check;
use crate::checkpoint::Background;
use crate::dedupe::Generations;
use crate::error::OpenError;
use crate::files::{DATABASE, Directory, WAL};
use crate::limits::{
    CHECKPOINT_CACHE_KIB, DEDUPE_ROWS_MAX, READER_CACHE_KIB, WAITING_READS_MAX, WAITING_WRITES_MAX,
    WRITER_CACHE_KIB,
};
use crate::message::{Entry, QueueId, QueueRow};
use crate::reader::{self, Read};
use crate::scan::{self, Contents, Wrong};
use crate::schema::{self, Format};
use crate::shared::Shared;
use crate::space::Budget;
use crate::trouble::{described, is_damage, is_full};
use crate::writer::{self, Job, Parts};
use crate::{Inner, Options, Store, prefetch, renew, salvage, sql, wal};

/// What was found in a directory.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Its queues.
    pub queues: Vec<QueueRow>,
    /// Messages that had to be left behind because they do not check, as far as they could be counted. The
    /// files they were in are beside.
    pub lost: u64,
    /// Why there may be more of them.
    pub uncounted: Option<String>,
    /// The disk had failed before.
    pub after_poison: Option<AfterPoison>,
}

/// What an opening did about a disk that had failed: what checks was copied into a fresh database, or
/// everything was looked through where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfterPoison {
    /// How it had failed.
    pub reason: String,
    /// Why nothing was copied.
    pub in_place: Option<String>,
}

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

    pub(crate) fn wrong(&self, wrong: &Wrong) -> OpenError {
        match wrong {
            Wrong::Sqlite(error) => self.sqlite(error),
            Wrong::Value(why) => self.damaged(why.clone()),
        }
    }

    pub(crate) fn damaged(&self, details: String) -> OpenError {
        OpenError::Damaged { directory: self.directory.to_owned(), details }
    }

    pub(crate) fn disk(&self, details: &dyn std::fmt::Display) -> OpenError {
        OpenError::Disk { directory: self.directory.to_owned(), details: details.to_string() }
    }
}

/// Opens a store. See [`Store::open`].
pub(crate) fn open(options: Options, each: &mut dyn FnMut(Entry)) -> Result<Opened, OpenError> {
    let budget = Budget::of(options.bytes_max, options.directory.is_some())?;
    match &options.directory {
        None => in_memory(options, budget, each),
        Some(path) => {
            let directory = Directory::take(path, options.allow_volatile)?;
            refuse_anothers(&directory, options.owner.as_deref())?;
            on_disk(options, directory, budget, each)
        }
    }
}

/// Another workload's messages are not for us to deliver.
fn refuse_anothers(directory: &Directory, owner: Option<&str>) -> Result<(), OpenError> {
    let Some(owner) = owner else { return Ok(()) };
    let found = directory.owner().map_err(|e| Names { directory: directory.path() }.disk(&e))?;
    found.filter(|found| found != owner).map_or(Ok(()), |found| {
        Err(OpenError::Owner { directory: directory.path().to_owned(), found, owner: owner.to_owned() })
    })
}

/// One that was nobody's becomes ours once it is open.
fn take_possession(directory: &Directory, owner: Option<&str>) -> std::io::Result<()> {
    match owner {
        Some(owner) if directory.owner()?.is_none() => directory.belongs_to(owner),
        _ => Ok(()),
    }
}

fn in_memory(options: Options, budget: Budget, each: &mut dyn FnMut(Entry)) -> Result<Opened, OpenError> {
    let names = Names { directory: Path::new(":memory:") };
    let connection = Connection::open_in_memory().map_err(|e| names.sqlite(&e))?;
    let made = schema::set_up(&connection, WRITER_CACHE_KIB, budget.pages)
        .and_then(|()| schema::create(&connection, false));
    made.map_err(|e| names.sqlite(&e))?;
    let wrong = |wrong: Wrong| names.wrong(&wrong);
    let meta = scan::meta(&connection).map_err(wrong)?;
    let messages = scan::messages(&connection, meta, each).map_err(wrong)?;
    let keys_max = options.keys_max.min(DEDUPE_ROWS_MAX);
    let contents = Contents { queues: Vec::new(), messages, dedupe: Generations::default(), meta };
    let shared = Arc::new(Shared::new(options.bytes_max, options.told));
    let (directory, background, check, reads, found) = (None, None, None, None, Before::default());
    start(Ready {
        connection,
        directory,
        background,
        check,
        reads,
        shared,
        budget,
        ballast: 0,
        keys_max,
        contents,
        found,
    })
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
    let gone = if salvage::is_unfinished(&directory) { Ok(None) } else { directory.gone() };
    let found = match gone.map_err(|e| names.disk(&e))? {
        None => Before::of(&directory, &options, budget, &names)?,
        Some(how) if !options.salvage => return Err(names.damaged(how)),
        Some(how) => Before::nothing(&directory, vfs, how, &names)?,
    };
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
    let keys = std::thread::spawn(move || (scan::keys(&reads), reads));
    let meta = scan::meta(&connection);
    let messages = meta.and_then(|meta| Ok((meta, scan::messages(&connection, meta, each)?)));
    let (keys, reads) = keys.join().map_err(|_| names.disk(&"the reader of its keys ended"))?;
    let wrong = |wrong: Wrong| names.wrong(&wrong);
    let (meta, messages) = messages.map_err(wrong)?;
    let (dedupe, queues) = (keys.map_err(wrong)?, scan::queues(&connection).map_err(wrong)?);
    let mut contents = Contents { queues, messages, dedupe, meta };
    make_up_queues(&connection, &mut contents).map_err(|e| names.sqlite(&e))?;
    take_possession(&directory, options.owner.as_deref()).map_err(|e| names.disk(&e))?;
    let ballast = directory.hold_ballast(budget.ballast).map_err(|e| names.disk(&e))?;
    let keys_max = options.keys_max.min(DEDUPE_ROWS_MAX);
    let shared = Shared::new(options.bytes_max, options.told);
    let shared = Arc::new(shared.over(directory.poison_note(), found.doubt()));
    let background = Background::start(further(CHECKPOINT_CACHE_KIB)?, Arc::clone(&shared));
    let background = Some(background.map_err(|e| names.disk(&e))?);
    let check = match meta.clean {
        true => None,
        false => Some(Check::start(further(READER_CACHE_KIB)?, Arc::clone(&shared))),
    };
    let check = check.transpose().map_err(|e| names.disk(&e))?;
    let (directory, reads) = (Some(directory), Some(reads));
    start(Ready {
        connection,
        directory,
        background,
        check,
        reads,
        shared,
        budget,
        ballast,
        keys_max,
        contents,
        found,
    })
}

/// What had to be done about a directory before it could be opened.
#[derive(Default)]
struct Before {
    after_poison: Option<AfterPoison>,
    lost: u64,
    uncounted: Option<String>,
}

impl Before {
    fn of(
        directory: &Directory,
        options: &Options,
        budget: Budget,
        names: &Names<'_>,
    ) -> Result<Self, OpenError> {
        let (vfs, bytes_max, salvage) = (options.vfs.as_deref(), options.bytes_max, options.salvage);
        let means = renew::Means { vfs, budget, bytes_max, salvage };
        let renewed = renew::if_poisoned(directory, means, names)?;
        let mut before = renewed.map_or_else(Self::default, |renewed| Self {
            after_poison: Some(renewed.after),
            lost: renewed.lost,
            uncounted: renewed.uncounted,
        });
        if salvage {
            let (lost, uncounted) = salvage::if_damaged(directory, vfs, names)?;
            before.lost += lost;
            before.uncounted = before.uncounted.or(uncounted);
        }
        Ok(before)
    }

    /// Nothing of the database is left, and the store begins anew.
    fn nothing(
        directory: &Directory,
        vfs: Option<&str>,
        how: String,
        names: &Names<'_>,
    ) -> Result<Self, OpenError> {
        salvage::begin_anew(directory, vfs, names)?;
        directory.forget_poison().map_err(|e| names.disk(&e))?;
        Ok(Self { uncounted: Some(format!("nothing could be kept, since {how}")), ..Self::default() })
    }

    /// Why the files are still in doubt.
    fn doubt(&self) -> Option<Arc<str>> {
        let after = self.after_poison.as_ref()?;
        let why = after.in_place.as_ref()?;
        Some(format!("the disk failed before: {}. Not copied: {why}", after.reason).into())
    }
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
        Format::Before => {
            schema::begin_migration(&connection).map_err(sqlite)?;
            connection.execute_batch(sql::COMMIT).map_err(sqlite)?;
        }
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
    schema::look(&connection).map_err(|wrong| names.wrong(&wrong))?;
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

/// A number that messages name and no queue has: a row is made up, so that nobody else is given it and the
/// messages are seen where they stand.
fn make_up_queues(connection: &Connection, contents: &mut Contents) -> rusqlite::Result<()> {
    let known: HashSet<QueueId> = contents.queues.iter().map(|row| row.id).collect();
    let mut named: Vec<QueueId> = contents.messages.keys().copied().collect();
    named.retain(|id| !known.contains(id));
    named.sort_unstable();
    for id in named {
        let name = format!("lost-{}", id.0);
        match connection.execute(sql::QUEUE_COPY, (id.0, &name, &[][..] as &[u8])) {
            // The next opening does it.
            Err(full) if is_full(&full) => {}
            done => drop(done?),
        }
        contents.queues.push(QueueRow { id, name, settings: Bytes::new() });
    }
    Ok(())
}

/// All that the threads are started with.
struct Ready {
    connection: Connection,
    directory: Option<Directory>,
    background: Option<Background>,
    check: Option<Check>,
    reads: Option<Connection>,
    shared: Arc<Shared>,
    budget: Budget,
    ballast: u64,
    keys_max: u64,
    contents: Contents,
    found: Before,
}

fn start(ready: Ready) -> Result<Opened, OpenError> {
    let Ready { connection, directory, background, check, reads, shared, budget, .. } = ready;
    let (contents, found) = (ready.contents, ready.found);
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
        ballast: ready.ballast,
        keys_max: ready.keys_max,
        next_position: contents.meta.next_position,
        clean: contents.meta.clean,
        check,
        messages: contents.messages,
        dedupe: contents.dedupe,
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
    let Before { after_poison, lost, uncounted } = found;
    Ok(Opened { store, queues: contents.queues, lost, uncounted, after_poison })
}
