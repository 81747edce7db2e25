//! cases: proofs one after another on what they share, told as cargo's own harness tells its tests.
//!
//! Cargo's harness has no end at which a cluster could be taken down. Here what is shared is dropped when
//! the last case is done, however it ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// What cases share, such as a cluster.
pub trait Shared: Sized {
    /// Makes it; once for all cases.
    ///
    /// # Errors
    /// When it cannot be made: then no case holds.
    fn raise() -> Result<Self>;

    /// How it stands, told beside the reason why a case does not hold.
    fn account(&self) -> String {
        String::new()
    }
}

/// A sentence, and what proves it.
pub struct Case<T> {
    /// The sentence, in words joined by underscores.
    pub name: &'static str,
    /// The proof.
    pub deed: fn(&mut T) -> Result<()>,
}

/// Names a case after its function: `room::sentence`.
#[macro_export]
macro_rules! case {
    ($room:ident::$name:ident) => {
        $crate::cases::Case { name: stringify!($name), deed: $room::$name }
    };
}

/// Why a case does not hold, by its name.
type Failure = (&'static str, String);

/// Runs the cases whose names hold one of the words on the command line, all without a word, in their
/// order. `--list` names them.
#[must_use]
pub fn run<T: Shared>(cases: &[Case<T>]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    let is_meant = |case: &&Case<T>| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let meant: Vec<&Case<T>> = cases.iter().filter(is_meant).collect();
    if args.iter().any(|arg| arg == "--list") {
        meant.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", meant.len());
    let others = cases.len() - meant.len();
    let began = Instant::now();
    let failures = if meant.is_empty() { Vec::new() } else { prove(&meant) };
    tell(&failures);
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {others} filtered out; \
         finished in {:.2}s\n",
        meant.len() - failures.len(),
        failures.len(),
        began.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prove<T: Shared>(cases: &[&Case<T>]) -> Vec<Failure> {
    let began = Instant::now();
    let mut shared = match T::raise() {
        Ok(shared) => shared,
        Err(why) => {
            return cases.iter().map(|case| (case.name, format!("nothing to try it on: {why:#}"))).collect();
        }
    };
    println!("what they share is there after {:.1} s", began.elapsed().as_secs_f64());
    let mut failures = Vec::new();
    for case in cases {
        let began = Instant::now();
        // A proof that panics leaves no more behind than one that returns.
        let result = catch_unwind(AssertUnwindSafe(|| (case.deed)(&mut shared)));
        let result = result.unwrap_or_else(|_| Err(anyhow!("it panicked, with the words above")));
        let (word, took) = (if result.is_ok() { "ok" } else { "FAILED" }, began.elapsed().as_secs_f64());
        println!("test {} ... {word} ({took:.1} s)", case.name);
        if let Err(why) = result {
            println!("{why:#}");
            failures.push((case.name, format!("{why:#}\n\n{}", shared.account())));
        }
    }
    failures
}

/// As cargo's harness does, since `tests/run` reads it.
fn tell(failures: &[Failure]) {
    if failures.is_empty() {
        return;
    }
    println!("\nfailures:");
    failures.iter().for_each(|(name, why)| println!("\n---- {name} stdout ----\n{why}"));
    println!("\nfailures:");
    failures.iter().for_each(|(name, _)| println!("    {name}"));
}
