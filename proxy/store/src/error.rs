//! error: what the disk refuses, and what that means for the message.

use std::path::PathBuf;
use std::sync::Arc;

use crate::message::Position;

/// Why something was not written or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no room. Nothing of it was stored; it may be tried again later.
    #[error("the store is full: {0}")]
    Full(Arc<str>),
    /// It is more than fits this store at any time. Nothing of it was stored, and trying again is no use.
    #[error("{bytes} bytes do not fit the store at once: {bytes_max} do at most")]
    TooLarge {
        /// Bytes of the largest message, or of all pages that the write touches.
        bytes: u64,
        /// Bytes that may be.
        bytes_max: u64,
    },
    /// As many keys are remembered as may be. Nothing of it was stored; it may be tried again when some have been
    /// forgotten.
    #[error("{0} keys are remembered, as many as may be")]
    TooManyKeys(u64),
    /// A write or a flush failed, now or earlier: nobody knows what the disk holds. Nothing is taken
    /// in or handed out until the program is started again.
    #[error("the store cannot be trusted any more, the outcome is unknown: {0}")]
    Poisoned(Arc<str>),
    /// What was read does not fit its checksum.
    #[error("message {position} is damaged: {details}")]
    Damaged {
        /// The message.
        position: Position,
        /// What does not fit.
        details: Arc<str>,
    },
    /// A read failed.
    #[error("the store cannot be read: {0}")]
    Read(Arc<str>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a directory is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// Its format is another one.
    #[error(
        "{directory} has format {found}, this program reads format {known}: use the version that wrote it"
    )]
    Version {
        /// The directory.
        directory: PathBuf,
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It belongs to another workload.
    #[error(
        "{directory} belongs to another owner, {found}, and this is {owner}: give it a directory of its own. If it was handed over on purpose, remove the file lock in it while nobody has it open"
    )]
    Owner {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        owner: String,
    },
    /// It is not what was written.
    #[error("{directory} is damaged: {details}. Open it once with --queue-salvage to keep what can be read")]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What is wrong.
        details: String,
    },
    /// Its file system cannot keep what it is given.
    #[error(
        "{directory} is on {kind}, which keeps nothing over a crash: use a volume of the pod, or allow it (--queue-allow-volatile)"
    )]
    NotDurable {
        /// The directory.
        directory: PathBuf,
        /// The file system.
        kind: String,
    },
    /// The configured size leaves no room.
    #[error("{0}")]
    TooSmall(String),
    /// The disk refused.
    #[error("{directory} cannot be opened: {details}")]
    Disk {
        /// The directory.
        directory: PathBuf,
        /// What was said.
        details: String,
    },
}
