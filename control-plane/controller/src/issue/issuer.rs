//! issuer: a key and the certificates that let it sign, read and checked once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use policy::identity::Identity;
use policy::limits;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;

use super::pem;

/// How long an issuer's certificate lives that is made here: ten years.
const LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

/// What an issuer consists of, as text; a key's never goes into a log or an error.
pub(crate) struct Material {
    /// The issuer's certificate, then those between it and its root.
    pub(crate) certificates: String,
    /// Its key.
    pub(crate) key: String,
    /// What to trust, where somebody says so.
    pub(crate) anchors: Option<String>,
}

/// Signs certificates.
pub(crate) struct Issuer {
    signer: rcgen::Issuer<'static, KeyPair>,
    own: CertificateDer<'static>,
    /// What goes with every leaf: the issuer's certificate and those up to its anchor, without it.
    between: Vec<CertificateDer<'static>>,
    anchors: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
}

/// A certificate just signed.
pub(crate) struct Leaf {
    /// It, and those between it and the anchor.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// When it ends.
    pub(crate) not_after: SystemTime,
}

impl Issuer {
    /// Reads an issuer and proves that what it signs is trusted by its own anchors.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(crate) fn read(material: &Material, now: SystemTime) -> anyhow::Result<Self> {
        let chain = pem::certificates(&material.certificates).context("its certificate")?;
        let key = pem::key(&material.key).context("its key")?;
        let own = chain[0].clone();
        let parsed = parse(&own).context("its certificate")?;
        let public = key.subject_public_key_info();
        anyhow::ensure!(
            parsed.public_key().raw == public.as_slice(),
            "its key does not belong to its certificate: put the two that were made together"
        );
        anyhow::ensure!(
            parsed.is_ca(),
            "its certificate may not sign others (basicConstraints without CA): issue one with isCA: true"
        );
        let anchors = match &material.anchors {
            Some(anchors) => pem::certificates(anchors).context("its anchors")?,
            // Without a word on it the last of the chain is the one nearest to the root.
            None => chain.last().cloned().into_iter().collect(),
        };
        let between: Vec<_> = chain.iter().filter(|one| !anchors.contains(one)).cloned().collect();
        let mut not_after = end(&parsed);
        for certificate in &between {
            not_after = not_after.min(end(&parse(certificate).context("a certificate of its chain")?));
        }
        let signer = rcgen::Issuer::from_ca_cert_der(&own, key).context("its certificate cannot issue")?;
        let issuer = Self { signer, own, between, anchors, not_after };
        issuer.prove(now)?;
        Ok(issuer)
    }

    /// Makes one: a key and a self-signed certificate that may sign leaves alone.
    ///
    /// # Errors
    /// When the random source fails.
    pub(crate) fn make(trust_domain: &str, key: Option<KeyPair>) -> anyhow::Result<Material> {
        let key = match key {
            Some(key) => key,
            None => KeyPair::generate().context("cannot make the issuer's key")?,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("tidegate issuer of {trust_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, SystemTime::now(), LIFETIME);
        let certificate = params.self_signed(&key).context("cannot sign the issuer's certificate")?;
        Ok(Material {
            certificates: pem::to_pem("CERTIFICATE", certificate.der()),
            key: pem::to_pem("PRIVATE KEY", &key.serialize_der()),
            anchors: None,
        })
    }

    /// When it cannot sign any more.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is the same certificate, with the same ones above it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.own, &self.between, &self.anchors) == (&other.own, &other.between, &other.anchors)
    }

    /// What vouches for it.
    pub(crate) fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    /// Signs a certificate that lives `lifetime`, or as long as the issuer where that is shorter.
    ///
    /// # Errors
    /// When the issuer's time is over.
    pub(crate) fn leaf(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        now: SystemTime,
        lifetime: Duration,
    ) -> anyhow::Result<Leaf> {
        let left = self.not_after.duration_since(now).unwrap_or_default();
        anyhow::ensure!(!left.is_zero(), "the issuer's certificate has run out: put a new one in its place");
        let lifetime = lifetime.min(left);
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
        let leaf = params.signed_by(key, &self.signer)?;
        let chain = std::iter::once(leaf.der().clone()).chain(self.between.iter().cloned()).collect();
        Ok(Leaf { chain, not_after: now + lifetime })
    }

    /// Signs one and has it verified as a peer would: whatever is wrong shows here, not at the proxies.
    fn prove(&self, now: SystemTime) -> anyhow::Result<()> {
        let nobody: Identity = "spiffe://tidegate.invalid/ns/nobody/sa/nobody".parse()?;
        let key = KeyPair::generate().context("cannot make a key")?;
        let leaf = self.leaf(&key, &nobody, now, limits::LEAF_LIFETIME)?;
        let mut roots = rustls::RootCertStore::empty();
        for anchor in &self.anchors {
            roots.add(anchor.clone()).context("an anchor of its own is not a certificate")?;
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.into())
            .build()
            .context("its anchors cannot be used")?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        verifier
            .verify_client_cert(&leaf.chain[0], &leaf.chain[1..], UnixTime::since_unix_epoch(since))
            .context(
                "what it signs is not trusted by its own anchors: the certificate needs the certificates \
                 up to its root with it, keyUsage certSign and a path length that allows a leaf",
            )?;
        Ok(())
    }
}

/// A certificate's fields.
///
/// # Errors
/// When it is not one.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> anyhow::Result<X509Certificate<'a>> {
    Ok(x509_parser::parse_x509_certificate(der).context("is not a certificate")?.1)
}

/// When it ends.
pub(crate) fn end(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Lets a certificate live from now on, and a little before: clocks differ.
pub(crate) fn valid(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(limits::LEAF_CLOCK_SKEW);
    params.not_after = epoch + since + lifetime;
}
