//! gathered: what is known of every kind, and what of it is news.
//!
//! Pure: what is heard goes in, changes and problems come out.

mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use policy::limits;
use resources::{Object, ObjectId, Problem};

use super::kind::{DEFINITIONS, KINDS, Kind, Origin, PLACE, Refused, SECRETS, Said};
use super::watching::{Event, Health, Heard};
use crate::objects::Change;
pub(crate) use shown::{Seen, Watched};
use shown::{forbidden, problem};

/// Everything heard so far.
pub(super) struct Gathered {
    known: BTreeMap<&'static str, Known>,
    changes: BTreeMap<ObjectId, Change>,
    /// What is wrong is not what was told last.
    wrong_anew: bool,
    /// Why the API server cannot be reached, as it was said first.
    away: Option<String>,
    /// Of each AsyncPolicy the Secret it names.
    named: BTreeMap<ObjectId, ObjectId>,
}

/// What is known of a kind.
struct Known {
    kind: &'static Kind,
    stage: Stage,
    /// The watch that is listened to.
    watch: u64,
    health: Option<Health>,
    /// Which list is being read; what an older one named and this one does not is gone.
    list: u64,
    objects: BTreeMap<ObjectId, u64>,
    refused: BTreeMap<ObjectId, Refused>,
    heard: Option<SystemTime>,
}

/// How far a kind has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Whether it is installed is not known yet.
    Unknown,
    /// It is not installed.
    Absent,
    /// It is installed in versions that are not read here.
    Unreadable(String),
    /// It is being listed for the first time, in this version.
    Listing(String),
    /// All its objects are known.
    Listed(String),
}

