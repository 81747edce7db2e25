//! chart: the chart of this repository, with and without a cluster.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Api;

/// The namespace Tidegate is installed in.
pub const NAMESPACE: &str = "tidegate";

/// A file of the repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).join(path)
}

/// Where the chart is.
#[must_use]
pub fn folder() -> String {
    repository("charts/tidegate").display().to_string()
}

/// Runs a command of `helm` that asks no cluster, such as `lint`, on the chart.
///
/// # Errors
/// When it fails; with what it said.
pub fn helm(args: &[&str]) -> Result<String> {
    let home = tempfile::tempdir()?;
    Api::new(home.path().join("none"), home.path().to_owned(), None).helm(args)
}

/// The objects of the chart, as `helm template` renders them.
///
/// # Errors
/// When it does not render; with what Helm said.
pub fn render(args: &[&str]) -> Result<String> {
    let folder = folder();
    let kubernetes = ["--kube-version", "1.36.0"];
    helm(&[&["template", "tidegate", &folder, "--namespace", NAMESPACE], &kubernetes[..], args].concat())
}
