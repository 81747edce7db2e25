//! cluster: objects from the Kubernetes API.
//!
//! Every kind has a watch of its own ([`watching`]), which reads each object at once and keeps nothing
//! of the rest. All are heard by one task ([`Source`]), which keeps what is known of each kind
//! ([`gathered`]), starts and ends watches as definitions come and go ([`definition`]), and tells what
//! changed ([`pace`]). Secrets are not watched ([`secrets`]).
//!
//! An API server that is away, a permission that is missing, an object that cannot be read: the last
//! that was good stays in force, and a problem says what helps.
//!
//! The permissions it takes, in a ClusterRole:
//!
//! ```yaml
//! - apiGroups: [""]
//!   resources: [namespaces, pods, services]
//!   verbs: [get, list, watch]
//! - apiGroups: [discovery.k8s.io]
//!   resources: [endpointslices]
//!   verbs: [get, list, watch]
//! - apiGroups: [gateway.networking.k8s.io]
//!   resources: [httproutes, grpcroutes, referencegrants]
//!   verbs: [get, list, watch]
//! - apiGroups: [tidegate.dev]
//!   resources: [accesspolicies, asyncpolicies, backendpolicies, meshtrusts]
//!   verbs: [get, list, watch]
//! - apiGroups: [gateway.networking.k8s.io]
//!   resources: [httproutes/status, grpcroutes/status]
//!   verbs: [update]
//! - apiGroups: [tidegate.dev]
//!   resources: [accesspolicies/status, asyncpolicies/status, backendpolicies/status, meshtrusts/status]
//!   verbs: [update]
//! - apiGroups: [apiextensions.k8s.io]
//!   resources: [customresourcedefinitions]
//!   verbs: [get, list, watch]
//! - apiGroups: [rbac.authorization.k8s.io]
//!   resources: [clusterroles]
//!   resourceNames: [tidegate-controller]
//!   verbs: [get]
//! ```
//!
//! in a Role of its own namespace:
//!
//! ```yaml
//! - apiGroups: [coordination.k8s.io]
//!   resources: [leases]
//!   verbs: [create]
//! - apiGroups: [coordination.k8s.io]
//!   resources: [leases]
//!   resourceNames: [tidegate-controller]
//!   verbs: [get, update]
//! ```
//!
//! and in a Role of each namespace whose AsyncPolicies name a Secret:
//!
//! ```yaml
//! - apiGroups: [""]
//!   resources: [secrets]
//!   verbs: [get]
//! ```

mod backoff;
mod client;
mod definition;
mod gathered;
mod kind;
mod lines;
mod pace;
mod secrets;
#[cfg(test)]
pub(crate) mod tests;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Client;
use policy::limits;
use resources::ObjectId;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

pub(crate) use backoff::Backoff;
pub(crate) use gathered::{Seen, Watched};
pub(crate) use kind::{KINDS, Kind, Refused};

use crate::admin::Admin;
use crate::config::{Cluster, Config};
use crate::identity::{self, ClusterIdentity};
use crate::inject::Webhook;
use crate::installation::Installation;
use crate::intake::News;
use crate::issue::Owners;
use crate::lease::Lease;
use crate::parts::Parts;
use crate::serve::Tls;
use crate::status::{Replicas, Statuses, Told};
use crate::{Shared, Standing, Trust, bind};
use gathered::{Gathered, Stage, Step};
use kind::{DEFINITIONS, Origin};
use pace::Pace;
use watching::{Health, Heard, Watch};

