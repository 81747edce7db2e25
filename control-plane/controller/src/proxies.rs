//! proxies: who is connected, what was sent and what was acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::limits;
use policy::snapshot::DestinationKey;
use serde::Serialize;

use crate::documents::{Documents, Need};
use crate::metrics::Metrics;

/// Refused documents remembered of one proxy.
const REJECTED_MAX: usize = 16;

/// One connected proxy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Proxy {
    /// Whom its certificate names.
    pub(crate) identity: String,
    /// The pod it says it stands in.
    pub(crate) pod: String,
    /// Its version.
    pub(crate) version: String,
    /// When its stream began, seconds since 1970.
    pub(crate) connected_since: u64,
    /// The last answer sent.
    pub(crate) sent: u64,
    /// The last answer acknowledged.
    pub(crate) acknowledged: u64,
    /// Whether it held then what we think it holds.
    pub(crate) digest_ok: bool,
    /// Documents it holds.
    pub(crate) documents: usize,
    /// Documents it refused, of the last acknowledgement that refused any.
    pub(crate) rejected: Vec<Rejected>,
}

/// A document that a proxy refused.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rejected {
    /// Its key.
    pub(crate) key: String,
    /// Its version.
    pub(crate) version: String,
    /// Why.
    pub(crate) reason: String,
}

impl Rejected {
    /// What proxies say is cut, so that none fills our memory.
    pub(crate) fn list(wire: Vec<policy::wire::v1::Rejected>) -> Vec<Self> {
        let cut = |text: String| text.chars().take(500).collect();
        let one = |r: policy::wire::v1::Rejected| Self {
            key: cut(r.key),
            version: cut(r.version),
            reason: cut(r.reason),
        };
        wire.into_iter().take(REJECTED_MAX).map(one).collect()
    }
}

/// How far the proxies that need something have come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// How many need it.
    pub(crate) needing: usize,
    /// How many of them hold all that they need, as it was at the generation asked about or later.
    pub(crate) current: usize,
    /// Pods whose proxies refused something of it, and why; a few where there are many.
    pub(crate) rejected: Vec<(String, String)>,
}

/// Everyone who is connected.
pub(crate) struct Proxies {
    connected: Mutex<(u64, BTreeMap<u64, Proxy>)>,
    documents: Arc<Documents>,
    metrics: Arc<Metrics>,
}

/// A place in the list, given back when dropped.
pub(crate) struct Seat {
    proxies: Arc<Proxies>,
    number: u64,
}

impl Proxies {
    pub(crate) fn new(documents: Arc<Documents>, metrics: Arc<Metrics>) -> Self {
        Self { connected: Mutex::default(), documents, metrics }
    }

    /// The generation of what is in force, for [`Proxies::progress`].
    pub(crate) fn generation(&self) -> u64 {
        self.documents.generation()
    }

    /// How far the proxies that need any of `needs` have come through `generation`. A proxy that refused
    /// anything, or holds other than it should, is not current.
    pub(crate) fn progress(&self, needs: &[Need], generation: u64) -> Progress {
        let standing = self.documents.standing(needs, generation);
        let connected = self.lock();
        let behind = standing.behind.iter().filter_map(|number| connected.1.get(number));
        let refused = behind.filter_map(|proxy| {
            let is_needed = |rejected: &&Rejected| needs.iter().any(|need| is_of(need, &rejected.key));
            let of_need = proxy.rejected.iter().find(is_needed)?;
            Some((proxy.pod.clone(), of_need.reason.clone()))
        });
        let rejected = refused.take(REJECTED_MAX).collect();
        Progress { needing: standing.needing, current: standing.current, rejected }
    }

    /// Takes a place; `None` when there are [`limits::WATCHES_MAX`] already.
    pub(crate) fn enter(self: &Arc<Self>, proxy: Proxy) -> Option<Seat> {
        let mut connected = self.lock();
        if connected.1.len() >= limits::WATCHES_MAX {
            return None;
        }
        connected.0 += 1;
        let number = connected.0;
        connected.1.insert(number, proxy);
        self.metrics.watches.inc();
        Some(Seat { proxies: self.clone(), number })
    }

    /// Everyone, in the order they came.
    pub(crate) fn list(&self) -> Vec<Proxy> {
        self.lock().1.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Proxy>)> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the document `key` belongs to `need`. Which Service an address belongs to its key does not
/// say: it may be the one.
fn is_of(need: &Need, key: &str) -> bool {
    let key = match need {
        Need::All => return true,
        Need::Pod(_) => return key == "inbound",
        Need::Service(_) => key.split_once('/').and_then(|(_, key)| key.parse().ok()),
    };
    match (need, key) {
        (Need::Service((namespace, name)), Some(DestinationKey::Service(port))) => {
            port.namespace.as_str() == namespace && port.name.as_str() == name
        }
        (_, key) => key.is_some(),
    }
}

impl Seat {
    /// Its number, which nobody has had before.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Writes down what became known of the proxy.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Proxy)) {
        if let Some(proxy) = self.proxies.lock().1.get_mut(&self.number) {
            change(proxy);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.proxies.lock().1.remove(&self.number);
        self.proxies.metrics.watches.dec();
    }
}
