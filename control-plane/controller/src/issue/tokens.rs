//! tokens: one secret for each service account, in a file that its pods are given.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;
use policy::name::{Domain, Label};
use sha2::{Digest as _, Sha256};

use super::directory::replace;
use crate::index::Named;

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// Every token known, as its hash alone.
pub(crate) struct Tokens {
    directory: PathBuf,
    known: Mutex<BTreeMap<Named, [u8; 32]>>,
    /// Accounts of the pods there are now: nobody else's token counts.
    current: Mutex<BTreeSet<Named>>,
}

impl Tokens {
    /// Reads the tokens of `state`/tokens.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub(crate) fn open(state: &Path) -> anyhow::Result<Self> {
        let directory = state.join("tokens");
        let doing = || format!("cannot read the tokens in {}", directory.display());
        fs::create_dir_all(&directory).with_context(doing)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&directory).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let Some(owner) = entry.file_name().to_str().and_then(owner) else { continue };
            let text = fs::read_to_string(entry.path()).with_context(doing)?;
            if text.trim().len() < TOKEN_BYTES {
                tracing::warn!(file = %entry.path().display(), "too short for a token: not used");
                continue;
            }
            known.insert(owner, Sha256::digest(text.trim()).into());
        }
        Ok(Self { directory, known: Mutex::new(known), current: Mutex::default() })
    }

    /// Makes a token for each of `accounts` that has none.
    ///
    /// # Errors
    /// When one cannot be written; those before it stand.
    pub(crate) fn ensure(&self, accounts: &BTreeSet<Named>) -> anyhow::Result<()> {
        *self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = accounts.clone();
        for account in accounts {
            if self.known().contains_key(account) {
                continue;
            }
            let mut secret = [0; TOKEN_BYTES];
            rustls::crypto::aws_lc_rs::default_provider()
                .secure_random
                .fill(&mut secret)
                .map_err(|_| anyhow::anyhow!("the random source failed"))?;
            let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = self.directory.join(format!("{}.{}.token", account.0, account.1));
            replace(&path, text.as_bytes(), 0o600)?;
            self.known().insert(account.clone(), Sha256::digest(&text).into());
            tracing::info!(namespace = account.0, service_account = account.1, "token made");
        }
        Ok(())
    }

    /// Whose token this is. Takes the same time whoever it is: all are compared, by hash.
    pub(crate) fn owner(&self, token: &str) -> Option<Named> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let known = self.known();
        let mut found = None;
        for (account, other) in known.iter() {
            let difference = hash.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(account);
            }
        }
        let current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.filter(|account| current.contains(*account)).cloned()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Named, [u8; 32]>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Namespace and service account of a token's file; a namespace holds no dot.
fn owner(file: &str) -> Option<Named> {
    let (namespace, account) = file.strip_suffix(".token")?.split_once('.')?;
    Some((Label::new(namespace).ok()?.to_string(), Domain::new(account).ok()?.to_string()))
}
