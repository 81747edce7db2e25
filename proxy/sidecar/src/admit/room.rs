//! room: bodies read whole, in the memory there is for those on their way into a queue.
//!
//! A body that is to be stored takes its room before it is read, waits for it if need be, and gives
//! back what it did not need; it has until a deadline, so that an upload that stalls keeps no other
//! out for long. One that is tried synchronously first waits for no room: it takes what it needs as
//! it comes, and without that it is not stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use policy::limits;
use policy::queue::AsyncPolicy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::problem::{self, Problem};

/// How long after its first message a call may take to end. Clients end a unary call with its message
/// or right behind it; a stream that waits for an answer is held up by this much, once.
const END_WAIT: Duration = Duration::from_millis(20);
/// Bytes in front of a message: a flag and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// KiB for the bodies of all requests.
pub(super) struct Room(Arc<Semaphore>);

/// A body's part of the room, given back when dropped.
pub(super) type Held = Option<OwnedSemaphorePermit>;

/// How much of a body is read, and for how long.
pub(super) struct Bounds<'a> {
    policy: &'a AsyncPolicy,
    max: u64,
    /// When it must be there.
    by: Instant,
    waits_for_room: bool,
}

/// Why a body is not at hand whole, and what was read of it.
#[derive(Debug)]
pub(super) enum Unread {
    /// It broke: no more will come.
    Broken(Problem),
    /// The rest may come; it is too much, or too late.
    Begun(Bytes, Problem),
    /// It is no unary call.
    Stream(Bytes),
}

impl From<Unread> for Problem {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Broken(problem) | Unread::Begun(_, problem) => problem,
            Unread::Stream(_) => not_unary(),
        }
    }
}

impl<'a> Bounds<'a> {
    /// For a request that is to be stored.
    pub(super) fn to_store(policy: &'a AsyncPolicy) -> Self {
        Self { waits_for_room: true, ..Self::within(policy, limits::MESSAGE_BODY_TIMEOUT) }
    }

    /// For one that is tried synchronously first.
    pub(super) fn to_try(policy: &'a AsyncPolicy) -> Self {
        Self::within(policy, limits::SPILL_BODY_TIMEOUT)
    }

    fn within(policy: &'a AsyncPolicy, wait: Duration) -> Self {
        let max = policy.body_bytes_max.min(limits::MESSAGE_BODY_BYTES_CAP);
        Self { policy, max, by: Instant::now() + wait, waits_for_room: false }
    }

    fn too_large(&self) -> Problem {
        let detail = format!("AsyncPolicy {} takes bodies of at most {} bytes", self.policy.name, self.max);
        Problem::new(problem::BODY_TOO_LARGE, detail)
    }
}

