//! anchors: what everybody trusts, written as ConfigMap `tidegate-anchors` where there are pods of ours.
//!
//! A pod mounts a ConfigMap of its own namespace alone, so each namespace that is injected has one. The
//! holder of the lease writes them, only where they differ, and takes those of ours away that nobody
//! needs any more. What there is now is known from one watch over all objects of that name.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use policy::limits;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::asked::{FIELD_MANAGER, Refusal, ask, is_ours, labels, named};
use crate::installation::Installation;
use crate::issue::Troubles;

/// The ConfigMap's name.
pub(crate) const NAME: &str = "tidegate-anchors";
/// Its key: PEM, as proxies read it.
const KEY: &str = "anchors.pem";
/// What is in trouble when nobody knows whose the ConfigMaps are.
const OWNER: &str = "the owner of the anchors";

/// The namespaces that need anchors; `None` until they are known, so that nothing is taken away before.
pub(crate) type Namespaces = watch::Receiver<Option<Arc<BTreeSet<String>>>>;

/// Keeps the ConfigMaps.
pub(crate) struct Anchors {
    client: Client,
    installation: Arc<Installation>,
    namespaces: Namespaces,
    anchors: watch::Receiver<Arc<str>>,
    leads: watch::Receiver<bool>,
    troubles: Arc<Troubles>,
    found: Found,
}

/// The ConfigMaps there are, by namespace.
#[derive(Default)]
struct Found {
    all: BTreeMap<String, Kept>,
    /// A list that is on its way.
    listing: BTreeMap<String, Kept>,
    is_known: bool,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    digest: [u8; 32],
    is_ours: bool,
}

impl Anchors {
    /// Anchors come as [`crate::issue::Authority::anchors`] tells them.
    pub(crate) fn new(
        (client, installation): (Client, Arc<Installation>),
        (namespaces, anchors): (Namespaces, watch::Receiver<Arc<str>>),
        leads: watch::Receiver<bool>,
        troubles: Arc<Troubles>,
    ) -> Self {
        Self { client, installation, namespaces, anchors, leads, troubles, found: Found::default() }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(mut self) {
        let one = Config::default().fields(&format!("metadata.name={NAME}"));
        let mut seen = Box::pin(watcher(Api::<ConfigMap>::all(self.client.clone()), one).default_backoff());
        let watching = format!("watch of ConfigMap {NAME} in all namespaces");
        loop {
            tokio::select! {
                Some(event) = seen.next() => match event {
                    Ok(event) => {
                        self.troubles.forget(&watching);
                        self.found.take(event);
                    }
                    Err(error) => self.troubles.note(&watching, Err(&error.into())),
                },
                Ok(()) = self.namespaces.changed() => {}
                Ok(()) = self.anchors.changed() => {}
                Ok(()) = self.leads.changed() => {}
                () = tokio::time::sleep(limits::CLUSTER_POLL) => {}
            }
            self.write().await;
        }
    }

    /// Brings what there is to what there should be, as far as both are known and it is ours to do.
    async fn write(&mut self) {
        let namespaces = self.namespaces.borrow_and_update().clone();
        let text = self.anchors.borrow_and_update().clone();
        let is_leader = *self.leads.borrow_and_update();
        let Some(namespaces) = namespaces.filter(|_| is_leader && self.found.is_known) else { return };
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let missing = self.found.missing(&namespaces, &digest);
        if !missing.is_empty() && self.add(missing, (&text, digest)).await.is_break() {
            return;
        }
        for namespace in self.found.needless(&namespaces) {
            let done = self.remove(&namespace).await;
            if done.is_ok() {
                self.found.all.remove(&namespace);
            }
            if self.note(&namespace, done).is_break() {
                return;
            }
        }
    }

    /// Writes the anchors there, each with the owner there is now.
    async fn add(&mut self, namespaces: Vec<String>, (text, digest): (&str, [u8; 32])) -> ControlFlow<()> {
        let owner = match self.installation.owner().await {
            Ok(owner) => {
                self.troubles.forget(OWNER);
                owner.unwrap_or_default()
            }
            Err(refusal) => {
                self.troubles.note(OWNER, Err(&refusal.into()));
                return ControlFlow::Break(());
            }
        };
        for namespace in namespaces {
            let done = self.apply(&namespace, text, &owner).await;
            if done.is_ok() {
                self.found.all.insert(namespace.clone(), Kept { digest, is_ours: true });
            }
            self.note(&namespace, done)?;
        }
        ControlFlow::Continue(())
    }

    /// An API server that is away is not asked about the other namespaces too.
    fn note(&self, namespace: &str, done: Result<(), Refusal>) -> ControlFlow<()> {
        let object = named::<ConfigMap>(namespace, NAME);
        match done {
            Ok(()) => {
                tracing::info!(object, "the anchors are in step");
                self.troubles.note(&object, Ok(()));
            }
            // It goes with all that is in it.
            Err(refusal) if refusal.is_about_an_ending_namespace() => self.troubles.forget(&object),
            Err(refusal) => {
                let is_passing = refusal.is_passing();
                self.troubles.note(&object, Err(&refusal.into()));
                if is_passing {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn apply(&self, namespace: &str, text: &str, owner: &[OwnerReference]) -> Result<(), Refusal> {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": namespace, "labels": labels(),
                         "ownerReferences": owner},
            "data": {KEY: text}});
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let doing = format!("apply {}", named::<ConfigMap>(namespace, NAME));
        ask(doing, api.patch(NAME, &params, &Patch::Apply(&object))).await.map(drop)
    }

    async fn remove(&self, namespace: &str) -> Result<(), Refusal> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let doing = format!("delete {}", named::<ConfigMap>(namespace, NAME));
        match ask(doing, api.delete(NAME, &DeleteParams::default())).await {
            Err(refusal) if !refusal.has_code(404) => Err(refusal),
            _ => Ok(()),
        }
    }
}

impl Found {
    fn take(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                let (namespace, kept) = kept(&object);
                self.listing.insert(namespace, kept);
            }
            Event::InitDone => {
                self.all = std::mem::take(&mut self.listing);
                self.is_known = true;
            }
            Event::Apply(object) => {
                let (namespace, kept) = kept(&object);
                self.all.insert(namespace, kept);
            }
            Event::Delete(object) => {
                self.all.remove(&kept(&object).0);
            }
        }
    }

    /// Where it is wanted and is not there, is not ours, or says something else.
    fn missing(&self, wanted: &BTreeSet<String>, digest: &[u8; 32]) -> Vec<String> {
        let is_good = |kept: &Kept| kept.is_ours && kept.digest == *digest;
        wanted.iter().filter(|one| !self.all.get(*one).is_some_and(is_good)).cloned().collect()
    }

    /// Where one of ours is and nobody wants it.
    fn needless(&self, wanted: &BTreeSet<String>) -> Vec<String> {
        let needless = self.all.iter().filter(|(one, kept)| kept.is_ours && !wanted.contains(*one));
        needless.map(|(one, _)| one.clone()).collect()
    }
}

fn kept(object: &ConfigMap) -> (String, Kept) {
    let text = object.data.as_ref().and_then(|data| data.get(KEY)).map_or("", String::as_str);
    let kept = Kept { digest: Sha256::digest(text.as_bytes()).into(), is_ours: is_ours(object) };
    (object.metadata.namespace.clone().unwrap_or_default(), kept)
}
