//! room: whether a write fits, told before its first step.

use std::sync::Arc;

use super::{Work, Writer};
use crate::error::StoreError;
use crate::limits::{EVICT_AHEAD_BYTES, PAGE_BYTES};
use crate::message::Change;
use crate::space::{Growth, taken_bytes};
use crate::trouble::Trouble;

/// Pages that a transaction may still take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    appends: u64,
    settles: u64,
}

impl Writer<'_> {
    /// Why a write is not even begun: it would not fit.
    pub(super) fn refusal_of(
        &mut self,
        work: &Work,
        room: &mut Room,
        refused: Option<&Arc<str>>,
    ) -> Result<Option<StoreError>, Trouble> {
        let growth = Growth::of(work.changes());
        if let Some(refusal) = self.never_fits(&growth) {
            return Ok(Some(refusal));
        }
        let is_new = work.appends() && !work.settles();
        if is_new && let Some(refusal) = self.keys_refused(work.changes())? {
            return Ok(Some(refusal));
        }
        let reason = match refused {
            _ if !work.appends() => None,
            _ if work.settles() => self.told_refused(work.changes(), &growth, *room)?,
            Some(reason) => Some(Arc::clone(reason)),
            None => self.too_full(growth.pages(), *room),
        };
        if reason.is_some() {
            return Ok(reason.map(StoreError::Full));
        }
        let pages = growth.append_bytes.div_ceil(PAGE_BYTES);
        room.appends = room.appends.saturating_sub(pages);
        room.settles = room.settles.saturating_sub(pages);
        Ok(None)
    }

    /// Why a message cannot be stored with the end of another: it takes neither what that one leaves nor what
    /// may be taken of the room for settles.
    fn told_refused(
        &mut self,
        changes: &[Change],
        growth: &Growth,
        room: Room,
    ) -> Result<Option<Arc<str>>, Trouble> {
        if room.settles >= growth.pages() + self.budget.told_pages {
            return Ok(None);
        }
        let mut left = 0;
        for change in changes {
            if let Change::End { position, .. } = change {
                left += self.stands(*position)?.map_or(0, |stands| taken_bytes(stands.bytes));
            }
        }
        Ok((growth.append_bytes > left)
            .then(|| "as much is stored as may be, and more would tell of it".into()))
    }

    /// It is larger than whatever may become free.
    fn never_fits(&self, growth: &Growth) -> Option<StoreError> {
        let (bytes, bytes_max) = (growth.largest, self.budget.message_bytes);
        if bytes > bytes_max {
            return Some(StoreError::TooLarge { bytes, bytes_max });
        }
        let (pages, pages_max) = (growth.pages(), self.budget.write_pages);
        (pages > pages_max && growth.settle_pages > 0)
            .then(|| StoreError::TooLarge { bytes: pages * PAGE_BYTES, bytes_max: pages_max * PAGE_BYTES })
    }

    fn too_full(&mut self, pages: u64, room: Room) -> Option<Arc<str>> {
        if pages <= room.appends {
            return None;
        }
        let reason: Arc<str> = Arc::from("as much is stored as may be");
        self.full = Some(Arc::clone(&reason));
        self.wanted = pages;
        Some(reason)
    }

    /// Pages left, after results and records have made room for appends if they must.
    pub(super) fn make_room(&mut self, growth: &Growth) -> Result<Room, Trouble> {
        let mut room = self.room()?;
        let appends = growth.append_bytes.div_ceil(PAGE_BYTES);
        if room.appends >= appends && room.settles >= appends + growth.settle_pages {
            return Ok(room);
        }
        let enough = appends + growth.settle_pages + EVICT_AHEAD_BYTES / PAGE_BYTES;
        while self.evictable && room.appends < enough {
            self.evictable = self.evict()?;
            room = self.room()?;
        }
        Ok(room)
    }

    fn room(&mut self) -> Result<Room, Trouble> {
        let used = self.used_pages()?;
        Ok(Room {
            appends: self.budget.append_pages.saturating_sub(used),
            settles: self.budget.pages.saturating_sub(used),
        })
    }

    pub(super) fn used_pages(&mut self) -> rusqlite::Result<u64> {
        let all: i64 = self.statements.page_count.query_row([], |row| row.get(0))?;
        let free: i64 = self.statements.free_count.query_row([], |row| row.get(0))?;
        Ok((all - free).max(0) as u64)
    }
}
