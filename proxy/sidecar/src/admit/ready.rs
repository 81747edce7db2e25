//! ready: a request that is ready to be stored.

use aws_lc_rs::digest::{Context as Digest, SHA256};
use bytes::Bytes;
use http::request::Parts;
use queue::Idempotency;

use super::Going;
use super::asked::Asked;
use super::room::Held;

/// A request that is ready to be stored.
pub(super) struct Ready {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    pub(super) asked: Asked,
    /// The body's, until the message is stored.
    pub(super) held: Held,
}

impl Ready {
    /// How a repetition of it is recognised.
    pub(super) fn idempotency(&self, key: &str, going: &Going) -> Idempotency {
        let fingerprint = fingerprint(&self.parts, &going.authority, &self.body);
        Idempotency { key: key.to_owned(), fingerprint }
    }
}

/// What makes two requests the same: method, authority, path with query, body.
fn fingerprint(parts: &Parts, authority: &str, body: &Bytes) -> [u8; 32] {
    let mut digest = Digest::new(&SHA256);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    for part in [parts.method.as_str(), &authority.to_ascii_lowercase(), path] {
        digest.update(part.as_bytes());
        digest.update(&[0]);
    }
    digest.update(body);
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.finish().as_ref());
    fingerprint
}
