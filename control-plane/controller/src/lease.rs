//! lease: which one of the replicas writes.
//!
//! Every replica serves; statuses and the like are written by the one that holds the Lease
//! `tidegate-controller`. As in client-go's `tools/leaderelection`: the holder renews its record, and
//! another takes the Lease once it saw the record unchanged for the record's whole duration, by its
//! own clock, which only goes forward. Times in the record are for people: no clock is compared with
//! another. The holder stops writing [`GIVE_UP`] after it last asked with success, before anybody else
//! may begin. Writes carry the version that was read, so of two that take at once one is refused.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Record, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::asked::labels;
use crate::installation::Installation;
use crate::metrics::Metrics;

/// The Lease's name.
const NAME: &str = "tidegate-controller";
/// How long a record that does not change keeps others away.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews.
const RENEW: Duration = Duration::from_secs(5);
/// When a holder that cannot renew stops writing. The rest of the duration is for a write on its way.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often others look, and the holder tries again; of each a random half to all.
const RETRY: Duration = Duration::from_secs(2);
/// The longest one request may take.
const ANSWER: Duration = Duration::from_secs(4);

const _: () = assert!(RENEW.as_secs() + ANSWER.as_secs() < GIVE_UP.as_secs());
const _: () = assert!(GIVE_UP.as_secs() < DURATION.as_secs());

/// Takes and keeps the Lease.
pub(crate) struct Lease {
    api: Api<Record>,
    installation: Arc<Installation>,
    /// Who we are: no two processes are called alike.
    holder: String,
    may_write: watch::Sender<bool>,
    /// The record as it was last seen, and since when it has not changed.
    seen: Option<(Record, Instant)>,
    /// When the last renewal that went well was asked for.
    renewed: Option<Instant>,
    complaint: Option<String>,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
}

