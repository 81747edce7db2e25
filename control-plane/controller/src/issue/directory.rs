//! directory: an issuer kept in files.
//!
//! ```text
//! issuer.key   PKCS#8 PEM, mode 0600, written once
//! issuer.pem   its certificate, self-signed, written once, after the key
//! anchors.pem  issuer.pem and MeshTrust's anchors; replaced whole by rename
//! ```

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;

use super::issuer::{Issuer, Material};
use super::pem;

/// The directory of an issuer.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Opens the issuer in `path`, or makes it.
    ///
    /// # Errors
    /// When files cannot be read or written, or do not belong together. Nothing that is there is
    /// ever overwritten.
    pub(crate) fn open(path: &Path, trust_domain: &str) -> anyhow::Result<(Self, Issuer)> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let (key_path, pem_path) = (path.join("issuer.key"), path.join("issuer.pem"));
        if !pem_path.exists() {
            make(&key_path, &pem_path, trust_domain)?;
        }
        let material = Material { certificates: read(&pem_path)?, key: read(&key_path)?, anchors: None };
        let issuer = Issuer::read(&material, SystemTime::now()).with_context(|| {
            format!("the issuer in {} and {} cannot be used", pem_path.display(), key_path.display())
        })?;
        Ok((Self(path.to_owned()), issuer))
    }

    /// The anchors of last time.
    pub(crate) fn anchors(&self) -> Option<String> {
        fs::read_to_string(self.0.join("anchors.pem")).ok()
    }

    /// Writes anchors.pem where it says something else.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_anchors(&self, text: &str) -> anyhow::Result<()> {
        if self.anchors().as_deref() == Some(text) {
            return Ok(());
        }
        replace(&self.0.join("anchors.pem"), text.as_bytes(), 0o644)
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.display(), f)
    }
}

fn make(key_path: &Path, pem_path: &Path, trust_domain: &str) -> anyhow::Result<()> {
    // A key without a certificate is what a crash between the two writes leaves: it is used.
    let left = key_path.exists().then(|| read(key_path)).transpose()?;
    let key = left.as_deref().map(pem::key).transpose();
    let key = key.with_context(|| format!("{}", key_path.display()))?;
    let material = Issuer::make(trust_domain, key)?;
    if left.is_none() {
        replace(key_path, material.key.as_bytes(), 0o600)?;
    }
    replace(pem_path, material.certificates.as_bytes(), 0o644)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Puts `bytes` in the place of the file at `path`, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        // What an earlier crash left may have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
