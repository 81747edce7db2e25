//! image: what a container is made of, without a registry and without a daemon that builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::api::ended;
use crate::chart::repository;

/// What every pod's first container runs: it sleeps. Pods of tests may run it too, it has a shell.
pub const PAUSE: &str = "tidegate.test/busybox:1";
/// Our own programs, as `tests/run` has built them.
pub const TIDEGATE: &str = "tidegate.test/tidegate:1";

/// Makes the archive of [`PAUSE`] out of Debian's static busybox.
pub(crate) fn pause(folder: &Path) -> Result<PathBuf> {
    let busybox = Path::new("/bin/busybox");
    ensure!(busybox.exists(), "{} is missing: Debian's package busybox-static has it", busybox.display());
    make(folder, PAUSE, &[(busybox, "bin/busybox")], &["/bin/busybox", "sleep", "2147483647"])
}

/// Makes the archive of [`TIDEGATE`] as it is shipped: `charts/image/build.sh` builds it, out of the
/// programs without what only a debugger reads.
///
/// # Errors
/// When our programs are not built, or buildah, nft or one of its libraries is missing.
pub fn tidegate(folder: &Path) -> Result<PathBuf> {
    let (built, bin) = (folder.join("built"), folder.join("programs"));
    std::fs::create_dir_all(&built)?;
    std::fs::create_dir_all(&bin)?;
    for name in ["tidegate-proxy", "tidegate-controller", "tidegate"] {
        // A link to what is built and perhaps runs: it is not to be changed.
        let program = lab::program(name, &built)?;
        ended(Command::new("strip").arg("-o").arg(bin.join(name)).arg(program))?;
    }
    std::fs::remove_dir_all(&built)?;
    let script = repository("charts/image/build.sh");
    let archive = folder.join("tidegate.tar");
    ended(Command::new(script).arg("--bin").arg(&bin).arg("--archive").arg(&archive).arg(TIDEGATE))?;
    std::fs::remove_dir_all(&bin)?;
    Ok(archive)
}

/// Makes an archive of one layer: these files at these places, `/tmp` that all may write, and busybox's
/// names where there is a busybox.
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
            for name in ["sh", "rm", "sleep", "cat", "ls", "wget", "nc", "nslookup", "httpd", "id", "env"] {
                std::os::unix::fs::symlink("busybox", to.with_file_name(name))?;
            }
        }
    }
    ended(Command::new("chmod").arg("1777").arg(root.join("tmp")))?;
    pack(&work, name, &json!({"Entrypoint": entry}))
}

/// Packs the folder `root` in the work folder, in the form that `docker save` writes, which containerd and
/// kind import. The work folder goes, the archive takes its place.
fn pack(work: &Path, name: &str, config: &serde_json::Value) -> Result<PathBuf> {
    let layer = work.join("layer.tar");
    let tar = |archive: &Path, from: &Path, names: &[&str]| {
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(archive).args(["--owner=0", "--group=0", "--numeric-owner"]);
        ended(tar.arg("--directory").arg(from).args(names)).map(drop)
    };
    tar(&layer, &work.join("root"), &["."])?;
    let mut config = config.clone();
    config["Env"] = json!(["PATH=/bin"]);
    config["WorkingDir"] = json!("/");
    let image = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer)?)]}});
    std::fs::write(work.join("config.json"), image.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    std::fs::write(work.join("manifest.json"), manifest.to_string())?;
    // Not by `with_extension`: names of images have dots.
    let mut archive = work.as_os_str().to_owned();
    archive.push(".tar");
    let archive = PathBuf::from(archive);
    tar(&archive, work, &["manifest.json", "config.json", "layer.tar"])?;
    std::fs::remove_dir_all(work)?;
    Ok(archive)
}

fn digest(file: &Path) -> Result<String> {
    let said = ended(Command::new("sha256sum").arg(file))?;
    said.split_whitespace().next().map(str::to_owned).context("sha256sum prints a digest")
}
