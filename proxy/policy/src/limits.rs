//! limits: every bound of the two planes, with its unit, its reason and what happens at its edge.
//!
//! Reaching a bound is a coded refusal and a metric, never growth. The bounds a configuration may
//! change say so; the others are chosen so that nobody has to.

#![allow(clippy::cast_possible_truncation, reason = "constants whose values are seen below")]

use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

// ---- one connection -----------------------------------------------------------------------

/// Connections waiting to be accepted, per listener. Linux caps it at `net.core.somaxconn` (4096
/// by default); smaller backlogs drop SYNs in a burst after a rollout (linkerd2-proxy#4355).
pub const LISTEN_BACKLOG: u32 = 4096;
/// Connections accepted and open at once, per listener, divided by the number of workers. At the
/// edge new ones are closed at once and counted. 10,000 idle ones cost about 200 MiB. Configurable.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Pause after the process ran out of descriptors (EMFILE), doubled up to
/// [`ACCEPT_BACKOFF_MAX`].
pub const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);
/// The longest pause between accepts after EMFILE.
pub const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Bytes read to tell a protocol. A ClientHello with a post-quantum key share takes about 1.8 KiB,
/// with many extensions up to 16 KiB (one TLS record, RFC 8446 §5.1).
pub const DETECT_BYTES_MAX: usize = 16 * KIB as usize + 5;
/// How long a connection may take to send a whole first line, preface or ClientHello once it has
/// begun to.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a silent client is waited for before the other side is dialled and watched too. Timers
/// tick in whole milliseconds, so it takes one to two and a half; a server-first banner comes that much
/// later than direct. Below a millisecond ordinary HTTP clients would be dialled for in vain.
pub const DETECT_SILENCE: Duration = Duration::from_millis(1);
/// A TLS handshake, from the first byte to the last.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A TCP connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Unacknowledged bytes older than this end a connection (TCP_USER_TIMEOUT, RFC 5482;
/// linkerd2-proxy#3174).
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// First TCP keepalive probe after this much silence.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(10);
/// Bytes of a transport header (`transport.l5d.io/v1`): a port, a name of at most 253 bytes and
/// tags. A longer length prefix ends the connection.
pub const TRANSPORT_HEADER_BYTES_MAX: usize = 1024;
/// Bytes in each direction's buffer while a TCP connection is carried through.
pub const DUPLEX_BUFFER_BYTES: usize = 16 * KIB as usize;
/// A carried TCP connection of which one side has ended and the other is silent is closed after
/// this.
pub const DUPLEX_HALF_CLOSED_IDLE: Duration = Duration::from_secs(600);
/// Names whose addresses are cached by the resolver.
pub const DNS_CACHE_MAX: usize = 1024;
/// The shortest time a DNS answer, also a negative one, is kept: a zero TTL must not become a busy
/// loop (linkerd2-proxy#4449).
pub const DNS_TTL_MIN: Duration = Duration::from_secs(1);
/// The longest time a negative DNS answer is kept.
pub const DNS_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(30);
/// How long a DNS question may take.
pub const DNS_TIMEOUT: Duration = Duration::from_secs(3);

// ---- one request --------------------------------------------------------------------------

