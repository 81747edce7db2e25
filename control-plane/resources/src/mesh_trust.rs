//! mesh_trust: MeshTrust, the certificates that the mesh trusts.

use std::ops::RangeInclusive;

use policy::limits;

use crate::node::{Node, Read};
use crate::object::Meta;
use crate::schema::Schema;

const SPEC: [&str; 1] = ["anchors"];
const ANCHORS: RangeInclusive<usize> = 0..=limits::MESH_ANCHORS_MAX;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const PRIVATE: &str = "PRIVATE KEY";

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
        spec.only(&SPEC, &[])?;
        let anchors = spec.need("anchors")?.list_in(ANCHORS)?;
        let anchors = anchors.iter().map(pem).collect::<Read<_>>()?;
        Ok(Self { meta: Meta::read(root)?, anchors })
    }

    /// The schema of its spec.
    pub(crate) fn schema() -> Schema {
        let anchor = Schema::text(limits::MESH_ANCHOR_CHARS_MAX)
            .rule(
                &format!("!self.contains('{PRIVATE}')"),
                "holds a private key: trust anchors are certificates alone, remove the key",
            )
            .rule(
                &format!("self.contains('{BEGIN}') && self.contains('{END}')"),
                "is not a certificate: write PEM text with -----BEGIN CERTIFICATE-----",
            );
        let anchors = Schema::list(anchor, &ANCHORS).says(
            "Certificates in PEM; each text may hold several. During a rotation the old and the new one stand \
             side by side until every workload has a certificate of the new one.",
        );
        Schema::object(&SPEC, [("anchors", anchors)])
            .need(&["anchors"])
            .says("Whom the mesh trusts beside its own issuer.")
    }
}

fn pem(node: &Node<'_>) -> Read<String> {
    let text = node.text_within(limits::MESH_ANCHOR_CHARS_MAX)?;
    if text.contains(PRIVATE) {
        return Err(node.fault("holds a private key: trust anchors are certificates alone, remove the key"));
    }
    if text.contains(BEGIN) && text.contains(END) {
        Ok(text.to_owned())
    } else {
        Err(node.fault("is not a certificate: write PEM text with -----BEGIN CERTIFICATE-----"))
    }
}