/// Connects to the API server.
///
/// # Errors
/// When there is no access to one.
pub(crate) async fn open(place: Cluster, config: &Config, shared: &Shared) -> anyhow::Result<Standing> {
    let client = client::connect().await?;
    let installation = Arc::new(Installation::new(client.clone()));
    let settings = identity::Settings {
        namespace: place.namespace.to_string(),
        trust_domain: config.trust_domain.to_string(),
        audience: place.token_audience.clone(),
        lifetime: config.leaf_lifetime,
    };
    let (identity, reviews) =
        ClusterIdentity::open((client.clone(), installation.clone()), &settings, shared.metrics.clone())
            .await?;
    shared.admin.set_troubles(identity.troubles.clone());
    let authority = identity.authority.clone();
    let tls = Arc::new(Tls::new(authority.clone(), config.identity()?, limits::LEAF_LIFETIME)?);
    let trust = Trust { authority, owners: Owners::Cluster(Box::new(reviews)), tls: tls.clone() };

    let mut parts = Parts::new(shared.stop.clone());
    let (tell, news) = mpsc::channel(1);
    let source = Source::new(client.clone(), shared.admin.clone(), tell);
    let seen_of_kinds = source.told.subscribe();
    parts.add("the watching of the cluster", source.run());
    let seen = (shared.admin.clone(), shared.metrics.clone());
    let lease = Lease::new((client.clone(), installation), (place.namespace.as_str(), &place.pod), seen);
    let leads = lease.may_write();
    let replicas = Replicas::new(shared.documents.clone(), tls, (place.namespace.as_str(), &*place.pod));
    let known = (shared.documents.clone(), shared.proxies.clone(), replicas);
    let told = Told { seen: seen_of_kinds, leads: leads.clone(), troubles: identity.troubles.clone() };
    let statuses = Statuses::new(client.clone(), known, told, shared.metrics.statuses.clone());
    parts.add("the statuses", statuses.run());
    parts.add_closing("the lease", lease.run(shared.stop.clone()));
    let hook = Webhook::open(place.injection, client, shared.metrics.admissions.clone()).await;
    let (listener, certificate) = (bind(place.webhook, "--webhook").await?, identity.webhook.clone());
    parts.add("the webhook", hook.run(listener, Arc::new(move || certificate.acceptor())));
    let (more, trusted) = identity.parts(&leads);
    for (name, part) in more {
        parts.add(name, part);
    }
    Ok(Standing { trust, follow: Box::new(trusted), news, parts })
}

/// Hears every watch, and tells what changed.
struct Source {
    client: Client,
    gathered: Gathered,
    pace: Pace,
    ready: bool,
    admin: Arc<Admin>,
    news: mpsc::Sender<News>,
    tell: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    looked: mpsc::Sender<Look>,
    seen: mpsc::Receiver<Look>,
    wanted: watch::Sender<Option<BTreeSet<ObjectId>>>,
    /// For whoever writes statuses.
    told: watch::Sender<Arc<Seen>>,
    tasks: JoinSet<()>,
    /// Of each kind the watch that runs, or the look at its definition.
    watches: BTreeMap<&'static str, Running>,
    looks: BTreeMap<&'static str, Running>,
    last: u64,
}

/// What a look at a definition saw.
struct Look {
    number: u64,
    kind: &'static Kind,
    stage: Result<Stage, Health>,
}

