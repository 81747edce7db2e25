//! metrics: what the controller counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the controller counts.
pub(crate) struct Metrics {
    registry: Registry,
    /// `Watch` streams open now.
    pub(crate) watches: Gauge,
    /// Documents sent.
    pub(crate) documents_sent: Counter,
    /// Documents that a proxy refused.
    pub(crate) documents_rejected: Counter,
    /// Certificates signed for workloads.
    pub(crate) certificates_issued: Counter,
    /// Requests for a certificate that were refused.
    pub(crate) certificates_refused: Counter,
    /// What is wrong in the manifests now.
    pub(crate) manifest_problems: Gauge,
    /// Times that changed manifests were taken.
    pub(crate) reloads: Counter,
    /// Connections of proxies open now.
    pub(crate) connections: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let documents_sent = counter("tidegate_controller_documents_sent", "Documents sent to proxies");
        let documents_rejected =
            counter("tidegate_controller_documents_rejected", "Documents that a proxy refused");
        let certificates_issued =
            counter("tidegate_controller_certificates_issued", "Certificates signed for workloads");
        let certificates_refused =
            counter("tidegate_controller_certificates_refused", "Certificate requests refused");
        let reloads = counter("tidegate_controller_reloads", "Times that changed manifests were taken");
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let watches = gauge("tidegate_controller_watches", "Watch streams open now");
        let manifest_problems =
            gauge("tidegate_controller_manifest_problems", "What is wrong in the manifests now");
        let connections = gauge("tidegate_controller_connections", "Connections of proxies open now");
        Self {
            registry,
            watches,
            documents_sent,
            documents_rejected,
            certificates_issued,
            certificates_refused,
            manifest_problems,
            reloads,
            connections,
        }
    }

    /// All of it in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String fails never.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
