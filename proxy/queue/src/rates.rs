//! rates: one queue's limits for each value of a header.
//!
//! The value stands in a message's head, which the index does not hold: a message whose turn comes is
//! read once to learn it, and parked with its value. From then on each value is a queue of its own,
//! with its own concurrency and token bucket. Values are bounded; those beyond share the first.

use std::collections::{BTreeMap, HashMap};

use policy::limits;
use store::message::Timestamp;

use crate::schedule::{Blocked, Gcra, Limits};

/// By priority, then order: the position.
type Parked = BTreeMap<(usize, u64), u64>;

#[derive(Debug)]
struct Value {
    gcra: Option<Gcra>,
    in_flight: u32,
    parked: Parked,
}

impl Value {
    fn at(&self, concurrent_max: u32) -> Option<Timestamp> {
        if self.in_flight >= concurrent_max {
            return None;
        }
        Some(self.gcra.map_or(Timestamp(0), |gcra| gcra.at()))
    }
}

/// The values of one queue.
#[derive(Debug)]
pub(crate) struct Rates {
    fresh: Option<Gcra>,
    names: HashMap<Box<str>, u16>,
    values: Vec<Value>,
    parked: usize,
    /// Messages being read.
    pub(crate) reading: u32,
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        let fresh = Gcra::new(limits);
        let shared = Value { gcra: fresh, in_flight: 0, parked: Parked::new() };
        Self { fresh, names: HashMap::new(), values: vec![shared], parked: 0, reading: 0 }
    }

    pub(crate) fn set_limits(&mut self, limits: &Limits) {
        self.fresh = Gcra::new(limits);
        for value in &mut self.values {
            value.gcra = self.fresh;
        }
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// Whether one more may be read.
    pub(crate) fn may_read(&self) -> bool {
        self.reading < limits::RATE_READS_MAX && self.parked < limits::RATE_PARKED_MAX
    }

    /// The number of a value.
    pub(crate) fn value(&mut self, name: &str, now: Timestamp) -> u16 {
        if let Some(value) = self.names.get(name) {
            return *value;
        }
        let value = if self.values.len() <= limits::RATE_KEYS_MAX {
            self.values.push(Value { gcra: self.fresh, in_flight: 0, parked: Parked::new() });
            u16::try_from(self.values.len() - 1).unwrap_or(0)
        } else {
            self.idle(now).unwrap_or(0)
        };
        if value != 0 {
            self.names.insert(name.into(), value);
        }
        value
    }

    /// Frees a value that nobody uses.
    fn idle(&mut self, now: Timestamp) -> Option<u16> {
        let unused = |value: &Value| {
            value.in_flight == 0 && value.parked.is_empty() && value.gcra.is_none_or(|gcra| gcra.idle(now))
        };
        let (name, at) = self.names.iter().find(|(_, at)| unused(&self.values[usize::from(**at)]))?;
        let (name, at) = (name.clone(), *at);
        self.names.remove(&name);
        Some(at)
    }

    pub(crate) fn park(&mut self, value: u16, rank: (usize, u64), position: u64) {
        self.values[usize::from(value)].parked.insert(rank, position);
        self.parked += 1;
    }

    pub(crate) fn unpark(&mut self, value: u16, rank: (usize, u64)) {
        if self.values[usize::from(value)].parked.remove(&rank).is_some() {
            self.parked -= 1;
        }
    }

    /// All that is parked.
    pub(crate) fn positions(&self) -> Vec<u64> {
        self.values.iter().flat_map(|value| value.parked.values().copied()).collect()
    }

    /// The first that may go: its rank, value and position.
    pub(crate) fn best(&self, concurrent_max: u32, now: Timestamp) -> Option<((usize, u64), u16, u64)> {
        (0u16..)
            .zip(&self.values)
            .filter(|(_, value)| value.at(concurrent_max).is_some_and(|at| at <= now))
            .filter_map(|(at, value)| {
                value.parked.first_key_value().map(|(rank, position)| (*rank, at, *position))
            })
            .min()
    }

    pub(crate) fn begun(&mut self, value: u16, now: Timestamp) {
        let value = &mut self.values[usize::from(value)];
        value.in_flight += 1;
        if let Some(gcra) = &mut value.gcra {
            gcra.take(now);
        }
    }

    pub(crate) fn landed(&mut self, value: u16) {
        if let Some(value) = self.values.get_mut(usize::from(value)) {
            value.in_flight = value.in_flight.saturating_sub(1);
        }
    }

    /// When the first parked one may go, if only time is missing.
    pub(crate) fn opens_at(&self, concurrent_max: u32) -> Option<Timestamp> {
        let parked = self.values.iter().filter(|value| !value.parked.is_empty());
        parked.filter_map(|value| value.at(concurrent_max)).min()
    }

    /// Why none of the parked ones may go.
    pub(crate) fn blocked(&self, concurrent_max: u32, now: Timestamp) -> Option<Blocked> {
        if self.parked == 0 || self.best(concurrent_max, now).is_some() {
            return None;
        }
        match self.opens_at(concurrent_max) {
            Some(_) => Some(Blocked::Rate),
            None => Some(Blocked::Concurrency),
        }
    }
}