/// Bytes of a request's or response's header block. nginx and Envoy take 32 to 60 KiB; larger
/// answers 431 (request) or 502 (response).
pub const HEADER_BYTES_MAX: usize = 64 * KIB as usize;
/// Bytes of an HTTP/2 header list that the connection lets through to be refused and counted here; the
/// library answers 431 to longer ones by itself.
pub const HEADER_LIST_BYTES_READ: usize = 2 * HEADER_BYTES_MAX;
/// Header fields in one message; more answers 431.
pub const HEADER_COUNT_MAX: usize = 100;
/// From the first byte of a request's header block to its last, and, on a connection that has
/// not sent one yet, from its beginning (Slowloris).
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// An inbound or outbound connection without a request on its way is closed after this. Longer
/// than the pools' own [`POOL_IDLE`], so that a client closes first.
pub const SERVER_IDLE: Duration = Duration::from_secs(600);
/// HTTP/2 streams at once on one accepted connection (RFC 9113 §5.1.2 recommends at least 100).
pub const STREAMS_MAX: u32 = 250;
/// HTTP/2 streams that a peer has reset before we saw them off; more ends the connection with
/// ENHANCE_YOUR_CALM (CVE-2023-44487).
pub const RESET_STREAMS_MAX: usize = 50;
/// HTTP/2 receive window of a stream: what one slow reader makes us hold. At 1 ms of round trip it
/// carries 256 MiB/s. It is fixed, not adaptive, so that h2's budget for small DATA frames, half of
/// the connection's window at up to 256 bytes a frame, suffices for a whole window of frames of 16
/// bytes; a stream of short messages to a slow reader would otherwise end the connection
/// (`too_many_data_frames`).
pub const STREAM_WINDOW_BYTES: u32 = 256 * KIB as u32;
/// HTTP/2 receive window of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 * MIB as u32;
/// Data frames below this are put together with those that are there already; every frame costs a
/// header, a write and a part of the receiver's budget.
pub const SMALL_FRAME_BYTES: usize = 4 * KIB as usize;
/// Frames are put together up to this; HTTP/2's own default for a frame (RFC 9113 §4.2).
pub const JOINED_FRAME_BYTES_MAX: usize = 16 * KIB as usize;
/// Bytes of one HTTP/2 stream that wait to be written.
pub const STREAM_SEND_BUFFER_BYTES: usize = 64 * KIB as usize;
/// Bytes read at once from an HTTP/1 connection, and the most that a half-read head may take.
pub const HTTP1_BUFFER_BYTES: usize = HEADER_BYTES_MAX;
/// Idle HTTP/1 connections kept per endpoint and worker.
pub const POOL_IDLE_MAX: usize = 128;
/// How long an idle pooled connection is kept. Below the keep-alive of common servers (Node 5 s,
/// gunicorn 2 s close earlier: a request that meets such a close is tried again on a new one).
pub const POOL_IDLE: Duration = Duration::from_secs(60);
/// HTTP/2 connections per endpoint and worker; a second one opens when every stream of the first
/// is taken.
pub const POOL_HTTP2_CONNECTIONS_MAX: usize = 4;
/// Requests on one HTTP/2 client connection before another is opened.
pub const POOL_HTTP2_STREAMS: u32 = 100;
/// Requests on their way to one backend; more wait in its queue. Configurable by BackendPolicy
/// `limits.maxInFlight`, divided by the number of workers. Inbound it bounds those on their way to
/// one port of the application, of each worker and undivided; more answer 503 at once.
pub const BACKEND_IN_FLIGHT_MAX: u32 = 2000;
/// Requests that wait for an endpoint or a free place of one backend; more answer 503. Configurable
/// by BackendPolicy `limits.queue`, divided by the number of workers.
pub const BACKEND_QUEUE_MAX: u32 = 500;
/// The longest such wait; then 503.
pub const BACKEND_QUEUE_TIMEOUT: Duration = Duration::from_secs(3);
/// Endpoints tried after failed connects or refused streams, per request.
pub const CONNECT_ATTEMPTS_MAX: u32 = 3;
/// Retries after a response that a rule may ask for.
pub const RETRY_ATTEMPTS_MAX: u32 = 10;
/// Retries per request over the window (GEP-3388's default).
pub const RETRY_BUDGET_RATIO: f64 = 0.2;
/// The window of the retry budget.
pub const RETRY_BUDGET_INTERVAL: Duration = Duration::from_secs(10);
/// Retries per second that the budget always allows.
pub const RETRY_BUDGET_MIN_PER_SECOND: u32 = 10;
/// Bytes of a request's body kept for a retry; a longer body is sent but not replayed.
/// Configurable by BackendPolicy `retry.maxBodyBytes` up to [`RETRY_BODY_BYTES_CAP`].
pub const RETRY_BODY_BYTES_MAX: u64 = 256 * KIB;
/// The most a policy may ask to keep of one body.
pub const RETRY_BODY_BYTES_CAP: u64 = 8 * MIB;
/// Bytes of bodies kept for retries in the whole process; beyond it requests are sent without a
/// replay.
pub const RETRY_BODY_BYTES_TOTAL: u64 = 16 * MIB;
/// The first wait before a retry, doubled each time with full jitter.
pub const RETRY_BACKOFF_MIN: Duration = Duration::from_millis(25);
/// The longest wait before a retry, a server's `Retry-After` included; a longer one ends the
/// retries.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Time constant of the peak EWMA (Finagle's default).
pub const EWMA_DECAY: Duration = Duration::from_secs(10);
/// The round trip a new endpoint is taken to have until one was measured.
pub const EWMA_DEFAULT_RTT: Duration = Duration::from_millis(30);
/// An endpoint whose connect failed is left out of the choice for this long, doubled on every
/// failure up to [`CONNECT_BACKOFF_MAX`].
pub const CONNECT_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest an endpoint is left out for failed connects.
pub const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Proxies a request may pass (counted by `Via` entries of our own name) before it is taken for a
/// loop and answered 508.
pub const HOPS_MAX: usize = 8;

