//! go: the lab's programs in Go, each built at its first use.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// The program of a folder in `tests/lab/apps`.
pub(crate) fn program(app: &'static str) -> Result<String> {
    static BUILT: Mutex<BTreeMap<&str, Result<String, String>>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.entry(app).or_insert_with(|| build(app).map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build(app: &str) -> Result<String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("lab-go").join(app);
    let mut go = Command::new("go");
    go.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".").current_dir(lab::app(app));
    let said =
        go.output().with_context(|| format!("`{app}` is a program in Go, and there is no `go` here"))?;
    ensure!(said.status.success(), "{go:?}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(program.to_str().context("the target folder has a readable name")?.to_owned())
}
