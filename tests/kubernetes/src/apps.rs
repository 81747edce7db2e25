//! apps: the image of the pods that Tidegate is tried with, servers and clients that know nothing of it.
//!
//! In it are busybox, curl and nginx of Debian, and the lab's two programs in Go: `load` and `queue`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::api::ended;
use crate::chart::repository;
use crate::image;

/// Its name.
pub const APPS: &str = "tidegate.test/apps:1";
/// Of the machine, with the libraries they need.
const DEBIAN: [&str; 2] = ["/usr/bin/curl", "/usr/sbin/nginx"];
const GO: [&str; 2] = ["load", "queue"];

/// Makes its archive.
///
/// # Errors
/// When one of the programs is missing or does not build.
pub fn apps(folder: &Path) -> Result<PathBuf> {
    let mut files = vec![
        (PathBuf::from("/bin/busybox"), "bin/busybox".to_owned()),
        (repository("tests/kubernetes/apps/nginx.conf"), "etc/nginx/nginx.conf".to_owned()),
    ];
    for program in DEBIAN {
        let name = program.rsplit('/').next().context("a path has a last part")?;
        files.push((program.into(), format!("bin/{name}")));
        files.extend(libraries(program)?.into_iter().map(|path| (path.clone().into(), path)));
    }
    for name in GO {
        let program = folder.join(name);
        let mut go = Command::new("go");
        go.env("CGO_ENABLED", "0").args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
        ended(go.current_dir(lab::app(name)))?;
        files.push((program, format!("bin/{name}")));
    }
    let files: Vec<(&Path, &str)> =
        files.iter().map(|(from, to)| (from.as_path(), to.trim_start_matches('/'))).collect();
    image::make(folder, APPS, &files, &["/bin/busybox", "sleep", "2147483647"])
}

/// What `ldd` prints as "name => path (address)" or "path (address)".
fn libraries(program: &str) -> Result<BTreeSet<String>> {
    let said = ended(Command::new("ldd").arg(program))
        .with_context(|| format!("{program} is missing: Debian's curl and nginx-light have them"))?;
    let words = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(str::to_owned).collect())
}
