//! counts: what is counted of statuses.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How the writing of a status ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// It is written.
    Written,
    /// It stood there already.
    Unchanged,
    /// The object is gone, or another than the one it was meant for.
    Outdated,
    /// Others wrote between, each time.
    Contended,
    /// The API server says no.
    Refused,
    /// The API server could not be asked.
    Unavailable,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    outcome: Outcome,
}

/// What is counted of statuses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    ended: Family<Of, Counter>,
    /// Statuses that differ from what was written last.
    pub(super) pending: Gauge,
}

impl Writes {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let counts = Self::default();
        let help = "Statuses that were to be written, by how it ended";
        registry.register("tidegate_controller_status_writes", help, counts.ended.clone());
        let help = "Statuses that differ from what was written last";
        registry.register("tidegate_controller_statuses_pending", help, counts.pending.clone());
        counts
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.ended.get_or_create(&Of { outcome }).inc();
    }
}
