//! identity: all that a cluster needs of it, opened together and run side by side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use kube::Client;
use tokio::sync::watch;

use crate::anchors::Anchors;
use crate::documents::Documents;
use crate::installation::Installation;
use crate::intake::Follow;
use crate::issue::{Authority, Expiry, IssuerSecret, Reviews, Troubles};
use crate::metrics::Metrics;
use crate::webhook_tls::WebhookTls;

/// How identity is set up.
pub(crate) struct Settings {
    /// The namespace that the controller stands in.
    pub(crate) namespace: String,
    /// The trust domain of every identity.
    pub(crate) trust_domain: String,
    /// Whom tokens must be made out to.
    pub(crate) audience: String,
    /// How long a workload's certificate lives.
    pub(crate) lifetime: Duration,
}

/// Identity in a cluster.
pub(crate) struct ClusterIdentity {
    client: Client,
    installation: Arc<Installation>,
    secret: IssuerSecret,
    /// Who signs.
    pub(crate) authority: Arc<Authority>,
    /// The certificate of the webhooks' server.
    pub(crate) webhook: Arc<WebhookTls>,
    /// What does not work now.
    pub(crate) troubles: Arc<Troubles>,
    metrics: Arc<Metrics>,
}

impl ClusterIdentity {
    /// Opens the issuer, or makes it; waits for an API server that is away.
    ///
    /// # Errors
    /// When the issuer cannot be used or a permission is missing: the object and the remedy.
    pub(crate) async fn open(
        (client, installation): (Client, Arc<Installation>),
        settings: &Settings,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Self, Reviews)> {
        let troubles = Arc::new(Troubles::new(metrics.identity.clone()));
        let place = || (client.clone(), settings.namespace.as_str(), installation.clone());
        let secret = IssuerSecret::new(place(), &settings.trust_domain, settings.lifetime, troubles.clone());
        let webhook = WebhookTls::new(place(), troubles.clone())?;
        let authority = Arc::new(secret.open().await?);
        let reviews = Reviews::new(client.clone(), settings.audience.clone(), metrics.identity.clone());
        let webhook = Arc::new(webhook);
        Ok((Self { client, installation, secret, authority, webhook, troubles, metrics }, reviews))
    }

    /// What goes on as long as the program does, and what tells it of anchors and namespaces; `leads` says
    /// whether this replica is the one that writes.
    pub(crate) fn parts(self, leads: &watch::Receiver<bool>) -> (Vec<Part>, Trusted) {
        let Self { client, installation, secret, authority, webhook, troubles, metrics } = self;
        let (tell, namespaces) = watch::channel(None);
        let anchors =
            Anchors::new((client, installation), (namespaces, authority.anchors()), leads.clone(), troubles);
        let expiry = Expiry::new(authority.clone(), Some(webhook.clone()), metrics.identity.clone());
        let trusted = Trusted { authority: authority.clone(), namespaces: tell };
        let parts: Vec<Part> = vec![
            ("the issuer", Box::pin(secret.run(authority))),
            ("the webhook's certificate", Box::pin(webhook.run(leads.clone()))),
            ("the anchors of the namespaces", Box::pin(anchors.run())),
            ("the ends of certificates", Box::pin(expiry.run())),
        ];
        (parts, trusted)
    }
}

/// Something that goes on, by its name.
pub(crate) type Part = (&'static str, LocalBoxFuture<'static, ()>);

/// The anchors of MeshTrust and the injected namespaces, as the objects have them.
pub(crate) struct Trusted {
    authority: Arc<Authority>,
    namespaces: watch::Sender<Option<Arc<BTreeSet<String>>>>,
}

impl Follow for Trusted {
    fn follow(&mut self, documents: &Documents) {
        let (anchors, injected) = documents.ask(|index| (index.anchors().to_vec(), index.injected()));
        // Only a file of anchors can fail to be written, and there is none.
        if let Err(error) = self.authority.set_anchors(&anchors) {
            tracing::error!(error = format!("{error:#}"), "the anchors are not in step");
        }
        let wanted = Some(Arc::new(injected));
        self.namespaces.send_if_modified(|before| {
            let changed = *before != wanted;
            before.clone_from(&wanted);
            changed
        });
    }

    fn is_behind(&self) -> bool {
        false
    }
}