// ---- one message --------------------------------------------------------------------------

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

// ---- one snapshot -------------------------------------------------------------------------

/// How long a destination that was never seen waits for the controller; then 503 with a cause.
pub const DESTINATION_WAIT: Duration = Duration::from_secs(3);
/// Destinations a proxy holds at once; more answer 503. The least recently used idle one goes
/// first.
pub const DESTINATIONS_MAX: usize = 4096;
/// A destination without traffic is given up after this.
pub const DESTINATION_IDLE: Duration = Duration::from_secs(600);
/// Endpoints in one backend's document; the controller leaves out the rest and says so.
pub const ENDPOINTS_PER_BACKEND_MAX: usize = 5000;
/// Rules in one destination's document.
pub const RULES_PER_DESTINATION_MAX: usize = 1024;
/// Bytes that a compiled regular expression of a rule may take: a proxy holds many. The controller
/// refuses a larger one; where one comes all the same, its rule answers 500.
pub const REGEX_BYTES_MAX: usize = MIB as usize;
/// Bytes of one message on the control stream.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 16 * MIB as usize;
/// The first wait before the controller is asked again, doubled each time; of each a random half
/// to all is waited.
pub const CONTROL_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait before the controller is asked again.
pub const CONTROL_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Keepalive of the control connection: a controller that does not answer this long is gone.
pub const CONTROL_KEEPALIVE: Duration = Duration::from_secs(10);
/// `Watch` streams one controller serves; more are refused with RESOURCE_EXHAUSTED.
pub const WATCHES_MAX: usize = 20_000;

// ---- identity -----------------------------------------------------------------------------

/// How long a workload's certificate lives.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The part of its life after which a certificate is renewed.
pub const LEAF_RENEW_AT: f64 = 2.0 / 3.0;
/// A certificate is valid from this much before it was signed: clocks differ.
pub const LEAF_CLOCK_SKEW: Duration = Duration::from_secs(20);
/// Bytes of a token or a certificate request.
pub const CERTIFY_BYTES_MAX: usize = 64 * KIB as usize;
/// Bytes of the file of trust anchors.
pub const ANCHORS_BYTES_MAX: u64 = MIB;
/// How often watched files (anchors, token) are looked at again.
pub const FILE_POLL: Duration = Duration::from_secs(1);

// ---- the program --------------------------------------------------------------------------

/// How long a proxy goes on with requests on their way after it was told to stop. Configurable;
/// below Kubernetes' default grace period of 30 s.
pub const DRAIN_GRACE: Duration = Duration::from_secs(25);
/// Label sets of one metric; further ones are counted under `other`.
pub const METRIC_SERIES_MAX: usize = 2000;
/// Access log lines that wait to be written; more are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = 4096;
/// Connections to the admin port at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Bytes of one manifest file, and of one document in it.
pub const MANIFEST_BYTES_MAX: u64 = 4 * MIB;
/// Files in a directory of manifests.
pub const MANIFEST_FILES_MAX: usize = 10_000;

const _: () = {
    assert!(CONNECTION_WINDOW_BYTES / 2 >= STREAM_WINDOW_BYTES / 16 * (256 - 16));
    assert!(RETRY_BODY_BYTES_MAX <= RETRY_BODY_BYTES_CAP);
    assert!(RETRY_BODY_BYTES_CAP <= RETRY_BODY_BYTES_TOTAL);
    assert!(MESSAGE_BODY_BYTES_MAX <= MESSAGE_BODY_BYTES_CAP);
    assert!(MESSAGE_BODY_BYTES_CAP <= MESSAGE_BODY_BYTES_TOTAL);
    assert!(SPILL_BODY_TIMEOUT.as_secs() <= MESSAGE_BODY_TIMEOUT.as_secs());
    assert!(RESULT_BYTES_MAX <= RESULT_BYTES_CAP && RESULT_BYTES_CAP <= RESULT_BYTES_TOTAL);
    assert!(QUEUE_MESSAGES_MAX <= QUEUE_MESSAGES_CAP && QUEUE_MESSAGES_CAP <= MESSAGES_TOTAL);
    assert!(MESSAGES_TOTAL < 1 << 32);
    assert!(QUEUES_MAX <= 1 << 10);
    assert!(EXPORT_MAX <= PEEK_MAX);
    assert!(POOL_IDLE.as_secs() < SERVER_IDLE.as_secs());
    assert!(LEAF_RENEW_AT > 0.5 && LEAF_RENEW_AT < 1.0);
};