impl Room {
    pub(super) fn of(bytes: u64) -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(bytes / 1024).unwrap_or(usize::MAX))))
    }

    /// Reads a body whole; `length` is what its head says of it.
    pub(super) async fn read<B>(
        &self,
        body: &mut B,
        length: Option<u64>,
        bounds: &Bounds<'_>,
    ) -> Result<(Bytes, Held), Unread>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        let mut read = BytesMut::new();
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        if length.is_some_and(|length| length > bounds.max) {
            return Err(Unread::Begun(Bytes::new(), bounds.too_large()));
        }
        let mut held = None;
        let ahead = length.unwrap_or(if bounds.waits_for_room { bounds.max } else { 0 });
        self.take(&mut held, ahead, &mut read, bounds).await?;
        read.reserve(length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default());
        while more(body, &mut read, bounds.by).await? {
            if read.len() as u64 > bounds.max {
                return Err(Unread::Begun(read.freeze(), bounds.too_large()));
            }
            self.take(&mut held, read.len() as u64, &mut read, bounds).await?;
        }
        if let Some(held) = &mut held {
            let surplus = held.num_permits().saturating_sub(kib(read.len() as u64) as usize);
            drop(held.split(surplus));
        }
        Ok((read.freeze(), held))
    }

    /// Reads a gRPC call until it is known whether it is one message and its end, or a stream. Nothing
    /// in a call's head says so: a unary client ends the stream with its message; one that goes on, or
    /// keeps the stream open, streams.
    pub(super) async fn read_unary<B>(
        &self,
        body: &mut B,
        bounds: &Bounds<'_>,
    ) -> Result<(Bytes, Held), Unread>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        let (mut read, mut held) = (BytesMut::new(), None);
        loop {
            let whole = first_message(&read);
            if whole.is_some_and(|whole| whole as u64 > bounds.max || read.len() > whole) {
                return Err(Unread::Stream(read.freeze()));
            }
            self.take(&mut held, whole.unwrap_or_default() as u64, &mut read, bounds).await?;
            let ends_soon = whole == Some(read.len());
            let by = if ends_soon { bounds.by.min(Instant::now() + END_WAIT) } else { bounds.by };
            match more(body, &mut read, by).await {
                Ok(true) => {}
                Ok(false) if ends_soon => return Ok((read.freeze(), held)),
                // No message at all, or half of one: the receiver says what it thinks of that.
                Ok(false) => return Err(Unread::Stream(read.freeze())),
                Err(Unread::Begun(read, _)) if ends_soon => return Err(Unread::Stream(read)),
                Err(unread) => return Err(unread),
            }
        }
    }

    /// Has `held` be room for so many bytes.
    async fn take(
        &self,
        held: &mut Held,
        bytes: u64,
        read: &mut BytesMut,
        bounds: &Bounds<'_>,
    ) -> Result<(), Unread> {
        let missing = kib(bytes) as usize;
        let missing = missing.saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return Ok(());
        }
        let by = if bounds.waits_for_room { bounds.by } else { Instant::now() };
        let room = self.0.clone().acquire_many_owned(u32::try_from(missing).unwrap_or(u32::MAX));
        let Ok(Ok(room)) = timeout_at(by, room).await else {
            let problem = Problem::new(problem::NO_ROOM, "too many bodies are on their way into the queues");
            let problem = problem.retry_after(limits::QUEUE_RETRY_AFTER_MIN);
            return Err(Unread::Begun(std::mem::take(read).freeze(), problem));
        };
        match held {
            Some(held) => held.merge(room),
            None => *held = Some(room),
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn left_kib(&self) -> usize {
        self.0.available_permits()
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Adds the next frame to what was read; `false` is the end.
async fn more<B>(body: &mut B, read: &mut BytesMut, by: Instant) -> Result<bool, Unread>
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    match timeout_at(by, body.frame()).await {
        Ok(Some(Ok(frame))) => {
            read.extend(frame.into_data());
            Ok(true)
        }
        Ok(Some(Err(error))) => {
            let problem = Problem::new(problem::BODY_BROKEN, format!("nothing was stored: {error}"));
            Err(Unread::Broken(problem))
        }
        Ok(None) => Ok(false),
        Err(_) => {
            let detail = format!("nothing was stored: only {} bytes of it came", read.len());
            let problem = Problem::new(problem::BODY_LATE, detail);
            Err(Unread::Begun(std::mem::take(read).freeze(), problem))
        }
    }
}

/// Bytes of the first message with its prefix, once its length is known.
fn first_message(read: &[u8]) -> Option<usize> {
    let length = read.get(1..PREFIX_BYTES)?.try_into().ok().map(u32::from_be_bytes)?;
    Some(PREFIX_BYTES + length as usize)
}

/// A call with more or less than one message is a stream (gRPC over HTTP/2, "Length-Prefixed-
/// Message"): never asynchronous.
pub(super) fn check_unary(body: &Bytes) -> Result<(), Problem> {
    if first_message(body) == Some(body.len()) { Ok(()) } else { Err(not_unary()) }
}

fn not_unary() -> Problem {
    Problem::new(problem::BODY_BROKEN, "a gRPC call taken in must have one message: streams are not")
}

#[cfg(test)]
mod tests;
