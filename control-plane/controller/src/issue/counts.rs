//! counts: what of identity is counted and shown.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of identity in a cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    reviews: Family<OutcomeLabel, Counter>,
    expiry: Family<CertificateLabel, Gauge>,
    /// What does not work now.
    pub(crate) troubles: Gauge,
}

/// How a token review ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// It is somebody's.
    Accepted,
    /// It is for another audience.
    Audience,
    /// The API server does not take it.
    Refused,
    /// It is no service account's.
    Account,
    /// Too many waited.
    Busy,
    /// The API server could not be asked.
    Unavailable,
}

/// A certificate whose end is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub(crate) enum Certificate {
    /// The issuer's.
    Issuer,
    /// The first of the anchors that ends.
    Anchors,
    /// The webhook's.
    Webhook,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: Certificate,
}

impl Counts {
    /// Registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let counts = Self::default();
        registry.register(
            "tidegate_controller_token_reviews",
            "Tokens shown to the API server",
            counts.reviews.clone(),
        );
        registry.register(
            "tidegate_controller_certificate_expiry_timestamp_seconds",
            "When a certificate ends, seconds since 1970",
            counts.expiry.clone(),
        );
        registry.register(
            "tidegate_controller_identity_troubles",
            "What of identity does not work now",
            counts.troubles.clone(),
        );
        counts
    }

    /// Counts a review.
    pub(crate) fn reviewed(&self, outcome: Outcome) {
        self.reviews.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Shows when a certificate ends.
    pub(crate) fn ends(&self, certificate: Certificate, at_seconds: i64) {
        self.expiry.get_or_create(&CertificateLabel { certificate }).set(at_seconds);
    }
}