/// A task that can be ended, and the number by which it is heard.
struct Running {
    number: u64,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source {
    fn new(client: Client, admin: Arc<Admin>, news: mpsc::Sender<News>) -> Self {
        let (tell, heard) = mpsc::channel(limits::API_EVENTS_MAX);
        let (looked, seen) = mpsc::channel(KINDS.len());
        let (wanted, names) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(secrets::run(client.clone(), names, tell.clone()));
        Self {
            client,
            gathered: Gathered::new(),
            pace: Pace::default(),
            ready: false,
            admin,
            news,
            tell,
            heard,
            looked,
            seen,
            wanted,
            told: watch::Sender::default(),
            tasks,
            watches: BTreeMap::new(),
            looks: BTreeMap::new(),
            last: 0,
        }
    }

    /// Hears and tells until nobody listens.
    async fn run(mut self) {
        for kind in KINDS.iter().chain([&DEFINITIONS]).filter(|kind| kind.origin == Origin::Kubernetes) {
            self.watch(kind, kind.versions[0].to_owned());
        }
        let mut batch = Vec::with_capacity(limits::API_EVENTS_MAX);
        loop {
            let due = self.pace.due().filter(|_| self.ready);
            let at = due.unwrap_or_else(Instant::now);
            let news = self.news.clone();
            tokio::select! {
                _ = self.heard.recv_many(&mut batch, limits::API_EVENTS_MAX) => {
                    for heard in batch.drain(..) {
                        self.hear(heard);
                    }
                    if self.gathered.is_news() {
                        self.pace.came(Instant::now());
                    }
                }
                Some(look) = self.seen.recv() => {
                    self.see(look);
                    self.pace.came(Instant::now());
                }
                // While the last is being taken in, more of them become one.
                room = async { sleep_until(at).await; news.reserve().await }, if due.is_some() => {
                    let Ok(room) = room else { return };
                    let (changes, problems) = self.gathered.take();
                    if problems.is_some() {
                        self.told.send_replace(Arc::new(self.gathered.seen()));
                    }
                    room.send(News::Some { changes, problems });
                    self.pace.went(Instant::now());
                }
            }
            self.show();
        }
    }

    fn hear(&mut self, heard: Heard) {
        match self.gathered.hear(heard) {
            Some(Step::Look(kind)) => self.look(kind),
            Some(Step::Stop(kind)) => {
                self.looks.remove(kind.name);
                self.watches.remove(kind.name);
            }
            None => {}
        }
    }

    /// Follows what the definition of `kind` says now.
    fn see(&mut self, Look { number, kind, stage }: Look) {
        if self.looks.get(kind.name).is_none_or(|look| look.number != number) {
            return;
        }
        let stage = match stage {
            Ok(stage) => stage,
            Err(health) => return self.gathered.unseen(kind, health),
        };
        self.looks.remove(kind.name);
        let watched = self.gathered.version(kind).map(str::to_owned);
        self.gathered.is(kind, stage);
        let version = self.gathered.version(kind).map(str::to_owned);
        match version {
            Some(version) if watched.as_ref() != Some(&version) => {
                tracing::info!(kind = kind.name, version, "installed: it is watched");
                self.watch(kind, version);
            }
            Some(_) => {}
            None => {
                self.watches.remove(kind.name);
            }
        }
    }

    fn watch(&mut self, kind: &'static Kind, version: String) {
        self.last += 1;
        let watch = Watch::new(self.client.clone(), kind, (version, self.last), self.tell.clone());
        let task = self.tasks.spawn(watch.run());
        self.gathered.listen(kind, self.last);
        self.watches.insert(kind.name, Running { number: self.last, task });
    }

    /// Looks at the definition of `kind` until it is seen.
    fn look(&mut self, kind: &'static Kind) {
        self.last += 1;
        let (client, looked, number) = (self.client.clone(), self.looked.clone(), self.last);
        let task = self.tasks.spawn(async move {
            let mut backoff = Backoff::new();
            loop {
                let stage = definition::look(&client, kind).await;
                let done = stage.is_ok();
                if looked.send(Look { number, kind, stage }).await.is_err() || done {
                    return;
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        });
        self.looks.insert(kind.name, Running { number, task });
    }

    /// Tells those who wait, and those who look on.
    fn show(&mut self) {
        // Tasks that ended leave a place.
        while self.tasks.try_join_next().is_some() {}
        let wanted = self.gathered.secrets();
        if wanted.is_some() {
            self.wanted.send_if_modified(|old| {
                let changed = *old != wanted;
                *old = wanted;
                changed
            });
        }
        if !self.ready {
            match self.gathered.not_ready() {
                Some(reason) => self.admin.set_not_ready(reason),
                None => self.ready = true,
            }
        }
        self.admin.set_watched(self.gathered.watched());
    }
}
