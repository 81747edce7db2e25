//! session: what one proxy asked for and holds, and what it has to be sent.
//!
//! No I/O: a test says hello, subscribes and looks at the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::identity::Identity;
use policy::limits;
use policy::snapshot::{DestinationKey, Version};
use policy::wire::v1;

use crate::documents::{Documents, Encoded};

/// Bytes of documents in one answer; half of what a proxy takes leaves room for the envelope.
const ANSWER_BYTES: usize = limits::CONTROL_MESSAGE_BYTES_MAX / 2;

/// One proxy.
pub(crate) struct Session {
    identity: Identity,
    pod: String,
    wanted: BTreeSet<DestinationKey>,
    held: BTreeMap<String, Version>,
    sequence: u64,
    digest: String,
    behind: bool,
}

impl Session {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            pod: String::new(),
            wanted: BTreeSet::new(),
            held: BTreeMap::new(),
            sequence: 0,
            digest: String::new(),
            behind: false,
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Documents the proxy holds once it has applied all answers.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the last answer was only a part.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether `digest` is that of answer `sequence`; `None` when that is not the last one.
    pub(crate) fn is_digest(&self, sequence: u64, digest: &str) -> Option<bool> {
        (sequence == self.sequence).then(|| digest == self.digest)
    }

    /// Takes what the proxy says of itself. Destinations it still holds count as asked for: they
    /// must not be taken away only because its Subscribe comes a moment later.
    pub(crate) fn hello(&mut self, hello: v1::Hello) {
        self.pod = hello.pod.chars().take(253).collect();
        for (key, version) in hello.held {
            let Ok(version) = version.parse() else { continue };
            if let Some(Ok(destination)) = key.strip_prefix("destination/").map(str::parse) {
                self.want(destination);
            }
            if self.held.len() < 4 * limits::DESTINATIONS_MAX {
                self.held.insert(key, version);
            }
        }
    }

    /// Takes what is needed and no longer needed.
    pub(crate) fn subscribe(&mut self, subscribe: v1::Subscribe) {
        for key in subscribe.remove.iter().filter_map(|text| text.parse().ok()) {
            self.wanted.remove(&key);
        }
        // One line however many: a proxy must not keep the controller writing.
        let mut refused = subscribe.add.len().saturating_sub(limits::DESTINATIONS_MAX);
        for text in subscribe.add.iter().take(limits::DESTINATIONS_MAX) {
            if !text.parse().is_ok_and(|key| self.want(key)) {
                refused += 1;
            }
        }
        if refused > 0 {
            tracing::warn!(identity = %self.identity, refused, "subscriptions are not understood or too many");
        }
    }

    /// Says whether there was room.
    fn want(&mut self, key: DestinationKey) -> bool {
        let room = self.wanted.len() < limits::DESTINATIONS_MAX || self.wanted.contains(&key);
        if room {
            self.wanted.insert(key);
        }
        room
    }

    /// What has to be sent so that the proxy holds what `documents` say; `None` when it does. The
    /// first answer is sent even when it is empty: it says that what is held is current.
    pub(crate) fn answer(&mut self, documents: &Documents) -> Option<v1::WatchResponse> {
        let needed = self.needed(documents);
        let mut changed = Vec::new();
        let mut bytes = 0;
        self.behind = false;
        for document in &needed {
            let key = &document.wire.key;
            if self.held.get(key) == Some(&document.version) {
                continue;
            }
            bytes += document.wire.body.len() + key.len();
            if bytes > ANSWER_BYTES && !changed.is_empty() {
                self.behind = true;
                break;
            }
            self.held.insert(key.clone(), document.version);
            changed.push(document.wire.clone());
        }
        let removed = if self.behind { Vec::new() } else { self.remove_all_but(&needed) };
        if changed.is_empty() && removed.is_empty() && self.sequence > 0 {
            return None;
        }
        self.sequence += 1;
        let parts = self.held.iter().map(|(key, version)| (key.as_str(), *version));
        self.digest = Version::digest(parts).to_string();
        Some(v1::WatchResponse { sequence: self.sequence, changed, removed, digest: self.digest.clone() })
    }

    /// Backends before destinations, so that a part never names what is not there.
    fn needed(&self, documents: &Documents) -> Vec<Arc<Encoded>> {
        let client = self.identity.namespace.as_str();
        let destinations: Vec<_> = self.wanted.iter().map(|key| documents.destination(key, client)).collect();
        let backends: BTreeSet<_> = destinations.iter().flat_map(|document| &document.backends).collect();
        let mut needed = vec![documents.mesh(), documents.inbound(&self.pod, &self.identity)];
        needed.extend(backends.into_iter().filter_map(|key| documents.backend(key)));
        needed.extend(destinations);
        needed
    }

    fn remove_all_but(&mut self, needed: &[Arc<Encoded>]) -> Vec<String> {
        let keys: BTreeSet<&str> = needed.iter().map(|document| document.wire.key.as_str()).collect();
        let removed: Vec<String> =
            self.held.keys().filter(|key| !keys.contains(key.as_str())).cloned().collect();
        for key in &removed {
            self.held.remove(key);
        }
        removed
    }
}
