//! reload: manifests read again when they change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::admin::Admin;
use crate::intake::News;
use crate::manifests::{Manifests, is_manifest};

/// Changes that come this close together are read as one.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Read again after this even when nobody said that anything changed: not every file system says.
const POLL: Duration = Duration::from_secs(3);

/// Reads again and again, and tells what changed, until nobody listens.
pub(crate) async fn run(
    mut manifests: Manifests,
    directory: &Path,
    (tell, admin): (mpsc::Sender<News>, Arc<Admin>),
) {
    let (changed, mut changes) = mpsc::channel(1);
    let watching = watch_directory(directory, changed.clone());
    let _watching = watching.inspect_err(|error| {
        tracing::warn!(%error, "cannot watch the manifests: they are read every {} s", POLL.as_secs());
    });
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let read = manifests.read();
            (manifests, read)
        });
        let read = match read.await {
            Ok((again, read)) => {
                manifests = again;
                read
            }
            // Only a panic or the end of the runtime comes here; the last objects stay in force.
            Err(error) => return tracing::error!(%error, "the manifests are not read any more"),
        };
        match read {
            Ok(Some(loaded)) => {
                if tell.send(News::All(loaded)).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the directory of manifests; the last objects stay");
                admin.set_not_ready(format!("cannot read the directory of manifests: {error}"));
            }
        }
        tokio::select! {
            _ = changes.recv() => {
                tokio::time::sleep(DEBOUNCE).await;
                // What came meanwhile is read now.
                let _ = changes.try_recv();
            }
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

fn watch_directory(
    directory: &Path,
    changed: mpsc::Sender<()>,
) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too, and no change.
        let of_interest = event.is_ok_and(|event| {
            !event.kind.is_access()
                && (event.paths.is_empty()
                    || event.paths.iter().any(|path| is_manifest(path) || is_swap(path)))
        });
        if of_interest {
            // Full means that a change is announced already.
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The link that kubelet turns when a mounted ConfigMap changes.
fn is_swap(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "..data")
}
