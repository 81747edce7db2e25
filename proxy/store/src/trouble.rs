//! trouble: what a failed statement means for what was to be written.

use rusqlite::{Error, ErrorCode};

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
        let said = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(said),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(said),
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

/// The pages are not those that were written.
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// The disk failed.
pub(crate) fn is_io(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure))
}
