//! message: the bounds of one message, taken in, kept and delivered.

use std::time::Duration;

use super::{KIB, MIB};

/// Bytes of an asynchronous request's body unless its AsyncPolicy says otherwise
/// (`maxBodyBytes`); more answers 413.
pub const MESSAGE_BODY_BYTES_MAX: u64 = 4 * MIB;
/// The most an AsyncPolicy may allow of one body: it is held in memory whole, once when it is taken
/// in and once when it is delivered.
pub const MESSAGE_BODY_BYTES_CAP: u64 = 16 * MIB;
/// Bytes of bodies on their way into the queues at once, in the whole process; more wait, up to
/// [`MESSAGE_BODY_TIMEOUT`], and the client feels it as back-pressure.
pub const MESSAGE_BODY_BYTES_TOTAL: u64 = 16 * MIB;
/// How long an asynchronous request's body may take to come, the wait for a place among those
/// included: what the application sends on loopback takes milliseconds. Without a place it answers
/// 503, without its end 408.
pub const MESSAGE_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The same under mode `Spill`, where it delays a request that may never need a queue, and nothing
/// waits for a place. What is not there by then goes its synchronous way and is not stored should
/// that fail.
pub const SPILL_BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that may wait in one queue unless its policy says otherwise (`queue.maxBytes`); more
/// answers 429.
pub const QUEUE_BYTES_MAX: u64 = 256 * MIB;
/// Messages that may wait in one queue unless its policy says otherwise (`queue.maxMessages`);
/// more answers 429.
pub const QUEUE_MESSAGES_MAX: u64 = 100_000;
/// The most a policy may allow to wait in one queue: the index in memory takes 28 to 40 bytes for
/// each.
pub const QUEUE_MESSAGES_CAP: u64 = 2_000_000;
/// Messages in all queues of a process; more answers 429.
pub const MESSAGES_TOTAL: u64 = 2_000_000;
/// Queues of one process; a request for one more answers 429.
pub const QUEUES_MAX: usize = 1024;
/// Bytes of an ordering key, an `Idempotency-Key` or a callback's address; longer answers 400. Bytes of a
/// sink's `uri`; a policy with a longer one is refused.
pub const MESSAGE_KEY_BYTES_MAX: usize = 1024;
/// Attempts after the first unless the policy says otherwise (`delivery.retry`).
pub const DELIVERY_RETRY: u32 = 12;
/// The most attempts a policy may ask for.
pub const DELIVERY_RETRY_CAP: u32 = 1000;
/// The first wait between attempts (`delivery.backoffDelay`).
pub const DELIVERY_BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest wait between attempts (`delivery.backoffMax`).
pub const DELIVERY_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// For one attempt (`delivery.timeout`).
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is heeded (`delivery.retryAfterMax`).
pub const DELIVERY_RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// From acceptance to the dead letter (`delivery.maxAge`).
pub const MESSAGE_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The farthest a message may be delayed.
pub const MESSAGE_DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Deliveries under way at once to one destination unless the policy says otherwise
/// (`rateLimits.maxConcurrentDispatches`).
pub const DISPATCHES_CONCURRENT: u32 = 20;
/// The most deliveries under way at once that a policy may ask for.
pub const DISPATCHES_CONCURRENT_CAP: u32 = 1000;
/// Deliveries begun at once after a pause (`rateLimits.maxBurstSize`).
pub const DISPATCHES_BURST: u32 = 100;
/// Values of `rateLimits.key`'s header with limits of their own at once, in one queue; further
/// ones share one.
pub const RATE_KEYS_MAX: usize = 1024;
/// How long an `Idempotency-Key` is remembered (`idempotency.window`).
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a final response is kept (`result.ttl`).
pub const RESULT_TTL: Duration = Duration::from_secs(60 * 60);
/// Bytes of a kept response's body (`result.maxBytes`); a longer one is not kept.
pub const RESULT_BYTES_MAX: u64 = 256 * KIB;
/// The most bytes of a kept response a policy may ask for.
pub const RESULT_BYTES_CAP: u64 = 4 * MIB;
/// Bytes of responses being read or stored at once, in the whole process: eight of the largest, 128
/// of [`RESULT_BYTES_MAX`]. Further ones are read when there is room, within their attempt's time. One
/// whose length is not told counts as the longest its policy keeps.
pub const RESULT_BYTES_TOTAL: u64 = 32 * MIB;
/// Attempts whose account is kept with a message; of more, the first and the last ones.
pub const ATTEMPTS_KEPT: usize = 20;
/// The longest a client may wait for a result (`Prefer: wait=N`); longer waits end here.
pub const RESULT_WAIT_MAX: Duration = Duration::from_secs(300);
/// Clients that wait for results at once; more are answered at once.
pub const RESULT_WAITERS_MAX: usize = 4096;
/// Share of a queue's bounds that its dead letter may fill; beyond it the queue stops and says so.
pub const DEAD_LETTER_RATIO: f64 = 0.5;
/// Bytes of the last response's body that a CloudEvent takes along to a sink as `knativeerrordata`, as
/// many as Knative's own dispatchers send; the rest is cut.
pub const SINK_ERROR_DATA_BYTES_MAX: usize = 1024;

