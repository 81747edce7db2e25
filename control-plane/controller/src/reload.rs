//! reload: manifests read again when they change, their objects taken as the new index.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use policy::snapshot::Mesh;
use resources::Problem;
use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::documents::Documents;
use crate::index::Index;
use crate::issue::{Authority, Tokens};
use crate::manifests::{Loaded, Manifests, is_manifest};
use crate::metrics::Metrics;
use crate::serve::Tls;

/// Changes that come this close together are read as one.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Read again after this even when nobody said that anything changed: not every file system says.
const POLL: Duration = Duration::from_secs(3);

/// All that new objects change.
pub(crate) struct Reload {
    pub(crate) mesh: Mesh,
    pub(crate) manifests: Manifests,
    pub(crate) authority: Arc<Authority>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) current: watch::Sender<Option<Arc<Documents>>>,
    /// Problems that stand in the log already.
    pub(crate) logged: HashSet<Problem>,
    /// The state directory could not be written and is tried again.
    pub(crate) behind: bool,
}

impl Reload {
    /// Reads again and again until it is dropped.
    pub(crate) async fn run(mut self, directory: &Path) {
        let (changed, mut changes) = mpsc::channel(1);
        let watching = watch_directory(directory, changed.clone());
        let _watching = watching.inspect_err(|error| {
            tracing::warn!(%error, "cannot watch the manifests: they are read every {} s", POLL.as_secs());
        });
        loop {
            self = match tokio::task::spawn_blocking(move || self.once()).await {
                Ok(reload) => reload,
                // Only a panic or the end of the runtime comes here; the last index stays in force.
                Err(error) => return tracing::error!(%error, "the manifests are not read any more"),
            };
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

    fn once(mut self) -> Self {
        match self.manifests.read() {
            Ok(Some(loaded)) => self.take(&loaded),
            Ok(None) if self.behind => {
                let documents = self.current.borrow().clone();
                if let Some(documents) = documents {
                    self.secrets(documents.index());
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the directory of manifests; the last objects stay");
                self.admin.set_not_ready(format!("cannot read the directory of manifests: {error}"));
            }
        }
        self
    }

    fn take(&mut self, loaded: &Loaded) {
        for problem in loaded.problems.iter().filter(|problem| !self.logged.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.logged = loaded.problems.iter().cloned().collect();
        let mut index = Index::new(self.mesh.clone());
        index.apply(&loaded.objects);
        self.secrets(&index);
        self.admin.set(loaded);
        self.metrics.reloads.inc();
        tracing::info!(objects = loaded.objects.len(), problems = loaded.problems.len(), "manifests taken");
        self.current.send_replace(Some(Arc::new(Documents::new(index))));
    }

    fn secrets(&mut self, index: &Index) {
        let done = self.try_secrets(index);
        if let (Err(error), false) = (&done, self.behind) {
            tracing::error!(error = format!("{error:#}"), "the state directory is not in step");
        }
        self.behind = done.is_err();
    }

    fn try_secrets(&self, index: &Index) -> anyhow::Result<()> {
        self.tokens.ensure(&index.accounts())?;
        if self.authority.set_anchors(index.anchors())? {
            self.tls.renew()?;
        }
        Ok(())
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
