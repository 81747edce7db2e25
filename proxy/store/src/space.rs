//! space: how the configured bytes are divided, and what a write will come to take of them.

use crate::contents::{PREFIX_BYTES, pieces};
use crate::error::OpenError;
use crate::limits::{
    BALLAST_BYTES_MAX, BALLAST_BYTES_MIN, BALLAST_SHARE, BATCH_BYTES_MAX, BATCH_WAL_SHARE, CHUNK_BYTES,
    DISK_FREE_BYTES, FRAME_HEAD_BYTES, INDEX_BYTES, MESSAGE_BYTES_MAX, PAGE_BYTES, SETTLE_PAGES,
    SETTLE_PAGES_MAX, SETTLE_PAGES_MIN, SETTLE_SHARE, STORE_BYTES_MIN, TOLD_SHARE, WAL_BYTES_MAX,
    WAL_BYTES_MIN, WAL_SHARE,
};
use crate::message::{Change, Draft};

/// Bytes of a page that cells may take in a leaf of a table.
const CELL_BYTES: u64 = PAGE_BYTES - 12;
/// Bytes of a page of a long row.
const OVERFLOW_BYTES: u64 = PAGE_BYTES - 4;
/// Bytes a cell takes beside its data, its place in the page included.
const CELL_HEAD_BYTES: u64 = 12;
/// Bytes of a row of `messages` with its share of inner pages, and of a row of `dedupe`.
const ROW_BYTES: u64 = 64;

/// How the bytes of a store are divided. All but `appends_pages` together stay below `bytes_max`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Pages the database may have.
    pub(crate) pages: u64,
    /// Pages appends may take of them; the rest is for settles.
    pub(crate) append_pages: u64,
    /// Of those for settles, the ones that what an end brings leaves to others.
    pub(crate) told_pages: u64,
    /// Frames at which the file for writing ahead must begin again before anything is written.
    pub(crate) wal_frames: u64,
    /// Bytes set aside for settles on a full disk.
    pub(crate) ballast: u64,
    /// Bytes of the largest message.
    pub(crate) message_bytes: u64,
    /// Bytes of messages in one transaction.
    pub(crate) batch_bytes: u64,
    /// Pages touched in one transaction.
    pub(crate) batch_pages: u64,
    /// Pages one write may touch.
    pub(crate) write_pages: u64,
    /// Bytes that are taken before the first message.
    pub(crate) fixed_bytes: u64,
}

impl Budget {
    /// Divides `bytes_max`.
    pub(crate) fn of(bytes_max: u64, on_disk: bool) -> Result<Self, OpenError> {
        if bytes_max < STORE_BYTES_MIN {
            return Err(OpenError::TooSmall(format!(
                "a store needs at least {STORE_BYTES_MIN} bytes, it is given {bytes_max}"
            )));
        }
        let wal = (bytes_max / WAL_SHARE).clamp(WAL_BYTES_MIN, WAL_BYTES_MAX);
        let ballast = (bytes_max / BALLAST_SHARE).clamp(BALLAST_BYTES_MIN, BALLAST_BYTES_MAX);
        // Settles may pass the bound of the file for writing ahead by a quarter while it cannot begin again.
        let aside = if on_disk { wal + wal / 4 + ballast + INDEX_BYTES } else { 0 };
        let pages = (bytes_max - aside) / PAGE_BYTES;
        let settle_pages = (pages / SETTLE_SHARE).clamp(SETTLE_PAGES_MIN, SETTLE_PAGES_MAX);
        let wal_frames = wal / (PAGE_BYTES + FRAME_HEAD_BYTES);
        let append_pages = pages - settle_pages;
        let (write_pages, message_bytes) =
            if on_disk { (wal_frames, wal / 2) } else { (pages, append_pages * PAGE_BYTES / 2) };
        Ok(Self {
            pages,
            append_pages,
            told_pages: settle_pages / TOLD_SHARE,
            wal_frames,
            ballast,
            message_bytes: message_bytes.min(MESSAGE_BYTES_MAX),
            batch_bytes: BATCH_BYTES_MAX.min(wal / 4),
            batch_pages: write_pages / BATCH_WAL_SHARE,
            write_pages,
            fixed_bytes: aside + settle_pages * PAGE_BYTES,
        })
    }
}

impl Budget {
    /// Bytes to be set aside for settles while the database has so many free ones inside: half of the ballast is
    /// for what was written ahead of it to be copied, which grows into those first.
    pub(crate) fn ballast_beside(&self, inside: u64) -> u64 {
        self.ballast - (self.ballast / 2).min(inside)
    }
}

