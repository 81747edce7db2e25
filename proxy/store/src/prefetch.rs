//! prefetch: asks the kernel for the pages an opening will read, all at once.
//!
//! A million rows of `messages` lie on ten thousand pages between those of their contents; one after the
//! other they take a second from a cold disk. The inner pages of a table name its leaves. All of this is a
//! hint: a page that says something else by now, or nothing that makes sense, costs a read in vain.
//!
//! Format: <https://sqlite.org/fileformat2.html#b_tree_pages>, §1.6.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};

use crate::limits::{PAGE_BYTES, PAGE_LENGTH};

/// The kind of an inner page of a table.
const INNER: u8 = 5;
/// Bytes before the pointers to the cells of an inner page.
const INNER_HEAD_BYTES: usize = 12;
/// Levels of inner pages: five hold more rows than there are positions.
const DEPTH_MAX: usize = 6;

/// Asks for the leaves of the tables that begin at `roots`. Whether it worked is seen in the time alone.
pub(crate) fn leaves_of(file: &File, roots: &[u64]) {
    for root in roots {
        let mut level = vec![*root];
        for _ in 0..DEPTH_MAX {
            let below: Vec<u64> = level.iter().flat_map(|page| children(file, *page)).collect();
            if below.is_empty() {
                break;
            }
            ask_for(file, &below);
            level = below;
            // Below the last inner level there are leaves alone; one look tells.
            if level.first().is_some_and(|page| children(file, *page).is_empty()) {
                break;
            }
        }
    }
}

/// The pages below an inner page; none below a leaf.
fn children(file: &File, page: u64) -> Vec<u64> {
    let mut data = [0; PAGE_LENGTH];
    if page < 2 || file.read_exact_at(&mut data, (page - 1) * PAGE_BYTES).is_err() || data[0] != INNER {
        return Vec::new();
    }
    let cells = usize::from(u16::from_be_bytes([data[3], data[4]]));
    let pointers = data[INNER_HEAD_BYTES..].chunks_exact(2).take(cells);
    let lefts = pointers.filter_map(|two| {
        let at = usize::from(u16::from_be_bytes([two[0], two[1]]));
        number(data.get(at..at + 4)?)
    });
    lefts.chain(number(&data[8..12])).collect()
}

fn number(four: &[u8]) -> Option<u64> {
    Some(u64::from(u32::from_be_bytes(four.try_into().ok()?)))
}

/// Pages that lie side by side are asked for together.
fn ask_for(file: &File, pages: &[u64]) {
    let mut sorted = pages.to_vec();
    sorted.sort_unstable();
    for run in sorted.chunk_by(|one, next| one + 1 == *next) {
        let bytes = NonZeroU64::new(run.len() as u64 * PAGE_BYTES);
        if run[0] == 0 || fadvise(file, (run[0] - 1) * PAGE_BYTES, bytes, Advice::WillNeed).is_err() {
            return;
        }
    }
}
