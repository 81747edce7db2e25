//! seal: credentials at rest, encrypted (AES-256-GCM, NIST SP 800-38D, with random nonces).
//!
//! The key lies in a file of its own, by default beside the queue. There it keeps credentials out
//! of copies, pages and exports of the database; against whoever has the whole volume it must lie
//! elsewhere (`--queue-key-file`).

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Encrypts and decrypts.
pub(crate) struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// With the key in `file`, made if there is none.
    ///
    /// # Errors
    /// The file cannot be read or made, or does not hold 32 bytes.
    pub(crate) fn open_or_make(file: &Path) -> anyhow::Result<Self> {
        let key = match std::fs::File::open(file) {
            Ok(found) => {
                let mut key = Vec::new();
                found.take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
                anyhow::ensure!(key.len() == KEY_BYTES, "{} does not hold {KEY_BYTES} bytes", file.display());
                key
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(file)?,
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
        };
        Self::new(&key)
    }

    /// With a key that lives as long as the process.
    pub(crate) fn for_now() -> anyhow::Result<Self> {
        Self::new(&random()?)
    }

    fn new(key: &[u8]) -> anyhow::Result<Self> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key);
        Ok(Self(key.map_err(|_| anyhow::anyhow!("the key for credentials cannot be used"))?))
    }

    /// `plain`, encrypted, its nonce in front.
    pub(crate) fn seal(&self, mut plain: Vec<u8>) -> Bytes {
        // Fails only for plaintexts of many gigabytes or without randomness; then nothing is kept,
        // and the receiver sees a request without credentials.
        let Ok(nonce) = self.0.seal_in_place_append_tag(Aad::empty(), &mut plain) else {
            return Bytes::new();
        };
        [nonce.as_ref().as_slice(), &plain].concat().into()
    }

    /// What was sealed with the same key; `None` otherwise.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let plain = self.0.open_in_place(nonce, Aad::empty(), &mut text).ok()?;
        Some(plain.to_vec())
    }
}

fn random() -> anyhow::Result<Vec<u8>> {
    let mut key = vec![0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(key)
}

fn make(file: &Path) -> anyhow::Result<Vec<u8>> {
    let key = random()?;
    let written = || -> std::io::Result<()> {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        new.write_all(&key)?;
        new.sync_all()?;
        std::fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().with_context(|| format!("{} cannot be made", file.display()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let sealed = Sealer::open_or_make(&one).unwrap().seal(b"Bearer abc".to_vec());
        assert!(!sealed.windows(6).any(|part| part == b"Bearer"));
        assert_eq!(Sealer::open_or_make(&one).unwrap().open(&sealed).unwrap(), b"Bearer abc");
        assert!(Sealer::open_or_make(&two).unwrap().open(&sealed).is_none());
        assert!(Sealer::open_or_make(&one).unwrap().open(&sealed[..7]).is_none());
        std::fs::write(&two, "short").unwrap();
        assert!(Sealer::open_or_make(&two).is_err());
    }
}
