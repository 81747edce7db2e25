//! shown: what others are told of the kinds: what is wrong with one, and how it is watched.

use std::collections::BTreeMap;
use std::time::SystemTime;

use resources::{ObjectId, Problem};

use super::{DEFINITIONS, Kind, Known, Origin, PLACE, Stage};
use crate::cluster::kind::Refused;
use crate::cluster::watching::Health;

/// What of the cluster becomes no object in force, for whoever writes statuses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Objects whose newest version cannot be used.
    pub(crate) refused: BTreeMap<ObjectId, Refused>,
    /// In which version each kind is watched.
    pub(crate) versions: BTreeMap<&'static str, String>,
}

/// A kind as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// `HTTPRoute`.
    pub(crate) kind: &'static str,
    /// The version that is watched, where one is.
    pub(crate) version: Option<String>,
    /// How it is, in a few words.
    pub(crate) state: String,
    /// Whether its watch stands.
    pub(crate) stands: bool,
    /// Its objects.
    pub(crate) objects: usize,
    /// When something was last heard.
    pub(crate) heard: Option<SystemTime>,
}

impl Known {
    pub(super) fn problem(&self) -> Option<Problem> {
        let resource = self.kind.resource();
        let definition = || Some(format!("{} {resource}", DEFINITIONS.name));
        match (&self.stage, &self.health) {
            (Stage::Absent, _) if self.kind.origin == Origin::Tidegate => {
                let message = format!(
                    "is not installed, so no {} is in force: install the CRDs, tidegate crds | kubectl \
                     apply --server-side -f -",
                    self.kind.name
                );
                Some(problem(definition(), message))
            }
            (Stage::Unreadable(versions), _) => {
                let (read, name) = (self.kind.versions.join(" or "), self.kind.name);
                let message = format!(
                    "serves {versions}, and this controller reads {read}: no {name} is in force; install \
                     CRDs of a version that serves {read}"
                );
                Some(problem(definition(), message))
            }
            (_, Some(Health::Forbidden(said))) => Some(problem(None, forbidden(self.kind, said))),
            (_, Some(Health::Refused(said))) => {
                Some(problem(None, format!("{resource} cannot be watched: {said}")))
            }
            _ => None,
        }
    }

    pub(super) fn watched(&self) -> Watched {
        let (version, stage) = match &self.stage {
            Stage::Unknown => (None, "not looked for yet".to_owned()),
            Stage::Absent => (None, "not installed".to_owned()),
            Stage::Unreadable(versions) => (None, format!("not readable: {versions}")),
            Stage::Listing(version) => (Some(version.clone()), "listing".to_owned()),
            Stage::Listed(version) => (Some(version.clone()), "watching".to_owned()),
        };
        let state = match &self.health {
            None | Some(Health::Good) => stage,
            Some(Health::Away(said)) => format!("away: {said}"),
            Some(Health::Forbidden(_)) => "forbidden".to_owned(),
            Some(Health::NotServed) => "not served".to_owned(),
            Some(Health::Refused(said)) => format!("refused: {said}"),
        };
        Watched {
            kind: self.kind.name,
            version,
            state,
            stands: self.health == Some(Health::Good) && matches!(self.stage, Stage::Listed(_)),
            objects: self.objects.len(),
            heard: self.heard,
        }
    }
}

pub(super) fn forbidden(kind: &Kind, said: &str) -> String {
    let (verbs, resource) = ("get, list and watch", kind.resource());
    format!(
        "{resource} may not be watched ({said}): the last objects hold; grant {verbs} on {resource} in the \
         ClusterRole tidegate-controller"
    )
}

pub(super) fn problem(object: Option<String>, message: String) -> Problem {
    Problem { file: PLACE.clone(), line: 0, object: object.unwrap_or_default(), field: None, message }
}
