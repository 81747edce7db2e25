//! webhook_tls: the certificate that the API server meets when it calls our webhooks.
//!
//! It is kept in Secret `tidegate-webhook-tls`, made by whichever replica comes first. Every replica
//! serves what the Secret holds and sees it change; the holder of the lease alone renews it, and keeps
//! the API server's configurations in step with it, also after somebody wrote over them.

mod bundle;
mod material;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::select;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use policy::limits;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::asked::{FIELD_MANAGER, ask, changes, is_ours, labels, named};
use crate::installation::Installation;
use crate::issue::Troubles;
use material::{Due, Material};

/// The Secret's name.
const NAME: &str = "tidegate-webhook-tls";
/// The Service that the API server calls.
const SERVICE: &str = "tidegate-controller";

/// The webhook's certificate, as it is now.
pub(crate) struct WebhookTls {
    client: Client,
    api: Api<Secret>,
    object: String,
    dns_name: String,
    installation: Arc<Installation>,
    troubles: Arc<Troubles>,
    served: Arc<Served>,
    config: Arc<ServerConfig>,
}

/// What is served now.
#[derive(Default)]
struct Served(RwLock<Option<(Material, Arc<CertifiedKey>)>>);

impl WebhookTls {
    /// For the Service in the controller's own namespace. Nothing is served before [`Self::run`] has
    /// seen the Secret.
    ///
    /// # Errors
    /// When TLS 1.3 is not there.
    pub(crate) fn new(
        (client, namespace, installation): (Client, &str, Arc<Installation>),
        troubles: Arc<Troubles>,
    ) -> anyhow::Result<Self> {
        let served = Arc::new(Served::default());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3 is not there")?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            api: Api::namespaced(client.clone(), namespace),
            client,
            object: named::<Secret>(namespace, NAME),
            dns_name: format!("{SERVICE}.{namespace}.svc"),
            installation,
            troubles,
            served,
            config: Arc::new(config),
        })
    }

    /// Accepts the API server's connections (HTTP/1.1), each with the certificate of its moment.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }

    /// When the certificate that is served ends; `None` before there is one.
    pub(crate) fn not_after(&self) -> Option<SystemTime> {
        self.served.lock().as_ref().and_then(|(material, _)| material.not_after())
    }

    /// The Secret, for whoever is told of it.
    pub(crate) fn object(&self) -> String {
        self.object.clone()
    }

    /// Follows the Secret, and keeps it and the configurations in order while `leads` says so. Goes on
    /// until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, mut leads: watch::Receiver<bool>) {
        let injector =
            changes::<MutatingWebhookConfiguration>(Api::all(self.client.clone()), bundle::INJECTOR);
        let validator =
            changes::<ValidatingWebhookConfiguration>(Api::all(self.client.clone()), bundle::VALIDATOR);
        let mut changed = select(changes(self.api.clone(), NAME), select(injector, validator));
        loop {
            let is_leader = *leads.borrow_and_update();
            let done = self.keep(is_leader, SystemTime::now()).await;
            self.troubles.note(&self.object, done.as_ref().map(|_| ()));
            // A step of a renewal is followed at once by what it makes due.
            if matches!(done, Ok(due) if due != Due::Nothing) {
                continue;
            }
            tokio::select! {
                Some(()) = changed.next() => {}
                Ok(()) = leads.changed() => {}
                () = tokio::time::sleep(limits::CLUSTER_POLL) => {}
            }
        }
    }

    /// Serves what the Secret holds, and as the leader does what is due; says what that was.
    async fn keep(&self, is_leader: bool, now: SystemTime) -> anyhow::Result<Due> {
        let secret = match ask(format!("get {}", self.object), self.api.get_opt(NAME)).await? {
            Some(secret) => secret,
            None => self.make(now).await?,
        };
        let material = self.read(&secret);
        let material = match material {
            Ok(material) => material,
            // What we made and somebody broke is made anew.
            Err(_) if is_leader && is_ours(&secret) => {
                self.write(secret, &Material::make(&self.dns_name, now)?).await?;
                return Ok(Due::Remake);
            }
            Err(error) => return Err(error),
        };
        self.serve(&material)?;
        if !is_leader {
            return Ok(Due::Nothing);
        }
        // Before any step: what is served next must be known before.
        let authorities = material.authorities();
        let injector = bundle::write::<MutatingWebhookConfiguration>(&self.client, authorities).await;
        let validator = bundle::write::<ValidatingWebhookConfiguration>(&self.client, authorities).await;
        injector.and(validator)?;
        let due = material.due(now);
        if due != Due::Nothing {
            self.write(secret, &material.after(&due, &self.dns_name, now)?).await?;
            tracing::info!(object = self.object, step = ?due, "the webhook's certificate is renewed");
        }
        Ok(due)
    }

    fn read(&self, secret: &Secret) -> anyhow::Result<Material> {
        let material = Material::read(secret.data.as_ref().unwrap_or(&Default::default()));
        let usable = material.and_then(|material| material.certified().map(|_| material));
        usable.with_context(|| format!("{} cannot be used: delete it, and it is made anew", self.object))
    }

    async fn make(&self, now: SystemTime) -> anyhow::Result<Secret> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                labels: Some(labels()),
                owner_references: self.installation.owner().await?,
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(Material::make(&self.dns_name, now)?.data()),
            ..Secret::default()
        };
        match ask(format!("create {}", self.object), self.api.create(&params(), &secret)).await {
            Ok(secret) => {
                tracing::info!(object = self.object, "the webhook's certificate is made");
                Ok(secret)
            }
            // Another replica was first.
            Err(refusal) if refusal.has_code(409) => {
                Ok(ask(format!("get {}", self.object), self.api.get(NAME)).await?)
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Refused where somebody changed the Secret meanwhile: the next look sees what it says now.
    async fn write(&self, mut secret: Secret, material: &Material) -> anyhow::Result<()> {
        secret.data = Some(material.data());
        ask(format!("replace {}", self.object), self.api.replace(NAME, &params(), &secret)).await?;
        Ok(())
    }

    fn serve(&self, material: &Material) -> anyhow::Result<()> {
        let mut served = self.served.0.write().unwrap_or_else(PoisonError::into_inner);
        if served.as_ref().is_none_or(|(before, _)| before != material) {
            let certified = material.certified().with_context(|| self.object.clone())?;
            *served = Some((material.clone(), certified));
        }
        Ok(())
    }
}

impl Served {
    fn lock(&self) -> std::sync::RwLockReadGuard<'_, Option<(Material, Arc<CertifiedKey>)>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Served {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.lock().as_ref().map(|(_, certified)| certified.clone())
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
