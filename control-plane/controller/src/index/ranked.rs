//! ranked: objects of which the first holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use resources::{Located, Object};

use super::Named;

/// Where an object stands among its like. In files the earlier one goes first; objects of a cluster
/// stand in no file, and the older goes first, then the one whose name does (the Gateway API's order
/// for policies that contradict each other, GEP-713).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    file: Arc<str>,
    line: usize,
    undated: bool,
    created: Option<String>,
    named: Named,
}

impl Rank {
    pub(super) fn of(object: &Located<Object>) -> Self {
        let meta = object.value.meta();
        Self {
            file: object.file.clone(),
            line: object.line,
            undated: meta.created.is_none(),
            created: meta.created.clone(),
            named: (meta.namespace.to_string(), meta.name.to_string()),
        }
    }
}

/// Objects of which the first holds.
#[derive(Debug)]
pub(super) struct Ranked<T>(BTreeMap<Rank, T>);

impl<T> Default for Ranked<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Ranked<T> {
    pub(super) fn first(&self) -> Option<&T> {
        self.0.values().next()
    }

    /// All, the first first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }

    pub(super) fn get(&self, rank: &Rank) -> Option<&T> {
        self.0.get(rank)
    }

    pub(super) fn insert(&mut self, rank: Rank, value: T) {
        self.0.insert(rank, value);
    }

    pub(super) fn remove(&mut self, rank: &Rank) {
        self.0.remove(rank);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
