//! status: every object is told what became of it.
//!
//! ```text
//!   index ──▶ verdict ──▶ words ──▶ differs from what was written last? ──▶ read, lay over, write
//!                           ▲
//!   proxies, of other replicas too ──▶ programmed ─┘
//! ```
//!
//! Only the holder of the Lease does it. What there is to say of an object is worked out anew when
//! objects changed, whether proxies have it with every look; an object of which the same is to be said
//! as was written last is not asked for. Where the API server says no, the others go on and this one
//! is tried again later.

mod answer;
mod counts;
mod policies;
mod programmed;
mod replicas;
mod routes;
#[cfg(test)]
mod tests;
mod verdict;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use policy::limits;
use resources::ObjectId;
use resources::conditions::{Condition, ConditionType, Entry, Reason, Truth};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

pub(crate) use answer::Operator;
pub(crate) use counts::{Outcome, Writes};
pub(crate) use replicas::Replicas;

use crate::cluster::{Backoff, Refused, Seen};
use crate::documents::Documents;
use crate::issue::Troubles;
use crate::objects::has_status;
use crate::proxies::{Progress, Proxies};
use programmed::{Heard, Said};
use verdict::Verdict;
use write::{Unwritten, Words};

/// A look takes at most this part of the time.
const LOOK_SHARE: u32 = 20;
/// Objects that are looked at before others get their turn.
const LOOK_STEP: usize = 64;

/// What the writer of statuses is told by others.
pub(crate) struct Told {
    /// What of the cluster is in no index.
    pub(crate) seen: watch::Receiver<Arc<Seen>>,
    /// Whether we may write.
    pub(crate) leads: watch::Receiver<bool>,
    /// Where it is said what does not work.
    pub(crate) troubles: Arc<Troubles>,
}

/// Writes the statuses.
pub(crate) struct Statuses {
    client: Client,
    documents: Arc<Documents>,
    proxies: Arc<Proxies>,
    replicas: Replicas,
    told: Told,
    counts: Writes,
    known: BTreeMap<ObjectId, Known>,
    /// The last object whose status was tried: the next look goes on behind it.
    last: Option<ObjectId>,
    /// While the API server is away.
    backoff: Backoff,
}

/// What is known of one object.
struct Known {
    /// The batches with which it came, and for which the verdict holds.
    taken: u64,
    through: u64,
    verdict: Option<Verdict>,
    /// What was said of its parts, in the verdict's order.
    said: Vec<Said>,
    /// What stands in the cluster, and when that was seen.
    written: Option<(Words, Instant)>,
    /// After a failure: not before, and how long to wait after the next.
    again: Option<Instant>,
    backoff: Backoff,
}

