//! harness: cases one after another on one cluster, told as cargo's own harness tells its tests.
//!
//! Cargo's harness has no end at which a cluster could be taken down, and makes one for each test else.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::town::Town;

/// What a case does to the town that all share.
pub(crate) type Deed = fn(&mut Town) -> Result<()>;

/// A sentence, and what proves it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) deed: Deed,
    /// Whether it takes minutes, and is left out unless `TIDEGATE_LONG` is set.
    pub(crate) is_long: bool,
}

/// Names a case after its function.
macro_rules! case {
    ($room:ident::$name:ident) => {
        $crate::harness::Case { name: stringify!($name), deed: $crate::$room::$name, is_long: false }
    };
    (long $room:ident::$name:ident) => {
        $crate::harness::Case { name: stringify!($name), deed: $crate::$room::$name, is_long: true }
    };
}
pub(crate) use case;

/// Runs the cases whose names hold one of the words on the command line, in their order.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    let is_meant = |case: &&Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let meant: Vec<&Case> = cases.iter().filter(is_meant).collect();
    if args.iter().any(|arg| arg == "--list") {
        meant.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let goes_long = std::env::var_os("TIDEGATE_LONG").is_some();
    let others = cases.len() - meant.len();
    let (now, later): (Vec<&Case>, Vec<&Case>) =
        meant.into_iter().partition(|case| goes_long || !case.is_long);
    println!("\nrunning {} tests", now.len() + later.len());
    for case in &later {
        println!("test {} ... ignored, TIDEGATE_LONG=1 runs it", case.name);
    }
    let began = Instant::now();
    let failures = if now.is_empty() { Vec::new() } else { on_a_town(&now) };
    if !failures.is_empty() {
        println!("\nfailures:");
        failures.iter().for_each(|(name, why)| println!("\n---- {name} stdout ----\n{why}"));
        println!("\nfailures:");
        failures.iter().for_each(|(name, _)| println!("    {name}"));
    }
    let is_well = failures.is_empty();
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if is_well { "ok" } else { "FAILED" },
        now.len() - failures.len().min(now.len()),
        failures.len(),
        later.len(),
        others,
        began.elapsed().as_secs_f64()
    );
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn on_a_town(cases: &[&Case]) -> Vec<(&'static str, String)> {
    let began = Instant::now();
    let mut town = match Town::raise() {
        Ok(town) => town,
        // None of them can be said to hold.
        Err(why) => return cases.iter().map(|case| (case.name, format!("no cluster: {why:?}"))).collect(),
    };
    println!("the cluster and the installation are ready after {:.1} s", began.elapsed().as_secs_f64());
    let mut failures = Vec::new();
    for case in cases {
        let began = Instant::now();
        let result = (case.deed)(&mut town);
        let (word, took) = (if result.is_ok() { "ok" } else { "FAILED" }, began.elapsed().as_secs_f64());
        println!("test {} ... {word} ({took:.1} s)", case.name);
        if let Err(why) = result {
            println!("{why:#}");
            failures.push((case.name, format!("{why:#}\n\n{}", town.account())));
        }
    }
    failures
}
