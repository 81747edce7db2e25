//! sums: what says that histories, records and responses are what was given (CRC-32C, as of contents).
//!
//! Each stands beside what it is over and covers whose it is too. What was written by format 1 has none.

use crate::message::{Position, QueueId, Timestamp};

/// A sum over all of these.
fn over(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part))
}

/// Of the history of a message.
pub(crate) fn of_history(position: Position, history: &[u8]) -> u32 {
    over(&[&position.0.to_le_bytes(), history])
}

/// Of a response, whole.
pub(crate) fn of_response(position: Position, response: &[u8]) -> u32 {
    over(&[&position.0.to_le_bytes(), &(response.len() as u64).to_le_bytes(), response])
}

/// Of what is left of a message.
pub(crate) fn of_record(position: Position, queue: QueueId, keep_until: Timestamp, record: &[u8]) -> u32 {
    let (queue, until) = (queue.0.to_le_bytes(), keep_until.0.to_le_bytes());
    over(&[&position.0.to_le_bytes(), &queue, &until, record])
}

/// Whether a sum as it is kept is this one, or none was written.
pub(crate) fn fits(kept: Option<i32>, sum: u32) -> bool {
    kept.is_none_or(|kept| kept as u32 == sum)
}
