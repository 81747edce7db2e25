//! seeds: where randomness comes from, and how a failure is played again.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longer than any one life of a store takes.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(60);

/// The thousands of seeds, and every call, are for `TIDEGATE_LONG=1`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some_and(|set| set == "1")
}

/// The seeds of a test: the one in `TIDEGATE_SEED`, else so many from a new one on.
pub(crate) fn seeds(usual: u64, long: u64) -> impl Iterator<Item = u64> {
    let given =
        std::env::var("TIDEGATE_SEED").ok().map(|seed| seed.parse().expect("TIDEGATE_SEED is a number"));
    let (first, count) = match given {
        Some(seed) => (seed, 1),
        None => (fastrand::u64(..1 << 40), if is_long() { long } else { usual }),
    };
    println!("{count} seeds from {first} on");
    (0..count).map(move |more| first + more)
}

/// Runs one seed; says which it was if it fails or hangs.
pub(crate) fn with_seed<T>(test: &str, seed: u64, run: impl AsyncFnOnce() -> T) -> T {
    let again = format!("TIDEGATE_SEED={seed} cargo test -p tests --test disk {test}");
    let patience = if is_long() { 60 * HANGS_AFTER } else { 10 * HANGS_AFTER };
    let watch = watch(again.clone(), patience);
    let told = Told(again);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
    let ran = runtime.block_on(run());
    drop((watch, told));
    ran
}

/// Ends the process if what is returned is not dropped in time: a store that hangs cannot be left.
pub(crate) fn watch(what: String, patience: Duration) -> Sender<()> {
    let (done, watched) = channel();
    std::thread::spawn(move || {
        if watched.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            eprintln!("it hangs: {what}");
            std::process::abort();
        }
    });
    done
}

/// Says how to play it again.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to play it again: {}", self.0);
        }
    }
}
