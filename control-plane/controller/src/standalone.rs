//! standalone: objects from a directory of manifests, keys and tokens in a directory beside it.

use std::path::PathBuf;
use std::sync::Arc;

use policy::limits;
use tokio::sync::mpsc;

use crate::Shared;
use crate::config::Config;
use crate::documents::Documents;
use crate::intake::Follow;
use crate::issue::{Authority, Expiry, Owners, Tokens};
use crate::manifests::Manifests;
use crate::parts::Parts;
use crate::reload;
use crate::serve::Tls;
use crate::{Standing, Trust};

/// Opens both directories.
///
/// # Errors
/// When the state directory cannot be used.
pub(crate) fn open(
    (manifests, state): (PathBuf, PathBuf),
    config: &Config,
    shared: &Shared,
) -> anyhow::Result<Standing> {
    let authority = Arc::new(Authority::open(&state, config.trust_domain.as_str())?);
    let tokens = Arc::new(Tokens::open(&state)?);
    let tls = Arc::new(Tls::new(authority.clone(), config.identity()?, limits::LEAF_LIFETIME)?);
    let (tell, news) = mpsc::channel(1);
    let admin = shared.admin.clone();
    let reload =
        async move { reload::run(Manifests::new(manifests.clone()), &manifests, (tell, admin)).await };
    let mut parts = Parts::new(shared.stop.clone());
    parts.add("the reading of the manifests", reload);
    parts.add(
        "the ends of certificates",
        Expiry::new(authority.clone(), None, shared.metrics.identity.clone()).run(),
    );
    let kept = StateDirectory {
        authority: authority.clone(),
        tokens: tokens.clone(),
        tls: tls.clone(),
        behind: false,
    };
    let trust = Trust { authority, owners: Owners::Files(tokens), tls };
    Ok(Standing { trust, follow: Box::new(kept), news, parts })
}

/// The state directory, kept in step with the objects.
struct StateDirectory {
    authority: Arc<Authority>,
    tokens: Arc<Tokens>,
    tls: Arc<Tls>,
    behind: bool,
}

impl Follow for StateDirectory {
    fn is_behind(&self) -> bool {
        self.behind
    }

    fn follow(&mut self, documents: &Documents) {
        let done = self.try_follow(documents);
        if let (Err(error), false) = (&done, self.behind) {
            tracing::error!(error = format!("{error:#}"), "the state directory is not in step");
        }
        self.behind = done.is_err();
    }
}

impl StateDirectory {
    fn try_follow(&self, documents: &Documents) -> anyhow::Result<()> {
        let (accounts, anchors) = documents.ask(|index| (index.accounts(), index.anchors().to_vec()));
        self.tokens.ensure(&accounts)?;
        if self.authority.set_anchors(&anchors)? {
            self.tls.renew()?;
        }
        Ok(())
    }
}
