//! material: the webhook's certificate as its Secret holds it, and what it is due for.
//!
//! ```text
//! tls.crt, tls.key     what every replica serves
//! next.crt, next.key   what it will serve; there between a renewal's two steps alone
//! ca.crt               who vouches for either: what the API server is told to trust
//! ```
//!
//! Each certificate has an authority of its own, which signs it and is forgotten: nothing that could
//! sign another is kept. So that the API server never meets a certificate it does not know, a renewal is
//! two steps: the next one is laid beside the present one and both authorities are told to the API
//! server; [`limits::WEBHOOK_SETTLE`] later it takes the place, and the old authority stays until the next
//! renewal, for a replica that is late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use k8s_openapi::ByteString;
use policy::limits;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::issue::{certificates, end, parse, to_pem, valid};

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: String,
    key: String,
}

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    present: Pair,
    next: Option<Pair>,
    authorities: String,
}

/// The next step of a renewal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing now.
    Nothing,
    /// The next certificate is to be laid beside the present one.
    Stage,
    /// The next one is to take the place of the present one.
    Promote,
    /// The present one has run out: all is to be made anew.
    Remake,
}

impl Material {
    /// A new certificate for this DNS name, and nothing else.
    ///
    /// # Errors
    /// When the random source fails.
    pub(super) fn make(name: &str, now: SystemTime) -> anyhow::Result<Self> {
        let (present, authorities) = pair(name, now)?;
        Ok(Self { present, next: None, authorities })
    }

    /// Reads what a Secret holds.
    ///
    /// # Errors
    /// When something is missing or no certificate.
    pub(super) fn read(data: &BTreeMap<String, ByteString>) -> anyhow::Result<Self> {
        let field = |key: &str| {
            let bytes = data.get(key).filter(|bytes| !bytes.0.is_empty())?;
            Some(String::from_utf8_lossy(&bytes.0).into_owned())
        };
        let needed = |key: &str| field(key).with_context(|| format!("its key {key} is missing"));
        let next = field("next.crt").zip(field("next.key"));
        let material = Self {
            present: Pair { certificate: needed("tls.crt")?, key: needed("tls.key")? },
            next: next.map(|(certificate, key)| Pair { certificate, key }),
            authorities: needed("ca.crt")?,
        };
        material.present.life().context("its key tls.crt")?;
        certificates(&material.authorities).context("its key ca.crt")?;
        Ok(material)
    }

    /// What a Secret is to hold.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let mut fields = vec![
            ("tls.crt", &self.present.certificate),
            ("tls.key", &self.present.key),
            ("ca.crt", &self.authorities),
        ];
        if let Some(next) = &self.next {
            fields.extend([("next.crt", &next.certificate), ("next.key", &next.key)]);
        }
        let bytes = |(key, text): (&str, &String)| (key.to_owned(), ByteString(text.clone().into_bytes()));
        fields.into_iter().map(bytes).collect()
    }

    /// Who vouches for what is and what will be served, PEM.
    pub(super) fn authorities(&self) -> &str {
        &self.authorities
    }

    /// When the certificate that is served ends.
    pub(super) fn not_after(&self) -> Option<SystemTime> {
        self.present.life().ok().map(|(_, end)| end)
    }

    /// What is to be done now.
    pub(super) fn due(&self, now: SystemTime) -> Due {
        let Ok((begin, end)) = self.present.life() else { return Due::Remake };
        if end <= now {
            return Due::Remake;
        }
        match &self.next {
            Some(next) => match next.life() {
                Ok((begin, _)) if now >= begin + limits::LEAF_CLOCK_SKEW + limits::WEBHOOK_SETTLE => {
                    Due::Promote
                }
                Ok(_) => Due::Nothing,
                Err(_) => Due::Stage,
            },
            None => {
                let life = end.duration_since(begin).unwrap_or_default();
                if now >= begin + life.mul_f64(limits::LEAF_RENEW_AT) { Due::Stage } else { Due::Nothing }
            }
        }
    }

    /// The same with that done.
    ///
    /// # Errors
    /// When the random source fails.
    pub(super) fn after(&self, due: &Due, name: &str, now: SystemTime) -> anyhow::Result<Self> {
        match due {
            Due::Nothing => Ok(self.clone()),
            Due::Remake => Self::make(name, now),
            Due::Stage => {
                let (next, authority) = pair(name, now)?;
                // Those of earlier renewals are no more needed: theirs is not served any longer.
                let present = certificates(&self.authorities)?.into_iter().next();
                let present = present.map(|der| to_pem("CERTIFICATE", &der)).unwrap_or_default();
                Ok(Self { next: Some(next), authorities: authority + &present, ..self.clone() })
            }
            Due::Promote => match &self.next {
                Some(next) => Ok(Self { present: next.clone(), next: None, ..self.clone() }),
                None => Ok(self.clone()),
            },
        }
    }

    /// What rustls serves.
    ///
    /// # Errors
    /// When the key does not belong to the certificate.
    pub(super) fn certified(&self) -> anyhow::Result<Arc<CertifiedKey>> {
        let chain = certificates(&self.present.certificate).context("its key tls.crt")?;
        let key = PrivateKeyDer::from_pem_slice(self.present.key.as_bytes())
            .map_err(|_| anyhow::anyhow!("its key tls.key is not a private key in PEM"))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|_| anyhow::anyhow!("its key tls.key does not belong to its tls.crt"))?;
        Ok(Arc::new(certified))
    }
}

impl Pair {
    fn life(&self) -> anyhow::Result<(SystemTime, SystemTime)> {
        let chain = certificates(&self.certificate)?;
        let parsed = parse(&chain[0])?;
        let begin = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
        Ok((UNIX_EPOCH + Duration::from_secs(begin), end(&parsed)))
    }
}

/// A certificate for `name`, and the authority that vouches for it.
fn pair(name: &str, now: SystemTime) -> anyhow::Result<(Pair, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Two authorities of one name would be mistaken for each other.
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    params.distinguished_name.push(DnType::CommonName, format!("tidegate webhook authority {since}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    valid(&mut params, now, limits::WEBHOOK_LIFETIME);
    let authority_key = KeyPair::generate().context("cannot make a key")?;
    let authority = params.self_signed(&authority_key).context("cannot make the webhook's authority")?;
    let issuer = rcgen::Issuer::from_params(&params, &authority_key);

    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut params, now, limits::WEBHOOK_LIFETIME);
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params.signed_by(&key, &issuer).context("cannot make the webhook's certificate")?;
    let pair = Pair {
        certificate: to_pem("CERTIFICATE", certificate.der()),
        key: to_pem("PRIVATE KEY", &key.serialize_der()),
    };
    Ok((pair, to_pem("CERTIFICATE", authority.der())))
}
