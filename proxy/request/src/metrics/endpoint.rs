//! endpoint: the counters of one endpoint, and what is counted there.

use std::sync::{OnceLock, PoisonError};

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::{Metrics, Text};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndpointLabels {
    pub(super) backend: Text,
    pub(super) endpoint: Text,
    pub(super) pod: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndpointResultLabels {
    #[prometheus(flatten)]
    endpoint: EndpointLabels,
    result: &'static str,
}

/// How an attempt at an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptResult {
    Success,
    Failure,
    /// Its sidecar answered in its place.
    PeerError,
    Broken,
    Refused,
    NotConnected,
}

const RESULTS: [&str; 6] = ["success", "failure", "peer_error", "broken", "refused", "not_connected"];

impl AttemptResult {
    /// Of an attempt that was answered.
    pub(crate) fn of(status: StatusCode) -> Self {
        if status.is_server_error() { Self::Failure } else { Self::Success }
    }
}

/// The counters of one endpoint.
pub(crate) struct EndpointSeries {
    pub(super) labels: EndpointLabels,
    pub(super) metrics: Metrics,
    pub(super) results: [OnceLock<Counter>; RESULTS.len()],
    pub(crate) in_flight: Gauge,
}

impl EndpointSeries {
    pub(crate) fn record(&self, result: AttemptResult) {
        let at = result as usize;
        let counter = self.results[at].get_or_init(|| {
            let labels = EndpointResultLabels { endpoint: self.labels.clone(), result: RESULTS[at] };
            self.metrics.0.endpoints.get_or_create(&labels).clone()
        });
        counter.inc();
    }
}

impl Drop for EndpointSeries {
    fn drop(&mut self) {
        let inner = &self.metrics.0;
        let mut known = inner.endpoints_known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&self.labels).is_some_and(|weak| weak.strong_count() > 0) {
            return;
        }
        known.remove(&self.labels);
        inner.in_flight.remove(&self.labels);
        for result in RESULTS {
            inner.endpoints.remove(&EndpointResultLabels { endpoint: self.labels.clone(), result });
        }
    }
}
