//! control: the bounds of snapshots and policies, of identity, and of the programs.

use std::time::Duration;

use super::{KIB, MIB};

// ---- one snapshot -------------------------------------------------------------------------

/// How long a destination that was never seen waits for the controller; then 503 with a cause.
pub const DESTINATION_WAIT: Duration = Duration::from_secs(3);
/// Destinations a proxy holds at once; more answer 503. The least recently used idle one goes
/// first.
pub const DESTINATIONS_MAX: usize = 4096;
/// Different destinations that all proxies of one controller ask for at once: it keeps each encoded,
/// in about half a KiB. Further ones are refused and logged; it takes 64 proxies at their own bound to
/// come there.
pub const DESTINATIONS_SHARED_MAX: usize = 64 * DESTINATIONS_MAX;
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

// ---- one policy object --------------------------------------------------------------------
// Each of these refuses the object, in the reader and in the API server alike: a rule written in CEL
// is let in only when its worst case is bounded.

/// Entries of `targetRefs`, as many as the Gateway API allows in its own policies.
pub const POLICY_TARGETS_MAX: usize = 16;
/// Ports that a BackendPolicy or an AccessPolicy may name; a Service has rarely ten.
pub const POLICY_PORTS_MAX: usize = 64;
/// Methods, and hosts for callbacks, that one AsyncPolicy may name.
pub const POLICY_NAMES_MAX: usize = 64;
/// Labels that an AccessPolicy may select by.
pub const SELECTOR_LABELS_MAX: usize = 64;
/// Rules of one AccessPolicy.
pub const ACCESS_RULES_MAX: usize = 64;
/// Peers that one rule of an AccessPolicy may name; with [`ACCESS_RULES_MAX`] 4096 for a port, all of
/// which are told to its sidecar.
pub const ACCESS_SOURCES_MAX: usize = 64;
/// Texts of certificates in a MeshTrust: more overlap in no rotation.
pub const MESH_ANCHORS_MAX: usize = 16;
/// Characters of one of them. All together stay below [`ANCHORS_BYTES_MAX`], which a proxy reads.
pub const MESH_ANCHOR_CHARS_MAX: usize = ANCHORS_BYTES_MAX as usize / MESH_ANCHORS_MAX;
/// Characters of a duration: every unit once, with nine digits before and after the point, is 64.
pub const DURATION_CHARS_MAX: usize = 64;
/// Characters of a number of bytes: 19 digits, a point, 19 digits and a unit.
pub const QUANTITY_CHARS_MAX: usize = 41;
/// Characters of `header:NAME`. HTTP bounds no name; the longest in use are below 64.
pub const HEADER_KEY_CHARS_MAX: usize = 135;
/// Targets of one status, and parents of a route's: the Gateway API's own bounds are 16 and 32.
pub const STATUS_PARENTS_MAX: usize = 32;
/// Characters of a condition's message, as Kubernetes bounds them; longer is cut.
pub const CONDITION_MESSAGE_CHARS_MAX: usize = 32_768;

// ---- identity -----------------------------------------------------------------------------

