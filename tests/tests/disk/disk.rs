//! disk: what a disk has of the files of a directory, and which call on them fails.
//!
//! The real files are what the kernel shows. Here stands, for each, what a power cut leaves: bytes that
//! were flushed, and the writes since, of which each sector of 512 bytes has any version there was. A
//! failed flush takes some of the writes to the disk and forgets the rest, though the real file goes on
//! showing them and later flushes succeed: so do ext4 and xfs (Rebello et al., USENIX ATC 2020); every
//! descriptor that was open then is told once (`errseq_t`, Linux 4.13). Names are kept by a flush of the directory, which SQLite makes with the first flush of a new file for
//! writing ahead. What is not modelled: the store's `lock` and `ballast`, which hold no data.

mod image;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use image::{Image, SECTOR_BYTES, Step};
use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR_DELETE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_READ,
    SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE, SQLITE_OK,
};

use crate::vfs::keeping_errno;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Call {
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    Delete,
    /// The index of the file for writing ahead is to grow.
    Index,
}

impl Call {
    pub(crate) const ALL: [Self; 7] =
        [Self::Open, Self::Read, Self::Write, Self::Sync, Self::Truncate, Self::Delete, Self::Index];

    /// It changes what a crash leaves behind.
    fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Sync | Self::Truncate | Self::Delete)
    }

    fn failed(self) -> i32 {
        match self {
            Self::Open => SQLITE_CANTOPEN,
            Self::Read => SQLITE_IOERR_READ,
            Self::Write => SQLITE_IOERR_WRITE,
            Self::Sync => SQLITE_IOERR_FSYNC,
            Self::Truncate => SQLITE_IOERR_TRUNCATE,
            Self::Delete => SQLITE_IOERR_DELETE,
            Self::Index => SQLITE_IOERR_SHMSIZE,
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// EIO.
    Io,
    /// ENOSPC; a flush says so as any failure.
    Full,
    /// EDQUOT, of a write: SQLite tells of it as of any write that failed.
    Quota,
    /// A short count, and EIO for the rest. (SQLite's Unix VFS asks for the rest by itself: a short count
    /// alone never reaches SQLite, and for a read it would say that the file ends there.)
    PartIo,
    /// A short count, and ENOSPC for the rest.
    PartFull,
}

/// Calls that are to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    /// The number of the first, from 1.
    pub(crate) first: u64,
    /// How many.
    pub(crate) times: u64,
    pub(crate) failure: Failure,
}

/// A call that always fails from then on.
pub(crate) const FOR_GOOD: u64 = u64::MAX / 2;

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Pass,
    Fail(i32),
    /// As that, for want of quota.
    Quota(i32),
    /// So many bytes are done, then this.
    Part(usize, i32),
}

/// What a crash keeps of what was not flushed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep {
    Nothing,
    /// As after a stop of the process alone.
    Everything,
    /// Any version of each sector.
    Torn,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<String, Image>,
    /// Deleted, and the directory was not flushed since.
    deleted: BTreeMap<String, Image>,
    calls: HashMap<Call, u64>,
    faults: Vec<Fault>,
    fired: u64,
    /// Calls that change something until the power goes.
    until_crash: Option<u64>,
    dead: bool,
    lies: bool,
    random: fastrand::Rng,
}

/// A disk that is watched.
pub(crate) struct Disk {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

static DISKS: LazyLock<Mutex<HashMap<PathBuf, Weak<Disk>>>> = LazyLock::new(Mutex::default);

fn disks() -> MutexGuard<'static, HashMap<PathBuf, Weak<Disk>>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Disk {
    fn drop(&mut self) {
        disks().remove(&self.directory);
    }
}

impl Disk {
    /// A disk that has these files.
    pub(crate) fn with(directory: &Path, files: &Files, seed: u64) -> Arc<Self> {
        crate::vfs::register();
        let directory = directory.canonicalize().expect("it is there");
        let mut inner = Inner { random: fastrand::Rng::with_seed(seed), ..Inner::default() };
        for (name, bytes) in files {
            std::fs::write(directory.join(name), bytes).expect("it is written");
            let image = Image { flushed: bytes.clone(), named: true, ..Image::default() };
            inner.files.insert(name.clone(), image);
        }
        let disk = Arc::new(Self { directory: directory.clone(), inner: Mutex::new(inner) });
        disks().insert(directory, Arc::downgrade(&disk));
        disk
    }

