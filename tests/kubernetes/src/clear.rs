//! clear: what a node leaves on the machine beside its namespace, also when its test was killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A folder for each node: its containerd's socket and state.
pub(crate) const RUN: &str = "/run/tidegate";
/// The file there that says where the node's own folder is.
pub(crate) const FOLDER: &str = "folder";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Clears after the nodes of tests whose process is no more.. One that is dead and not buried has no program.
pub(crate) fn sweep() {
    for node in names(Path::new(RUN)) {
        let owner = node.strip_prefix("tg").and_then(|rest| rest.split('x').next());
        if owner.is_some_and(|pid| Path::new("/proc").join(pid).join("exe").read_link().is_err()) {
            self::node(&node);
        }
    }
}

/// Ends what runs in the cgroups of this node, and removes these, its mounts and its pods' networks.
pub(crate) fn node(name: &str) {
    let controllers = cgroups(name).unwrap_or_default();
    for controller in &controllers {
        end_all(controller);
    }
    let run = Path::new(RUN).join(name);
    let folder = std::fs::read_to_string(run.join(FOLDER)).map(PathBuf::from).ok();
    unmount_below(&[&run, folder.as_deref().unwrap_or(&run)]);
    let _ = std::fs::remove_dir_all(&run);
    let _ = std::fs::remove_dir(RUN);
    for controller in controllers.iter().chain([&Path::new(CGROUPS).join("unified").join(name)]) {
        let _ = ask(
            "find",
            &[&controller.to_string_lossy(), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
        );
    }
    // Those of containers that run belong to somebody else.
    for network in names(Path::new("/run/netns")).iter().filter(|name| name.starts_with("cni-")) {
        if ask("ip", &["netns", "pids", network]).is_some_and(|pids| pids.trim().is_empty()) {
            let _ = ask("ip", &["netns", "del", network]);
        }
    }
}

/// The folder of this name under each of the machine's cgroup controllers.
pub(crate) fn cgroups(name: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.join(name)]);
    }
    let controllers = std::fs::read_dir(root).context("there are no cgroups")?;
    let all = controllers.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let of = |path: PathBuf| (path.is_dir() && !path.ends_with("unified")).then(|| path.join(name));
    let all: Vec<PathBuf> = all.into_iter().filter_map(of).collect();
    ensure!(!all.is_empty(), "{CGROUPS} holds no controllers");
    Ok(all)
}

fn end_all(cgroup: &Path) {
    for name in names(cgroup) {
        let below = cgroup.join(name);
        if below.is_dir() {
            end_all(&below);
        }
    }
    let pids = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.split_whitespace() {
        let _ = ask("sh", &["-c", "kill -KILL \"$1\"", "sh", pid]);
    }
}

/// The last mounted first.
fn unmount_below(folders: &[&Path]) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if folders.iter().any(|folder| Path::new(target).starts_with(folder)) {
            let _ = ask("umount", &["--lazy", target]);
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What a program printed; nothing when it failed.
fn ask(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}
