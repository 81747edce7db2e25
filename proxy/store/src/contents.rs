//! contents: head and body of a message as numbered pieces, and the sum that says they are what was given.
//!
//! Piece 0 begins with a prefix: bytes of the head (u32, little endian) and the sum of metadata and head,
//! so that a head can be checked without its body. The sum in the message's row goes on over the body.

use bytes::Bytes;

use crate::limits::{CHUNK_BITS, CHUNK_BYTES};
use crate::message::{Position, QueueId};

/// Bytes before the head.
pub(crate) const PREFIX_BYTES: usize = 8;

/// What never changes of a message, beside its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed {
    pub(crate) position: Position,
    pub(crate) queue: QueueId,
    pub(crate) lane: Option<u64>,
    pub(crate) priority: u8,
}

impl Fixed {
    /// The sum over it and the head (CRC-32C, RFC 3720 appendix B.4).
    pub(crate) fn head_sum(&self, head: &[u8], body_bytes: usize) -> u32 {
        let mut fixed = [0_u8; 36];
        fixed[..8].copy_from_slice(&self.position.0.to_le_bytes());
        fixed[8..10].copy_from_slice(&self.queue.0.to_le_bytes());
        fixed[10] = u8::from(self.lane.is_some());
        fixed[11..19].copy_from_slice(&self.lane.unwrap_or(0).to_le_bytes());
        fixed[19] = self.priority;
        fixed[20..28].copy_from_slice(&(head.len() as u64).to_le_bytes());
        fixed[28..].copy_from_slice(&(body_bytes as u64).to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&fixed), head)
    }
}

/// Goes on with the sum of the head over the body.
pub(crate) fn whole_sum(head_sum: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(head_sum, body)
}

/// The prefix of piece 0.
pub(crate) fn prefix(head_bytes: u32, head_sum: u32) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&head_bytes.to_le_bytes());
    prefix[4..].copy_from_slice(&head_sum.to_le_bytes());
    prefix
}

/// The first and the last key that pieces of a message may have.
pub(crate) fn keys(position: Position) -> (i64, i64) {
    let first = (position.0 << CHUNK_BITS) as i64;
    (first, first | ((1 << CHUNK_BITS) - 1))
}

/// How many pieces `bytes` of head, body and prefix take.
pub(crate) fn pieces(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK_BYTES as u64).max(1)
}

/// Walks parts that lie apart in pieces of the same size.
pub(crate) struct Pieces<'a, const N: usize> {
    parts: [&'a [u8]; N],
    begun: bool,
}

impl<'a, const N: usize> Pieces<'a, N> {
    pub(crate) fn of(parts: [&'a [u8]; N]) -> Self {
        Self { parts, begun: false }
    }

    /// Fills `piece` with the next one; `false` when there is none. There is at least one, if empty.
    pub(crate) fn next_into(&mut self, piece: &mut Vec<u8>) -> bool {
        piece.clear();
        for part in &mut self.parts {
            let (taken, rest) = part.split_at(part.len().min(CHUNK_BYTES - piece.len()));
            piece.extend_from_slice(taken);
            *part = rest;
        }
        let first = !std::mem::replace(&mut self.begun, true);
        first || !piece.is_empty()
    }
}

/// A content, taken apart again.
pub(crate) struct Content {
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
    /// What piece 0 says the sum of metadata and head is.
    head_sum: u32,
}

impl Content {
    /// Takes apart what was read; `None` if it is not even that.
    pub(crate) fn split(data: Vec<u8>) -> Option<Self> {
        let data = Bytes::from(data);
        let head_bytes = u32::from_le_bytes(data.get(..4)?.try_into().ok()?) as usize;
        let head_sum = u32::from_le_bytes(data.get(4..PREFIX_BYTES)?.try_into().ok()?);
        let body_from = PREFIX_BYTES.checked_add(head_bytes).filter(|end| *end <= data.len())?;
        let head = data.slice(PREFIX_BYTES..body_from);
        Some(Self { head, body: data.slice(body_from..), head_sum })
    }

    /// Says what does not fit, given the bytes of head and body and the sum that the row has.
    pub(crate) fn check(&self, fixed: &Fixed, bytes: u32, sum: u32) -> Result<(), String> {
        let found = self.head.len() + self.body.len();
        if found != bytes as usize {
            return Err(format!("{found} bytes are there, {bytes} were written"));
        }
        let head_sum = fixed.head_sum(&self.head, self.body.len());
        if head_sum != self.head_sum {
            return Err(format!("the sum of its head is {head_sum:08x}, written was {:08x}", self.head_sum));
        }
        let whole = whole_sum(head_sum, &self.body);
        if whole != sum {
            return Err(format!("its sum is {whole:08x}, written was {sum:08x}"));
        }
        Ok(())
    }

    /// As [`Content::check`], for a head of which only the first pieces were read.
    pub(crate) fn check_head(&self, fixed: &Fixed, bytes: u32) -> bool {
        (bytes as usize)
            .checked_sub(self.head.len())
            .is_some_and(|body_bytes| fixed.head_sum(&self.head, body_bytes) == self.head_sum)
    }
}
