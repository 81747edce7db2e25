//! wire: documents as they pass over the `Watch` stream.

pub mod codec;

use std::sync::Arc;

use crate::name::NameError;
use crate::snapshot::{Document, Version, VersionError};

/// The generated messages and stubs of `tidegate.policy.v1`.
///
/// Made from `proto/tidegate/policy/v1/policy.proto`; a test in `tests` makes them again and
/// compares. `TIDEGATE_BLESS=1 cargo test -p tests --test tidy` writes them.
#[path = "wire/tidegate.policy.v1.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
#[rustfmt::skip]
pub mod v1;

/// The generated messages and stubs of `tidegate.operator.v1`, made likewise.
#[path = "wire/tidegate.operator.v1.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
#[rustfmt::skip]
pub mod operator;

/// Why a document from the wire was not applied.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Its key is of no kind this proxy knows.
    #[error("document key {0:?} is of no kind known here")]
    Kind(String),
    /// Its key does not name a destination or backend.
    #[error("document key {0:?} names no destination or backend")]
    Key(String, #[source] NameError),
    /// Its version is not one.
    #[error("document {0:?} has no usable version")]
    Version(String, #[source] VersionError),
    /// Its version is not that of its body.
    #[error("document {0:?} is not what its version says: it was changed on the way")]
    Content(String),
    /// Its body has a field or value this proxy does not know.
    #[error("document {key:?} is not understood: {source}")]
    Body {
        /// The document's key.
        key: String,
        /// What was not understood.
        source: serde_json::Error,
    },
}

/// Writes a document down.
#[must_use]
pub fn encode(document: &Document) -> v1::Document {
    let body = match document {
        Document::Mesh(mesh) => serde_json::to_vec(mesh),
        Document::Inbound(inbound) => serde_json::to_vec(inbound),
        Document::Destination(_, destination) => serde_json::to_vec(destination),
        Document::Backend(_, backend) => serde_json::to_vec(backend),
    }
    .expect("the keys of every map in a document are text or numbers");
    v1::Document { key: document.key(), version: Version::of(&body).to_string(), body }
}

/// Reads a document.
///
/// # Errors
/// [`DocumentError`] names the document and what was not understood; nothing of it may be applied.
pub fn decode(wire: &v1::Document) -> Result<(Document, Version), DocumentError> {
    let key = wire.key.as_str();
    let version: Version =
        wire.version.parse().map_err(|error| DocumentError::Version(key.to_owned(), error))?;
    if version != Version::of(&wire.body) {
        return Err(DocumentError::Content(key.to_owned()));
    }
    let named = |error| DocumentError::Key(key.to_owned(), error);
    let document = if key == "mesh" {
        Document::Mesh(Arc::new(body(wire)?))
    } else if key == "inbound" {
        Document::Inbound(Arc::new(body(wire)?))
    } else if let Some(name) = key.strip_prefix("destination/") {
        Document::Destination(name.parse().map_err(named)?, Arc::new(body(wire)?))
    } else if let Some(name) = key.strip_prefix("backend/") {
        Document::Backend(name.parse().map_err(named)?, Arc::new(body(wire)?))
    } else {
        return Err(DocumentError::Kind(key.to_owned()));
    };
    Ok((document, version))
}

fn body<T: serde::de::DeserializeOwned>(wire: &v1::Document) -> Result<T, DocumentError> {
    serde_json::from_slice(&wire.body).map_err(|source| DocumentError::Body { key: wire.key.clone(), source })
}

#[cfg(test)]
mod tests;
