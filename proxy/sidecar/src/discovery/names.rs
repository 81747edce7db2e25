//! names: destinations that are names of the world, looked up and kept for as long as DNS says.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use policy::limits;
use policy::snapshot::DestinationKey;

use super::{Cell, Discovery, Reached, Unreachable, lock};
use crate::authority::External;

/// Where a name leads.
struct Way {
    addresses: Vec<SocketAddr>,
    /// The destination of the mesh that one of them is, followed for as long as the name leads there.
    inside: Option<(DestinationKey, Arc<Cell>)>,
}

impl Discovery {
    /// The cell of a name of the world. A name that leads into the mesh is reached as the destination
    /// it leads to: it does not pass by policy. Whoever holds the cell is led where the name leads now.
    pub(crate) async fn find_name(self: &Arc<Self>, name: &External) -> Result<Arc<Cell>, Unreachable> {
        if let Some(cell) = lock(&self.names).get(name) {
            cell.used_at.store(self.clock(), Ordering::Relaxed);
            return Ok(cell.clone());
        }
        self.where_the_mesh_ends(name).await?;
        let (addresses, valid_until) = self.look_up(name).await.map_err(|(error, _)| error)?;
        let way = self.way(addresses).await?;
        let cell = Arc::new(Cell::new(self.reached(&way), false));
        cell.used_at.store(self.clock(), Ordering::Relaxed);
        {
            let mut names = lock(&self.names);
            if names.len() >= limits::DESTINATIONS_MAX {
                return Err(Unreachable::TooMany);
            }
            if let Some(cell) = names.get(name) {
                return Ok(cell.clone());
            }
            names.insert(name.clone(), cell.clone());
        }
        let (discovery, cell_weak) = (Arc::downgrade(self), Arc::downgrade(&cell));
        tokio::spawn(keep_resolved(discovery, cell_weak, name.clone(), way, valid_until));
        Ok(cell)
    }

    /// Waits until it is known which addresses belong to the mesh: nothing is passed on before.
    async fn where_the_mesh_ends(&self, name: &External) -> Result<(), Unreachable> {
        let mut snapshots = self.snapshot.clone();
        let known = snapshots.wait_for(|snapshot| snapshot.mesh.is_some());
        match tokio::time::timeout(limits::DESTINATION_WAIT, known).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Unreachable::NoMesh(name.host.clone())),
        }
    }

    fn inside(&self, addresses: &[SocketAddr]) -> Option<DestinationKey> {
        let snapshot = self.snapshot.borrow();
        let mesh = snapshot.mesh.as_ref()?;
        let address = addresses.iter().find(|a| mesh.networks.iter().any(|n| n.contains(&a.ip())))?;
        Some(DestinationKey::Address(*address))
    }

    async fn way(&self, addresses: Vec<SocketAddr>) -> Result<Way, Unreachable> {
        let inside = match self.inside(&addresses) {
            Some(key) => Some((key.clone(), self.find(&key).await?)),
            None => None,
        };
        Ok(Way { addresses, inside })
    }

    fn reached(&self, way: &Way) -> Result<Reached, Unreachable> {
        match &way.inside {
            Some((key, cell)) => {
                // Whoever sees a new snapshot first fills the cell.
                self.refill(key, cell, &self.snapshot());
                (*cell.now()).clone()
            }
            None => Ok(self.passthrough(&way.addresses)),
        }
    }

    /// The name's new way, unless it leads where it did; and when to ask again.
    async fn look_again(&self, name: &External, last: &Way) -> (Option<Way>, Instant) {
        let (found, valid_until) = match self.look_up(name).await {
            Ok(found) => found,
            Err((error, retry_at)) => {
                tracing::debug!(name = name.host, %error, "a name was not looked up again");
                return (None, retry_at);
            }
        };
        if same(&found, &last.addresses) && self.inside(&found).is_some() == last.inside.is_some() {
            return (None, valid_until);
        }
        match self.way(found).await {
            Ok(way) => (Some(way), valid_until),
            Err(error) => {
                tracing::debug!(name = name.host, %error, "a name is not followed to where it leads now");
                (None, valid_until)
            }
        }
    }

    async fn look_up(&self, name: &External) -> Result<(Vec<SocketAddr>, Instant), (Unreachable, Instant)> {
        match self.resolver.lookup(&name.host).await {
            Ok(found) => {
                let addresses = found.addresses.iter().map(|ip| SocketAddr::new(*ip, name.port)).collect();
                Ok((addresses, found.valid_until))
            }
            Err(error) => Err((Unreachable::NoAddress(error.to_string()), error.retry_at)),
        }
    }
}

/// Looks the name up again whenever its TTL has passed, until nobody uses it. While the resolver
/// has no answer the last addresses stay.
async fn keep_resolved(
    discovery: Weak<Discovery>,
    cell: Weak<Cell>,
    name: External,
    mut way: Way,
    mut again_at: Instant,
) {
    let Some(mut snapshots) = discovery.upgrade().map(|discovery| discovery.snapshot.clone()) else { return };
    loop {
        // Now and then a look whether anybody still uses it, however long the TTL.
        let wake_at = again_at.min(Instant::now() + limits::DESTINATION_IDLE);
        tokio::select! {
            () = tokio::time::sleep_until(wake_at.into()) => {}
            changed = snapshots.changed(), if way.inside.is_some() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let (Some(discovery), Some(cell)) = (discovery.upgrade(), cell.upgrade()) else { return };
        let mut moved = None;
        if Instant::now() >= again_at {
            (moved, again_at) = discovery.look_again(&name, &way).await;
        }
        match moved {
            Some(to) => way = to,
            None if way.inside.is_none() => continue,
            None => {}
        }
        cell.now.store(Arc::new(discovery.reached(&way)));
    }
}

/// Resolvers rotate what they answer.
fn same(a: &[SocketAddr], b: &[SocketAddr]) -> bool {
    a.len() == b.len() && a.iter().all(|address| b.contains(address))
}
