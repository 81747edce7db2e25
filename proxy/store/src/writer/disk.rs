//! disk: one without room: how much is missing, and what is taken back once it is there.

use std::sync::Arc;

use super::Writer;
use crate::files::{DATABASE, Directory, WAL};
use crate::limits::PAGE_BYTES;
use crate::space::{Growth, OnDisk};
use crate::sql;

impl Writer<'_> {
    /// Why the disk takes no appends, if so; takes the ballast back when it has room again.
    pub(super) fn full_disk(&mut self, growth: &Growth) -> Option<Arc<str>> {
        let directory = self.directory?;
        if !self.disk_full && self.ballast >= self.budget.ballast {
            return None;
        }
        let mut stands = self.on_disk(directory);
        if !self.disk_full && self.ballast >= self.budget.ballast_beside(stands.inside) {
            return None;
        }
        if stands.would_do_without_wal(&self.budget, growth) {
            self.cut_wal();
            stands = self.on_disk(directory);
        }
        if stands.suffices(&self.budget, growth) && self.hold_ballast(directory, stands.inside) {
            (self.disk_full, self.full) = (false, None);
            return None;
        }
        Some(self.says_full(&stands, growth))
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
    fn cut_wal(&mut self) {
        self.shared.checkpoint.wait();
        // Where that fails for want of room, nothing has changed; another failure has poisoned the store.
        let _ = self.copy_all(sql::CHECKPOINT_TRUNCATE);
    }

    /// Sets aside what is wanted beside so many free bytes of the database.
    fn hold_ballast(&mut self, directory: &Directory, inside: u64) -> bool {
        let wanted = self.budget.ballast_beside(inside);
        if self.ballast < wanted {
            let held = directory.hold_ballast(wanted).unwrap_or(false);
            self.ballast = if held { wanted } else { 0 };
            return held;
        }
        true
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
