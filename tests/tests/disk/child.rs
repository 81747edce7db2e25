//! child: this test program once more, as another process.

use std::process::{Command, Stdio};

/// Set in the other process.
const WORK: &str = "TIDEGATE_DISK_CHILD";

/// What the other process is to work on; `None` in the test itself.
pub(crate) fn work() -> Option<String> {
    std::env::var(WORK).ok()
}

/// Runs the test of this name in another process, where [`work`] is what is given.
pub(crate) fn command(test: &str, work: &str) -> Command {
    let program = std::env::current_exe().expect("it has a path");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(WORK, work).stdin(Stdio::null());
    command
}
