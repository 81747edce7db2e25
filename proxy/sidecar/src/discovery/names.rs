//! names: destinations that are names of the world, looked up and kept for as long as DNS says.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use policy::limits;
use policy::snapshot::DestinationKey;

use super::{Cell, Discovery, Unreachable, lock};
use crate::authority::External;

impl Discovery {
    /// The cell of a name of the world. A name that leads into the mesh is the destination it
    /// leads to: it is not passed by policy.
    pub(crate) async fn find_name(self: &Arc<Self>, name: &External) -> Result<Arc<Cell>, Unreachable> {
        if let Some(cell) = lock(&self.names).get(name) {
            cell.used_at.store(self.clock(), Ordering::Relaxed);
            return Ok(cell.clone());
        }
        self.where_the_mesh_ends(name).await?;
        let (addresses, valid_until) = self.look_up(name).await.map_err(|(error, _)| error)?;
        if let Some(inside) = self.inside(&addresses) {
            return self.find(&inside).await;
        }
        let cell = Arc::new(Cell::new(Ok(self.passthrough(&addresses)), false));
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
        tokio::spawn(keep_resolved(discovery, cell_weak, name.clone(), addresses, valid_until));
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
    mut addresses: Vec<SocketAddr>,
    mut again_at: Instant,
) {
    loop {
        tokio::time::sleep_until(again_at.into()).await;
        let (Some(discovery), Some(cell)) = (discovery.upgrade(), cell.upgrade()) else { return };
        match discovery.look_up(&name).await {
            Ok((found, _)) if discovery.inside(&found).is_some() => {
                // It has moved into the mesh: whoever asks next finds it there, by policy.
                lock(&discovery.names).remove(&name);
                cell.now.store(Arc::new(Err(Unreachable::Moved(name.host.clone()))));
                return;
            }
            Ok((found, valid_until)) => {
                if !same(&found, &addresses) {
                    cell.now.store(Arc::new(Ok(discovery.passthrough(&found))));
                    addresses = found;
                }
                again_at = valid_until;
            }
            Err((error, retry_at)) => {
                tracing::debug!(name = name.host, %error, "a name was not looked up again");
                again_at = retry_at;
            }
        }
    }
}

/// Resolvers rotate what they answer.
fn same(a: &[SocketAddr], b: &[SocketAddr]) -> bool {
    a.len() == b.len() && a.iter().all(|address| b.contains(address))
}
