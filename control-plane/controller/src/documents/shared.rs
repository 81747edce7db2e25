//! shared: the documents in use, what each hangs on, and the numbers of those who read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use policy::identity::Identity;
use policy::limits;
use policy::name::Label;
use policy::snapshot::{BackendKey, DestinationKey, Document};

use super::Encoded;
use crate::index::{Affected, Hold, Index, Named};

/// The documents in use; gone with the last who reads them.
#[derive(Default)]
pub(super) struct Shared {
    destinations: HashMap<DestinationKey, Destination>,
    backends: HashMap<BackendKey, Backend>,
    /// By pod; several where workloads of different identities claim to stand in it.
    inbound: HashMap<Named, Vec<Inbound>>,
    hanging: HashMap<Hold, BTreeSet<Key>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Destination(DestinationKey),
    Backend(BackendKey),
}

struct Destination {
    answers: Answers,
    holds: Vec<Hold>,
    /// Number and client namespace, by number.
    readers: Vec<(u64, Label)>,
}

/// What clients get.
struct Answers {
    common: Arc<Encoded>,
    /// For clients of namespaces that have routes of their own.
    own: BTreeMap<String, Arc<Encoded>>,
}

struct Backend {
    /// `None` while nothing of that name is there.
    encoded: Option<Arc<Encoded>>,
    holds: Vec<Hold>,
    /// The destinations that name it.
    users: BTreeSet<DestinationKey>,
}

struct Inbound {
    identity: Identity,
    encoded: Arc<Encoded>,
    readers: Vec<u64>,
}

impl Answers {
    fn new(index: &Index, key: &DestinationKey) -> Self {
        let answer = |client: &str| {
            let (destination, backends) = index.lookup(key, client);
            Encoded::new(&Document::Destination(key.clone(), Arc::new(destination)), backends)
        };
        let consumers = index.consumers(key);
        let own = consumers.into_iter().map(|client| (client.clone(), answer(&client))).collect();
        Self { common: answer(""), own }
    }

    fn of(&self, client: &str) -> &Arc<Encoded> {
        self.own.get(client).unwrap_or(&self.common)
    }

    fn backends(&self) -> BTreeSet<&BackendKey> {
        let all = [&self.common].into_iter().chain(self.own.values());
        all.flat_map(|encoded| &encoded.backends).collect()
    }

    fn is_as(&self, other: &Self) -> bool {
        let versions = |answers: &Self| {
            answers.own.iter().map(|(client, encoded)| (client.clone(), encoded.version)).collect::<Vec<_>>()
        };
        self.common.version == other.common.version
            && (self.own.is_empty() && other.own.is_empty() || versions(self) == versions(other))
    }
}

impl Shared {
    /// Encodes again what is named; `wake` is told who reads what became another.
    pub(super) fn refresh(&mut self, index: &Index, affected: &Affected, wake: &mut impl FnMut(u64)) {
        let hanging = affected.holds().filter_map(|hold| self.hanging.get(&hold));
        let keys: BTreeSet<Key> = hanging.flatten().cloned().collect();
        for key in keys {
            match key {
                Key::Destination(key) => self.refresh_destination(index, &key, wake),
                Key::Backend(key) => self.refresh_backend(index, &key, wake),
            }
        }
        let of_namespaces = |pod: &&Named| affected.namespaces.contains(&pod.0);
        let mut pods: BTreeSet<&Named> = affected.pods.iter().collect();
        if !affected.namespaces.is_empty() {
            pods.extend(self.inbound.keys().filter(of_namespaces));
        }
        let pods: Vec<Named> = pods.into_iter().cloned().collect();
        for pod in pods {
            for inbound in self.inbound.get_mut(&pod).into_iter().flatten() {
                let encoded = encode_inbound(index, &pod.1, &inbound.identity);
                if encoded.version != inbound.encoded.version {
                    inbound.encoded = encoded;
                    inbound.readers.iter().copied().for_each(&mut *wake);
                }
            }
        }
    }

