//! seal: credentials at rest, encrypted (AES-256-GCM, NIST SP 800-38D, with random nonces).
//!
//! The key lies in a file of its own, by default beside the queue. There it keeps credentials out
//! of copies, pages and exports of the database; against whoever has the whole volume it must lie
//! elsewhere (`--queue-key-file`).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Encrypts and decrypts.
pub(crate) struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// With the key in `file`, made if there is none. A shorter file than a key is one whose making
    /// was cut off by an earlier version: nothing was ever sealed with it, and it is set aside.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds more than 32 bytes.
    pub(crate) fn open_or_make(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let mut key = read(file).with_context(|| format!("{shown} cannot be read"))?;
        if key.as_ref().is_none_or(|key| key.len() < KEY_BYTES) {
            if key.is_some() {
                tracing::warn!(file = %shown, "the key for credentials was cut off in its making: made again");
                set_aside(file).with_context(|| format!("{shown} is no key and cannot be set aside"))?;
            }
            make(file).with_context(|| format!("{shown} cannot be made"))?;
            // Somebody else's, should he have been faster.
            key = read(file).with_context(|| format!("{shown} cannot be read"))?;
        }
        let key = key.unwrap_or_default();
        anyhow::ensure!(key.len() == KEY_BYTES, "{shown} does not hold {KEY_BYTES} bytes");
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

/// What is in `file`, a byte more than a key at most; `None` if there is none.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut found = Vec::new();
    match File::open(file) {
        Ok(opened) => opened.take(KEY_BYTES as u64 + 1).read_to_end(&mut found).map(|_| Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `file`, with more behind its name.
fn beside(file: &Path, more: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn set_aside(file: &Path) -> io::Result<()> {
    std::fs::rename(file, beside(file, ".cut-off"))
}

/// Makes a key under another name, and gives it its own when it is whole and flushed: whenever that is
/// cut off, `file` is a key or is not there. One that is there already stays.
fn make(file: &Path) -> anyhow::Result<()> {
    let key = random()?;
    // A name nobody else writes under: of what a crash leaves behind nothing is used again.
    let new = beside(file, &format!(".{:016x}", fastrand::u64(..)));
    let made = || -> io::Result<()> {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        opened.write_all(&key)?;
        opened.sync_all()?;
        match std::fs::hard_link(&new, file) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    let made = made();
    let removed = std::fs::remove_file(&new);
    made.and(removed)?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
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
        std::fs::write(&two, [7; KEY_BYTES + 1]).unwrap();
        assert!(Sealer::open_or_make(&two).is_err(), "it is something else");
        assert_eq!(std::fs::read(&two).unwrap(), [7; KEY_BYTES + 1], "and not ours to change");
    }

    #[test]
    fn a_key_whose_making_was_cut_off_is_made_again_and_stays() {
        for length in [0, 1, KEY_BYTES - 1] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("key");
            std::fs::write(&file, vec![7; length]).unwrap();
            let sealed = Sealer::open_or_make(&file).unwrap().seal(b"Bearer abc".to_vec());
            assert_eq!(Sealer::open_or_make(&file).unwrap().open(&sealed).unwrap(), b"Bearer abc");
            let mut names: Vec<_> =
                directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["key", "key.cut-off"], "{length}: what was there is not thrown away");
        }
    }

    #[test]
    fn two_who_make_a_key_at_once_have_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let made: Vec<_> = std::thread::scope(|scope| {
            let making = || Sealer::open_or_make(&file).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(making)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sealed = made[0].seal(b"Bearer abc".to_vec());
        assert!(made.iter().all(|sealer| sealer.open(&sealed).is_some()));
        assert_eq!(directory.path().read_dir().unwrap().count(), 1, "nothing else is left");
    }
}
