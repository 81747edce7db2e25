//! authority: the issuer's key, made once, kept in the state directory.
//!
//! ```text
//! issuer.key   PKCS#8 PEM, mode 0600, written once
//! issuer.pem   its certificate, self-signed, written once, after the key
//! anchors.pem  issuer.pem and MeshTrust's anchors; replaced whole by rename
//! ```

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use policy::identity::Identity;
use policy::limits;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

/// How long the issuer's certificate lives: ten years.
const ISSUER_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Signs certificates and keeps the anchors.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    issuer_pem: String,
    anchors: Mutex<String>,
}

impl Authority {
    /// Opens the issuer in `directory`, or makes it.
    ///
    /// # Errors
    /// When files cannot be read or written, or do not belong together. Nothing that is there is
    /// ever overwritten.
    pub(crate) fn open(directory: &Path, trust_domain: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let (key_path, pem_path) = (directory.join("issuer.key"), directory.join("issuer.pem"));
        if !pem_path.exists() {
            make(&key_path, &pem_path, trust_domain)?;
        }
        let read =
            |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let issuer_pem = read(&pem_path)?;
        let key = key_from_pem(&read(&key_path)?, &key_path)?;
        let public = key.subject_public_key_info();
        let der = CertificateDer::from_pem_slice(issuer_pem.as_bytes())
            .map_err(|_| anyhow::anyhow!("{} is not a certificate in PEM", pem_path.display()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .with_context(|| format!("{} is not a certificate", pem_path.display()))?;
        if parsed.public_key().raw != public.as_slice() {
            anyhow::bail!("{} is not the key of {}", key_path.display(), pem_path.display());
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .with_context(|| format!("{} cannot issue", pem_path.display()))?;
        // Until the manifests are read the anchors of last time hold: taking those of MeshTrust away
        // for a moment would cut connections.
        let last = fs::read_to_string(directory.join("anchors.pem")).unwrap_or_default();
        let usable = last.starts_with(&issuer_pem) && roots(&last).is_ok();
        let anchors = Mutex::new(if usable { last } else { issuer_pem.clone() });
        Ok(Self { directory: directory.to_owned(), issuer, issuer_pem, anchors })
    }

    /// A certificate for the public key in `csr`, DER; nothing else in it is looked at.
    ///
    /// # Errors
    /// When `csr` is not a request or is not signed by its own key.
    pub(crate) fn sign(
        &self,
        csr: &[u8],
        identity: &Identity,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, rcgen::Error> {
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))?;
        self.leaf(&csr.public_key, identity, now, lifetime)
    }

    /// A key and a certificate of our own.
    ///
    /// # Errors
    /// When the random source fails.
    pub(crate) fn own(
        &self,
        identity: &Identity,
        now: SystemTime,
        lifetime: Duration,
    ) -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let leaf = self.leaf(&key, identity, now, lifetime).context("cannot sign a certificate")?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok((CertificateDer::from(leaf), key))
    }

    fn leaf(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // The DNS name first: peers that read one name alone read the first.
        params.subject_alt_names = vec![
            SanType::DnsName(identity.dns_name().try_into()?),
            SanType::URI(identity.spiffe_id().try_into()?),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, lifetime);
        Ok(params.signed_by(key, &self.issuer)?.der().to_vec())
    }

    /// Takes the issuer and `extra` as the anchors in force and writes anchors.pem when they
    /// changed. Texts that are not usable are left out and named by their place.
    ///
    /// # Errors
    /// When the file cannot be written; the new anchors then hold in this process alone and the
    /// next call tries again.
    pub(crate) fn set_anchors(&self, extra: &[String]) -> anyhow::Result<bool> {
        let mut text = self.issuer_pem.clone();
        for (i, pem) in extra.iter().enumerate() {
            if let Err(error) = roots(pem) {
                tracing::warn!(anchor = i, %error, "an anchor of MeshTrust is not usable and left out");
                continue;
            }
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(pem);
        }
        let path = self.directory.join("anchors.pem");
        let changed = {
            let mut anchors = self.anchors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let changed = *anchors != text;
            anchors.clone_from(&text);
            changed
        };
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            replace(&path, text.as_bytes(), 0o644)?;
        }
        Ok(changed)
    }

    /// The anchors in force.
    ///
    /// # Errors
    /// When none is usable.
    pub(crate) fn roots(&self) -> anyhow::Result<RootCertStore> {
        roots(&self.anchors.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn roots(pem: &str) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.context("is not PEM")?).context("is not a certificate")?;
    }
    anyhow::ensure!(!store.is_empty(), "holds no certificate");
    Ok(store)
}

fn make(key_path: &Path, pem_path: &Path, trust_domain: &str) -> anyhow::Result<()> {
    // A key without a certificate is what a crash between the two writes leaves: it is used.
    let key = if key_path.exists() {
        let text =
            fs::read_to_string(key_path).with_context(|| format!("cannot read {}", key_path.display()))?;
        key_from_pem(&text, key_path)?
    } else {
        let key = KeyPair::generate().context("cannot make the issuer's key")?;
        replace(key_path, to_pem("PRIVATE KEY", &key.serialize_der()).as_bytes(), 0o600)?;
        key
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("tidegate issuer of {trust_domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, SystemTime::now(), ISSUER_LIFETIME);
    let certificate = params.self_signed(&key).context("cannot sign the issuer's certificate")?;
    replace(pem_path, to_pem("CERTIFICATE", certificate.der()).as_bytes(), 0o644)
}

fn key_from_pem(text: &str, path: &Path) -> anyhow::Result<KeyPair> {
    // The text of a key never goes into an error.
    let wrong = || anyhow::anyhow!("{} is not a private key in PEM", path.display());
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong())?;
    KeyPair::try_from(&der).map_err(|_| wrong())
}

/// RFC 7468: lines of 64 characters.
fn to_pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + &format!("-----END {label}-----\n")
}

fn valid(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(limits::LEAF_CLOCK_SKEW);
    params.not_after = epoch + since + lifetime;
}

/// Puts `bytes` in the place of the file at `path`, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        // What an earlier crash left may have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
