//! image: what a container is made of, without a registry and without a daemon that builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What every pod's first container runs: it sleeps. Pods of tests may run it too, it has a shell.
pub const PAUSE: &str = "tidegate.test/busybox:1";

/// Makes the archive of [`PAUSE`] out of Debian's static busybox.
pub(crate) fn pause(folder: &Path) -> Result<PathBuf> {
    let busybox = Path::new("/bin/busybox");
    ensure!(busybox.exists(), "{} is missing: Debian's package busybox-static has it", busybox.display());
    make(folder, PAUSE, &[(busybox, "bin/busybox")], &["/bin/busybox", "sleep", "2147483647"])
}

/// Makes an archive of one layer, in the form that `docker save` writes, which containerd imports: these
/// files at these places, `/tmp` that all may write, and busybox's names where there is a busybox.
///
/// # Errors
/// When a file cannot be read or the archive not written.
pub fn make(folder: &Path, name: &str, files: &[(&Path, &str)], entry: &[&str]) -> Result<PathBuf> {
    let work = folder.join(name.replace(['/', ':'], "-"));
    let root = work.join("root");
    std::fs::create_dir_all(root.join("tmp"))?;
    for (from, to) in files {
        let to = root.join(to);
        std::fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        std::fs::copy(from, &to).with_context(|| from.display().to_string())?;
        if to.ends_with("bin/busybox") {
            for name in ["sh", "sleep", "cat", "ls", "wget", "nc", "httpd", "id", "env"] {
                std::os::unix::fs::symlink("busybox", to.with_file_name(name))?;
            }
        }
    }
    run(Command::new("chmod").arg("1777").arg(root.join("tmp")))?;
    let layer = work.join("layer.tar");
    let tar = |archive: &Path, from: &Path, names: &[&str]| {
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(archive).args(["--owner=0", "--group=0", "--numeric-owner"]);
        run(tar.arg("--directory").arg(from).args(names)).map(drop)
    };
    tar(&layer, &root, &["."])?;
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": entry, "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer)?)]}});
    std::fs::write(work.join("config.json"), config.to_string())?;
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    std::fs::write(work.join("manifest.json"), manifest.to_string())?;
    let archive = work.with_extension("tar");
    tar(&archive, &work, &["manifest.json", "config.json", "layer.tar"])?;
    std::fs::remove_dir_all(&work)?;
    Ok(archive)
}

fn digest(file: &Path) -> Result<String> {
    let said = run(Command::new("sha256sum").arg(file))?;
    said.split_whitespace().next().map(str::to_owned).context("sha256sum prints a digest")
}

fn run(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
