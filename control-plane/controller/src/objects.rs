//! objects: all that are in force, and what changes among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use resources::{Located, Object, ObjectId};

/// What happened to one object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// It is there, or is another now.
    Put(Located<Object>),
    /// It is gone.
    Remove(ObjectId),
}

/// Whether objects of this kind are told what became of them.
pub(crate) fn has_status(kind: &str) -> bool {
    matches!(kind, "HTTPRoute" | "GRPCRoute" | "AccessPolicy" | "AsyncPolicy" | "BackendPolicy" | "MeshTrust")
}

/// All objects in force, each once.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    by_id: BTreeMap<ObjectId, Arc<Located<Object>>>,
    /// How many there are of each kind.
    counts: BTreeMap<&'static str, usize>,
}

impl Objects {
    /// Takes `changes`, and gives back those that do change something.
    pub(crate) fn take(&mut self, changes: Vec<Change>) -> Vec<Change> {
        changes.into_iter().filter(|change| self.take_one(change)).collect()
    }

    fn take_one(&mut self, change: &Change) -> bool {
        match change {
            Change::Put(object) => {
                let id = object.value.id();
                if self.by_id.get(&id).is_some_and(|old| **old == *object) {
                    return false;
                }
                let kind = id.kind;
                if self.by_id.insert(id, Arc::new(object.clone())).is_none() {
                    *self.counts.entry(kind).or_default() += 1;
                }
                true
            }
            Change::Remove(id) => {
                let is_gone = self.by_id.remove(id).is_some();
                if is_gone && let Some(count) = self.counts.get_mut(id.kind) {
                    *count -= 1;
                }
                is_gone
            }
        }
    }

    /// Takes `all` as all there are, and tells what that changes. Of two with one name the first
    /// holds.
    pub(crate) fn replace(&mut self, all: &[Located<Object>]) -> Vec<Change> {
        let mut new: BTreeMap<ObjectId, &Located<Object>> = BTreeMap::new();
        for object in all {
            new.entry(object.value.id()).or_insert(object);
        }
        let gone = self.by_id.keys().filter(|id| !new.contains_key(id)).cloned().map(Change::Remove);
        let changes = gone.chain(new.values().map(|object| Change::Put((*object).clone()))).collect();
        self.take(changes)
    }

    /// All of them, the eldest first, as the Gateway API settles contests; those without a time after
    /// the others, by place.
    pub(crate) fn list(&self) -> Vec<Arc<Located<Object>>> {
        let mut all: Vec<Arc<Located<Object>>> = self.by_id.values().cloned().collect();
        all.sort_by(|a, b| age(a).cmp(&age(b)));
        all
    }

    /// How many there are of each kind.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, usize> {
        &self.counts
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

fn age(object: &Located<Object>) -> impl Ord + '_ {
    let created = object.value.meta().created.as_deref();
    (created.is_none(), created, &*object.file, object.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(names: &[&str]) -> Vec<Located<Object>> {
        let one = |name: &&str| {
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: []}}\n---\n")
        };
        let text: String = names.iter().map(one).collect();
        let (objects, problems) = resources::parse_file("a.yaml", &text);
        assert!(problems.is_empty(), "{problems:?}");
        objects
    }

    fn said(changes: &[Change]) -> Vec<String> {
        let one = |change: &Change| match change {
            Change::Put(object) => format!("put {}", object.value.meta().name),
            Change::Remove(id) => format!("remove {}", id.name),
        };
        changes.iter().map(one).collect()
    }

    #[test]
    fn of_a_whole_set_only_what_differs_is_a_change() {
        let mut objects = Objects::default();
        assert_eq!(said(&objects.replace(&services(&["a", "b"]))), ["put a", "put b"]);
        assert_eq!(said(&objects.replace(&services(&["a", "c"]))), ["remove b", "put c"]);
        assert_eq!(said(&objects.replace(&services(&["a", "c"]))), [""; 0]);
        assert_eq!(objects.counts(), &BTreeMap::from([("Service", 2)]));
    }

    #[test]
    fn what_changes_nothing_is_left_out() {
        let mut objects = Objects::default();
        let [a, b] = services(&["a", "b"]).try_into().unwrap();
        let gone = Change::Remove(b.value.id());
        assert_eq!(said(&objects.take(vec![Change::Put(a.clone()), gone])), ["put a"]);
        assert_eq!(said(&objects.take(vec![Change::Put(a)])), [""; 0]);
    }

    #[test]
    fn the_eldest_stands_first() {
        let mut objects = Objects::default();
        let mut all = services(&["a", "b", "c"]);
        for (object, created) in all.iter_mut().zip([None, Some("2026-02-01"), Some("2026-01-01")]) {
            let Object::Service(service) = &mut object.value else { panic!() };
            service.meta.created = created.map(str::to_owned);
        }
        objects.replace(&all);
        let names: Vec<String> = objects.list().iter().map(|o| o.value.meta().name.to_string()).collect();
        assert_eq!(names, ["c", "b", "a"]);
    }
}
