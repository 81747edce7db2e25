//! counts: what became of what the API server asked.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Which question was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub(crate) enum Hook {
    inject,
    validate,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub(crate) enum Outcome {
    /// A pod got its sidecar.
    injected,
    /// A pod had one.
    already,
    /// A pod's namespace asked for one that it cannot have.
    left_out,
    /// Nobody asked, or nothing is wrong.
    unchanged,
    /// An object is stored, with a word of warning.
    warned,
    /// It is not stored.
    refused,
    /// Nobody could say.
    undecided,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    webhook: Hook,
    outcome: Outcome,
}

/// Admissions by question and outcome.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admissions(Family<Labels, Counter>);

impl Admissions {
    /// Registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let admissions = Self::default();
        let help = "Objects that the API server asked about, by what became of them";
        registry.register("tidegate_controller_admissions", help, admissions.0.clone());
        admissions
    }

    pub(crate) fn count(&self, webhook: Hook, outcome: Outcome) {
        self.0.get_or_create(&Labels { webhook, outcome }).inc();
    }
}
