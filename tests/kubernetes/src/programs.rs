//! programs: where Kubernetes' components are.

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
