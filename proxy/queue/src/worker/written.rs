//! worker/written: writes that must be done, and writes that need not go together.

use policy::limits;
use store::StoreError;
use store::message::{Change, Changed};

use super::Worker;

impl Worker {
    /// Writes what must be written: as often as the store has no room for it. An error ends the
    /// thread's trust in the disk.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<Vec<Changed>, StoreError> {
        loop {
            match self.shared.store.write(changes.clone()).await {
                Err(StoreError::Full(why)) => {
                    tracing::warn!(%why, "the end of an attempt waits for room");
                    tokio::time::sleep(limits::SETTLE_RETRY).await;
                }
                other => return other,
            }
        }
    }

    /// Writes steps that need not go together, as many at once as the store can take. Returns what became
    /// of the first ones, and why there are no more if there are not.
    pub(crate) async fn write_in_parts(&self, changes: &[Change]) -> (Vec<Changed>, Option<StoreError>) {
        let mut done = Vec::with_capacity(changes.len());
        let mut most = changes.len();
        while done.len() < changes.len() {
            let left = &changes[done.len()..];
            let part = &left[..most.min(left.len())];
            match self.shared.store.write(part.to_vec()).await {
                Ok(changed) => done.extend(changed),
                // How many fit one write depends on the store's size.
                Err(StoreError::TooLarge { .. }) if part.len() > 1 => most = part.len() / 2,
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }
}
