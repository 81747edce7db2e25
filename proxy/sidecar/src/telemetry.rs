//! telemetry: the log, and the counters of this room.

use std::io::IsTerminal as _;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use request::metrics::Direction;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};
use transport::listen::ListenMetrics;

/// Changes what is logged while the program runs.
#[derive(Clone)]
pub(crate) struct LogLevel(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl LogLevel {
    /// Begins to log to standard error.
    pub(crate) fn init(filter: &str) -> Result<Self, String> {
        let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log {filter:?}: {error}"))?;
        let (filter, handle) = reload::Layer::new(filter);
        let colours = std::io::stderr().is_terminal();
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()
            .map_err(|error| error.to_string())?;
        Ok(Self(handle))
    }

    pub(crate) fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PeerLabels {
    /// The SPIFFE ID the client's certificate names; empty without one.
    pub(crate) client: String,
    pub(crate) tls: &'static str,
    /// The application's port.
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TcpLabels {
    pub(crate) direction: Direction,
    /// The backend, or inbound the application's port.
    pub(crate) backend: String,
}

/// The counters of this room.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    accepted: Family<DirectionLabels, Counter>,
    refused: Family<DirectionLabels, Counter>,
    accept_errors: Family<DirectionLabels, Counter>,
    peers: Family<PeerLabels, Counter>,
    pub(crate) tcp_connections: Family<TcpLabels, Counter>,
    pub(crate) tcp_open: Family<TcpLabels, Gauge>,
    pub(crate) tcp_received: Family<TcpLabels, Counter>,
    pub(crate) tcp_sent: Family<TcpLabels, Counter>,
    pub(crate) certificate_expiry: Gauge<i64, AtomicI64>,
    pub(crate) controller_connected: Gauge,
    peers_known: Known,
    tcp_known: Known,
}

/// The label sets of a kind that exist, so that there are never too many.
type Known = Arc<Mutex<std::collections::HashSet<String>>>;

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::default())),
            accepted: Family::default(),
            refused: Family::default(),
            accept_errors: Family::default(),
            peers: Family::default(),
            tcp_connections: Family::default(),
            tcp_open: Family::default(),
            tcp_received: Family::default(),
            tcp_sent: Family::default(),
            certificate_expiry: Gauge::default(),
            controller_connected: Gauge::default(),
            peers_known: Arc::default(),
            tcp_known: Arc::default(),
        };
        metrics.with(|registry| {
            let m = &metrics;
            registry.register(
                "tidegate_transport_connections_accepted",
                "Connections taken in",
                m.accepted.clone(),
            );
            registry.register(
                "tidegate_transport_connections_refused",
                "Connections closed at once because too many were open",
                m.refused.clone(),
            );
            registry.register(
                "tidegate_transport_accept_errors",
                "Failed accepts, such as for lack of descriptors",
                m.accept_errors.clone(),
            );
            registry.register(
                "tidegate_sidecar_peer_requests",
                "Requests to the workload by client identity",
                m.peers.clone(),
            );
            registry.register(
                "tidegate_sidecar_tcp_connections",
                "Connections carried as bytes",
                m.tcp_connections.clone(),
            );
            registry.register(
                "tidegate_sidecar_tcp_connections_open",
                "Connections carried as bytes that are open",
                m.tcp_open.clone(),
            );
            registry.register(
                "tidegate_sidecar_tcp_received_bytes",
                "Bytes from the client on ended connections",
                m.tcp_received.clone(),
            );
            registry.register(
                "tidegate_sidecar_tcp_sent_bytes",
                "Bytes to the client on ended connections",
                m.tcp_sent.clone(),
            );
            registry.register(
                "tidegate_sidecar_certificate_expiry_timestamp_seconds",
                "When the certificate ends, seconds since 1970; 0 without one",
                m.certificate_expiry.clone(),
            );
            registry.register(
                "tidegate_sidecar_controller_connected",
                "1 while the policy stream is open",
                m.controller_connected.clone(),
            );
        });
        metrics
    }

    /// Registers another room's counters.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        act(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        self.with(|registry| {
            // Writing to a String does not fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, registry);
        });
        text
    }

    pub(crate) fn listener(&self, direction: Direction) -> ListenMetrics {
        let labels = DirectionLabels { direction };
        ListenMetrics {
            accepted: self.accepted.get_or_create(&labels).clone(),
            refused: self.refused.get_or_create(&labels).clone(),
            errors: self.accept_errors.get_or_create(&labels).clone(),
        }
    }

    /// The counter of one client's requests, among a bounded number of clients.
    pub(crate) fn peer(&self, labels: PeerLabels) -> Counter {
        let name = format!("{} {} {}", labels.client, labels.tls, labels.port);
        let labels = if is_known(&self.peers_known, name) {
            labels
        } else {
            PeerLabels { client: "other".to_owned(), port: 0, ..labels }
        };
        self.peers.get_or_create(&labels).clone()
    }

    /// The labels of carried bytes, among a bounded number of backends.
    pub(crate) fn tcp_labels(&self, direction: Direction, backend: String) -> TcpLabels {
        let known = is_known(&self.tcp_known, format!("{direction:?} {backend}"));
        TcpLabels { direction, backend: if known { backend } else { "other".to_owned() } }
    }
}

fn is_known(known: &Known, name: String) -> bool {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.contains(&name) || (known.len() < policy::limits::METRIC_SERIES_MAX && known.insert(name))
}
