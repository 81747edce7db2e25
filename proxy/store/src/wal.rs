//! wal: looks through the file for writing ahead before SQLite replays it.
//!
//! SQLite replays up to the first frame that does not fit and takes the rest for a torn tail. Since each
//! commit is flushed before the next frame is written, a tail is at most one transaction: a frame that
//! fits *directly behind* the commit of the transaction with the broken frame proves that this transaction was
//! flushed, and perhaps promised. Then the file is damaged, and replaying it would lose commits silently.
//! The same holds where the broken frame is itself a commit and the next one follows from what it says, or
//! ought to say, of itself; and where the head is broken, since that is flushed before any frame is written.
//! So a flipped bit in whatever but the last transaction is seen. Further behind there may be frames of a
//! transaction that an earlier stop had torn; they fit one another, and prove nothing.
//!
//! Format: <https://sqlite.org/fileformat2.html#the_write_ahead_log>, §4.1 and §4.2.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use crate::limits::{PAGE_BYTES, PAGE_LENGTH};

const HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
/// The magic number with the lowest bit cleared; that bit says in which order words are summed up.
const MAGIC: u32 = 0x377f_0682;

/// What a look through the file has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All of it, or all but a torn tail, will be replayed: so many commits.
    Sound {
        /// Commits that replay keeps.
        commits: u64,
    },
    /// Commits stand behind the point where replay ends.
    Damaged {
        /// Commits that replay keeps.
        commits: u64,
        /// The byte where replay ends.
        at: u64,
        /// Commits behind it that replay would lose.
        lost: u64,
    },
}

/// The running sum of §4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum(u32, u32);

/// The head of the file.
struct Head {
    big_endian: bool,
    salt: [u8; 8],
    sum: Sum,
    /// It fits its own sum.
    sound: bool,
}

/// Looks through a file; a missing or empty one is sound.
pub(crate) fn look(path: &Path) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(Found::Sound { commits: 0 }),
        Err(other) => return Err(other),
    };
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut head = [0; HEAD_BYTES];
    if !read_whole(&mut file, &mut head)? {
        return Ok(Found::Sound { commits: 0 });
    }
    walk(&mut file, &Head::read(&head))
}

/// How far replay has come, and what stands behind its end.
#[derive(Default)]
struct Walk {
    commits: u64,
    /// Where replay ends, once it has.
    ended: Option<u64>,
    /// Commits behind that fit the frame before them.
    behind: u64,
    /// The head was broken: what fits behind it was flushed behind it.
    headless: bool,
    /// The frame before is one of those.
    behind_commit: bool,
    /// A frame that fits stands right behind one of those.
    proof: bool,
    /// The sum that the frame that ends replay ought to have, for the next one.
    ought: Option<Sum>,
    /// The sum it has, if it is a commit.
    says: Option<Sum>,
}

fn walk(file: &mut impl Read, head: &Head) -> io::Result<Found> {
    let mut walk = Walk { ended: (!head.sound).then_some(0), headless: !head.sound, ..Walk::default() };
    let mut frame = vec![0; FRAME_HEAD_BYTES + PAGE_LENGTH];
    let mut at = HEAD_BYTES as u64;
    let mut sum = head.sum;
    while read_whole(file, &mut frame)? {
        let stored = Sum(word(&frame[16..]), word(&frame[20..]));
        let current = head.is_current(&frame[8..16]);
        let summed = |before: Sum| head.add(head.add(before, &frame[..8]), &frame[FRAME_HEAD_BYTES..]);
        let commit = word(&frame[4..]) != 0;
        let follows = walk.ought.take().is_some_and(|ought| current && summed(ought) == stored);
        let fits = current && summed(sum) == stored;
        let ended_before = walk.ended.is_some();
        walk.frame(at, fits || follows, commit);
        if !ended_before && walk.ended.is_some() {
            let ours = head.is_nearly_current(&frame[8..16]);
            walk.ought = ours.then(|| summed(sum));
            walk.says = (ours && head.was_commit(sum, &frame).unwrap_or(commit)).then_some(stored);
        } else if let Some(says) = walk.says.take() {
            walk.proof |= follows || (fits && says == sum);
        }
        // Behind the end each frame is held against what the one before it says of itself.
        sum = stored;
        at += frame.len() as u64;
    }
    Ok(match walk.ended {
        Some(at) if walk.proof => Found::Damaged { commits: walk.commits, at, lost: walk.behind },
        _ => Found::Sound { commits: walk.commits },
    })
}

impl Walk {
    fn frame(&mut self, at: u64, fits: bool, commit: bool) {
        if self.ended.is_none() {
            if !fits {
                self.ended = Some(at);
            } else if commit {
                self.commits += 1;
            }
            return;
        }
        self.proof |= fits && (self.behind_commit || self.headless);
        self.behind_commit = fits && commit;
        self.behind += u64::from(self.behind_commit);
    }
}

impl Head {
    fn read(bytes: &[u8; HEAD_BYTES]) -> Self {
        let magic = word(bytes);
        let mut salt = [0; 8];
        salt.copy_from_slice(&bytes[16..24]);
        let mut head = Self { big_endian: magic & 1 != 0, salt, sum: Sum(0, 0), sound: false };
        head.sum = head.add(Sum(0, 0), &bytes[..24]);
        head.sound = magic & !1 == MAGIC
            && u64::from(word(&bytes[8..])) == PAGE_BYTES
            && head.sum == Sum(word(&bytes[24..]), word(&bytes[28..]));
        if !head.sound {
            // The bit that says the order of words may be the broken one: ours is this machine's.
            head.big_endian = cfg!(target_endian = "big");
        }
        head
    }

    /// Frames of an earlier round carry another salt. When the head itself is broken, half of it must do.
    fn is_current(&self, salt: &[u8]) -> bool {
        if self.sound { salt == self.salt } else { self.is_nearly_current(salt) }
    }

    /// One flipped bit leaves the other half; rounds share none.
    fn is_nearly_current(&self, salt: &[u8]) -> bool {
        salt[..4] == self.salt[..4] || salt[4..] == self.salt[4..]
    }

    /// Whether a broken frame was written as a commit, if all that is wrong is the field that says so, and
    /// there a bit.
    fn was_commit(&self, before: Sum, frame: &[u8]) -> Option<bool> {
        let stored = Sum(word(&frame[16..]), word(&frame[20..]));
        let fits = |size: u32| {
            let mut head = [0; 8];
            head[..4].copy_from_slice(&frame[..4]);
            head[4..].copy_from_slice(&size.to_be_bytes());
            self.add(self.add(before, &head), &frame[FRAME_HEAD_BYTES..]) == stored
        };
        if fits(0) {
            return Some(false);
        }
        (0..u32::BITS).any(|bit| fits(word(&frame[4..]) ^ (1 << bit))).then_some(true)
    }

    fn add(&self, sum: Sum, bytes: &[u8]) -> Sum {
        let Sum(mut first, mut second) = sum;
        let words = |four: &[u8]| {
            let four = [four[0], four[1], four[2], four[3]];
            if self.big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
        };
        for eight in bytes.chunks_exact(8) {
            first = first.wrapping_add(words(&eight[..4])).wrapping_add(second);
            second = second.wrapping_add(words(&eight[4..])).wrapping_add(first);
        }
        Sum(first, second)
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Fills `buffer`; `false` when the file ends before.
fn read_whole(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(end) if end.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(other) => Err(other),
    }
}