    fn refresh_destination(&mut self, index: &Index, key: &DestinationKey, wake: &mut impl FnMut(u64)) {
        let Some(destination) = self.destinations.get_mut(key) else { return };
        let (answers, holds) = (Answers::new(index, key), index.destination_holds(key));
        let old_holds = std::mem::replace(&mut destination.holds, holds.clone());
        let hung = Key::Destination(key.clone());
        if old_holds != holds {
            unhang(&mut self.hanging, &old_holds, &hung);
            hang(&mut self.hanging, &holds, &hung);
        }
        if answers.is_as(&destination.answers) {
            return;
        }
        let old = std::mem::replace(&mut destination.answers, answers);
        let now = &destination.answers;
        for (reader, client) in &destination.readers {
            if old.of(client.as_str()).version != now.of(client.as_str()).version {
                wake(*reader);
            }
        }
        let (before, now): (Vec<_>, Vec<_>) = (
            old.backends().into_iter().cloned().collect(),
            destination.answers.backends().into_iter().cloned().collect(),
        );
        // First those that come: what both name stays as it is.
        now.iter().filter(|backend| !before.contains(backend)).for_each(|b| self.use_backend(index, b, key));
        before.iter().filter(|backend| !now.contains(backend)).for_each(|b| self.leave_backend(b, key));
    }

    fn refresh_backend(&mut self, index: &Index, key: &BackendKey, wake: &mut impl FnMut(u64)) {
        let Some(backend) = self.backends.get_mut(key) else { return };
        let (encoded, holds) = (encode_backend(index, key), index.backend_holds(key));
        if backend.holds != holds {
            let hung = Key::Backend(key.clone());
            unhang(&mut self.hanging, &backend.holds, &hung);
            hang(&mut self.hanging, &holds, &hung);
            backend.holds = holds;
        }
        let version = |encoded: &Option<Arc<Encoded>>| encoded.as_ref().map(|encoded| encoded.version);
        if version(&encoded) == version(&backend.encoded) {
            return;
        }
        backend.encoded = encoded;
        for destination in backend.users.iter().filter_map(|user| self.destinations.get(user)) {
            for (reader, client) in &destination.readers {
                if destination.answers.of(client.as_str()).backends.contains(key) {
                    wake(*reader);
                }
            }
        }
    }

    /// Notes that `reader` of namespace `client` reads `key`; returns the key to remember, which shares
    /// its memory, or `None` where there are too many.
    pub(super) fn read(
        &mut self,
        index: &Index,
        key: &DestinationKey,
        (reader, client): (u64, &Label),
    ) -> Option<DestinationKey> {
        if !self.destinations.contains_key(key) {
            if self.destinations.len() >= limits::DESTINATIONS_SHARED_MAX {
                return None;
            }
            self.make_destination(index, key);
        }
        let destination = self.destinations.get_mut(key)?;
        if let Err(place) = destination.readers.binary_search_by_key(&reader, |(number, _)| *number) {
            destination.readers.insert(place, (reader, client.clone()));
        }
        self.destinations.get_key_value(key).map(|(key, _)| key.clone())
    }

    fn make_destination(&mut self, index: &Index, key: &DestinationKey) {
        let (answers, holds) = (Answers::new(index, key), index.destination_holds(key));
        hang(&mut self.hanging, &holds, &Key::Destination(key.clone()));
        for backend in answers.backends() {
            self.use_backend(index, backend, key);
        }
        self.destinations.insert(key.clone(), Destination { answers, holds, readers: Vec::new() });
    }

    /// `reader` reads `key` no more.
    pub(super) fn leave(&mut self, key: &DestinationKey, reader: u64) {
        let Some(destination) = self.destinations.get_mut(key) else { return };
        if let Ok(place) = destination.readers.binary_search_by_key(&reader, |(number, _)| *number) {
            destination.readers.remove(place);
        }
        if !destination.readers.is_empty() {
            return;
        }
        let Some(gone) = self.destinations.remove(key) else { return };
        unhang(&mut self.hanging, &gone.holds, &Key::Destination(key.clone()));
        for backend in gone.answers.backends() {
            self.leave_backend(backend, key);
        }
    }

    fn use_backend(&mut self, index: &Index, key: &BackendKey, user: &DestinationKey) {
        if !self.backends.contains_key(key) {
            let (encoded, holds) = (encode_backend(index, key), index.backend_holds(key));
            hang(&mut self.hanging, &holds, &Key::Backend(key.clone()));
            self.backends.insert(key.clone(), Backend { encoded, holds, users: BTreeSet::new() });
        }
        if let Some(backend) = self.backends.get_mut(key) {
            backend.users.insert(user.clone());
        }
    }

