//! disk: one without room: how much is missing, and what is taken back once it is there.

use std::sync::Arc;

use super::Writer;
use crate::files::{DATABASE, Directory, WAL};
use crate::limits::PAGE_BYTES;
use crate::space::{Growth, OnDisk};
use crate::sql;
use crate::trouble::Trouble;

impl Writer<'_> {
    /// Why the disk takes no appends, if so; takes the ballast back when it has room again.
    ///
    /// # Errors
    /// A flush has failed, and the store is not to be written any more.
    pub(super) fn full_disk(&mut self, growth: &Growth) -> Result<Option<Arc<str>>, Trouble> {
        let Some(directory) = self.directory else { return Ok(None) };
        if !self.disk_full && self.ballast >= self.budget.ballast {
            return Ok(None);
        }
        let mut stands = self.on_disk(directory);
        if !self.disk_full && self.ballast >= self.budget.ballast_beside(stands.inside) {
            return Ok(None);
        }
        if stands.would_do_without_wal(&self.budget, growth) {
            self.cut_wal()?;
            stands = self.on_disk(directory);
        }
        if stands.suffices(&self.budget, growth) && self.hold_ballast(directory, &stands, growth) {
            (self.disk_full, self.full) = (false, None);
            return Ok(None);
        }
        Ok(Some(self.says_full(&stands, growth)))
    }

    /// A write has found no room.
    pub(super) fn disk_is_full(&mut self, growth: &Growth) -> Arc<str> {
        match self.directory {
            Some(directory) => {
                let stands = self.on_disk(directory);
                self.says_full(&stands, growth)
            }
            None => {
                let reason: Arc<str> = Arc::from("the memory is full");
                self.full = Some(Arc::clone(&reason));
                reason
            }
        }
    }

    fn says_full(&mut self, stands: &OnDisk, growth: &Growth) -> Arc<str> {
        let needed = stands.needed(&self.budget, growth);
        let reason: Arc<str> = Arc::from(format!(
            "the disk is full: {needed} bytes must be free before more is taken in, and {} are",
            stands.free
        ));
        self.disk_full = true;
        self.full = Some(Arc::clone(&reason));
        reason
    }

    /// What cannot be asked counts as nothing, so that it is asked again.
    fn on_disk(&mut self, directory: &Directory) -> OnDisk {
        let pages = |number: rusqlite::Result<i64>| number.unwrap_or(0).max(0) as u64 * PAGE_BYTES;
        let all = pages(self.statements.page_count.query_row([], |row| row.get(0)));
        let file = directory.length_of(DATABASE).unwrap_or(0);
        OnDisk {
            free: directory.free_bytes().unwrap_or(0),
            inside: pages(self.statements.free_count.query_row([], |row| row.get(0))),
            to_grow: all.saturating_sub(file),
            wal: directory.length_of(WAL).unwrap_or(0),
            ballast: self.ballast,
        }
    }

    /// What was written ahead goes into the database and its file gives its room back, unless somebody reads it.
    fn cut_wal(&mut self) -> Result<(), Trouble> {
        self.shared.checkpoint.wait();
        match self.copy_all(sql::CHECKPOINT_TRUNCATE) {
            Err(broken @ Trouble::Broken(_)) => Err(broken),
            // Where that fails for want of room, or somebody reads it, nothing has changed.
            Ok(()) | Err(Trouble::Full(_) | Trouble::Busy(_)) => Ok(()),
        }
    }

    /// Sets aside what is wanted beside the free bytes of the database; all of it where there is room, so that
    /// nothing is to be done as these are used up.
    fn hold_ballast(&mut self, directory: &Directory, stands: &OnDisk, growth: &Growth) -> bool {
        let wanted = self.budget.ballast_beside(stands.inside);
        let spare = stands.free - stands.needed(&self.budget, growth);
        let whole = self.budget.ballast;
        let bytes = if spare >= whole - wanted { whole } else { wanted.max(self.ballast) };
        // What cannot be asked for counts as not held.
        self.ballast = directory.hold_ballast(bytes).unwrap_or(0);
        self.ballast >= wanted
    }

    /// Settles need it more than we do.
    pub(super) fn give_ballast(&mut self) {
        if let Some(directory) = self.directory {
            self.disk_full = true;
            if directory.release_ballast().is_ok() {
                self.ballast = 0;
            }
        }
    }
}
