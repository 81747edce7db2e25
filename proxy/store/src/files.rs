//! files: the directory of a store: who has it, what it is on, and what is thrown away before it is read.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind::{NotFound, PermissionDenied};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags};

use crate::error::OpenError;
use crate::limits::{OWNER_BYTES_MAX, PAGE_BYTES, REASON_BYTES_MAX};
use crate::trouble::has_no_room;
use crate::wal;

/// The database.
pub(crate) const DATABASE: &str = "messages.db";
/// What was written ahead of it.
pub(crate) const WAL: &str = "messages.db-wal";
/// SQLite's index of that.
pub(crate) const INDEX: &str = "messages.db-shm";
/// What SQLite keeps aside while it makes the database, before it writes ahead.
pub(crate) const JOURNAL: &str = "messages.db-journal";
/// Held by the process that has the directory.
const LOCK: &str = "lock";
/// Room for settles while the disk is full. Where it is there was a database once.
pub(crate) const BALLAST: &str = "ballast";
/// Why the disk was not trusted any more by whoever had the directory before.
const POISONED: &str = "poisoned";

/// What is stored is for whoever runs the program alone: bodies, and headers of applications.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// File systems that forget: the magic number (`statfs(2)`) and the name.
const FORGETFUL: &[(u64, &str)] = &[
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x0000_6969, "NFS, whose flushes depend on its server"),
    (0xff53_4d42, "CIFS, whose flushes depend on its server"),
    (0xfe53_4d42, "SMB, whose flushes depend on its server"),
    (0x0102_1997, "9p, whose flushes depend on its host"),
];

/// A directory that is ours until this is dropped.
pub(crate) struct Directory {
    path: PathBuf,
    /// The database, opened before SQLite does and closed after it: closing any descriptor of a file
    /// lets go the locks that the process has on it (POSIX, fcntl(2)), and another program that then
    /// reads the database takes the file for writing ahead away.
    database: Option<File>,
    /// Its content is the owner's name and a line feed: without that it is nobody's.
    lock: File,
}

