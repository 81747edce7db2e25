//! addresses: who has which address, and which Services a pod or an address serves.
//!
//! An address may be held by several for a moment, while pods hand it on: all are kept, and the first
//! by name is asked.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use super::Named;

/// Who has which address.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    services: Several<IpAddr, Named>,
    pods: Several<IpAddr, Named>,
    /// Service ports that lead to an address: the Service, the place of the port in it, the port.
    claims: Several<SocketAddr, (Named, usize, u16)>,
    serving_pods: Several<Named, Named>,
    serving: Several<IpAddr, Named>,
    joined: HashMap<Named, Joined>,
}

/// What the slices of one Service name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    /// Addresses that a port of the Service leads to: the place of the port, and the port.
    pub(super) claims: BTreeSet<(SocketAddr, usize, u16)>,
    /// Pods that endpoints name.
    pub(super) pods: BTreeSet<Named>,
    /// All addresses of endpoints.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Addresses {
    /// The Service with this cluster address.
    pub(super) fn service(&self, address: IpAddr) -> Option<&Named> {
        self.services.first(&address)
    }

    /// The pod with this address.
    pub(super) fn pod(&self, address: IpAddr) -> Option<&Named> {
        self.pods.first(&address)
    }

    /// All pods that say they have this address.
    pub(super) fn pods(&self, address: IpAddr) -> &[Named] {
        self.pods.all(&address)
    }

    /// The Service and port whose endpoint this is.
    pub(super) fn claim(&self, address: SocketAddr) -> Option<(&Named, u16)> {
        self.claims.first(&address).map(|(named, _, port)| (named, *port))
    }

    /// Whether any slice names this address.
    pub(super) fn is_endpoint(&self, address: IpAddr) -> bool {
        !self.serving.all(&address).is_empty()
    }

    /// Services whose slices name this pod.
    pub(super) fn served_by_pod(&self, pod: &Named) -> &[Named] {
        self.serving_pods.all(pod)
    }

    /// Services whose slices name this address.
    pub(super) fn served_by(&self, address: IpAddr) -> &[Named] {
        self.serving.all(&address)
    }

    /// Addresses that ports of this Service lead to.
    pub(super) fn claimed(&self, service: &Named) -> impl Iterator<Item = IpAddr> + '_ {
        self.joined.get(service).into_iter().flat_map(|joined| &joined.claims).map(|claim| claim.0.ip())
    }

    /// A Service's cluster addresses are `new`, not `old`; returns those that differ.
    pub(super) fn move_service(&mut self, named: &Named, old: &[IpAddr], new: &[IpAddr]) -> Vec<IpAddr> {
        self.services.move_one(named, old, new)
    }

    /// A pod's addresses are `new`, not `old`.
    pub(super) fn move_pod(&mut self, named: &Named, old: &[IpAddr], new: &[IpAddr]) {
        self.pods.move_one(named, old, new);
    }

    /// Takes what a Service's slices name now; returns the addresses that are claimed or named
    /// otherwise than before.
    pub(super) fn join(&mut self, service: &Named, new: Joined) -> BTreeSet<IpAddr> {
        let old = self.joined.remove(service).unwrap_or_default();
        let mut differ = BTreeSet::new();
        for (address, place, port) in old.claims.difference(&new.claims) {
            self.claims.remove(address, &(service.clone(), *place, *port));
            differ.insert(address.ip());
        }
        for (address, place, port) in new.claims.difference(&old.claims) {
            self.claims.insert(*address, (service.clone(), *place, *port));
            differ.insert(address.ip());
        }
        for pod in old.pods.difference(&new.pods) {
            self.serving_pods.remove(pod, service);
        }
        for pod in new.pods.difference(&old.pods) {
            self.serving_pods.insert(pod.clone(), service.clone());
        }
        for address in old.addresses.difference(&new.addresses) {
            self.serving.remove(address, service);
            differ.insert(*address);
        }
        for address in new.addresses.difference(&old.addresses) {
            self.serving.insert(*address, service.clone());
            differ.insert(*address);
        }
        if new != Joined::default() {
            self.joined.insert(service.clone(), new);
        }
        differ
    }
}

/// For each key a few values in order; most have one, for which a tree would be large.
#[derive(Debug)]
struct Several<K, V>(HashMap<K, Vec<V>>);

impl<K, V> Default for Several<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Ord> Several<K, V> {
    fn all(&self, key: &K) -> &[V] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    fn first(&self, key: &K) -> Option<&V> {
        self.all(key).first()
    }

    fn insert(&mut self, key: K, value: V) {
        let values = self.0.entry(key).or_default();
        if let Err(place) = values.binary_search(&value) {
            values.reserve_exact(1);
            values.insert(place, value);
        }
    }

    fn remove(&mut self, key: &K, value: &V) {
        let Some(values) = self.0.get_mut(key) else { return };
        if let Ok(place) = values.binary_search(value) {
            values.remove(place);
        }
        if values.is_empty() {
            self.0.remove(key);
        }
    }
}

impl<K: Eq + Hash + Copy, V: Ord + Clone> Several<K, V> {
    fn move_one(&mut self, value: &V, old: &[K], new: &[K]) -> Vec<K> {
        let left: Vec<K> = old.iter().filter(|key| !new.contains(key)).copied().collect();
        let come: Vec<K> = new.iter().filter(|key| !old.contains(key)).copied().collect();
        left.iter().for_each(|key| self.remove(key, value));
        come.iter().for_each(|key| self.insert(*key, value.clone()));
        left.into_iter().chain(come).collect()
    }
}
