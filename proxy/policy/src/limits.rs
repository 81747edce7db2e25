//! limits: every bound of the two planes, with its unit, its reason and what happens at its edge.
//!
//! Reaching a bound is a coded refusal and a metric, never growth. The bounds a configuration may
//! change say so; the others are chosen so that nobody has to.

#![allow(clippy::cast_possible_truncation, reason = "constants whose values are seen below")]

mod control;
mod message;

use std::time::Duration;

pub use control::*;
pub use message::*;

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
/// Characters of a path that a route puts in another's place (HTTPPathModifier of the Gateway API): beyond, the
/// route is told as wrong.
pub const PATH_REPLACEMENT_CHARS_MAX: usize = 1024;
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
    assert!(TOKEN_REVIEW_TIMEOUT.as_secs() < HANDSHAKE_TIMEOUT.as_secs());
    assert!(TOKEN_REVIEWS_IN_FLIGHT_MAX < TOKEN_REVIEWS_WAITING_MAX);
    assert!(EXPIRY_NEAR.as_secs() < EXPIRY_SOON.as_secs());
};