/// How much room there is for a store on its disk, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnDisk {
    /// Free for anybody.
    pub(crate) free: u64,
    /// Of pages of the database without anything on them.
    pub(crate) inside: u64,
    /// By which its file grows when all that was written ahead is copied.
    pub(crate) to_grow: u64,
    /// Of the file for writing ahead.
    pub(crate) wal: u64,
    /// Set aside for settles.
    pub(crate) ballast: u64,
}

impl OnDisk {
    /// Bytes that must be free before a write is taken: it is written ahead, and then grows the database.
    pub(crate) fn needed(&self, budget: &Budget, growth: &Growth) -> u64 {
        let ballast = budget.ballast_beside(self.inside).saturating_sub(self.ballast);
        let grows = self.to_grow + growth.append_bytes.saturating_sub(self.inside);
        DISK_FREE_BYTES + ballast + growth.append_bytes + grows
    }

    /// There is room for it.
    pub(crate) fn suffices(&self, budget: &Budget, growth: &Growth) -> bool {
        self.free >= self.needed(budget, growth)
    }

    /// There is none, and would be if the file for writing ahead were cut.
    pub(crate) fn would_do_without_wal(&self, budget: &Budget, growth: &Growth) -> bool {
        !self.suffices(budget, growth) && self.free + self.wal >= self.needed(budget, growth)
    }
}

/// What a write will come to take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Growth {
    /// Bytes of pages for drafts.
    pub(crate) append_bytes: u64,
    /// Pages touched by all other steps.
    pub(crate) settle_pages: u64,
    /// Bytes of the largest draft.
    pub(crate) largest: u64,
}

impl Growth {
    /// Adds up the steps of a write.
    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut growth = Self::default();
        for change in changes {
            match change {
                Change::Append(draft) => {
                    growth.append_bytes += append_bytes(draft);
                    growth.largest = growth.largest.max((draft.head.len() + draft.body.len()) as u64);
                }
                other => growth.settle_pages += settle_pages(other),
            }
        }
        growth
    }

    /// Together with another.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            append_bytes: self.append_bytes + other.append_bytes,
            settle_pages: self.settle_pages + other.settle_pages,
            largest: self.largest.max(other.largest),
        }
    }

    /// Pages, begun ones included.
    pub(crate) fn pages(&self) -> u64 {
        self.append_bytes.div_ceil(PAGE_BYTES) + self.settle_pages
    }
}

fn append_bytes(draft: &Draft) -> u64 {
    let key = if draft.dedupe.is_some() { ROW_BYTES } else { 0 };
    key + taken_bytes((draft.head.len() + draft.body.len()) as u64)
}

/// Bytes of pages that a message of `bytes` takes while it is stored.
pub(crate) fn taken_bytes(bytes: u64) -> u64 {
    ROW_BYTES + stored_bytes(PREFIX_BYTES as u64 + bytes)
}

/// Bytes of the pages that a content takes: small ones share a page, large ones have pages of their own.
fn stored_bytes(content: u64) -> u64 {
    let cell = content + CELL_HEAD_BYTES;
    if cell <= CELL_BYTES {
        return PAGE_BYTES / (CELL_BYTES / cell);
    }
    (content.div_ceil(OVERFLOW_BYTES) + 2 * pieces(content)) * PAGE_BYTES
}

fn settle_pages(change: &Change) -> u64 {
    let kept = match change {
        Change::End { record: Some((record, _)), result, .. } => {
            record.len() + result.as_ref().map_or(0, bytes::Bytes::len)
        }
        Change::Bury { history, result, .. } => history.len() + result.as_ref().map_or(0, bytes::Bytes::len),
        Change::Retry { history: Some(history), .. } => history.len(),
        _ => 0,
    };
    // Small records share their page with others of the same transaction; a page each is the safe side.
    SETTLE_PAGES + (kept as u64).div_ceil(OVERFLOW_BYTES) + (kept / CHUNK_BYTES) as u64
}

/// Bytes of a write on its way, for the bound on all of them.
pub(crate) fn waiting_bytes(changes: &[Change]) -> u64 {
    let bytes = |change: &Change| match change {
        Change::Append(draft) => draft.head.len() + draft.body.len(),
        Change::End { record, result, .. } => {
            record.as_ref().map_or(0, |(record, _)| record.len())
                + result.as_ref().map_or(0, bytes::Bytes::len)
        }
        Change::Bury { history, result, .. } => history.len() + result.as_ref().map_or(0, bytes::Bytes::len),
        Change::Retry { history, .. } => history.as_ref().map_or(0, bytes::Bytes::len),
        Change::Begin(_) | Change::Redrive { .. } | Change::Quarantine(_) => 0,
    };
    changes.iter().map(|change| bytes(change) as u64 + 64).sum()
}
