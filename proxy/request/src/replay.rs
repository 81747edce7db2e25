//! replay: a request's body that can be sent again.
//!
//! The source stays in one place, behind a lock that only one attempt at a time uses; what it
//! yields is kept until a bound. An attempt first repeats what was kept, then goes on with the
//! source. A new attempt takes the body over: the one before breaks off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use policy::limits;

use crate::body::BodyError;

/// Bodies are kept in blocks of one size, so that what one body leaves behind fits the next: pieces of
/// the frames' own sizes left holes, 3 to 8 MiB beside the 16. A short body's only block is as large as
/// it needs to be.
const BLOCK_BYTES: usize = limits::JOINED_FRAME_BYTES_MAX;

/// Bytes taken for bodies kept for retries in the whole process, bounded by
/// [`limits::RETRY_BODY_BYTES_TOTAL`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Arc<AtomicU64>);

/// A body and what was kept of it.
pub(crate) struct Replay {
    shared: Arc<Mutex<State>>,
}

/// One sending of it.
pub(crate) struct Attempt {
    shared: Arc<Mutex<State>>,
    number: u32,
    at: usize,
}

struct State {
    source: Incoming,
    /// Copies: a frame itself may be a few bytes of a large buffer.
    blocks: Vec<Vec<u8>>,
    trailers: Option<HeaderMap>,
    /// Bytes of the body that are kept.
    bytes: u64,
    bytes_max: u64,
    /// Bytes that `blocks` take, full or not: the body's part of `total`.
    taken: u64,
    total: Kept,
    /// More came than is kept; what was kept is gone.
    overflowed: bool,
    source_ended: bool,
    source_failed: bool,
    attempt: u32,
    /// Something was read before the first attempt.
    begun: bool,
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replay {
    pub(crate) fn new(source: Incoming, bytes_max: u64, total: &Kept) -> Self {
        let state = State {
            source,
            blocks: Vec::new(),
            trailers: None,
            bytes: 0,
            bytes_max,
            taken: 0,
            total: total.clone(),
            overflowed: false,
            source_ended: false,
            source_failed: false,
            attempt: 0,
            begun: false,
        };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// A body of which `read` was taken from its source before: that much is kept in any case.
    pub(crate) fn begun(read: &Bytes, source: Incoming, bytes_max: u64, total: &Kept) -> Self {
        let replay = Self::new(source, bytes_max.max(read.len() as u64), total);
        lock(&replay.shared).keep_read(read);
        replay
    }

    /// Whether the whole of what was taken from the source so far can be sent again.
    pub(crate) fn can_replay(&self) -> bool {
        !lock(&self.shared).overflowed
    }

    /// Whether the client's side of it broke.
    pub(crate) fn source_failed(&self) -> bool {
        lock(&self.shared).source_failed
    }

    /// The body from its beginning; an earlier attempt breaks off.
    pub(crate) fn attempt(&self) -> Attempt {
        let mut state = lock(&self.shared);
        state.attempt += 1;
        Attempt { shared: self.shared.clone(), number: state.attempt, at: 0 }
    }

    /// No attempt will follow: nothing more is kept.
    pub(crate) fn release(self) {
        lock(&self.shared).stop_keeping();
    }
}

impl State {
    fn stop_keeping(&mut self) {
        self.overflowed = true;
        self.bytes_max = 0;
        // What a running attempt has not repeated yet must stay; it has when it reads the source.
        if self.attempt <= 1 && !self.begun {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.blocks = Vec::new();
        self.total.0.fetch_sub(self.taken, Ordering::Relaxed);
        self.taken = 0;
    }

    fn keep(&mut self, data: &[u8]) {
        if self.overflowed {
            return;
        }
        self.bytes += data.len() as u64;
        if self.bytes > self.bytes_max || !self.copy(data) {
            self.overflowed = true;
            self.forget();
        }
    }

    /// What was read before there was an attempt cannot be left out: the process' bound is passed over,
    /// by as much as its reader was let to hold.
    fn keep_read(&mut self, read: &Bytes) {
        self.begun = true;
        self.bytes += read.len() as u64;
        for part in read.chunks(BLOCK_BYTES) {
            self.taken += part.len() as u64;
            self.total.0.fetch_add(part.len() as u64, Ordering::Relaxed);
            self.blocks.push(part.to_vec());
        }
    }

    /// Whether there was room for all of `data`.
    fn copy(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let block = match self.blocks.pop() {
                Some(block) if block.len() < BLOCK_BYTES => block,
                full => {
                    self.blocks.extend(full);
                    Vec::new()
                }
            };
            let (part, rest) = data.split_at(data.len().min(BLOCK_BYTES - block.len()));
            let Some(mut block) = self.with_room(block, part.len()) else { return false };
            block.extend_from_slice(part);
            self.blocks.push(block);
            data = rest;
        }
        true
    }

    /// A block with room for so many bytes more; `None` when the process keeps enough already.
    fn with_room(&mut self, mut block: Vec<u8>, more: usize) -> Option<Vec<u8>> {
        let needed = block.len() + more;
        if needed > block.capacity() {
            let capacity = needed.max(2 * block.capacity()).min(BLOCK_BYTES);
            let added = (capacity - block.capacity()) as u64;
            self.taken += added;
            if self.total.0.fetch_add(added, Ordering::Relaxed) + added > limits::RETRY_BODY_BYTES_TOTAL {
                return None;
            }
            block.reserve_exact(capacity - block.len());
        }
        Some(block)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Attempt {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = lock(&self.shared);
        if state.attempt != self.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(data) = state.blocks.get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(data)))));
        }
        if state.source_ended {
            let trailers = if self.at == usize::MAX { None } else { state.trailers.clone() };
            self.at = usize::MAX;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(std::pin::Pin::new(&mut state.source).poll_frame(cx));
        match &frame {
            None => state.source_ended = true,
            Some(Err(_)) => (state.overflowed, state.source_failed) = (true, true),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    state.keep(data);
                    self.at = state.blocks.len();
                } else if let Some(trailers) = frame.trailers_ref() {
                    state.trailers = Some(trailers.clone());
                    state.source_ended = true;
                    self.at = usize::MAX;
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Source)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let state = lock(&self.shared);
        self.at >= state.blocks.len()
            && (self.at == usize::MAX || state.trailers.is_none())
            && (state.source_ended || state.source.is_end_stream())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let state = lock(&self.shared);
        let source = state.source.size_hint();
        let left: u64 = state.blocks.iter().skip(self.at).map(|data| data.len() as u64).sum();
        match source.exact() {
            Some(rest) => SizeHint::with_exact(rest + left),
            None => SizeHint::default(),
        }
    }
}