impl Statuses {
    /// Of the objects and proxies in `known`.
    pub(crate) fn new(
        client: Client,
        (documents, proxies, replicas): (Arc<Documents>, Arc<Proxies>, Replicas),
        told: Told,
        counts: Writes,
    ) -> Self {
        let (known, last, backoff) = (BTreeMap::new(), None, Backoff::new());
        Self { client, documents, proxies, replicas, told, counts, known, last, backoff }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            // Another replica may have written meanwhile.
            self.known.clear();
            self.counts.pending.set(0);
            if self.told.leads.wait_for(|may| *may).await.is_err() {
                return;
            }
            self.write_while_leading().await;
        }
    }

    async fn write_while_leading(&mut self) {
        while *self.told.leads.borrow() {
            let (began, generation) = (Instant::now(), self.documents.generation());
            // Nothing is said before everything is known.
            let due = if generation == 0 { Vec::new() } else { self.look(began).await };
            // That another replica takes its time costs us none.
            let rest = (began.elapsed() - self.replicas.waited().min(began.elapsed())) * LOOK_SHARE;
            let pause = self.write(due).await;
            let whole = began + limits::STATUS_LOOK.max(rest).max(pause);
            let soon = began + limits::STATUS_SOON.max(rest).max(pause);
            while Instant::now() < whole && *self.told.leads.borrow() {
                if Instant::now() >= soon && self.documents.generation() != generation {
                    break;
                }
                sleep(limits::STATUS_SOON).await;
            }
        }
    }

    /// Works out what there is to say of every object; returns those whose status says something else.
    async fn look(&mut self, now: Instant) -> Vec<(ObjectId, Words)> {
        let seen = self.told.seen.borrow().clone();
        let mut all: BTreeMap<ObjectId, u64> = self.documents.with_status().into_iter().collect();
        for id in seen.refused.keys().filter(|id| has_status(id.kind)) {
            all.entry(id.clone()).or_insert(0);
        }
        let troubles = &self.told.troubles;
        self.known.retain(|id, _| {
            let is_there = all.contains_key(id);
            if !is_there {
                troubles.forget(&format!("status of {id}"));
            }
            is_there
        });
        let mut subjects = Vec::new();
        for (place, (id, taken)) in all.iter().filter(|(id, _)| !seen.refused.contains_key(id)).enumerate() {
            if place % LOOK_STEP == LOOK_STEP - 1 {
                tokio::task::yield_now().await;
            }
            subjects.extend(self.judge(id, *taken).map(|generation| (id.clone(), generation)));
        }
        let others = self.replicas.ask(&subjects).await;
        let mut due = Vec::new();
        for (place, (id, taken)) in all.into_iter().enumerate() {
            if place % LOOK_STEP == LOOK_STEP - 1 {
                tokio::task::yield_now().await;
            }
            let known = self.known.entry(id.clone()).or_insert_with(|| Known::new(taken));
            let words = match seen.refused.get(&id) {
                Some(refused) => Some(unreadable(refused, taken > 0)),
                None => known.words(&self.proxies, others.get(&id), now),
            };
            if let Some(words) = words.filter(|words| !known.stands(words, now)) {
                due.push((id, words));
            }
        }
        self.counts.pending.set(i64::try_from(due.len()).unwrap_or(i64::MAX));
        due.retain(|(id, _)| self.known.get(id).and_then(|known| known.again).is_none_or(|at| at <= now));
        due
    }

    /// Works out what there is to say of an object that is in force, where it or others changed; of
    /// which generation that is.
    fn judge(&mut self, id: &ObjectId, taken: u64) -> Option<i64> {
        let through = self.documents.generation();
        let known = self.known.entry(id.clone()).or_insert_with(|| Known::new(taken));
        if known.taken != taken {
            // It is another: the cluster has another status of it, or none.
            *known = Known { said: std::mem::take(&mut known.said), ..Known::new(taken) };
        }
        if known.through != through || known.verdict.is_none() {
            known.verdict = self.documents.ask(|index| verdict::verdict(index, id));
            known.through = through;
        }
        known.verdict.as_ref().map(|verdict| verdict.generation)
    }

    /// Writes what is due, as much of it as one look may; how long to wait at the least then.
    async fn write(&mut self, mut due: Vec<(ObjectId, Words)>) -> Duration {
        let behind = due.partition_point(|(id, _)| self.last.as_ref().is_some_and(|last| id <= last));
        due.rotate_left(behind);
        let seen = self.told.seen.borrow().clone();
        let mut forbidden = BTreeSet::new();
        for (id, words) in due.into_iter().take(limits::STATUS_WRITES_MAX) {
            let Some(version) = seen.versions.get(id.kind).filter(|_| !forbidden.contains(id.kind)) else {
                continue;
            };
            if !*self.told.leads.borrow() {
                break;
            }
            self.last = Some(id.clone());
            let done = write::write(&self.client, &id, version, &words).await;
            let outcome = match &done {
                Ok(outcome) => *outcome,
                Err(unwritten) => unwritten.outcome,
            };
            self.counts.count(outcome);
            if let Some(known) = self.known.get_mut(&id) {
                known.ended(outcome, words);
            }
            self.note(&id, &done);
            match done {
                Err(Unwritten { outcome: Outcome::Unavailable, .. }) => return self.backoff.pause(),
                Err(Unwritten { is_of_kind: true, .. }) => {
                    forbidden.insert(id.kind);
                }
                _ => self.backoff.reset(),
            }
        }
        Duration::ZERO
    }

    /// That the API server is away is said by those who watch it.
    fn note(&self, id: &ObjectId, done: &Result<Outcome, Unwritten>) {
        let (object, kind) = (format!("status of {id}"), format!("statuses of all {}s", id.kind));
        match done {
            Ok(_) => [object, kind].iter().for_each(|about| self.told.troubles.note(about, Ok(()))),
            Err(Unwritten { outcome: Outcome::Unavailable, error, .. }) => {
                tracing::debug!(object, error = format!("{error:#}"), "is not written now");
            }
            Err(Unwritten { is_of_kind, error, .. }) => {
                self.told.troubles.note(if *is_of_kind { &kind } else { &object }, Err(error));
            }
        }
    }
}

