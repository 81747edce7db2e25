//! secret: an issuer kept in a Secret, made there when nobody brought one.
//!
//! Its shape is cert-manager's: `tls.crt` (the issuer's certificate and those between it and its root),
//! `tls.key`, and `ca.crt` (the root) where it is known. The controller makes it when it is absent and
//! never writes over one: whoever brought it renews and owns it, and every replica takes the new one when
//! it sees it. Two replicas that start at once both try to make it; the API server lets one, the other reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use policy::limits;

use super::Troubles;
use super::authority::Authority;
use super::issuer::{Issuer, Material};
use crate::asked::{FIELD_MANAGER, Refusal, ask, changes, labels, named};
use crate::installation::Installation;

/// The Secret's name.
pub(crate) const NAME: &str = "tidegate-issuer";

/// The Secret of the issuer.
pub(crate) struct IssuerSecret {
    api: Api<Secret>,
    object: String,
    installation: Arc<Installation>,
    trust_domain: String,
    lifetime: Duration,
    troubles: Arc<Troubles>,
}

impl IssuerSecret {
    /// Of the controller's own namespace, and whose it is when it is made; certificates live `lifetime` at
    /// most.
    pub(crate) fn new(
        (client, namespace, installation): (Client, &str, Arc<Installation>),
        trust_domain: &str,
        lifetime: Duration,
        troubles: Arc<Troubles>,
    ) -> Self {
        let object = named::<Secret>(namespace, NAME);
        let api = Api::namespaced(client, namespace);
        Self { api, object, installation, trust_domain: trust_domain.to_owned(), lifetime, troubles }
    }

    /// Reads the issuer, or makes it; waits for an API server that is away.
    ///
    /// # Errors
    /// When the controller may not, or the Secret cannot be used: the object and the remedy.
    pub(crate) async fn open(&self) -> anyhow::Result<Authority> {
        let mut pause = limits::CONTROL_BACKOFF_MIN;
        let secret = loop {
            match self.get_or_make().await {
                Ok(secret) => break secret,
                Err(error) if error.downcast_ref().is_some_and(Refusal::is_passing) => {
                    tracing::warn!(error = format!("{error:#}"), "no issuer yet: asked again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::CONTROL_BACKOFF_MAX);
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Authority::of_cluster(self.object.clone(), self.read(&secret, SystemTime::now())?))
    }

    async fn get_or_make(&self) -> anyhow::Result<Secret> {
        if let Some(secret) = self.get().await? {
            return Ok(secret);
        }
        let material = Issuer::make(&self.trust_domain, None)?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let mut secret = secret(material);
        secret.metadata.owner_references = self.installation.owner().await?;
        match ask(format!("create {}", self.object), self.api.create(&params, &secret)).await {
            Ok(secret) => {
                tracing::info!(object = self.object, "issuer made");
                Ok(secret)
            }
            // Another replica was first.
            Err(refusal) if refusal.has_code(409) => {
                self.get().await?.with_context(|| format!("{} was there and is gone", self.object))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn get(&self) -> Result<Option<Secret>, Refusal> {
        ask(format!("get {}", self.object), self.api.get_opt(NAME)).await
    }

    fn read(&self, secret: &Secret, now: SystemTime) -> anyhow::Result<Issuer> {
        let material = material(secret);
        material.and_then(|material| Issuer::read(&material, now)).with_context(|| {
            format!(
                "{} cannot be used (it is never written over: put a good one in its place, or delete it \
                 and restart the controller to have one made)",
                self.object
            )
        })
    }

    /// Follows the Secret until it is dropped: another issuer in it signs from then on.
    pub(crate) async fn run(self, authority: Arc<Authority>) {
        let mut changed = changes(self.api.clone(), NAME);
        let mut last = None;
        loop {
            let done = self.follow(&authority, &mut last, SystemTime::now()).await;
            self.troubles.note(&self.object, done.as_ref().copied());
            tokio::select! {
                Some(()) = changed.next() => {}
                () = tokio::time::sleep(limits::CLUSTER_POLL) => {}
            }
        }
    }

    /// Takes what the Secret says now; `last` is what it said before.
    pub(super) async fn follow(
        &self,
        authority: &Authority,
        last: &mut Option<BTreeMap<String, ByteString>>,
        now: SystemTime,
    ) -> anyhow::Result<()> {
        authority.forget_former(now);
        let secret = self.get().await?.with_context(|| {
            format!(
                "{} is gone: the issuer in memory goes on until a restart; put the Secret back, or have \
                 one made by restarting the controller",
                self.object
            )
        })?;
        if last.is_some() && secret.data == *last {
            return Ok(());
        }
        let issuer = self.read(&secret, now)?;
        if !authority.is_issuer(&issuer) {
            if !authority.trusts(issuer.anchors()) {
                tracing::warn!(
                    object = self.object,
                    "the new issuer's anchor was not trusted before: proxies refuse its certificates until \
                     they have read the new anchors; next time put it into MeshTrust first"
                );
            }
            tracing::info!(object = self.object, "another issuer signs from now on");
            authority.replace(issuer, now, self.lifetime);
        }
        *last = secret.data;
        Ok(())
    }
}

fn material(secret: &Secret) -> anyhow::Result<Material> {
    let field = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
    };
    let needed = |key: &str| field(key).with_context(|| format!("its key {key} is missing"));
    Ok(Material { certificates: needed("tls.crt")?, key: needed("tls.key")?, anchors: field("ca.crt") })
}

fn secret(material: Material) -> Secret {
    let data = [
        ("tls.crt", material.certificates.clone()),
        ("tls.key", material.key),
        ("ca.crt", material.certificates),
    ];
    Secret {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).into()),
        ..Secret::default()
    }
}
