//! limits: every bound of the store, with its unit, its reason and what happens at its edge.

#![allow(clippy::cast_possible_truncation, reason = "constants whose values are seen below")]

use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

// ---- the files ----------------------------------------------------------------------------------

/// The format of the directory (`user_version`). Another one is refused by name, never guessed at.
pub const FORMAT: i64 = 2;
/// The format before, without sums of histories, records and responses; it is made ours at opening.
pub const FORMAT_BEFORE: i64 = 1;
/// Marks the file as one of ours (`application_id`, "TDGT"): another program's database is refused.
pub const APPLICATION: i64 = 0x5444_4754;
/// Bytes of a page. Three messages of 1 KiB fit one; the kernel tears at its own page of the same size.
pub const PAGE_BYTES: u64 = 4 * KIB;
/// The same, for buffers.
pub const PAGE_LENGTH: usize = PAGE_BYTES as usize;
/// Bytes a frame of the file for writing ahead takes beside its page (SQLite file format §4.1).
pub const FRAME_HEAD_BYTES: u64 = 24;
/// Bytes of the largest piece a body is cut into, so that no row makes SQLite hold a whole body twice.
pub const CHUNK_BYTES: usize = 64 * KIB as usize;
/// Bits of a content key that count pieces: 1024 of them are 64 MiB. Positions take the other 40.
pub const CHUNK_BITS: u32 = 10;
/// Positions end here: 2⁴⁰ at 100,000 a second are 127 days at full speed, or 348 years at 100 a second.
/// At the edge appends are refused as full.
pub const POSITION_MAX: u64 = (1 << 40) - 1;
/// Positions set aside by one write of the counter. A stop without a close skips at most as many;
/// 16 million such stops are possible.
pub const POSITIONS_AHEAD: u64 = 64 * KIB;
/// Positions a salvage passes by, since some may have been given out behind the break: more than there
/// are messages in a file for writing ahead of [`WAL_BYTES_MAX`].
pub const SALVAGE_POSITIONS_AHEAD: u64 = 2 * MIB;
/// KiB of pages the writer keeps. Appends touch the right edge alone; ends come near the left one.
pub const WRITER_CACHE_KIB: i64 = 4 * KIB as i64;
/// KiB of pages the reader keeps: inner pages, since a commit drops them all anyway.
pub const READER_CACHE_KIB: i64 = 512;
/// KiB of pages the checkpointing connection keeps: it reads one row.
pub const CHECKPOINT_CACHE_KIB: i64 = 16;
/// Milliseconds SQLite waits for a lock, of a reader mostly, whose transactions are shorter. One that lasts
/// longer is an outsider's: then nothing was written, and that is told as full.
pub const BUSY_MS: u64 = 500;

/// How far below others the look through all pages after an unclean stop stands (`nice(2)`, 0 to 19): a share of
/// a tenth where others want all, since the writer may have to wait until it has given way.
pub const CHECK_NICE: i32 = 10;
/// Steps of that look, a page or less each, after which it asks whether it must give way: on a slow disk some
/// milliseconds each, and the writer may have to wait for it.
pub const CHECK_STEPS: i32 = 10;
/// How long it waits before it begins again when it had to give way, at first...
pub const CHECK_PAUSE: Duration = Duration::from_secs(10);
/// ...and at most, twice as long each time: a store that is always that busy is looked through when it is not.
pub const CHECK_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Bytes read of the name of a directory's owner, its line feed included: a SPIFFE ID has at most 2048
/// (SPIFFE-ID §2.3). Of a longer one nothing is known.
pub const OWNER_BYTES_MAX: usize = 4 * KIB as usize;

// ---- after a failure ----------------------------------------------------------------------------

/// Bytes of the reason that is written down when a store is poisoned; the rest is cut off.
pub const REASON_BYTES_MAX: u64 = KIB;
/// Rows copied into a fresh database in one transaction...
pub const COPY_ROWS: u64 = 1000;
/// ...of so many bytes, unless one message is larger: it is written ahead of the copy and takes room there too.
pub const COPY_BYTES: u64 = 4 * MIB;

// ---- what is on its way -------------------------------------------------------------------------

/// Writes that wait for the writer. At the edge senders wait.
pub const WAITING_WRITES_MAX: usize = 4 * KIB as usize;
/// KiB of drafts that wait for the writer. At the edge senders wait. One larger draft goes alone.
pub const WAITING_KIB_MAX: usize = 16 * KIB as usize;
/// Changes in one transaction; more in one write go together all the same. Their pages must fit the
/// file for writing ahead many times over.
pub const BATCH_CHANGES_MAX: usize = 2 * KIB as usize;
/// Bytes of heads and bodies in one transaction unless one write is larger: about 5 ms of flushing.
pub const BATCH_BYTES_MAX: u64 = MIB;
/// Reads that wait for the reader. At the edge readers wait.
pub const WAITING_READS_MAX: usize = 256;
/// Reads served from one read transaction.
pub const READS_TOGETHER_MAX: usize = 64;
/// Bytes read in one read transaction before a new one begins: it pins the file for writing ahead.
pub const READ_BYTES_MAX: u64 = 4 * MIB;

