//! secret: a Secret, as far as callbacks need it.
//!
//! Nothing of its content is kept but the one key that signs, and nothing of it is ever told: not
//! in an error, not by `Debug`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::node::{Node, Read};
use crate::object::Meta;

/// Under which name of a Secret's data the key stands.
const NAME: &str = "secret";
/// What the key begins with, as Standard Webhooks write it (specification, "Signature scheme").
const PREFIX: &str = "whsec_";
/// Its length in bytes, from the same place: 192 to 512 bits.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// A Secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    /// The name; annotations are left out, for kubectl writes whole objects there.
    pub meta: Meta,
    /// The key under `secret`, always written with its prefix, or why there is none.
    pub signing_key: Result<policy::queue::Secret, SigningKeyError>,
}

/// Why a Secret cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// Its data has no such name.
    #[error("has no key \"secret\"")]
    Missing,
    /// What stands there is something else.
    #[error(
        "holds under \"secret\" neither whsec_ and the base64 of a key of 24 to 64 bytes nor the bytes of one"
    )]
    Form,
}

impl Secret {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let mut meta = Meta::read(root)?;
        meta.annotations.clear();
        Ok(Self { meta, signing_key: signing_key(root) })
    }
}

/// Lenient on purpose: a Secret may be anybody's, and a fault would have to quote it.
fn signing_key(root: &Node<'_>) -> Result<policy::queue::Secret, SigningKeyError> {
    let found = |list: &str| root.value.get(list)?.get(NAME);
    // As the API server does: stringData goes before data.
    let value = match (found("stringData"), found("data")) {
        (Some(text), _) => text.as_str().map(|text| text.as_bytes().to_vec()),
        (None, Some(text)) => text.as_str().and_then(decoded),
        (None, None) => return Err(SigningKeyError::Missing),
    };
    let key = value.and_then(key_in).filter(|key| LENGTH.contains(&key.len()));
    let key = key.ok_or(SigningKeyError::Form)?;
    Ok(policy::queue::Secret::new(&format!("{PREFIX}{}", STANDARD.encode(key))))
}

/// What a value of `data` stands for; YAML may have broken it into lines.
fn decoded(value: &str) -> Option<Vec<u8>> {
    STANDARD.decode(value.split_ascii_whitespace().collect::<String>()).ok()
}

/// The key in a value: encoded behind the prefix, else the bytes as they are.
fn key_in(value: Vec<u8>) -> Option<Vec<u8>> {
    // A line's end belongs to the file the text came from.
    let Ok(text) = std::str::from_utf8(&value).map(str::trim) else { return Some(value) };
    match text.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).ok(),
        None => Some(text.as_bytes().to_vec()),
    }
}
