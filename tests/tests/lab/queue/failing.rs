//! failing: the disk under the queue fails for real: an ext4 on a loop device, shut down by the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{SIDECAR_UID, until};

use super::post::Post;

const MESSAGES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(15);
/// `EXT4_IOC_SHUTDOWN` without a flush of what is under way: every later write answers EIO.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// A file system of its own; unmounted with this.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(folder: &Path) -> Result<Self> {
        let disk = Self { image: folder.join("image"), at: folder.join("failing") };
        std::fs::create_dir(&disk.at)?;
        run(Command::new("truncate").args(["-s", "256M"]).arg(&disk.image))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image))?;
        disk.mount()?;
        std::fs::create_dir(disk.queue())?;
        std::os::unix::fs::chown(disk.queue(), Some(SIDECAR_UID), Some(SIDECAR_UID))?;
        Ok(disk)
    }

    fn queue(&self) -> PathBuf {
        self.at.join("queue")
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at))
    }

    fn fail(&self) -> Result<()> {
        run(Command::new(lab::python()).args(["-c", SHUT_DOWN]).arg(&self.at))
    }

    fn unmount(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted if it came to that.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.at));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

#[test]
fn a_disk_that_fails_is_told_everywhere_and_nothing_answered_202_before_is_lost() -> Result<()> {
    let mut post = Post::new("paused: true", &[], &[])?;
    let disk = Disk::new(&post.disk)?;
    post.move_to(&disk.queue())?;
    for number in 0..MESSAGES {
        let (status, head) = post.post(&[], &format!("f-k{number} 1"))?;
        ensure!(status == 202, "before it fails: {status}: {head}");
    }
    disk.fail()?;

    let (status, said) = post.post(&[], "nobody knows")?;
    ensure!(status == 503 && said.contains("problems/outcome-unknown"), "{status}: {said}");
    let (status, said) = post.post(&[], "not even tried")?;
    ensure!(status == 503, "a store that cannot be trusted answers {status}: {said}");
    let live = until("/live to say so", PATIENCE, || {
        let (status, said) = post.web.get("http://127.0.0.1:4191/live")?;
        Ok((status == 503).then_some(said))
    })?;
    ensure!(live.contains("cannot be trusted"), "/live says {live}");
    let labels = [("durability", "local"), ("condition", "poisoned")];
    let poisoned = post.sidecar.metric("tidegate_queue_store_condition", &labels)?;
    ensure!(poisoned == 1.0, "the metric says {poisoned}");
    let (status, _) = post.web.get("http://orders/")?;
    ensure!(status == 200, "a synchronous call is answered {status}");

    post.sidecar.process.kill()?;
    disk.unmount()?;
    disk.mount()?;
    post.sidecar.start_again()?;
    post.sidecar.wait_ready(PATIENCE)?;
    post.put_policy("paused: false")?;
    post.wait_until_drained(PATIENCE)?;
    let delivered = std::fs::read_to_string(post.file("delivered"))?;
    for number in 0..MESSAGES {
        let name = format!("f-k{number} 1");
        ensure!(delivered.contains(&name), "{name:?} was answered 202 and is not in\n{delivered}");
    }
    let (status, said) = post.web.get("http://127.0.0.1:4191/live")?;
    ensure!(status == 200, "after a restart /live answers {status}: {said}");
    post.sidecar.process.kill()
}
