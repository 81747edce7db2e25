//! metrics: what the controller counts.

use std::time::UNIX_EPOCH;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::cluster::Watched;
use crate::inject::Admissions;
use crate::issue::Counts;
use crate::status::Writes;

/// A kind of object, of the few that are watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

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
    /// What is wrong with objects now.
    pub(crate) problems: Gauge,
    /// Times that changed objects were taken.
    pub(crate) reloads: Counter,
    /// Connections of proxies open now.
    pub(crate) connections: Gauge,
    /// 1 where this replica writes.
    pub(crate) leader: Gauge,
    watched: Family<OfKind, Gauge>,
    objects: Family<OfKind, Gauge>,
    heard: Family<OfKind, Gauge>,
    /// Of identity in a cluster.
    pub(crate) identity: Counts,
    /// What the API server asked about.
    pub(crate) admissions: Admissions,
    /// Statuses written.
    pub(crate) statuses: Writes,
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
        let reloads = counter("tidegate_controller_reloads", "Times that changed objects were taken");
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let watches = gauge("tidegate_controller_watches", "Watch streams open now");
        let problems = gauge("tidegate_controller_problems", "What is wrong with objects now");
        let leader = gauge("tidegate_controller_leader", "1 where this replica holds the Lease and writes");
        let connections = gauge("tidegate_controller_connections", "Connections of proxies open now");
        let mut by_kind = |name: &str, help: &str| {
            let family = Family::<OfKind, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let watched = by_kind("tidegate_controller_kind_watched", "1 where the watch of a kind stands");
        let objects = by_kind("tidegate_controller_kind_objects", "Objects of a kind in the cluster");
        let heard = by_kind(
            "tidegate_controller_kind_last_event_timestamp_seconds",
            "When something was last heard of a kind",
        );
        let identity = Counts::new(&mut registry);
        let admissions = Admissions::new(&mut registry);
        let statuses = Writes::new(&mut registry);
        Self {
            registry,
            watches,
            documents_sent,
            documents_rejected,
            certificates_issued,
            certificates_refused,
            problems,
            reloads,
            connections,
            leader,
            watched,
            objects,
            heard,
            identity,
            admissions,
            statuses,
        }
    }

    /// Takes how the kinds of the cluster are watched.
    pub(crate) fn watched(&self, all: &[Watched]) {
        for kind in all {
            let of = OfKind { kind: kind.kind };
            self.watched.get_or_create(&of).set(i64::from(kind.stands));
            self.objects.get_or_create(&of).set(i64::try_from(kind.objects).unwrap_or(i64::MAX));
            let since = kind.heard.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let seconds = since.map_or(0, |since| since.as_secs());
            self.heard.get_or_create(&of).set(i64::try_from(seconds).unwrap_or(i64::MAX));
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
