//! installation: the chart's ClusterRole, the owner of what the controller makes: all of it goes together.
//!
//! Helm does not know what is made at run time. Kubernetes' garbage collector removes an object whose owner
//! is gone, and of what the chart installs a ClusterRole alone may own objects of every namespace. It is
//! looked up whenever something is made: one that was taken away and put back has another uid, and what
//! named the old one would be removed at once.

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, Resource as _};

use crate::asked::{Refusal, ask};

/// The role's name in the chart.
const NAME: &str = "tidegate-controller";

/// What the controller was installed with, as the owner of what it makes.
pub(crate) struct Installation {
    api: Api<ClusterRole>,
    seen: Mutex<Seen>,
}

/// What the looks so far have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// None looked yet.
    Unknown,
    /// It could not be found, which is said.
    Missing,
    /// It was there.
    There,
}

impl Installation {
    /// Nobody is looked for yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { api: Api::all(client), seen: Mutex::new(Seen::Unknown) }
    }

    /// What an object that is made now is to name; none where the controller runs outside of the chart,
    /// and the first time it says so.
    ///
    /// # Errors
    /// When the API server is away, and when an owner that was there is gone: the installation is being
    /// taken out then, and what is made now would stay.
    pub(crate) async fn owner(&self) -> Result<Option<Vec<OwnerReference>>, Refusal> {
        let answer = ask(format!("get ClusterRole {NAME}, the owner of what is made"), self.api.get(NAME));
        let refusal = match answer.await {
            Ok(role) => {
                self.note(Seen::There);
                return Ok(role.owner_ref(&()).map(|owner| vec![owner]));
            }
            Err(refusal) => refusal,
        };
        if refusal.is_passing() || self.seen() == Seen::There {
            return Err(refusal);
        }
        if self.note(Seen::Missing) == Seen::Unknown {
            let why = refusal.to_string();
            tracing::warn!(
                why,
                "what this controller makes has no owner and stays when Tidegate is taken out: the chart \
                 brings the ClusterRole"
            );
        }
        Ok(None)
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noted before.
    fn note(&self, now: Seen) -> Seen {
        std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}
