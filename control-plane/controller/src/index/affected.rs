//! affected: which answers a batch of changes may have changed, and on what an answer hangs.
//!
//! What is named here may be equal after all: whoever keeps documents encodes it again and compares.
//! What is not named is as it was, to the byte; `tests/model.rs` holds us to that.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy::snapshot::{BackendKey, DestinationKey};

use super::{Index, Named, named_of};

/// Which answers may be others now.
#[derive(Debug, Default)]
pub(crate) struct Affected {
    /// Destinations of these Services.
    pub(crate) destinations: BTreeSet<Named>,
    /// Backends of these Services.
    pub(crate) backends: BTreeSet<Named>,
    /// Destinations and backends by address.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// What comes into these pods.
    pub(crate) pods: BTreeSet<Named>,
    /// What comes into any pod of these namespaces, known here or not.
    pub(crate) namespaces: BTreeSet<String>,
    /// The service accounts of pods are others.
    pub(crate) accounts: bool,
    /// The namespaces with sidecars may be others.
    pub(crate) injected: bool,
    /// The trust anchors are others.
    pub(crate) anchors: bool,
}

/// On what an answer hangs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Hold {
    /// How requests to a Service are routed.
    Destination(Named),
    /// How a Service is used, and who serves it.
    Backend(Named),
    /// Who has an address.
    Address(IpAddr),
}

impl Affected {
    /// What is named of destinations and backends, as they say on what they hang.
    pub(crate) fn holds(&self) -> impl Iterator<Item = Hold> + '_ {
        let destinations = self.destinations.iter().cloned().map(Hold::Destination);
        let backends = self.backends.iter().cloned().map(Hold::Backend);
        let addresses = self.addresses.iter().copied().map(Hold::Address);
        destinations.chain(backends).chain(addresses)
    }
}

impl Index {
    /// On what the answer to `key` hangs.
    pub(crate) fn destination_holds(&self, key: &DestinationKey) -> Vec<Hold> {
        match key {
            DestinationKey::Service(port) => vec![Hold::Destination(named_of(port))],
            DestinationKey::Address(address) => {
                let by_service = match self.addresses.service(address.ip()) {
                    Some(named) => Some(Hold::Destination(named.clone())),
                    None => self.addresses.claim(*address).map(|(named, _)| Hold::Backend(named.clone())),
                };
                [Hold::Address(address.ip())].into_iter().chain(by_service).collect()
            }
        }
    }

    /// On what the backend `key` hangs.
    pub(crate) fn backend_holds(&self, key: &BackendKey) -> Vec<Hold> {
        match key {
            BackendKey::Service(port) => vec![Hold::Backend(named_of(port))],
            BackendKey::Address(address) => {
                let claim = self.addresses.claim(*address).map(|(named, _)| Hold::Backend(named.clone()));
                [Hold::Address(address.ip())].into_iter().chain(claim).collect()
            }
        }
    }
}