/// Who writes, as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Leader {
    /// Who holds the Lease; empty when nobody does.
    pub(crate) holder: String,
    /// Whether that is we.
    pub(crate) here: bool,
    /// Why the Lease cannot be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl Lease {
    /// Of `namespace`, for `pod`; not held yet.
    pub(crate) fn new(
        (client, installation): (kube::Client, Arc<Installation>),
        (namespace, pod): (&str, &str),
        (admin, metrics): (Arc<Admin>, Arc<Metrics>),
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            installation,
            holder: format!("{pod}_{:016x}", fastrand::u64(..)),
            may_write: watch::Sender::new(false),
            seen: None,
            renewed: None,
            complaint: None,
            admin,
            metrics,
        }
    }

    /// Whether we may write now: for whoever writes statuses and the like.
    pub(crate) fn may_write(&self) -> watch::Receiver<bool> {
        self.may_write.subscribe()
    }

    /// Takes the Lease when it is free and keeps it until `stop`; then gives it back.
    ///
    /// # Errors
    /// Never: what goes wrong is tried again.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = tokio::select! {
                pause = self.turn() => pause,
                () = stop.cancelled() => break,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        self.give_back().await;
        Ok(())
    }

    /// Asks once; how long to wait then.
    async fn turn(&mut self) -> Duration {
        let asked = Instant::now();
        let answer = timeout(ANSWER, self.ask()).await;
        let pause = match answer {
            Ok(Ok(true)) => {
                self.renewed = Some(asked);
                self.complain(None);
                RENEW
            }
            Ok(Ok(false)) => {
                self.renewed = None;
                self.complain(None);
                retry()
            }
            Ok(Err(error)) => {
                self.complain(Some(error));
                retry()
            }
            Err(_) => {
                self.complain(Some(format!("no answer in {} s", ANSWER.as_secs())));
                retry()
            }
        };
        let left = self.renewed.map(|renewed| (renewed + GIVE_UP).saturating_duration_since(Instant::now()));
        self.set(left.is_some_and(|left| !left.is_zero()));
        left.filter(|left| !left.is_zero()).map_or(pause, |left| pause.min(left))
    }

    /// Whether the Lease is ours now.
    async fn ask(&mut self) -> Result<bool, String> {
        let Some(found) = self.api.get_opt(NAME).await.map_err(|error| told(&error))? else {
            let owner = self.installation.owner().await.map_err(|refusal| refusal.to_string())?;
            let record = Record {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    labels: Some(labels()),
                    owner_references: owner,
                    ..ObjectMeta::default()
                },
                spec: Some(self.taken(None)),
            };
            return self.written(self.api.create(&PostParams::default(), &record).await);
        };
        self.see(&found);
        let spec = found.spec.clone().unwrap_or_default();
        if !self.is_free(&spec) {
            return Ok(false);
        }
        let record = Record { spec: Some(self.taken(Some(&spec))), ..found };
        self.written(self.api.replace(NAME, &PostParams::default(), &record).await)
    }

    /// 409 says that another was faster: the record will tell who.
    fn written(&mut self, answer: kube::Result<Record>) -> Result<bool, String> {
        match answer {
            Ok(record) => {
                self.see(&record);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 && self.renewed.is_none() => Ok(false),
            Err(error) => Err(told(&error)),
        }
    }

    /// Notes when the record changed, by our own clock.
    fn see(&mut self, record: &Record) {
        if self.seen.as_ref().is_none_or(|(seen, _)| seen.spec != record.spec) {
            self.seen = Some((record.clone(), Instant::now()));
        }
    }

    /// Whether we may take the Lease: it is ours, nobody's, or its holder has not been heard of for as
    /// long as its record says.
    fn is_free(&self, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = seconds.map_or(DURATION, Duration::from_secs);
        let since = self.seen.as_ref().map(|(_, since)| *since);
        holder.is_empty() || holder == self.holder || since.is_some_and(|since| since.elapsed() > lasts)
    }

    /// The record with us in it.
    fn taken(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = old.and_then(|old| old.holder_identity.as_ref()) == Some(&self.holder);
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(DURATION.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: old.filter(|_| ours).and_then(|old| old.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours || old.is_none() { transitions } else { transitions + 1 }),
            ..old.cloned().unwrap_or_default()
        }
    }

    /// Lets the next take over at once.
    async fn give_back(&mut self) {
        self.set(false);
        let (Some(_), Some((record, _))) = (self.renewed.take(), self.seen.clone()) else { return };
        let spec = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..record.spec.unwrap_or_default()
        };
        let free = Record { spec: Some(spec), ..record };
        match timeout(ANSWER, self.api.replace(NAME, &PostParams::default(), &free)).await {
            Ok(Ok(_)) => tracing::info!("the Lease is given back"),
            Ok(Err(error)) => tracing::warn!(error = told(&error), "the Lease was not given back"),
            Err(_) => tracing::warn!("the Lease was not given back: no answer"),
        }
    }

    fn set(&self, may: bool) {
        let changed = self.may_write.send_replace(may) != may;
        if changed && may {
            tracing::info!(holder = self.holder, "we hold the Lease: this replica writes");
        } else if changed {
            tracing::info!("we do not hold the Lease any more: another replica writes");
        }
        self.metrics.leader.set(i64::from(may));
        let spec = self.seen.as_ref().and_then(|(record, _)| record.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        self.admin.set_leader(Leader { holder, here: may, problem: self.complaint.clone() });
    }

    /// One line when it goes wrong, and one when it goes well again.
    fn complain(&mut self, complaint: Option<String>) {
        match (&self.complaint, &complaint) {
            (None, Some(said)) => tracing::warn!(error = said, "the Lease {NAME} cannot be asked for"),
            (Some(_), None) => tracing::info!("the Lease {NAME} is answered for again"),
            _ => {}
        }
        self.complaint = complaint;
    }
}

fn retry() -> Duration {
    RETRY.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}: grant get, create and update on leases.coordination.k8s.io in the Role tidegate-controller",
            status.message
        ),
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}
