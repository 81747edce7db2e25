//! renew: after a failure that was written down, what checks is copied into a fresh database.
//!
//! Where a flush has failed the disk may have other bytes than it shows, or fail there again. So whoever
//! poisons a store leaves a note, and the next opening copies everything that fits its sums into a database
//! of its own, puts that in place, and only then takes the note away: a stop in between starts over. What
//! does not check is counted, and the files it was in are kept beside. What the disk fails to show is not
//! given up: nothing is changed then, and the directory is not opened.
//!
//! The copy stands beside what it copies for a while, and both must fit the bytes of the store: no room is
//! set aside for it, which would halve what every store takes. So it is made where no more than about half is
//! stored. In a fuller one, or on a full disk, all pages are looked through instead; where they are in order
//! the store goes on as it is, says so ([`crate::Condition::doubted`]), and the note stays for the next
//! opening.

use std::io;

use crate::error::OpenError;
use crate::files::{DATABASE, Directory, WAL};
use crate::limits::{COPY_BYTES, DISK_FREE_BYTES, INDEX_BYTES};
use crate::open::Names;
use crate::salvage::{self, Copied, NotCopied};
use crate::space::Budget;
use crate::{AfterPoison, wal};

/// What has become of a directory that was poisoned.
pub(crate) struct Renewed {
    pub(crate) after: AfterPoison,
    /// Messages that were left behind, as far as they can be counted.
    pub(crate) lost: u64,
    /// Why there may be more of them.
    pub(crate) uncounted: Option<String>,
}

/// How it is opened.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) vfs: Option<&'a str>,
    pub(crate) budget: Budget,
    pub(crate) bytes_max: u64,
    /// Damage is somebody else's business.
    pub(crate) salvage: bool,
}

/// Sees to a directory whose disk has failed; `None`: nothing of that is known, or nothing of ours is in it.
pub(crate) fn if_poisoned(
    directory: &Directory,
    means: Means<'_>,
    names: &Names<'_>,
) -> Result<Option<Renewed>, OpenError> {
    let disk = |e: io::Error| names.disk(&e);
    let Some(reason) = directory.poisoned().map_err(disk)? else { return Ok(None) };
    salvage::finish(directory).map_err(disk)?;
    let behind = behind_a_break(directory).map_err(disk)?;
    if !directory.file(DATABASE).exists() {
        // It failed before anything was stored.
        directory.forget_poison().map_err(disk)?;
        return Ok(None);
    }
    salvage::remove_half_made(directory).map_err(disk)?;
    let bytes = match salvage::bytes_of_copy(directory, means.vfs) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(wrong) if wrong.is_damage() => directory.length_of(DATABASE).map_err(disk)?,
        Err(wrong) => return Err(names.wrong(&wrong)),
    };
    let in_place = match no_room(directory, bytes, means).map_err(disk)? {
        Some(why) => why,
        None => match salvage::copy(directory, means.vfs, names) {
            Ok(copied) => {
                let copied = Copied { lost: copied.lost + behind, ..copied };
                put_in_place(directory, &copied, means, names)?;
                let after = AfterPoison { reason, in_place: None };
                return Ok(Some(Renewed { after, lost: copied.lost, uncounted: copied.uncounted }));
            }
            Err(NotCopied::Full) => "the disk is full".to_owned(),
            Err(NotCopied::Failed(error)) => return Err(error),
        },
    };
    if behind == 0 && !means.salvage && !salvage::checks(directory, means.vfs, names)? {
        return Err(names.damaged(format!("its disk has failed ({reason}), and its pages are in no order")));
    }
    let after = AfterPoison { reason, in_place: Some(in_place) };
    Ok(Some(Renewed { after, lost: 0, uncounted: None }))
}

/// Puts a copy in the place of what it was made of, if that was read to its end.
fn put_in_place(
    directory: &Directory,
    copied: &Copied,
    means: Means<'_>,
    names: &Names<'_>,
) -> Result<(), OpenError> {
    let disk = |e: io::Error| names.disk(&e);
    if let Some(said) = copied.disk_failed.as_deref().filter(|_| !means.salvage) {
        salvage::remove_half_made(directory).map_err(disk)?;
        return Err(names.disk(&unread(said)));
    }
    let all_copied = copied.lost == 0 && copied.uncounted.is_none();
    salvage::put_in_place(directory, all_copied).map_err(disk)?;
    directory.forget_poison().map_err(disk)
}

/// What is there but cannot be read may be read another time.
fn unread(said: &str) -> String {
    format!(
        "its disk has failed before and fails again where it is read: {said}. Nothing was changed; it is tried again. \
         Open it once with --queue-salvage to keep what can be read"
    )
}

/// Writes that stand behind a break of what was written ahead: they are lost. A database that was never made whole
/// is removed.
fn behind_a_break(directory: &Directory) -> io::Result<u64> {
    match wal::look(&directory.file(WAL))? {
        wal::Found::Damaged { lost, .. } => return Ok(lost),
        wal::Found::Sound { commits: 0 } => directory.forget_half_made()?,
        wal::Found::Sound { .. } => {}
    }
    Ok(0)
}

/// Why a copy of so many bytes does not fit.
fn no_room(directory: &Directory, bytes: u64, means: Means<'_>) -> io::Result<Option<String>> {
    // It is held again when the store is open.
    directory.release_ballast()?;
    // What is written ahead of the copy, and the indexes of both.
    let needed = bytes + COPY_BYTES + means.budget.message_bytes + 2 * INDEX_BYTES;
    let stored = directory.length_of(DATABASE)? + directory.length_of(WAL)?;
    let own = means.bytes_max.saturating_sub(stored);
    if own < needed {
        return Ok(Some(format!("a copy takes {needed} bytes, and {own} of the store's own are left")));
    }
    let free = directory.free_bytes()?;
    let least = needed + DISK_FREE_BYTES;
    Ok((free < least).then(|| format!("a copy takes {least} bytes, and the disk has {free}")))
}