    /// The disk of a directory.
    pub(crate) fn of(directory: &Path) -> Option<Arc<Self>> {
        disks().get(directory).and_then(Weak::upgrade)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        keeping_errno(|| self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// These calls are to fail, counted from now on.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        let mut inner = self.inner();
        inner.calls.clear();
        inner.fired = 0;
        inner.faults = faults.to_vec();
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.inner().faults.clear();
    }

    /// Calls that were made to fail.
    pub(crate) fn fired(&self) -> u64 {
        self.inner().fired
    }

    /// Calls of a kind since [`Disk::fail`].
    pub(crate) fn calls(&self, call: Call) -> u64 {
        self.inner().calls.get(&call).copied().unwrap_or(0)
    }

    /// The power goes with the `calls`-th change from now on, which is not done; `None`: it does not.
    pub(crate) fn crash_in(&self, calls: Option<u64>) {
        self.inner().until_crash = calls;
    }

    /// The power goes now.
    pub(crate) fn cut_power(&self) {
        self.inner().dead = true;
    }

    /// The power has gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// Where the last write to a file ended.
    pub(crate) fn end_of(&self, name: &str) -> usize {
        self.inner().files.get(name).map_or(0, |image| image.end)
    }

    /// From now on flushes succeed and do nothing: for the proof that the tests see it.
    pub(crate) fn lie(&self) {
        self.inner().lies = true;
    }

    /// What is there once the power is back.
    pub(crate) fn left(&self, keep: Keep) -> Files {
        let Inner { files, deleted, random, .. } = &mut *self.inner();
        let mut left = Files::new();
        for (name, image) in deleted.iter() {
            let back = match keep {
                Keep::Nothing => true,
                Keep::Everything => false,
                Keep::Torn => random.bool(),
            };
            if back && image.named {
                left.insert(name.clone(), image.left(keep, random));
            }
        }
        for (name, image) in files.iter() {
            let named = image.named
                || match keep {
                    Keep::Nothing => false,
                    Keep::Everything => true,
                    Keep::Torn => random.bool(),
                };
            if named {
                left.insert(name.clone(), image.left(keep, random));
            }
        }
        left
    }

    /// Before a call.
    pub(crate) fn asks(&self, call: Call) -> Verdict {
        self.asks_for(call, 0, 0)
    }

    /// Before a call of `bytes` bytes; a part of them ends with a sector.
    pub(crate) fn asks_for(&self, call: Call, at: usize, bytes: usize) -> Verdict {
        let Inner { calls, faults, fired, until_crash, dead, random, .. } = &mut *self.inner();
        if let Some(left) = until_crash
            && call.changes()
        {
            *left = left.saturating_sub(1);
            *dead |= *left == 0;
        }
        if *dead {
            return Verdict::Fail(call.failed());
        }
        let number = calls.entry(call).or_default();
        *number += 1;
        let hit =
            |fault: &&Fault| fault.call == call && (fault.first..fault.first + fault.times).contains(number);
        let Some(fault) = faults.iter().find(hit) else { return Verdict::Pass };
        *fired += 1;
        let full = if call == Call::Write { SQLITE_FULL } else { call.failed() };
        match fault.failure {
            Failure::Io => Verdict::Fail(call.failed()),
            Failure::Quota => Verdict::Quota(call.failed()),
            Failure::Full => Verdict::Fail(full),
            Failure::PartIo | Failure::PartFull => {
                let code = if fault.failure == Failure::PartFull { full } else { call.failed() };
                let ends = at / SECTOR_BYTES + 1..(at + bytes).div_ceil(SECTOR_BYTES);
                if ends.is_empty() {
                    return Verdict::Fail(code);
                }
                Verdict::Part(random.usize(ends) * SECTOR_BYTES - at, code)
            }
        }
    }

    /// A file was opened; returns the failed flushes its descriptor is not told of.
    pub(crate) fn opened(&self, name: &str) -> u64 {
        self.inner().files.entry(name.to_owned()).or_default().failures
    }

    pub(crate) fn deleted(&self, name: &str, names_flushed: bool) {
        let inner = &mut *self.inner();
        if inner.dead {
            return;
        }
        if let Some(image) = inner.files.remove(name) {
            inner.deleted.insert(name.to_owned(), image);
        }
        if names_flushed {
            inner.flush_names();
        }
    }

    pub(crate) fn wrote(&self, name: &str, at: usize, bytes: &[u8]) {
        self.step(name, || Step::Write(at, bytes.to_vec()));
    }

    pub(crate) fn cut(&self, name: &str, bytes: usize) {
        self.step(name, || Step::Cut(bytes));
    }

    fn step(&self, name: &str, step: impl FnOnce() -> Step) {
        let inner = &mut *self.inner();
        if !inner.dead
            // A deleted file may still be written to; nobody finds it again.
            && let Some(image) = inner.files.get_mut(name)
        {
            let step = step();
            image.end = step.end(0);
            image.since.push(step);
        }
    }

    /// A flush by a descriptor that was told of so many failures; returns SQLite's code.
    pub(crate) fn flushed(&self, name: &str, names_too: bool, told: &AtomicU64) -> i32 {
        let verdict = self.asks(Call::Sync);
        let inner = &mut *self.inner();
        let code = match verdict {
            Verdict::Pass => SQLITE_OK,
            Verdict::Fail(code) | Verdict::Quota(code) | Verdict::Part(_, code) => code,
        };
        if inner.dead {
            return if code == SQLITE_OK { SQLITE_IOERR_FSYNC } else { code };
        }
        if inner.lies {
            return SQLITE_OK;
        }
        let Some(image) = inner.files.get_mut(name) else { return code };
        let keep = if code == SQLITE_OK { Keep::Everything } else { Keep::Torn };
        image.flushed = image.left(keep, &mut inner.random);
        image.since.clear();
        image.failures += u64::from(code != SQLITE_OK);
        if told.swap(image.failures, Ordering::Relaxed) < image.failures {
            return SQLITE_IOERR_FSYNC;
        }
        if names_too {
            inner.flush_names();
        }
        SQLITE_OK
    }
}

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

impl Inner {
    fn flush_names(&mut self) {
        self.deleted.clear();
        self.files.values_mut().for_each(|image| image.named = true);
    }
}
