//! kept: a response's body in memory, whole or not at all, within what the process may hold.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use policy::limits;
use policy::queue::AsyncPolicy;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::admit::call::Call;
use crate::telemetry::Metrics;

/// The room that responses of the whole process have, and how long they wait for it.
#[derive(Clone)]
pub(super) struct Room {
    kib: Arc<Semaphore>,
    waiting: Gauge,
    waited_seconds: Counter<f64, AtomicU64>,
}

impl Room {
    pub(super) fn of(bytes: usize, metrics: &Metrics) -> Self {
        let room = Self::unseen(kib(bytes) as usize);
        metrics.with(|registry| {
            registry.register(
                "tidegate_sidecar_async_responses_waiting",
                "Responses to messages that are not read on for want of room",
                room.waiting.clone(),
            );
            registry.register(
                "tidegate_sidecar_async_response_wait_seconds",
                "Seconds that responses to messages have waited for room, all together",
                room.waited_seconds.clone(),
            );
        });
        room
    }

    fn unseen(kib: usize) -> Self {
        let kib = Arc::new(Semaphore::new(kib));
        Self { kib, waiting: Gauge::default(), waited_seconds: Counter::default() }
    }

    /// Room for so many bytes, once there is.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = kib(bytes);
        if let Ok(room) = self.kib.clone().try_acquire_many_owned(kib) {
            return Some(room);
        }
        let _waits = Waits::begin(self);
        // The semaphore is never closed.
        self.kib.clone().acquire_many_owned(kib).await.ok()
    }
}

/// A response that waits; also one whose attempt is given up has waited.
struct Waits<'a> {
    room: &'a Room,
    since: Instant,
}

impl<'a> Waits<'a> {
    fn begin(room: &'a Room) -> Self {
        room.waiting.inc();
        Self { room, since: Instant::now() }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.room.waiting.dec();
        self.room.waited_seconds.inc_by(self.since.elapsed().as_secs_f64());
    }
}

/// A body that is read.
pub(super) struct Keeping {
    /// A longer one is not kept; `None`: this one is not, and what comes of it is thrown away.
    bytes_max: Option<usize>,
    room: Room,
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
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Whether anybody will see the response to `call`. What is refused is kept with its dead letter
/// whatever `result.ttl` says, and gRPC refuses in the trailers.
fn is_asked_for(call: &Call, policy: &AsyncPolicy, status: StatusCode) -> bool {
    let told = call.callback_of.is_empty() && !policy.callback_hosts.is_empty();
    !policy.result_ttl.is_zero() || told || call.grpc || !status.is_success()
}

impl Keeping {
    pub(super) fn of(call: &Call, policy: &AsyncPolicy, status: StatusCode, room: &Room) -> Self {
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
            self.held = self.room.take(whole).await;
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
    use std::time::Duration;

    use super::*;

    fn keeping(bytes_max: usize, room: &Room) -> Keeping {
        Keeping { bytes_max: Some(bytes_max), room: room.clone(), held: None, bytes: BytesMut::new() }
    }

    fn free(room: &Room) -> usize {
        room.kib.available_permits()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_room_and_gives_it_back_when_its_last_copy_is_gone() {
        let room = Room::unseen(4);
        let mut first = keeping(4096, &room);
        first.take(&[1; 1000], None).await;
        assert_eq!(free(&room), 0, "of an unknown length: as long as it may be");
        let mut second = keeping(4096, &room);
        {
            let mut waits = pin!(second.take(&[2; 2000], Some(0)));
            let polled = waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "there is no room");
            assert_eq!(room.waiting.get(), 1);
            tokio::time::advance(Duration::from_secs(3)).await;
        }
        assert_eq!(
            (room.waiting.get(), room.waited_seconds.get()),
            (0, 3.0),
            "given up, it has waited all the same"
        );
        first.take(&[1; 1000], Some(0)).await;
        let kept = first.whole().unwrap();
        assert_eq!((kept.len(), free(&room)), (2000, 2), "what it did not need is free");
        second.take(&[2; 2000], Some(0)).await;
        assert_eq!((free(&room), second.whole().unwrap().len()), (0, 2000));
        let copy = kept.clone();
        drop(kept);
        assert_eq!(free(&room), 2);
        drop(copy);
        assert_eq!(free(&room), 4);
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_or_that_nobody_will_see_takes_no_room() {
        let room = Room::unseen(0);
        let mut told = keeping(2000, &room);
        told.take(&[0; 1000], Some(1001)).await;
        assert_eq!(told.whole(), None);
        let mut unasked = keeping(2000, &room);
        unasked.bytes_max = None;
        unasked.take(&[0; 1000], None).await;
        assert_eq!((unasked.bytes.capacity(), unasked.whole()), (0, None));
        assert_eq!(keeping(0, &room).whole(), Some(Bytes::new()), "an empty one needs none");
        let room = Room::unseen(2);
        let mut grown = keeping(2000, &room);
        grown.take(&[0; 1500], None).await;
        grown.take(&[0; 501], None).await;
        assert_eq!((free(&room), grown.whole()), (2, None));
    }
}
