//! kept: a response's body in memory, whole or not at all, within what the process may hold.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use policy::limits;
use policy::queue::AsyncPolicy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admit::call::Call;

/// A body that is read.
pub(super) struct Keeping {
    /// A longer one is not kept; `None`: this one is not, and what comes of it is thrown away.
    bytes_max: Option<usize>,
    room: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: BytesMut,
}

/// A body that was read, and its room: given back when the last who has it lets go.
struct Kept {
    bytes: BytesMut,
    _held: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What bytes take of the room.
pub(super) fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Whether anybody will see the response to `call`. What is refused is kept with its dead letter
/// whatever `result.ttl` says, and gRPC refuses in the trailers.
fn is_asked_for(call: &Call, policy: &AsyncPolicy, status: StatusCode) -> bool {
    let told = call.callback_of.is_empty() && !policy.callback_hosts.is_empty();
    !policy.result_ttl.is_zero() || told || call.grpc || !status.is_success()
}

impl Keeping {
    pub(super) fn of(call: &Call, policy: &AsyncPolicy, status: StatusCode, room: &Arc<Semaphore>) -> Self {
        let most = policy.result_bytes_max.min(limits::RESULT_BYTES_CAP);
        let bytes_max = is_asked_for(call, policy, status).then(|| usize::try_from(most).unwrap_or(0));
        Self { bytes_max, room: room.clone(), held: None, bytes: BytesMut::new() }
    }

    /// Takes a part of the body, of which `rest` follows if that is known; the first waits until there
    /// is room for all of it, so that no two bodies wait for each other.
    pub(super) async fn take(&mut self, part: &[u8], rest: Option<u64>) {
        let Some(bytes_max) = self.bytes_max else { return };
        let rest = rest.map(|rest| usize::try_from(rest).unwrap_or(usize::MAX));
        let so_far = self.bytes.len() + part.len();
        if so_far.saturating_add(rest.unwrap_or(0)) > bytes_max {
            (self.bytes_max, self.held, self.bytes) = (None, None, BytesMut::new());
            return;
        }
        if self.held.is_none() {
            let whole = rest.map_or(bytes_max, |rest| so_far + rest);
            // The semaphore is never closed.
            self.held = self.room.clone().acquire_many_owned(kib(whole)).await.ok();
        }
        self.bytes.extend_from_slice(part);
    }

    /// The whole body, if it is kept.
    pub(super) fn whole(self) -> Option<Bytes> {
        self.bytes_max?;
        let Some(mut held) = self.held else { return Some(Bytes::new()) };
        let spare = held.num_permits().saturating_sub(kib(self.bytes.len()) as usize);
        drop(held.split(spare));
        Some(Bytes::from_owner(Kept { bytes: self.bytes, _held: held }))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn keeping(bytes_max: usize, room: &Arc<Semaphore>) -> Keeping {
        Keeping { bytes_max: Some(bytes_max), room: room.clone(), held: None, bytes: BytesMut::new() }
    }

    #[tokio::test]
    async fn a_body_waits_for_room_and_gives_it_back_when_its_last_copy_is_gone() {
        let room = Arc::new(Semaphore::new(4));
        let mut first = keeping(4096, &room);
        first.take(&[1; 1000], None).await;
        assert_eq!(room.available_permits(), 0, "of an unknown length: as long as it may be");
        let mut second = keeping(4096, &room);
        let waits = pin!(second.take(&[2; 2000], Some(0))).poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending(), "there is no room");
        first.take(&[1; 1000], Some(0)).await;
        let kept = first.whole().unwrap();
        assert_eq!((kept.len(), room.available_permits()), (2000, 2), "what it did not need is free");
        second.take(&[2; 2000], Some(0)).await;
        assert_eq!((room.available_permits(), second.whole().unwrap().len()), (0, 2000));
        let copy = kept.clone();
        drop(kept);
        assert_eq!(room.available_permits(), 2);
        drop(copy);
        assert_eq!(room.available_permits(), 4);
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_or_that_nobody_will_see_takes_no_room() {
        let room = Arc::new(Semaphore::new(0));
        let mut told = keeping(2000, &room);
        told.take(&[0; 1000], Some(1001)).await;
        assert_eq!(told.whole(), None);
        let mut unasked = keeping(2000, &room);
        unasked.bytes_max = None;
        unasked.take(&[0; 1000], None).await;
        assert_eq!((unasked.bytes.capacity(), unasked.whole()), (0, None));
        assert_eq!(keeping(0, &room).whole(), Some(Bytes::new()), "an empty one needs none");
        let room = Arc::new(Semaphore::new(2));
        let mut grown = keeping(2000, &room);
        grown.take(&[0; 1500], None).await;
        grown.take(&[0; 501], None).await;
        assert_eq!((room.available_permits(), grown.whole()), (2, None));
    }
}
