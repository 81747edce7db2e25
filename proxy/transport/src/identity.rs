//! identity: the certificate of this workload, the anchors it trusts, and whom a certificate names.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use policy::identity::Identity;
use policy::limits;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why anchors or a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The anchors are not PEM.
    #[error("the trust anchors are not PEM certificates")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// There is none.
    #[error("there is no trust anchor in {0} bytes")]
    NoAnchor(usize),
    /// Larger than [`limits::ANCHORS_BYTES_MAX`].
    #[error("the trust anchors have {0} bytes, more than {max}", max = limits::ANCHORS_BYTES_MAX)]
    TooLarge(usize),
    /// One is not a certificate.
    #[error("a trust anchor is not a usable certificate")]
    Anchor(#[source] rustls::Error),
    /// No key or request was made.
    #[error("no key and certificate request could be made")]
    Request(#[source] rcgen::Error),
    /// The answer holds none, or one that is none.
    #[error("the chain that was sent is not a certificate")]
    Chain,
    /// The certificate names somebody else.
    #[error("the certificate names {named}, not {expected}")]
    Foreign {
        /// Whom it names.
        named: String,
        /// Whom it should name.
        expected: Identity,
    },
    /// It is past its end, or not yet begun.
    #[error("the certificate is not valid at this time")]
    Time,
    /// It does not go with the key, or the anchors do not vouch for it.
    #[error("the certificate cannot be used with this key and these anchors")]
    Unusable(#[source] rustls::Error),
}

/// The certificates that every identity must lead to.
#[derive(Debug, Clone)]
pub struct Anchors {
    pub(crate) roots: Arc<RootCertStore>,
}

impl Anchors {
    /// Reads a file of PEM certificates.
    ///
    /// # Errors
    /// [`IdentityError`] when one of them is unusable or there is none: half a set is worse than
    /// the one before.
    pub fn from_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        if pem.len() as u64 > limits::ANCHORS_BYTES_MAX {
            return Err(IdentityError::TooLarge(pem.len()));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(IdentityError::Pem)?).map_err(IdentityError::Anchor)?;
        }
        if roots.is_empty() {
            return Err(IdentityError::NoAnchor(pem.len()));
        }
        Ok(Self { roots: Arc::new(roots) })
    }
}

/// A fresh key, and the request to have it certified.
pub struct SigningRequest {
    identity: Identity,
    key: KeyPair,
    csr: Vec<u8>,
}

impl SigningRequest {
    /// Makes a key (ECDSA P-256) and a PKCS#10 request for `identity`.
    ///
    /// # Errors
    /// [`IdentityError::Request`] when the crypto library refuses.
    pub fn generate(identity: Identity) -> Result<Self, IdentityError> {
        let make = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::new(vec![identity.dns_name()])?;
            params.subject_alt_names.push(SanType::URI(identity.spiffe_id().try_into()?));
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, identity.dns_name());
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let csr = params.serialize_request(&key)?.der().to_vec();
            Ok((key, csr))
        };
        let (key, csr) = make().map_err(IdentityError::Request)?;
        Ok(Self { identity, key, csr })
    }

    /// The request, DER.
    #[must_use]
    pub fn csr_der(&self) -> &[u8] {
        &self.csr
    }

    /// The key with the certificate that was made for it.
    ///
    /// # Errors
    /// [`IdentityError`] when `chain` is not for this identity or not valid now.
    pub fn into_credentials(self, chain: Vec<Vec<u8>>) -> Result<Credentials, IdentityError> {
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
        let leaf = chain.first().ok_or(IdentityError::Chain)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| IdentityError::Chain)?;
        let named = identity_of(leaf);
        if named.as_ref() != Some(&self.identity) {
            let named = named.map_or_else(|| "nobody".to_owned(), |named| named.to_string());
            return Err(IdentityError::Foreign { named, expected: self.identity });
        }
        if !parsed.validity().is_valid() {
            return Err(IdentityError::Time);
        }
        let time = |at: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap_or(0));
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        Ok(Credentials {
            identity: self.identity,
            chain,
            key,
            not_before: time(not_before),
            not_after: time(not_after),
        })
    }
}

/// A key and the certificate that says whose it is.
pub struct Credentials {
    /// Whose.
    pub identity: Identity,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// From when.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

/// Whom a certificate names: its SPIFFE ID, or the DNS spelling where it has no SPIFFE ID (a stock
/// linkerd2-proxy's has only that).
#[must_use]
pub fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(uri.parse().ok()),
        _ => None,
    });
    if let Some(identity) = uri {
        return identity;
    }
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Identity::from_dns_name(name).ok(),
        _ => None,
    })
}
