//! unary: whether a gRPC call is one message and its end, or a stream.
//!
//! Nothing in a call's head says so. A unary client sends its message and ends the stream with it; one
//! that goes on, or keeps the stream open, streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::problem::{self, Problem};

/// How long after its first message a call may take to end. Clients end a unary call with its message
/// or right behind it; a stream that waits for an answer is held up by this much, once.
const END_WAIT: Duration = Duration::from_millis(20);
/// Bytes in front of a message: a flag and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// What was read of a call.
pub(super) enum Read {
    /// One message, and the end.
    Whole(Bytes),
    /// More, or no end: this much was read.
    Stream(Bytes),
}

/// Reads a call until it is known what it is, `max` bytes of its first message at most.
pub(super) async fn read(body: &mut Incoming, max: usize) -> Result<Read, Problem> {
    let mut read = BytesMut::new();
    loop {
        let whole = first_message(&read);
        if whole.is_some_and(|whole| read.len() > whole) || read.len() > max {
            return Ok(Read::Stream(read.freeze()));
        }
        let ends_soon = whole == Some(read.len());
        let frame = match ends_soon {
            true => match timeout(END_WAIT, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Ok(Read::Stream(read.freeze())),
            },
            false => body.frame().await,
        };
        match frame {
            Some(Ok(frame)) => read.extend(frame.into_data()),
            Some(Err(error)) => {
                return Err(Problem::new(problem::BODY_BROKEN, format!("nothing was stored: {error}")));
            }
            None if ends_soon => return Ok(Read::Whole(read.freeze())),
            // No message at all, or half of one: the receiver says what it thinks of that.
            None => return Ok(Read::Stream(read.freeze())),
        }
    }
}

/// Bytes of the first message with its prefix, once its length is known.
fn first_message(read: &[u8]) -> Option<usize> {
    let length = read.get(1..PREFIX_BYTES)?.try_into().ok().map(u32::from_be_bytes)?;
    Some(PREFIX_BYTES + length as usize)
}
