//! mesh_trust: MeshTrust, the certificates that the mesh trusts.

use crate::node::{Node, Read};
use crate::object::Meta;

/// Whom the mesh trusts besides its own issuer. Cluster-wide, one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshTrust {
    /// The name.
    pub meta: Meta,
    /// Trust anchors, PEM; each text may hold several certificates.
    pub anchors: Vec<String>,
}

impl MeshTrust {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let spec = root.need("spec")?;
        spec.only(&["anchors"], &[])?;
        let anchors = spec.need("anchors")?.list()?;
        let anchors = anchors.iter().map(pem).collect::<Read<_>>()?;
        Ok(Self { meta: Meta::read(root)?, anchors })
    }
}

fn pem(node: &Node<'_>) -> Read<String> {
    let text = node.text()?;
    if text.contains("PRIVATE KEY") {
        return Err(node.fault("holds a private key: trust anchors are certificates alone, remove the key"));
    }
    if text.contains("-----BEGIN CERTIFICATE-----") && text.contains("-----END CERTIFICATE-----") {
        Ok(text.to_owned())
    } else {
        Err(node.fault("is not a certificate: write PEM text with -----BEGIN CERTIFICATE-----"))
    }
}
