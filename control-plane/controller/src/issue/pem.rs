//! pem: certificates and keys as text, read and written.

use anyhow::Context as _;
use base64::Engine as _;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// RFC 7468: lines of 64 characters.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
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

/// The certificates of a text, in its order.
///
/// # Errors
/// When one is not PEM or there is none.
pub(crate) fn certificates(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.context("is not PEM")?;
    anyhow::ensure!(!all.is_empty(), "holds no certificate");
    Ok(all)
}

/// The certificates of a text as trust anchors.
///
/// # Errors
/// When one of them is not a certificate, or there is none.
pub(crate) fn roots(pem: &str) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).context("is not a certificate")?;
    }
    Ok(store)
}

/// The private key of a text: PKCS#8, PKCS#1 or SEC 1.
///
/// # Errors
/// When it is none that can sign certificates. The text of a key never goes into an error.
pub(crate) fn key(pem: &str) -> anyhow::Result<KeyPair> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| anyhow::anyhow!("is not a private key in PEM"))?;
    KeyPair::try_from(&der).map_err(|_| {
        anyhow::anyhow!(
            "is not a private key of a kind that can be used: ECDSA (P-256, P-384, P-521), Ed25519 and RSA can"
        )
    })
}
