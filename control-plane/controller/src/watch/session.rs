//! session: what one proxy asked for and holds, and what it has to be sent.
//!
//! No I/O: a test says hello, subscribes and looks at the answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::identity::Identity;
use policy::limits;
use policy::snapshot::{DestinationKey, Version};
use policy::wire::v1;

use crate::documents::{Encoded, Reader};

/// Bytes of documents in one answer; half of what a proxy takes leaves room for the envelope.
const ANSWER_BYTES: usize = limits::CONTROL_MESSAGE_BYTES_MAX / 2;
/// Characters of what a proxy calls its pod: the longest name Kubernetes allows.
const POD_NAME_MAX: usize = 253;

/// One proxy. There are thousands: what it holds is kept as keys that share the documents' memory.
pub(crate) struct Session {
    reader: Reader,
    /// Documents the proxy holds once it has applied all answers, by key.
    held: Vec<(Arc<str>, Version)>,
    sequence: u64,
    digest: Option<Version>,
    behind: bool,
}

impl Session {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader, held: Vec::new(), sequence: 0, digest: None, behind: false }
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.reader.identity()
    }

    /// Comes back when there may be something to send.
    ///
    /// # Cancel safety
    /// As [`Reader::woken`].
    pub(crate) async fn woken(&self) {
        self.reader.woken().await;
    }

    /// Documents the proxy holds once it has applied all answers.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the last answer was only a part.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Takes what the proxy says of itself. Destinations it still holds count as asked for: they
    /// must not be taken away only because its Subscribe comes a moment later.
    pub(crate) fn hello(&mut self, hello: v1::Hello) {
        let pod: String = hello.pod.chars().take(POD_NAME_MAX).collect();
        self.reader.stand(&pod);
        let mut held = Vec::with_capacity(hello.held.len().min(4 * limits::DESTINATIONS_MAX));
        for (key, version) in hello.held {
            let Ok(version) = version.parse() else { continue };
            if let Some(Ok(destination)) = key.strip_prefix("destination/").map(str::parse) {
                self.reader.want(&destination);
            }
            if held.len() < 4 * limits::DESTINATIONS_MAX {
                held.push((Arc::from(key), version));
            }
        }
        held.sort_unstable();
        self.held = held;
    }

    /// Takes what is needed and no longer needed.
    pub(crate) fn subscribe(&mut self, subscribe: v1::Subscribe) {
        for key in subscribe.remove.iter().filter_map(|text| text.parse().ok()) {
            self.reader.unwant(&key);
        }
        // One line however many: a proxy must not keep the controller writing.
        let mut refused = subscribe.add.len().saturating_sub(limits::DESTINATIONS_MAX);
        for text in subscribe.add.iter().take(limits::DESTINATIONS_MAX) {
            let key = text.parse::<DestinationKey>();
            if !key.is_ok_and(|key| self.reader.want(&key)) {
                refused += 1;
            }
        }
        if refused > 0 {
            tracing::warn!(identity = %self.identity(), refused, "subscriptions are not understood or too many");
        }
    }

    /// Takes the acknowledgement of answer `sequence`; says whether its digest was right, `None` when
    /// that was not the last answer: then it says nothing, for a newer one is on its way.
    pub(crate) fn acknowledge(&mut self, sequence: u64, digest: &str, is_whole: bool) -> Option<bool> {
        if sequence != self.sequence {
            return None;
        }
        let is_same = digest.parse().is_ok_and(|digest: Version| Some(digest) == self.digest);
        self.reader.acknowledge(is_same && is_whole);
        Some(is_same)
    }

    /// What has to be sent so that the proxy holds what the documents say; `None` when it does. The
    /// first answer is sent even when it is empty: it says that what is held is current.
    pub(crate) fn answer(&mut self) -> Option<v1::WatchResponse> {
        let needed = self.reader.needed()?;
        let mut changed = Vec::new();
        let mut bytes = 0;
        self.behind = false;
        for document in &needed.documents {
            let place = match self.held.binary_search_by(|(key, _)| (**key).cmp(&document.key)) {
                Ok(place) if self.held[place].1 == document.version => {
                    // A key that a proxy told us gives way to the one that is shared.
                    self.held[place].0.clone_from(&document.key);
                    continue;
                }
                place => place,
            };
            bytes += document.wire.body.len() + document.key.len();
            if bytes > ANSWER_BYTES && !changed.is_empty() {
                self.behind = true;
                break;
            }
            match place {
                Ok(place) => self.held[place].1 = document.version,
                Err(place) => self.held.insert(place, (document.key.clone(), document.version)),
            }
            changed.push(document.wire.clone());
        }
        let removed = if self.behind { Vec::new() } else { self.remove_all_but(&needed.documents) };
        if changed.is_empty() && removed.is_empty() && self.sequence > 0 {
            self.reader.idle();
            return None;
        }
        self.reader.send(&needed, !self.behind);
        self.sequence += 1;
        let digest = Version::digest(self.held.iter().map(|(key, version)| (&**key, *version)));
        self.digest = Some(digest);
        Some(v1::WatchResponse { sequence: self.sequence, changed, removed, digest: digest.to_string() })
    }

    fn remove_all_but(&mut self, needed: &[Arc<Encoded>]) -> Vec<String> {
        // All that is needed is held by now: as many of the one as of the other means the same ones.
        if self.held.len() == needed.len() {
            return Vec::new();
        }
        let keys: BTreeSet<&str> = needed.iter().map(|document| &*document.key).collect();
        let removed = self.held.iter().filter(|(key, _)| !keys.contains(&**key));
        let removed = removed.map(|(key, _)| key.to_string()).collect();
        self.held.retain(|(key, _)| keys.contains(&**key));
        self.held.shrink_to_fit();
        removed
    }
}
