//! documents: every document that a proxy asked for, encoded once and shared, and who asked.
//!
//! A batch of changes goes into the index; the documents it names are encoded again, those whose bytes
//! are others take the place of the old ones, and only readers of these are woken. A document lives as
//! long as somebody reads it. Each batch is a generation: a reader is current through a generation when
//! its proxy has acknowledged everything that this and all earlier ones changed for it.
//!
//! One lock is held for all of it, and never while anything is sent. A batch takes about 20 µs for
//! each document that it names, and a microsecond for each reader that it wakes.

mod readers;
mod shared;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use readers::{Need, Reader, Standing};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::identity::Identity;
use policy::snapshot::{BackendKey, Document, Mesh, Version};
use policy::wire::{self, v1};
use resources::ObjectId;

use crate::index::{Affected, Index, Sidecars};
use crate::objects::{Change, has_status};
use readers::Readers;
use shared::Shared;

/// A document as it is sent; no `Debug`, for it may hold a secret.
pub(crate) struct Encoded {
    /// Its key on the wire, shared with whoever remembers that a proxy holds it.
    pub(crate) key: Arc<str>,
    /// Its version.
    pub(crate) version: Version,
    /// What is sent.
    pub(crate) wire: v1::Document,
    /// The backends it names, which have to be held with it.
    pub(crate) backends: Vec<BackendKey>,
}

impl Encoded {
    fn new(document: &Document, backends: Vec<BackendKey>) -> Arc<Self> {
        let wire = wire::encode(document);
        let (key, version) = (wire.key.as_str().into(), Version::of(&wire.body));
        Arc::new(Self { key, version, wire, backends })
    }
}

/// The index and all that is read of it.
pub(crate) struct Documents {
    state: Mutex<State>,
}

struct State {
    index: Index,
    /// Batches taken so far; 0: no answer can be given yet.
    generation: u64,
    mesh: Arc<Encoded>,
    shared: Shared,
    readers: Readers,
    /// Of every object that has a status the batch with which it came, or changed last.
    taken: BTreeMap<ObjectId, u64>,
}

/// What a batch was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Its generation.
    pub(crate) generation: u64,
    /// The service accounts of pods are others.
    pub(crate) accounts: bool,
    /// The namespaces with sidecars may be others.
    pub(crate) injected: bool,
    /// The trust anchors are others.
    pub(crate) anchors: bool,
}

impl Documents {
    /// Without any object, and without an answer until a batch came.
    pub(crate) fn new(mesh: Mesh, sidecars: Sidecars) -> Self {
        let encoded = Encoded::new(&Document::Mesh(Arc::new(mesh.clone())), Vec::new());
        let state = State {
            index: Index::new(mesh, sidecars),
            generation: 0,
            mesh: encoded,
            shared: Shared::default(),
            readers: Readers::default(),
            taken: BTreeMap::new(),
        };
        Self { state: Mutex::new(state) }
    }

    /// Takes a batch and wakes whoever reads what it changes. The first one, empty or not, is the
    /// word that all there is has been told.
    pub(crate) fn apply(&self, changes: Vec<Change>) -> Taken {
        let mut state = self.lock();
        let State { index, generation, shared, readers, taken, .. } = &mut *state;
        *generation += 1;
        note(taken, &changes, *generation);
        let affected = index.apply(changes);
        shared.refresh(index, &affected, &mut |reader| readers.wake(reader, *generation));
        if *generation == 1 {
            readers.wake_all();
        }
        let Affected { accounts, injected, anchors, .. } = affected;
        Taken { generation: *generation, accounts, injected, anchors }
    }

    /// The last batch; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Every object that has a status, and the batch with which it came, or changed last.
    pub(crate) fn with_status(&self) -> Vec<(ObjectId, u64)> {
        self.lock().taken.iter().map(|(id, taken)| (id.clone(), *taken)).collect()
    }

    /// The batch with which this object came, or changed last.
    pub(crate) fn taken(&self, id: &ObjectId) -> Option<u64> {
        self.lock().taken.get(id).copied()
    }

    /// Asks the index.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Index) -> T) -> T {
        question(&self.lock().index)
    }

    /// A reader for `identity`, known by `number`, which no other reader has.
    pub(crate) fn enter(self: &Arc<Self>, number: u64, identity: Identity) -> Reader {
        let woken = self.lock().readers.enter(number, identity.namespace.clone());
        Reader::new(self.clone(), number, identity, woken)
    }

    /// How far those who need any of `needs` have come, each counted once.
    pub(crate) fn standing(&self, needs: &[Need], generation: u64) -> Standing {
        let state = self.lock();
        let State { shared, readers, .. } = &*state;
        let mut of_any = Vec::new();
        for need in needs {
            match need {
                Need::All => return readers.standing_of_all(generation),
                Need::Service(named) => of_any.extend(shared.readers_of_service(named)),
                Need::Pod(named) => of_any.extend(shared.readers_of_pod(named)),
            }
        }
        of_any.sort_unstable();
        of_any.dedup();
        readers.standing(&of_any, generation)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(taken: &mut BTreeMap<ObjectId, u64>, changes: &[Change], generation: u64) {
    for change in changes {
        match change {
            Change::Put(object) if has_status(object.value.kind()) => {
                taken.insert(object.value.id(), generation);
            }
            Change::Put(_) => {}
            Change::Remove(id) => {
                taken.remove(id);
            }
        }
    }
}
