//! documents: one generation of the index, each document encoded once and shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use policy::identity::Identity;
use policy::snapshot::{BackendKey, DestinationKey, Document, Version};
use policy::wire::{self, v1};

use crate::index::Index;

/// Destinations kept encoded for all proxies.
const SHARED_MAX: usize = 16 * policy::limits::DESTINATIONS_MAX;

/// A document as it is sent; no `Debug`, for it may hold a secret.
pub(crate) struct Encoded {
    /// What is sent.
    pub(crate) wire: v1::Document,
    /// Its version.
    pub(crate) version: Version,
    /// The backends it names, which have to be held with it.
    pub(crate) backends: Vec<BackendKey>,
}

impl Encoded {
    fn new(document: &Document, backends: Vec<BackendKey>) -> Arc<Self> {
        let wire = wire::encode(document);
        Arc::new(Self { version: Version::of(&wire.body), wire, backends })
    }
}

/// One generation of the index.
pub(crate) struct Documents {
    index: Index,
    mesh: Arc<Encoded>,
    shared: Mutex<Shared>,
}

/// Encoded so far. Bounded by what proxies of this generation ask for, and gone with it.
#[derive(Default)]
struct Shared {
    /// By the client's namespace where it changes the answer.
    destinations: HashMap<(DestinationKey, String), Arc<Encoded>>,
    backends: HashMap<BackendKey, Option<Arc<Encoded>>>,
}

impl Documents {
    pub(crate) fn new(index: Index) -> Self {
        let mesh = Encoded::new(&Document::Mesh(Arc::new(index.mesh().clone())), Vec::new());
        Self { index, mesh, shared: Mutex::default() }
    }

    /// What the documents are made of.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Where the mesh ends.
    pub(crate) fn mesh(&self) -> Arc<Encoded> {
        self.mesh.clone()
    }

    /// What comes in; its own for each pod, so it is not kept.
    pub(crate) fn inbound(&self, pod: &str, identity: &Identity) -> Arc<Encoded> {
        Encoded::new(&Document::Inbound(Arc::new(self.index.inbound(pod, identity))), Vec::new())
    }

    /// Where `key` goes for a client of namespace `client`.
    pub(crate) fn destination(&self, key: &DestinationKey, client: &str) -> Arc<Encoded> {
        let client = if self.index.is_consumer(client) { client } else { "" };
        let place = (key.clone(), client.to_owned());
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let (destination, backends) = self.index.lookup(key, client);
            Encoded::new(&Document::Destination(key.clone(), Arc::new(destination)), backends)
        };
        // Keys come from proxies: what is asked beyond this is answered and not kept.
        if shared.destinations.len() >= SHARED_MAX && !shared.destinations.contains_key(&place) {
            return make();
        }
        shared.destinations.entry(place).or_insert_with(make).clone()
    }

    /// Who serves `key`.
    pub(crate) fn backend(&self, key: &BackendKey) -> Option<Arc<Encoded>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let backend = self.index.backend(key)?;
            Some(Encoded::new(&Document::Backend(key.clone(), Arc::new(backend)), Vec::new()))
        };
        if shared.backends.len() >= SHARED_MAX && !shared.backends.contains_key(key) {
            return make();
        }
        shared.backends.entry(key.clone()).or_insert_with(make).clone()
    }
}
