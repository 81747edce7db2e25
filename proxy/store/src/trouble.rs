//! trouble: what a failed statement means for what was to be written.

use std::io;

use rusqlite::ffi::{SQLITE_ERROR, SQLITE_IOERR_WRITE};
use rusqlite::{Error, ErrorCode};
use rustix::io::Errno;

/// Why a transaction was not committed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No room; nothing of it was written.
    Full(String),
    /// An outsider holds the files; nothing of it was written.
    Busy(String),
    /// Nobody knows what the disk holds.
    Broken(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        if is_full(&error) {
            return Self::Full(error.to_string());
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error.to_string()),
            _ => Self::Broken(described(&error)),
        }
    }
}

/// An error with its extended code, which names the call that failed.
pub(crate) fn described(error: &Error) -> String {
    match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite code {})", code.extended_code),
        None => error.to_string(),
    }
}

/// The disk had no room for a write; to be asked at once. SQLite knows that of ENOSPC alone and tells of a
/// quota that is used up (EDQUOT) as of any write that failed: then the thread's `errno` says what it was,
/// which is what `sqlite3_system_errno` would ask too. A flush that fails for want of room is no full disk
/// but a failed flush, with either.
pub(crate) fn is_full(error: &Error) -> bool {
    let errno = Errno::from_io_error(&io::Error::last_os_error());
    match error.sqlite_error() {
        Some(code) if code.code == ErrorCode::DiskFull => true,
        Some(code) => code.extended_code == SQLITE_IOERR_WRITE && errno == Some(Errno::DQUOT),
        None => false,
    }
}

/// A call on a file of our own had no room.
pub(crate) fn has_no_room(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// It is not what was written: pages that are in no order, a value of another type (which is no error of
/// SQLite's), or a schema in which our statements make no sense.
pub(crate) fn is_damage(error: &Error) -> bool {
    match error.sqlite_error() {
        Some(code) => {
            matches!(code.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || code.extended_code == SQLITE_ERROR
        }
        None => true,
    }
}

/// The disk failed.
pub(crate) fn is_io(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure))
}
