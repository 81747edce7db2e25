//! authority: who signs now, and what everybody trusts.
//!
//! One issuer is in force. It comes from a directory or from a Secret, and where it is kept is all in
//! which the two differ: a directory also holds the anchors, in a cluster they go to every namespace by
//! a way of their own ([`Authority::anchors`] tells when).
//!
//! The anchors are those of the issuer, then those of an issuer that was replaced while its last
//! certificates may live, then those of MeshTrust: a certificate is good as long as its anchor is there.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use policy::identity::Identity;
use policy::limits;
use rcgen::{CertificateSigningRequestParams, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use tokio::sync::watch;

use super::directory::Directory;
use super::issuer::{Issuer, Leaf};
use super::pem;

/// Signs certificates and keeps the anchors.
pub(crate) struct Authority {
    kept: Kept,
    state: Mutex<State>,
    anchors: watch::Sender<Arc<str>>,
}

/// Where the issuer is kept.
enum Kept {
    /// In files, the anchors beside it.
    Directory(Directory),
    /// In the Secret of this name, which is watched: see [`super::IssuerSecret`].
    Secret(String),
}

struct State {
    issuer: Arc<Issuer>,
    /// Anchors of issuers that were replaced, and until when certificates of theirs may live.
    former: Vec<(CertificateDer<'static>, SystemTime)>,
    /// Anchors of MeshTrust.
    extra: Vec<CertificateDer<'static>>,
}

/// Why a certificate was not signed.
#[derive(Debug)]
pub(crate) enum SignError {
    /// The request is not one.
    Request(rcgen::Error),
    /// The issuer cannot.
    Issuer(anyhow::Error),
}

impl Authority {
    /// Opens the issuer in `directory`, or makes it.
    ///
    /// # Errors
    /// When files cannot be read or written, or do not belong together. Nothing that is there is
    /// ever overwritten.
    pub(crate) fn open(directory: &Path, trust_domain: &str) -> anyhow::Result<Self> {
        let (directory, issuer) = Directory::open(directory, trust_domain)?;
        // Until the manifests are read the anchors of last time hold: taking those of MeshTrust away
        // for a moment would cut connections.
        let last = directory.anchors().filter(|last| pem::roots(last).is_ok());
        let last = last.and_then(|last| pem::certificates(&last).ok()).unwrap_or_default();
        let usable = last.starts_with(issuer.anchors());
        let extra = if usable { last[issuer.anchors().len()..].to_vec() } else { Vec::new() };
        Ok(Self::new(Kept::Directory(directory), issuer, extra))
    }

    /// With the issuer of this Secret.
    pub(crate) fn of_cluster(object: String, issuer: Issuer) -> Self {
        Self::new(Kept::Secret(object), issuer, Vec::new())
    }

    fn new(kept: Kept, issuer: Issuer, extra: Vec<CertificateDer<'static>>) -> Self {
        let state = State { issuer: Arc::new(issuer), former: Vec::new(), extra };
        let anchors = watch::Sender::new(state.text().into());
        Self { kept, state: Mutex::new(state), anchors }
    }

    /// A certificate for the public key in `csr`; nothing else in it is looked at.
    ///
    /// # Errors
    /// When `csr` is not a request or is not signed by its own key, or the issuer's time is over.
    pub(crate) fn sign(
        &self,
        csr: &[u8],
        identity: &Identity,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Leaf, SignError> {
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(SignError::Request)?;
        let signed = self.issuer().leaf(&csr.public_key, identity, now, lifetime);
        signed.map_err(|error| SignError::Issuer(error.context(self.place())))
    }

    /// A key and a certificate of our own.
    ///
    /// # Errors
    /// When the random source fails or the issuer's time is over.
    pub(crate) fn own(
        &self,
        identity: &Identity,
        now: SystemTime,
        lifetime: Duration,
    ) -> anyhow::Result<(Leaf, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let leaf = self.issuer().leaf(&key, identity, now, lifetime).with_context(|| self.place())?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok((leaf, key))
    }

    /// Takes the issuer and `extra` as the anchors in force and writes anchors.pem where there is a
    /// directory. Texts that are not usable are left out and named by their place.
    ///
    /// # Errors
    /// When the file cannot be written; the new anchors then hold in this process alone and the
    /// next call tries again.
    pub(crate) fn set_anchors(&self, extra: &[String]) -> anyhow::Result<bool> {
        let mut usable = Vec::new();
        let mut bytes: usize = 0;
        for (i, text) in extra.iter().enumerate() {
            bytes = bytes.saturating_add(text.len());
            // Half is left for the issuer's, and what names each certificate.
            if u64::try_from(bytes).unwrap_or(u64::MAX) > limits::ANCHORS_BYTES_MAX / 2 {
                tracing::warn!(
                    anchor = i,
                    "the anchors of MeshTrust are too long: this one and the rest are left out"
                );
                break;
            }
            match pem::roots(text).and_then(|_| pem::certificates(text)) {
                Ok(certificates) => usable.extend(certificates),
                Err(error) => {
                    tracing::warn!(
                        anchor = i,
                        error = format!("{error:#}"),
                        "an anchor of MeshTrust is not usable and left out"
                    );
                }
            }
        }
        let (changed, text) = {
            let mut state = self.lock();
            state.extra = usable;
            self.announce(&state)
        };
        if let Kept::Directory(directory) = &self.kept {
            directory.write_anchors(&text)?;
        }
        Ok(changed)
    }

    /// Takes another issuer. What the one before signed lives on: its anchors stay for `lifetime`.
    pub(crate) fn replace(&self, issuer: Issuer, now: SystemTime, lifetime: Duration) {
        let mut state = self.lock();
        let anchors = state.issuer.anchors().to_vec();
        let until = now + lifetime;
        state.former.extend(anchors.into_iter().map(|anchor| (anchor, until)));
        let surplus = state.former.len().saturating_sub(limits::FORMER_ANCHORS_MAX);
        state.former.drain(..surplus);
        state.issuer = Arc::new(issuer);
        // Even where the anchors are the same: our own certificate is to come from the new issuer.
        self.anchors.send_replace(state.text().into());
    }

    /// Lets go of the anchors of former issuers whose time is over.
    pub(crate) fn forget_former(&self, now: SystemTime) {
        let mut state = self.lock();
        state.former.retain(|(_, until)| *until > now);
        self.announce(&state);
    }

    /// The anchors in force, PEM; changes also when another issuer is taken.
    pub(crate) fn anchors(&self) -> watch::Receiver<Arc<str>> {
        self.anchors.subscribe()
    }

    /// The anchors in force.
    ///
    /// # Errors
    /// When none is usable.
    pub(crate) fn roots(&self) -> anyhow::Result<RootCertStore> {
        pem::roots(&self.anchors.borrow())
    }

    /// Whether all of these are trusted.
    pub(crate) fn trusts(&self, anchors: &[CertificateDer<'static>]) -> bool {
        let trusted = self.lock().all();
        anchors.iter().all(|anchor| trusted.contains(anchor))
    }

    /// Whether this is the one that signs now.
    pub(crate) fn is_issuer(&self, issuer: &Issuer) -> bool {
        self.issuer().is_same(issuer)
    }

    /// Where the issuer is kept, for whoever is to renew it.
    pub(crate) fn place(&self) -> String {
        match &self.kept {
            Kept::Directory(directory) => format!("the issuer in {directory}"),
            Kept::Secret(object) => object.clone(),
        }
    }

    /// When the issuer cannot sign any more.
    pub(crate) fn issuer_end(&self) -> SystemTime {
        self.issuer().not_after()
    }

    fn issuer(&self) -> Arc<Issuer> {
        self.lock().issuer.clone()
    }

    /// Under the lock of the state, so that the last one said is the last one true.
    fn announce(&self, state: &State) -> (bool, Arc<str>) {
        let text: Arc<str> = state.text().into();
        let changed = self.anchors.send_if_modified(|anchors| {
            let changed = *anchors != text;
            anchors.clone_from(&text);
            changed
        });
        (changed, text)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Each once, in the order of the front page.
    fn all(&self) -> Vec<CertificateDer<'static>> {
        let former = self.former.iter().map(|(anchor, _)| anchor);
        let mut all: Vec<CertificateDer<'static>> = Vec::new();
        for anchor in self.issuer.anchors().iter().chain(former).chain(&self.extra) {
            if !all.contains(anchor) {
                all.push(anchor.clone());
            }
        }
        all
    }

    fn text(&self) -> String {
        self.all().iter().map(|anchor| pem::to_pem("CERTIFICATE", anchor)).collect()
    }
}
