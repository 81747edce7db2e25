//! binaries: where the programs under test and the applications are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Cargo's folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// One of our programs: from `TIDEGATE_BIN_DIR`, else the best that cargo has built.
fn find(name: &str) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("TIDEGATE_BIN_DIR") {
        let path = Path::new(&folder).join(name);
        return path.is_file().then_some(path).with_context(|| format!("TIDEGATE_BIN_DIR holds no {name}"));
    }
    let built = ["release-fast", "release", "debug"].map(|profile| target().join(profile).join(name));
    built.into_iter().find(|path| path.is_file()).with_context(|| {
        format!(
            "{name} is not built: cargo build --profile release-fast --bins -p sidecar -p controller -p cli"
        )
    })
}

/// Puts one of our programs where the sidecar's user may run it; the build folder may be closed to
/// it. A link costs nothing; another file system takes a copy.
///
/// # Errors
/// When it is not built, or cannot be put there.
pub fn place(name: &str, folder: &Path) -> Result<PathBuf> {
    let to = folder.join(name);
    if !to.exists() {
        let from = find(name)?;
        if std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        }
    }
    Ok(to)
}

/// A Python program of the lab.
#[must_use]
pub fn app(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps").join(script)
}

/// The Python with the applications' packages: `TIDEGATE_TEST_PYTHON`, else the environment that
/// `tests/run` keeps under `target`, else the machine's own.
#[must_use]
pub fn python() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEGATE_TEST_PYTHON") {
        return path.into();
    }
    let kept = target().join("test-venv/bin/python3");
    if kept.is_file() { kept } else { "python3".into() }
}