impl Known {
    fn new(taken: u64) -> Self {
        Self {
            taken,
            through: 0,
            verdict: None,
            said: Vec::new(),
            written: None,
            again: None,
            backoff: Backoff::new(),
        }
    }

    /// What there is to say, with what the proxies here and those of `others` have acknowledged.
    fn words(
        &mut self,
        proxies: &Proxies,
        others: Option<&Vec<Option<Vec<Progress>>>>,
        now: Instant,
    ) -> Option<Words> {
        let verdict = self.verdict.as_ref()?;
        let here = answer::standings(proxies, verdict, self.taken);
        self.said.resize_with(here.len(), Said::default);
        let each = verdict.every_part().zip(here).zip(&mut self.said).enumerate();
        let mut conditions = each.map(|(place, ((part, progress), said))| {
            let mut conditions = part.conditions.clone();
            if part.needs.is_some() {
                let mut heard = Heard { progress, silent: 0 };
                for other in others.into_iter().flatten() {
                    heard.add(other.as_ref().and_then(|parts| parts.get(place)));
                }
                conditions.push(said.say(verdict.generation, &heard, now));
            }
            conditions
        });
        let whole = if verdict.whole.is_some() { conditions.next() } else { None };
        let parts = verdict.parts.iter().zip(conditions);
        let parts = parts.map(|((of, _), conditions)| Entry { of: of.clone(), conditions });
        Some(Words {
            generation: verdict.generation,
            parts: parts.collect(),
            whole: whole.unwrap_or_default(),
        })
    }

    /// Whether the same was seen in the cluster, not too long ago.
    fn stands(&self, words: &Words, now: Instant) -> bool {
        let written = self.written.as_ref();
        written.is_some_and(|(written, at)| written == words && now < *at + limits::STATUS_RECHECK)
    }

    fn ended(&mut self, outcome: Outcome, words: Words) {
        match outcome {
            Outcome::Written | Outcome::Unchanged => {
                self.written = Some((words, Instant::now()));
                self.again = None;
                self.backoff.reset();
            }
            Outcome::Outdated | Outcome::Contended | Outcome::Refused | Outcome::Unavailable => {
                self.again = Some(Instant::now() + self.backoff.pause());
            }
        }
    }
}

/// What there is to say of a version that cannot be read; `another` is in force meanwhile.
fn unreadable(refused: &Refused, another: bool) -> Words {
    let problem = &refused.problem;
    let field = problem.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    let meanwhile =
        if another { "the last version that was right is in force" } else { "it is not in force" };
    let accepted = Condition {
        about: ConditionType::Accepted,
        status: Truth::False,
        reason: Reason::Invalid,
        message: format!("{field}{}; {meanwhile}", problem.message),
    };
    Words { generation: refused.generation, whole: vec![accepted], parts: Vec::new() }
}