    fn leave_backend(&mut self, key: &BackendKey, user: &DestinationKey) {
        let Some(backend) = self.backends.get_mut(key) else { return };
        backend.users.remove(user);
        if backend.users.is_empty()
            && let Some(gone) = self.backends.remove(key)
        {
            unhang(&mut self.hanging, &gone.holds, &Key::Backend(key.clone()));
        }
    }

    /// Notes that `reader` stands in `pod`.
    pub(super) fn stand(&mut self, index: &Index, pod: &Named, identity: &Identity, reader: u64) {
        let inbound = self.inbound.entry(pod.clone()).or_default();
        match inbound.iter_mut().find(|inbound| inbound.identity == *identity) {
            Some(inbound) => inbound.readers.push(reader),
            None => {
                let encoded = encode_inbound(index, &pod.1, identity);
                inbound.push(Inbound { identity: identity.clone(), encoded, readers: vec![reader] });
            }
        }
    }

    /// `reader` stands there no more.
    pub(super) fn go(&mut self, pod: &Named, reader: u64) {
        let Some(inbound) = self.inbound.get_mut(pod) else { return };
        for inbound in &mut *inbound {
            inbound.readers.retain(|number| *number != reader);
        }
        inbound.retain(|inbound| !inbound.readers.is_empty());
        if inbound.is_empty() {
            self.inbound.remove(pod);
        }
    }

    /// What comes into `pod`, for `identity`.
    pub(super) fn inbound(&self, pod: &Named, identity: &Identity) -> Option<&Arc<Encoded>> {
        let inbound = self.inbound.get(pod)?.iter().find(|inbound| inbound.identity == *identity)?;
        Some(&inbound.encoded)
    }

    /// Where `key` goes for a client of namespace `client`.
    pub(super) fn destination(&self, key: &DestinationKey, client: &str) -> Option<&Arc<Encoded>> {
        self.destinations.get(key).map(|destination| destination.answers.of(client))
    }

    /// Who serves `key`.
    pub(super) fn backend(&self, key: &BackendKey) -> Option<&Arc<Encoded>> {
        self.backends.get(key)?.encoded.as_ref()
    }

    /// Who reads anything of a Service, each once.
    pub(super) fn readers_of_service(&self, named: &Named) -> Vec<u64> {
        let holds = [Hold::Destination(named.clone()), Hold::Backend(named.clone())];
        let keys = holds.iter().filter_map(|hold| self.hanging.get(hold)).flatten();
        let mut readers = Vec::new();
        for key in keys {
            match key {
                Key::Destination(key) => readers.extend(self.readers(key)),
                Key::Backend(key) => {
                    let users = self.backends.get(key).into_iter().flat_map(|backend| &backend.users);
                    readers.extend(users.flat_map(|user| self.readers(user)));
                }
            }
        }
        readers.sort_unstable();
        readers.dedup();
        readers
    }

    /// Who stands in a pod.
    pub(super) fn readers_of_pod(&self, pod: &Named) -> Vec<u64> {
        self.inbound.get(pod).into_iter().flatten().flat_map(|inbound| &inbound.readers).copied().collect()
    }

    fn readers(&self, key: &DestinationKey) -> impl Iterator<Item = u64> + '_ {
        let readers = self.destinations.get(key).into_iter().flat_map(|destination| &destination.readers);
        readers.map(|(number, _)| *number)
    }

    /// Nothing is kept that nobody reads.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.destinations.is_empty()
            && self.backends.is_empty()
            && self.inbound.is_empty()
            && self.hanging.is_empty()
    }
}

fn encode_backend(index: &Index, key: &BackendKey) -> Option<Arc<Encoded>> {
    let backend = index.backend(key)?;
    Some(Encoded::new(&Document::Backend(key.clone(), Arc::new(backend)), Vec::new()))
}

fn encode_inbound(index: &Index, pod: &str, identity: &Identity) -> Arc<Encoded> {
    Encoded::new(&Document::Inbound(Arc::new(index.inbound(pod, identity))), Vec::new())
}

fn hang(hanging: &mut HashMap<Hold, BTreeSet<Key>>, holds: &[Hold], key: &Key) {
    for hold in holds {
        hanging.entry(hold.clone()).or_default().insert(key.clone());
    }
}

fn unhang(hanging: &mut HashMap<Hold, BTreeSet<Key>>, holds: &[Hold], key: &Key) {
    for hold in holds {
        if let Some(keys) = hanging.get_mut(hold) {
            keys.remove(key);
            if keys.is_empty() {
                hanging.remove(hold);
            }
        }
    }
}