/// What a kind's definition leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// See which versions it serves.
    Look(&'static Kind),
    /// It is gone: so is its watch.
    Stop(&'static Kind),
}

impl Gathered {
    /// Of nothing yet.
    pub(super) fn new() -> Self {
        let stage = |kind: &Kind| match kind.origin {
            Origin::Kubernetes => Stage::Listing(kind.versions[0].to_owned()),
            Origin::GatewayApi | Origin::Tidegate => Stage::Unknown,
        };
        let known = |kind: &'static Kind| {
            let (objects, refused) = (BTreeMap::new(), BTreeMap::new());
            let known = Known {
                kind,
                stage: stage(kind),
                watch: 0,
                health: None,
                list: 0,
                objects,
                refused,
                heard: None,
            };
            (kind.name, known)
        };
        let all = KINDS.iter().chain([&DEFINITIONS, &SECRETS]);
        Self {
            known: all.map(known).collect(),
            changes: BTreeMap::new(),
            wrong_anew: true,
            away: None,
            named: BTreeMap::new(),
        }
    }

    /// From now on watch `number` is the one of `kind`.
    pub(super) fn listen(&mut self, kind: &Kind, number: u64) {
        if let Some(known) = self.known.get_mut(kind.name) {
            known.watch = number;
            known.health = None;
        }
        self.whether_away();
    }

    /// Takes what was heard.
    pub(super) fn hear(&mut self, heard: Heard) -> Option<Step> {
        let known = self.known.get_mut(heard.kind.name)?;
        if known.watch != heard.watch {
            return None;
        }
        match heard.event {
            Event::Begin => known.list += 1,
            Event::Put(id, said) => {
                known.heard = Some(SystemTime::now());
                let step = defined(&id).map(Step::Look);
                self.put(heard.kind, id, said);
                return step;
            }
            Event::Gone(id) => {
                known.heard = Some(SystemTime::now());
                let step = defined(&id).map(Step::Stop);
                if let Some(Step::Stop(kind)) = step {
                    self.is(kind, Stage::Absent);
                }
                self.remove(heard.kind, id);
                return step;
            }
            Event::Listed => self.listed(heard.kind),
            Event::Health(health) => {
                let before = known.problem();
                known.health = Some(health);
                self.wrong_anew |= known.problem() != before;
                self.whether_away();
            }
        }
        None
    }

    fn put(&mut self, kind: &'static Kind, id: ObjectId, said: Said) {
        let Some(known) = self.known.get_mut(kind.name) else { return };
        known.objects.insert(id.clone(), known.list);
        match said {
            Said::There => {}
            Said::Good(object) => {
                if known.refused.remove(&id).is_some() {
                    self.wrong_anew = true;
                }
                match &object.value {
                    Object::AsyncPolicy(policy) if policy.callback_secret.is_some() => {
                        let name = policy.callback_secret.as_ref().map(ToString::to_string);
                        let (kind, namespace) = (SECRETS.name, id.namespace.clone());
                        let secret = ObjectId { kind, namespace, name: name.unwrap_or_default() };
                        self.named.insert(id.clone(), secret);
                    }
                    _ => {
                        self.named.remove(&id);
                    }
                }
                self.changes.insert(id, Change::Put(*object));
            }
            // The last that was right stays in force.
            Said::Bad(refused) => {
                if known.refused.get(&id) != Some(&refused) {
                    known.refused.insert(id, refused);
                    self.wrong_anew = true;
                }
            }
        }
    }

    fn remove(&mut self, kind: &'static Kind, id: ObjectId) {
        let Some(known) = self.known.get_mut(kind.name) else { return };
        known.objects.remove(&id);
        self.named.remove(&id);
        if known.refused.remove(&id).is_some() {
            self.wrong_anew = true;
        }
        if kind != &DEFINITIONS {
            self.changes.insert(id.clone(), Change::Remove(id));
        }
    }

    fn listed(&mut self, kind: &'static Kind) {
        let Some(known) = self.known.get_mut(kind.name) else { return };
        known.heard = Some(SystemTime::now());
        if let Stage::Listing(version) = &known.stage {
            known.stage = Stage::Listed(version.clone());
        }
        let list = known.list;
        let gone = known.objects.iter().filter(|(_, named)| **named != list).map(|(id, _)| id.clone());
        for id in gone.collect::<Vec<_>>() {
            if let Some(kind) = defined(&id) {
                self.is(kind, Stage::Absent);
            }
            self.remove(kind, id);
        }
        if kind == &DEFINITIONS {
            let there: BTreeSet<&'static str> =
                self.known[kind.name].objects.keys().filter_map(defined).map(|kind| kind.name).collect();
            for kind in KINDS.iter().filter(|kind| kind.origin != Origin::Kubernetes) {
                if !there.contains(kind.name) {
                    self.is(kind, Stage::Absent);
                }
            }
        }
    }

    /// Takes what the definition of `kind` says. A kind that is not there has no objects.
    pub(super) fn is(&mut self, kind: &'static Kind, stage: Stage) {
        let Some(known) = self.known.get_mut(kind.name) else { return };
        self.wrong_anew = true;
        if stage == Stage::Absent {
            known.health = None;
            for id in known.objects.keys().cloned().collect::<Vec<_>>() {
                self.remove(kind, id);
            }
        }
        // One that was listed stays so while it is listed in another version.
        if let Some(known) = self.known.get_mut(kind.name) {
            known.stage = match (&known.stage, stage) {
                (Stage::Listed(_), Stage::Listing(version)) => Stage::Listed(version),
                (_, stage) => stage,
            };
        }
        self.whether_away();
    }

    /// The definition of `kind` could not be seen; of one that is watched that says nothing.
    pub(super) fn unseen(&mut self, kind: &Kind, health: Health) {
        if let Some(known) = self.known.get_mut(kind.name).filter(|known| known.stage == Stage::Unknown) {
            let before = known.problem();
            known.health = Some(health);
            self.wrong_anew |= known.problem() != before;
            self.whether_away();
        }
    }

    /// Which version of `kind` is watched.
    pub(super) fn version(&self, kind: &Kind) -> Option<&str> {
        match &self.known.get(kind.name)?.stage {
            Stage::Listing(version) | Stage::Listed(version) => Some(version),
            Stage::Unknown | Stage::Absent | Stage::Unreadable(_) => None,
        }
    }

    fn whether_away(&mut self) {
        let mut reasons = self.known.values().filter_map(|known| match &known.health {
            Some(Health::Away(reason)) => Some(reason),
            _ => None,
        });
        match (reasons.next(), &self.away) {
            (Some(reason), None) => {
                self.away = Some(reason.clone());
                self.wrong_anew = true;
            }
            (None, Some(_)) => {
                tracing::info!("the Kubernetes API is reached again");
                self.away = None;
                self.wrong_anew = true;
            }
            _ => {}
        }
    }

    /// The Secrets that policies name, once all policies are known.
    pub(super) fn secrets(&self) -> Option<BTreeSet<ObjectId>> {
        self.missing(|kind| kind != &SECRETS).is_none().then(|| self.named.values().cloned().collect())
    }

    /// Why not everything was listed once; `None` when it was.
    pub(super) fn not_ready(&self) -> Option<String> {
        self.missing(|_| true)
    }

    fn missing(&self, of_interest: impl Fn(&Kind) -> bool) -> Option<String> {
        let waited = |known: &&Known| matches!(known.stage, Stage::Unknown | Stage::Listing(_));
        // Without the definitions nothing is known of most others: they go first.
        let mut all: Vec<&Known> = self.known.values().filter(|known| of_interest(known.kind)).collect();
        all.sort_by_key(|known| known.kind != &DEFINITIONS);
        let known = all.into_iter().find(waited)?;
        let why = match &known.health {
            Some(Health::Forbidden(said)) => format!(": {}", forbidden(known.kind, said)),
            Some(Health::Away(said) | Health::Refused(said)) => format!(": {said}"),
            Some(Health::NotServed) => ": the API server does not serve it".to_owned(),
            Some(Health::Good) | None => String::new(),
        };
        Some(format!("{} objects were not listed yet{why}", known.kind.name))
    }

    /// Whether anything is to be told.
    pub(super) fn is_news(&self) -> bool {
        !self.changes.is_empty() || self.wrong_anew
    }

    /// What changed since the last time, and what is wrong where that changed too.
    pub(super) fn take(&mut self) -> (Vec<Change>, Option<Vec<Problem>>) {
        let changes = std::mem::take(&mut self.changes).into_values().collect();
        let problems = std::mem::take(&mut self.wrong_anew).then(|| self.wrong());
        (changes, problems)
    }

    fn wrong(&self) -> Vec<Problem> {
        let away = self.away.iter().map(|reason| {
            problem(None, format!("the API server cannot be reached ({reason}): the last objects hold"))
        });
        let kinds = self.known.values().filter_map(Known::problem);
        let refused =
            self.known.values().flat_map(|known| known.refused.values().map(|one| one.problem.clone()));
        let mut all: Vec<Problem> = away.chain(kinds).chain(refused).collect();
        if all.len() > limits::PROBLEMS_MAX {
            let more = all.len() - limits::PROBLEMS_MAX;
            all.truncate(limits::PROBLEMS_MAX);
            all.push(problem(None, format!("{more} more problems are not shown: solve these first")));
        }
        all
    }

    /// What cannot be used, and in which version each kind is watched.
    pub(super) fn seen(&self) -> Seen {
        let refused = self.known.values().flat_map(|known| known.refused.clone()).collect();
        let version = |known: &Known| Some((known.kind.name, self.version(known.kind)?.to_owned()));
        Seen { refused, versions: self.known.values().filter_map(version).collect() }
    }

    /// Every kind as it is shown.
    pub(super) fn watched(&self) -> Vec<Watched> {
        self.known.values().map(Known::watched).collect()
    }
}

/// The kind that the definition of this name defines.
fn defined(id: &ObjectId) -> Option<&'static Kind> {
    if id.kind == DEFINITIONS.name { Kind::defined_by(&id.name) } else { None }
}
