//! stores: how the stores stand, read off them when somebody asks.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use store::Condition;

use super::ClassLabels;
use crate::handle::Shared;

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

/// Each condition, and whether it holds.
fn conditions(of: &Condition) -> [(&'static str, bool); 4] {
    [
        ("full", of.full.is_some()),
        ("damaged", of.damaged.is_some()),
        ("doubted", of.doubted.is_some()),
        ("poisoned", of.poisoned.is_some()),
    ]
}

pub(super) fn encode(
    sources: &[Weak<Shared>],
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
        for (condition, holds) in conditions(of) {
            let labels = ConditionLabels { durability, condition };
            ConstGauge::new(i64::from(holds)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