// ---- space --------------------------------------------------------------------------------------

/// The smallest size a store can be given: below it a single message would not fit beside the reserves.
pub const STORE_BYTES_MIN: u64 = 8 * MIB;
/// The file for writing ahead takes at most this part of a store...
pub const WAL_SHARE: u64 = 8;
/// ...and never more than this: a restart reads all of it.
pub const WAL_BYTES_MAX: u64 = 64 * MIB;
/// ...and never less than this: some batches must fit.
pub const WAL_BYTES_MIN: u64 = 2 * MIB;
/// Bytes of the largest message of any store: as much as fits the file for writing ahead twice. A store
/// takes half of its own such file, or of its pages in memory; a larger message is refused for good.
pub const MESSAGE_BYTES_MAX: u64 = WAL_BYTES_MAX / 2;
/// The background checkpoint begins when this part of the bound waits for it: half the ballast, so that on
/// a full disk what was written ahead still fits the database once the ballast is given back.
pub const WAL_BACKGROUND_SHARE: u64 = 8;
/// The writer makes the last steps itself, so that the file begins again, from this part of the bound...
pub const WAL_RESTART_SHARE: u64 = 2;
/// ...if no more than this part is left to copy.
pub const WAL_TAIL_SHARE: u64 = 16;
/// One transaction takes at most this part of it, as far as can be told before. One write that would take
/// more than all of it is refused: 127 steps in the smallest store, 4,000 in one of 512 MiB.
pub const BATCH_WAL_SHARE: u64 = 4;
/// The file that keeps room for settles while the disk is full: this part of a store...
pub const BALLAST_SHARE: u64 = 32;
/// ...at most this...
pub const BALLAST_BYTES_MAX: u64 = 16 * MIB;
/// ...and at least this.
pub const BALLAST_BYTES_MIN: u64 = 256 * KIB;
/// Bytes of SQLite's shared index of the file for writing ahead (32 KiB for each 4096 frames).
pub const INDEX_BYTES: u64 = 160 * KIB;
/// Pages that only settles may take: this part of all...
pub const SETTLE_SHARE: u64 = 32;
/// ...at most this...
pub const SETTLE_PAGES_MAX: u64 = 2 * KIB;
/// ...and at least this.
pub const SETTLE_PAGES_MIN: u64 = 32;
/// A message that is stored with an end, and tells of it, may take pages of settles; this part of them it leaves
/// to others, since such messages could take all, and then nothing would end any more.
pub const TOLD_SHARE: u64 = 2;
/// Pages a settle may come to touch: its row, its content, its history or record, an inner page.
pub const SETTLE_PAGES: u64 = 4;
/// Bytes freed beyond the need when results make room, so that not every append has to.
pub const EVICT_AHEAD_BYTES: u64 = 256 * KIB;
/// Rows of results or records that make room before it is looked at again: half a MiB at most.
pub const EVICT_ROWS: i64 = 8;
/// Ended records looked at in one transaction by a sweep.
pub const SWEEP_ROWS: usize = SWEEP_BLOCK as usize;
/// Positions whose ended records share one remembered time, so that a sweep passes them by.
pub const SWEEP_BLOCK: u64 = 4 * KIB;
/// Bytes that must be free on the disk beyond the ballast before appends are taken again.
pub const DISK_FREE_BYTES: u64 = 4 * MIB;

// ---- recognised repetitions ---------------------------------------------------------------------

/// Bits that count the rows of one generation: 262,144, which 14 bits of tag tell apart.
pub const GENERATION_BITS: u32 = 18;
/// Rows of the smallest generation; each next one of the same window doubles.
pub const GENERATION_ROWS_MIN: usize = 4 * KIB as usize;
/// The number of the last row there may be: generations are numbered up to 2⁴⁴, which is more of them than
/// there are positions. Another number was not written by us.
pub const DEDUPE_ROW_MAX: i64 = 1 << 62;
/// Rows in all, unless a store is given fewer: 5.4 bytes of memory and about 60 of disk each. At the edge drafts
/// with a new key are refused.
pub const DEDUPE_ROWS_MAX: u64 = 4 * MIB;
/// A generation is closed after this part of its window, so that it is gone soon after it is over.
pub const GENERATION_WINDOW_SHARE: u64 = 8;
/// Rows of a generation that is over removed in one transaction.
pub const DEDUPE_DROP_ROWS: u64 = 2 * KIB;

// ---- reading ------------------------------------------------------------------------------------

/// Messages in one list.
pub const LIST_MAX: usize = 1000;
/// Rows passed in one read transaction while a list looks for the ones it wants: about 5 ms.
pub const LIST_SCAN_ROWS: usize = 16 * KIB as usize;
/// Bytes of heads and histories in one list; more end it early.
pub const LIST_BYTES_MAX: u64 = 4 * MIB;

const _: () = assert!(
    40 + CHUNK_BITS < 63 && (CHUNK_BYTES as u64) << CHUNK_BITS > MESSAGE_BYTES_MAX,
    "the largest message has a key for each piece"
);
const _: () = assert!(WAL_TAIL_SHARE > WAL_BACKGROUND_SHARE && WAL_BACKGROUND_SHARE > WAL_RESTART_SHARE);
