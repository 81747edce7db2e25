//! statements: what the writer says to SQLite, prepared once, so that the hot way does not look it up.

use rusqlite::{Connection, Statement};

use crate::sql;

macro_rules! prepared {
    ($($field:ident = $text:ident,)*) => {
        /// The statements that write.
        pub(super) struct Statements<'c> { $(pub(super) $field: Statement<'c>,)* }

        impl<'c> Statements<'c> {
            pub(super) fn over(connection: &'c Connection) -> rusqlite::Result<Self> {
                Ok(Self { $($field: connection.prepare(sql::$text)?,)* })
            }
        }
    };
}

prepared! {
    begin = BEGIN_WRITE,
    commit = COMMIT,
    rollback = ROLLBACK,
    page_count = PAGE_COUNT,
    free_count = FREE_COUNT,
    wal_state = WAL_STATE,
    meta_next = META_NEXT,
    message_insert = MESSAGE_INSERT,
    message_begin = MESSAGE_BEGIN,
    message_retry = MESSAGE_RETRY,
    message_bury = MESSAGE_BURY,
    message_redrive = MESSAGE_REDRIVE,
    message_quarantine = MESSAGE_QUARANTINE,
    message_stands = MESSAGE_STANDS,
    message_delete = MESSAGE_DELETE,
    content_insert = CONTENT_INSERT,
    content_delete = CONTENT_DELETE,
    history_put = HISTORY_PUT,
    history_delete = HISTORY_DELETE,
    verdict_insert = VERDICT_INSERT,
    verdict_delete = VERDICT_DELETE,
    ended_insert = ENDED_INSERT,
    ended_delete = ENDED_DELETE,
    ended_first = ENDED_FIRST,
    ended_scan = ENDED_SCAN,
    result_insert = RESULT_INSERT,
    result_delete = RESULT_DELETE,
    result_first = RESULT_FIRST,
    dedupe_insert = DEDUPE_INSERT,
    dedupe_row = DEDUPE_ROW,
    dedupe_delete = DEDUPE_DELETE,
}
