//! answer: how far the proxies of this replica have come, for the one that writes statuses.
//!
//! Batches are counted by each replica for itself, so an object is asked about by its name and its
//! generation in the cluster.

use std::sync::Arc;

use policy::identity::Identity;
use policy::limits;
use policy::wire::operator::operator_server;
use policy::wire::operator::{Answer, ProgressRequest, ProgressResponse, Refusal, Standing, Subject};
use resources::ObjectId;
use tonic::{Request, Response, Status};

use super::LOOK_STEP;
use super::verdict::{self, Verdict};
use crate::cluster::KINDS;
use crate::documents::Documents;
use crate::proxies::{Progress, Proxies};
use crate::watch::PeerIdentity;

/// Refusals that are told of one object's part.
const REFUSALS_MAX: usize = 3;

/// Answers other replicas.
pub(crate) struct Operator {
    documents: Arc<Documents>,
    proxies: Arc<Proxies>,
    /// Whom the replicas' certificates name.
    own: Identity,
}

impl Operator {
    /// For whoever has the identity `own`.
    pub(crate) fn new(documents: Arc<Documents>, proxies: Arc<Proxies>, own: Identity) -> Self {
        Self { documents, proxies, own }
    }

    fn answer(&self, subject: &Subject) -> Answer {
        let standings = self.standings(subject);
        Answer { known: standings.is_some(), standings: standings.unwrap_or_default() }
    }

    fn standings(&self, subject: &Subject) -> Option<Vec<Standing>> {
        let kind = KINDS.iter().find(|kind| kind.name == subject.kind)?.name;
        let id = ObjectId { kind, namespace: subject.namespace.clone(), name: subject.name.clone() };
        let taken = self.documents.taken(&id)?;
        let found = self.documents.ask(|index| verdict::verdict(index, &id));
        let verdict = found.filter(|verdict| verdict.generation == subject.generation)?;
        Some(standings(&self.proxies, &verdict, taken).into_iter().map(told).collect())
    }
}

/// How far the proxies here have come with the whole, where there is one, then with each part.
pub(super) fn standings(proxies: &Proxies, verdict: &Verdict, taken: u64) -> Vec<Progress> {
    let parts = verdict.every_part().map(|part| part.needs.as_ref());
    parts.map(|needs| needs.map(|needs| proxies.progress(needs, taken)).unwrap_or_default()).collect()
}

fn told(progress: Progress) -> Standing {
    let refusals = progress.rejected.into_iter().take(REFUSALS_MAX);
    Standing {
        needing: progress.needing as u64,
        current: progress.current as u64,
        refusals: refusals.map(|(pod, reason)| Refusal { pod, reason }).collect(),
    }
}

#[tonic::async_trait]
impl operator_server::Operator for Operator {
    async fn progress(
        &self,
        request: Request<ProgressRequest>,
    ) -> Result<Response<ProgressResponse>, Status> {
        let peer = request.extensions().get::<PeerIdentity>().and_then(|peer| peer.0.clone());
        if peer.as_ref() != Some(&self.own) {
            return Err(Status::permission_denied("only the controller's own replicas are answered"));
        }
        let subjects = request.into_inner().subjects;
        if subjects.len() > limits::PROGRESS_SUBJECTS_MAX {
            let most = limits::PROGRESS_SUBJECTS_MAX;
            return Err(Status::invalid_argument(format!("{} subjects, at most {most}", subjects.len())));
        }
        let mut answers = Vec::with_capacity(subjects.len());
        for some in subjects.chunks(LOOK_STEP) {
            answers.extend(some.iter().map(|subject| self.answer(subject)));
            tokio::task::yield_now().await;
        }
        Ok(Response::new(ProgressResponse { answers }))
    }
}
