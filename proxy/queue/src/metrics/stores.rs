//! stores: how the stores stand, read off them when somebody asks; of one that is not open, why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use store::{Condition, OpenError};

use super::{ClassLabels, Metrics};
use crate::handle::Shared;
use crate::id::Class;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    durability: &'static str,
    condition: &'static str,
}

type Look = fn(&Condition) -> u64;

const SIZES: [(&str, &str, Look); 2] = [
    ("tidegate_queue_store_bytes", "Bytes that a store takes", |of| of.bytes),
    ("tidegate_queue_store_bytes_max", "Bytes that a store may take", |of| of.bytes_max),
];

/// Whatever a store may be like.
const CONDITIONS: [&str; 9] = [
    "full",
    "damaged",
    "doubted",
    "poisoned",
    "in_use",
    "other_format",
    "other_owner",
    "volatile",
    "unusable",
];

/// Whether a store that is open is in this condition.
fn holds(of: &Condition, condition: &str) -> bool {
    match condition {
        "full" => of.full.is_some(),
        "damaged" => of.damaged.is_some(),
        "doubted" => of.doubted.is_some(),
        "poisoned" => of.poisoned.is_some(),
        // What keeps one from being opened.
        _ => false,
    }
}

/// The condition that kept a directory from being opened.
#[must_use]
pub fn closed_for(error: &OpenError) -> &'static str {
    match error {
        OpenError::Damaged { .. } => "damaged",
        OpenError::InUse(_) => "in_use",
        OpenError::Version { .. } => "other_format",
        OpenError::Owner { .. } => "other_owner",
        OpenError::NotDurable { .. } => "volatile",
        OpenError::Disk { .. } | OpenError::TooSmall(_) => "unusable",
    }
}

/// Stores that could not be opened, and the condition that kept them from it.
pub(super) type Closed = Mutex<BTreeMap<&'static str, &'static str>>;

impl Metrics {
    /// The store of `class` could not be opened, for this condition of [`closed_for`]; `None`: it is open.
    pub fn closed(&self, class: Class, condition: Option<&'static str>) {
        let mut closed = self.0.closed.lock().unwrap_or_else(PoisonError::into_inner);
        match condition {
            Some(condition) => closed.insert(class.as_str(), condition),
            None => closed.remove(class.as_str()),
        };
    }
}

pub(super) fn encode(
    sources: &[Weak<Shared>],
    closed: &Closed,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let sources: Vec<Arc<Shared>> = sources.iter().filter_map(Weak::upgrade).collect();
    let stores: Vec<(&'static str, Condition)> =
        sources.iter().map(|shared| (shared.class.as_str(), shared.store.condition())).collect();
    for (name, help, look) in SIZES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (durability, of) in &stores {
            let bytes = i64::try_from(look(of)).unwrap_or(i64::MAX);
            ConstGauge::new(bytes).encode(family.encode_family(&ClassLabels { durability })?)?;
        }
    }
    let (name, help) = ("tidegate_queue_store_condition", "1 where a store is in this condition");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (durability, of) in &stores {
        for condition in CONDITIONS {
            let labels = ConditionLabels { durability, condition };
            ConstGauge::new(i64::from(holds(of, condition))).encode(family.encode_family(&labels)?)?;
        }
    }
    let closed = closed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // One that was opened just now is told above.
    for (durability, why) in closed.iter().filter(|(class, _)| stores.iter().all(|(open, _)| open != *class))
    {
        for condition in CONDITIONS {
            let labels = ConditionLabels { durability, condition };
            ConstGauge::new(i64::from(condition == *why)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