impl Directory {
    /// Makes it if it is not there and takes it.
    pub(crate) fn take(path: &Path, allow_volatile: bool) -> Result<Self, OpenError> {
        let disk = |source: &dyn std::fmt::Display, doing: &str| OpenError::Disk {
            directory: path.to_owned(),
            details: format!("{doing}: {source}"),
        };
        // One that is there keeps its mode.
        let mut make = DirBuilder::new();
        make.recursive(true).mode(DIRECTORY_MODE);
        make.create(path).map_err(|e| disk(&e, "making it"))?;
        if !allow_volatile {
            refuse_forgetful(path)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(path.join(LOCK))
            .map_err(|e| disk(&e, "its lock"))?;
        match lock.try_lock() {
            Ok(()) => {
                let taken = Self { path: path.to_owned(), database: None, lock };
                taken.make_private().map_err(|e| disk(&e, "the modes of its files"))?;
                Ok(taken)
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(disk(&source, "its lock")),
        }
    }

    /// Takes files of an earlier version from everybody else. Those that are somebody else's stay as they are.
    fn make_private(&self) -> io::Result<()> {
        let named = [LOCK, BALLAST, POISONED].map(|name| self.file(name));
        // Of this database, and of those that a salvage has left beside.
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let of_databases = entries.map(|entry| entry.path()).filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(".db"))
        });
        for file in of_databases.chain(named) {
            let set = match std::fs::metadata(&file) {
                Ok(found) if found.permissions().mode() & 0o077 == 0 => Ok(()),
                Ok(_) => std::fs::set_permissions(&file, Permissions::from_mode(FILE_MODE)),
                Err(missing) => Err(missing),
            };
            match set {
                Err(error) if !matches!(error.kind(), NotFound | PermissionDenied) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is; `None` if it is nobody's, or was not written to its end.
    pub(crate) fn owner(&self) -> io::Result<Option<String>> {
        let mut said = vec![0; OWNER_BYTES_MAX];
        let read = self.lock.read_at(&mut said, 0)?;
        let said = String::from_utf8_lossy(&said[..read]);
        Ok(said.split_once('\n').map(|(owner, _)| owner.to_owned()).filter(|owner| !owner.is_empty()))
    }

    /// Notes whose it is. On a full disk that is left to the next opening.
    pub(crate) fn belongs_to(&self, owner: &str) -> io::Result<()> {
        match self.lock.write_all_at(format!("{owner}\n").as_bytes(), 0) {
            Err(full) if has_no_room(&full) => Ok(()),
            written => written.and_then(|()| self.lock.sync_all()),
        }
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the kernel forget what it holds of the files. After a failed flush it shows pages that the
    /// disk does not have, even to a new process, and calls them clean.
    pub(crate) fn forget_pages(&self) -> io::Result<()> {
        for name in [DATABASE, WAL] {
            match File::open(self.file(name)) {
                Ok(file) => rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?,
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Removes a database whose making was cut off: without a commit written ahead, and of no more than
    /// its first page, it has no table, and so nothing was ever stored in it.
    pub(crate) fn forget_half_made(&self) -> io::Result<()> {
        match std::fs::metadata(self.file(DATABASE)) {
            Ok(found) if found.len() <= PAGE_BYTES => {}
            Ok(_) => return Ok(()),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(other) => return Err(other),
        }
        for name in [DATABASE, WAL, INDEX, JOURNAL] {
            remove(&self.file(name))?;
        }
        self.flush_names()
    }

    /// How the database is gone, if there was one; `None` if it is there or was never made. Two things prove that
    /// it was: the ballast, which is made when the database and its name are on the disk; and commits that were
    /// written ahead, since its first page is flushed before that file is made.
    pub(crate) fn gone(&self) -> io::Result<Option<String>> {
        let written_ahead = !matches!(wal::look(&self.file(WAL))?, wal::Found::Sound { commits: 0 });
        let proven = self.file(BALLAST).exists();
        let bytes = match std::fs::metadata(self.file(DATABASE)) {
            Ok(found) => found.len(),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                return Ok((proven || written_ahead).then(|| format!("{DATABASE} is missing")));
            }
            Err(other) => return Err(other),
        };
        // With one page all the rest of it is written ahead.
        let too_short = if written_ahead { bytes < PAGE_BYTES } else { proven && bytes <= PAGE_BYTES };
        Ok(too_short.then(|| format!("{DATABASE} has {bytes} bytes, of which nothing can be read")))
    }

    /// Opens the database for looks of our own, if it is there; before SQLite opens it.
    pub(crate) fn hold_database(&mut self) -> io::Result<()> {
        self.database = match File::open(self.file(DATABASE)) {
            Ok(file) => Some(file),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => None,
            Err(other) => return Err(other),
        };
        Ok(())
    }

    /// The database as it is held; `None` if it is new.
    pub(crate) fn database(&self) -> Option<&File> {
        self.database.as_ref()
    }

    /// Where a poison is written down.
    pub(crate) fn poison_note(&self) -> PoisonNote {
        PoisonNote(self.file(POISONED))
    }

    /// Why it was poisoned, if that was written down; as much of it as can be read.
    pub(crate) fn poisoned(&self) -> io::Result<Option<String>> {
        let mut said = Vec::new();
        match File::open(self.file(POISONED)) {
            Ok(file) => file.take(REASON_BYTES_MAX).read_to_end(&mut said)?,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(other),
        };
        let said = String::from_utf8_lossy(&said);
        Ok(Some(if said.is_empty() { "nobody knows why".to_owned() } else { said.into_owned() }))
    }

    /// Its files are trusted again.
    pub(crate) fn forget_poison(&self) -> io::Result<()> {
        remove(&self.file(POISONED))?;
        self.flush_names()
    }

    /// Bytes of a file; 0 where there is none.
    pub(crate) fn length_of(&self, name: &str) -> io::Result<u64> {
        match std::fs::metadata(self.file(name)) {
            Ok(found) => Ok(found.len()),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(other) => Err(other),
        }
    }

    /// Flushes the names of the files in it, and its own name.
    pub(crate) fn flush_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// Bytes a program may still write here, as far as the file system knows.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Sets `bytes` aside; returns how many are, which are those there were when there is no room.
    pub(crate) fn hold_ballast(&self, bytes: u64) -> io::Result<u64> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(self.file(BALLAST))?;
        let held = file.metadata()?.len();
        if held >= bytes {
            return file.set_len(bytes).map(|()| bytes);
        }
        match set_aside(&file, bytes) {
            Ok(()) => Ok(bytes),
            Err(full) if has_no_room(&full) => file.set_len(held).map(|()| held),
            Err(other) => Err(other),
        }
    }

    /// Makes an empty database where there is none, so that a salvage that is cut off begins again.
    pub(crate) fn make_database(&self) -> io::Result<()> {
        let mut made = OpenOptions::new();
        match made.create_new(true).write(true).mode(FILE_MODE).open(self.file(DATABASE)) {
            Ok(file) => file.sync_all().and_then(|()| self.flush_names()),
            Err(there) if there.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Gives back what was set aside.
    pub(crate) fn release_ballast(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).open(self.file(BALLAST)) {
            Ok(file) => file.set_len(0),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(other) => Err(other),
        }
    }
}

/// Where a poison is written down, so that the next opening knows of it.
#[derive(Debug)]
pub(crate) struct PoisonNote(PathBuf);

impl PoisonNote {
    /// Writes why. It is the disk that has just failed: when this fails too, the next opening drops the
    /// kernel's pages and looks, as it always does.
    pub(crate) fn write(&self, reason: &str) -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(&self.0)?;
        let most = usize::try_from(REASON_BYTES_MAX).unwrap_or(usize::MAX);
        // Without room for its bytes its name says enough.
        let written = file.write_all(&reason.as_bytes()[..reason.len().min(most)]);
        file.sync_all()?;
        File::open(self.0.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        written
    }
}

/// Makes a file for ourselves alone unless it is there. SQLite would give it the mode that the umask leaves,
/// and gives the files beside a database the mode of that. One that is there is not opened: closing it would
/// let go SQLite's locks.
///
/// # Errors
/// It is there, or cannot be made.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path).map(drop)
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Takes blocks for `bytes`, by writing them where the file system cannot do it otherwise.
fn set_aside(mut file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => io::copy(&mut io::repeat(0).take(bytes), &mut file).map(|_| ()),
        Err(other) => Err(other.into()),
    }
}

/// Refuses a file system that keeps nothing over a crash.
fn refuse_forgetful(path: &Path) -> Result<(), OpenError> {
    let found = rustix::fs::statfs(path).map_err(|e| OpenError::Disk {
        directory: path.to_owned(),
        details: format!("asking for its file system: {e}"),
    })?;
    // The field is signed on some targets and 32 bits wide on others: the magic is in the lower half.
    let magic = (found.f_type as u64) & 0xffff_ffff;
    match FORGETFUL.iter().find(|(known, _)| *known == magic) {
        Some((_, kind)) => {
            Err(OpenError::NotDurable { directory: path.to_owned(), kind: (*kind).to_owned() })
        }
        None => Ok(()),
    }
}