/// How long a workload's certificate lives.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The part of its life after which a certificate is renewed.
pub const LEAF_RENEW_AT: f64 = 2.0 / 3.0;
/// A certificate is valid from this much before it was signed: clocks differ.
pub const LEAF_CLOCK_SKEW: Duration = Duration::from_secs(20);
/// Bytes of a token or a certificate request.
pub const CERTIFY_BYTES_MAX: usize = 64 * KIB as usize;
/// Token reviews that the API server is asked at once; further ones wait. It answers one in some
/// milliseconds, so that a thousand pods that start together have theirs within a second.
pub const TOKEN_REVIEWS_IN_FLIGHT_MAX: usize = 32;
/// Certificate requests that wait for their review; one more is refused with RESOURCE_EXHAUSTED, and
/// its proxy asks again.
pub const TOKEN_REVIEWS_WAITING_MAX: usize = 2000;
/// For one token review, the wait for its turn included; then UNAVAILABLE. Below the time that a proxy
/// waits for its certificate ([`HANDSHAKE_TIMEOUT`]), so that it is told why.
pub const TOKEN_REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Anchors of issuers that were replaced, kept while certificates of theirs may live. Beyond it the
/// oldest goes, and with it what it signed.
pub const FORMER_ANCHORS_MAX: usize = 8;
/// How often what the controller keeps in a cluster (issuer, anchors, the webhook's certificate) is
/// looked at even when nobody said that it changed.
pub const CLUSTER_POLL: Duration = Duration::from_secs(30);
/// For one request to the API server about one of these.
pub const CLUSTER_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the webhook's certificate lives; it is renewed at [`LEAF_RENEW_AT`] of it, by itself.
pub const WEBHOOK_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long the API servers know the webhook's next certificate before it is served: each reads the
/// configuration in its own time, usually within a second.
pub const WEBHOOK_SETTLE: Duration = Duration::from_secs(10 * 60);
/// A certificate with less than this left that nobody renews by itself is told of once a day.
pub const EXPIRY_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Likewise as an error, whoever renews it.
pub const EXPIRY_NEAR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
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
/// Objects that the controller asks the Kubernetes API for at once, as other clients do: the page is
/// held in memory as text, and an object has up to 1.5 MiB (etcd's limit). More come in further pages.
pub const API_PAGE_MAX: u32 = 500;
/// Events of the Kubernetes API that wait to be taken in; watches read no further meanwhile.
pub const API_EVENTS_MAX: usize = 256;
/// Bytes of one event of the Kubernetes API: an object has up to 1.5 MiB (etcd's limit), and more where
/// JSON escapes it. A watch with a longer one is taken for broken.
pub const API_EVENT_BYTES_MAX: usize = 8 * MIB as usize;
/// The first wait before the Kubernetes API is asked again, doubled each time; of each a random half
/// to all is waited.
pub const API_BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait before the Kubernetes API is asked again: so long after it is back the last watch
/// stands.
pub const API_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How often statuses are looked at, for proxies acknowledge without a word to anybody else; what changed
/// is looked at sooner. A look at a thousand objects takes some 20 ms.
pub const STATUS_LOOK: Duration = Duration::from_secs(1);
/// How soon after a change its objects' statuses are looked at: most proxies have acknowledged it by then,
/// so that one write says so.
pub const STATUS_SOON: Duration = Duration::from_millis(250);
/// Statuses that are written after one look, so that a change of everything does not fill the API
/// server's queue; the others come after the next. Each takes two requests, one after the other.
pub const STATUS_WRITES_MAX: usize = 100;
/// Times that one status is read and written again in a row because others wrote between; then later.
pub const STATUS_TRIES_MAX: usize = 3;
/// How long a proxy may take to acknowledge what was sent before `Programmed` is said to be false. A
/// proxy's stream that hangs is ended after [`CONTROL_KEEPALIVE`] and once more as long for the answer.
pub const STATUS_PATIENCE: Duration = Duration::from_secs(30);
/// Objects that one replica of the controller asks another about at once; of more it asks in pieces. An
/// answer of so many has some 100 KiB.
pub const PROGRESS_SUBJECTS_MAX: usize = 1000;
/// For all such questions of one look. A replica that does not answer in time is one whose proxies are not
/// known.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);
/// Other replicas of the controller that are asked; a mesh has two or three.
pub const REPLICAS_MAX: usize = 16;
/// After how long a status that was written is compared with the cluster again: somebody may have
/// taken it away, which no watch of ours tells.
pub const STATUS_RECHECK: Duration = Duration::from_secs(600);
/// Problems of a cluster's objects that are shown; of more the number is told.
pub const PROBLEMS_MAX: usize = 1000;
/// Bytes of one question of the API server: an object of at most 3 MiB (its own limit of a request),
/// the one it replaces, and the frame around both. More is answered 413.
pub const ADMISSION_BYTES_MAX: usize = 8 * MIB as usize;
