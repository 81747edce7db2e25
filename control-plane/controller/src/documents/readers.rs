//! readers: who is to be woken, and through which generation each proxy is current.

use std::collections::HashMap;
use std::sync::Arc;

use policy::identity::Identity;
use policy::limits;
use policy::name::Label;
use policy::snapshot::{BackendKey, DestinationKey};
use tokio::sync::Notify;

use super::{Documents, Encoded, State};
use crate::index::Named;

/// Whose proxies are asked about.
#[derive(Debug, Clone)]
pub(crate) enum Need {
    /// All that are connected.
    All,
    /// Those that read anything of this Service.
    Service(Named),
    /// The one that stands in this pod.
    Pod(Named),
}

/// How far the proxies that need something have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How many need it.
    pub(crate) needing: usize,
    /// How many of them are current.
    pub(crate) current: usize,
    /// The numbers of some that are not, [`Standing::BEHIND_MAX`] at most.
    pub(crate) behind: Vec<u64>,
}

impl Standing {
    /// Proxies that are behind and named: a status is read by people.
    pub(crate) const BEHIND_MAX: usize = 64;

    fn new() -> Self {
        Self { needing: 0, current: 0, behind: Vec::new() }
    }

    fn count(&mut self, reader: u64, is_current: bool) {
        self.needing += 1;
        if is_current {
            self.current += 1;
        } else if self.behind.len() < Self::BEHIND_MAX {
            self.behind.push(reader);
        }
    }
}

/// All readers.
#[derive(Default)]
pub(super) struct Readers {
    all: HashMap<u64, Slot>,
    /// The first generation each is not current through; only those who are behind.
    behind: HashMap<u64, u64>,
}

struct Slot {
    client: Label,
    woken: Arc<Notify>,
    /// The first generation of which something is not sent yet.
    unsent: Option<u64>,
    /// The first generation of which something is sent and not acknowledged.
    unacknowledged: Option<u64>,
}

impl Readers {
    /// Nothing was sent to it, so it is behind from the beginning.
    pub(super) fn enter(&mut self, number: u64, client: Label) -> Arc<Notify> {
        let woken = Arc::new(Notify::new());
        self.all.insert(number, Slot { client, woken: woken.clone(), unsent: Some(0), unacknowledged: None });
        self.behind.insert(number, 0);
        woken
    }

    fn leave(&mut self, number: u64) {
        self.all.remove(&number);
        self.behind.remove(&number);
    }

    /// A slow reader that is woken again has still only one answer to fetch.
    pub(super) fn wake(&mut self, number: u64, generation: u64) {
        if let Some(slot) = self.all.get_mut(&number) {
            slot.unsent.get_or_insert(generation);
            slot.woken.notify_one();
            self.behind.entry(number).or_insert(generation);
        }
    }

    pub(super) fn wake_all(&self) {
        self.all.values().for_each(|slot| slot.woken.notify_one());
    }

    fn settle(&mut self, number: u64, change: impl FnOnce(&mut Slot)) {
        let Some(slot) = self.all.get_mut(&number) else { return };
        change(slot);
        match earlier(slot.unsent, slot.unacknowledged) {
            Some(since) => self.behind.insert(number, since),
            None => self.behind.remove(&number),
        };
    }

    /// Costs as much as there are readers behind.
    pub(super) fn standing_of_all(&self, generation: u64) -> Standing {
        let mut standing = Standing::new();
        let behind = self.behind.iter().filter(|(_, since)| **since <= generation);
        behind.for_each(|(number, _)| standing.count(*number, false));
        Standing { needing: self.all.len(), current: self.all.len() - standing.needing, ..standing }
    }

