//! programs: where Kubernetes' components and the clients of a cluster are.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// The program that is every component, which `tests/run` builds.
pub(crate) fn cluster() -> Result<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| here.ancestors().nth(2).unwrap_or(here).join("target"), Into::into);
        let path = target.join("kubernetes/bin/cluster");
        path.is_file().then(|| path.to_string_lossy().into_owned())
    });
    found.as_deref().context("Kubernetes is not built: tests/run --only kubernetes builds it")
}

/// A client, `kubectl` or `helm`, and the arguments it begins with: the built one, else the machine's own,
/// which a cluster that is given does with.
///
/// # Errors
/// When there is neither.
pub(crate) fn tool(name: &str) -> Result<(String, Vec<String>)> {
    if let Ok(cluster) = cluster() {
        return Ok((cluster.to_owned(), vec![name.to_owned()]));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    anyhow::ensure!(found, "{name} is neither on PATH nor built: tests/run --only kubernetes builds it");
    Ok((name.to_owned(), Vec::new()))
}