/// Bytes of what one attempt's account says of its error; longer is cut.
pub const ATTEMPT_ERROR_BYTES_MAX: usize = 512;
/// Bytes of bodies on their way out of the queues at once, per store; further deliveries wait. One
/// body larger than this goes alone.
pub const DELIVERY_BODY_BYTES_TOTAL: u64 = 16 * MIB;
/// Requests to the queue's thread (status, cancel, operators) that wait; further callers wait to ask.
pub const QUEUE_COMMANDS_MAX: usize = 1024;
/// Messages on one page for an operator, as many as the store reads at once.
pub const PEEK_MAX: usize = 1000;
/// Messages whose bodies stand on one page of an export.
pub const EXPORT_MAX: usize = 100;
/// Messages an operator's purge takes out in one write, so that others get their turn in between.
pub const PURGE_STEP: usize = 256;
/// Messages a second that a redrive of a whole dead letter brings back at most.
pub const REDRIVE_PER_SECOND_MAX: f64 = 10_000.0;
/// Messages of one queue that wait for their own value of `rateLimits.key`'s header while others of
/// the queue may go. At the edge the queue's order is kept: what follows waits too.
pub const RATE_PARKED_MAX: usize = 10_000;
/// Messages of one queue read at once only to learn their value of that header.
pub const RATE_READS_MAX: u32 = 16;
/// Messages found too old that are moved to the dead letter at once, per store.
pub const EXPIRING_MAX: usize = 64;
/// Time constant of the arrivals and deliveries per second that a queue shows.
pub const PRESSURE_DECAY: Duration = Duration::from_secs(10);
/// How often a queue's depth and oldest age are noted for plots.
pub const QUEUE_SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Such notes kept: ten minutes.
pub const QUEUE_SAMPLES_MAX: usize = 60;
/// Answers 429 or 503 in a row, without another answer between them, after which the whole queue
/// waits rather than every message for itself.
pub const PUSHED_BACK_RUN: u32 = 5;
/// The shortest `Retry-After` of a 202, a 429 or a 503 about a queue.
pub const QUEUE_RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const QUEUE_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The wait before the end of an attempt is written again after the store had no room for it.
pub const SETTLE_RETRY: Duration = Duration::from_secs(1);
/// How long a cancelled message is remembered at least, so that cancelling is idempotent.
pub const CANCELLED_KEPT: Duration = Duration::from_secs(60 * 60);
/// How long an ended message is remembered beyond its result, so that the answer is 410, not 404.
pub const RECORD_KEPT: Duration = Duration::from_secs(60 * 60);
/// How often records whose time is over are removed.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// The last part of a drain's budget in which no attempt is begun any more, at most a tenth of it:
/// one that is cut off repeats after the next start, though it counts as none.
pub const DRAIN_TAIL: Duration = Duration::from_secs(1);