    pub(super) fn standing(&self, readers: &[u64], generation: u64) -> Standing {
        let mut standing = Standing::new();
        for reader in readers {
            standing.count(*reader, self.behind.get(reader).is_none_or(|since| *since > generation));
        }
        standing
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// One proxy's reading; what it alone read is gone when it is dropped.
pub(crate) struct Reader {
    documents: Arc<Documents>,
    number: u64,
    identity: Identity,
    pod: Option<Named>,
    /// Sorted, and sharing the memory of the documents' own keys.
    wanted: Vec<DestinationKey>,
    woken: Arc<Notify>,
}

/// All documents of a reader as they are now.
pub(crate) struct Needed {
    /// Backends before the destinations that name them.
    pub(crate) documents: Vec<Arc<Encoded>>,
    /// The first generation of which something was not sent yet.
    since: Option<u64>,
}

impl Reader {
    pub(super) fn new(
        documents: Arc<Documents>,
        number: u64,
        identity: Identity,
        woken: Arc<Notify>,
    ) -> Self {
        Self { documents, number, identity, pod: None, wanted: Vec::new(), woken }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Comes back when a document it reads became another; once for however many.
    ///
    /// # Cancel safety
    /// A wake that came meanwhile is kept for the next call.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// It stands in this pod.
    pub(crate) fn stand(&mut self, pod: &str) {
        let named = (self.identity.namespace.to_string(), pod.to_owned());
        let mut state = self.documents.lock();
        let State { index, shared, .. } = &mut *state;
        if let Some(left) = self.pod.take() {
            shared.go(&left, self.number);
        }
        shared.stand(index, &named, &self.identity, self.number);
        self.pod = Some(named);
    }

    /// It wants `key`; says whether there was room.
    pub(crate) fn want(&mut self, key: &DestinationKey) -> bool {
        let Err(place) = self.wanted.binary_search(key) else { return true };
        if self.wanted.len() >= limits::DESTINATIONS_MAX {
            return false;
        }
        let mut state = self.documents.lock();
        let State { index, shared, readers, .. } = &mut *state;
        let Some(client) = readers.all.get(&self.number).map(|slot| slot.client.clone()) else {
            return false;
        };
        let Some(key) = shared.read(index, key, (self.number, &client)) else { return false };
        readers.settle(self.number, |slot| slot.unsent = Some(0));
        self.wanted.reserve_exact(1);
        self.wanted.insert(place, key);
        true
    }

    /// It wants `key` no more.
    pub(crate) fn unwant(&mut self, key: &DestinationKey) {
        if let Ok(place) = self.wanted.binary_search(key) {
            self.wanted.remove(place);
            self.documents.lock().shared.leave(key, self.number);
        }
    }

    /// Everything it has to hold; `None` while no batch came.
    pub(crate) fn needed(&self) -> Option<Needed> {
        let mut state = self.documents.lock();
        let State { generation, mesh, shared, readers, .. } = &mut *state;
        if *generation == 0 {
            return None;
        }
        let client = self.identity.namespace.as_str();
        let destinations: Vec<_> =
            self.wanted.iter().filter_map(|key| shared.destination(key, client)).collect();
        let mut backends: Vec<&BackendKey> =
            destinations.iter().flat_map(|document| &document.backends).collect();
        backends.sort_unstable();
        backends.dedup();
        let inbound = self.pod.as_ref().and_then(|pod| shared.inbound(pod, &self.identity));
        let mut documents = Vec::with_capacity(2 + backends.len() + destinations.len());
        documents.push(mesh.clone());
        documents.extend(inbound.cloned());
        documents.extend(backends.into_iter().filter_map(|key| shared.backend(key)).cloned());
        documents.extend(destinations.into_iter().cloned());
        let since = readers.all.get_mut(&self.number).and_then(|slot| slot.unsent.take());
        Some(Needed { documents, since })
    }

    /// An answer with something of `needed` goes out now; `is_whole`: nothing is left for another.
    pub(crate) fn send(&self, needed: &Needed, is_whole: bool) {
        self.documents.lock().readers.settle(self.number, |slot| {
            slot.unacknowledged = earlier(slot.unacknowledged, needed.since);
            if !is_whole {
                slot.unsent = earlier(slot.unsent, needed.since);
            }
        });
    }

    /// There was nothing to send.
    pub(crate) fn idle(&self) {
        self.documents.lock().readers.settle(self.number, |_| {});
    }

    /// The last answer sent was acknowledged; `is_held`: all of it is held now.
    pub(crate) fn acknowledge(&self, is_held: bool) {
        let since = (!is_held).then_some(0);
        self.documents.lock().readers.settle(self.number, |slot| slot.unacknowledged = since);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.documents.lock();
        for key in &self.wanted {
            state.shared.leave(key, self.number);
        }
        if let Some(pod) = &self.pod {
            state.shared.go(pod, self.number);
        }
        state.readers.leave(self.number);
    }
}
