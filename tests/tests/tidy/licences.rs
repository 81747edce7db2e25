//! licences: what we build on may be built on, and there is one crypto provider.

use std::process::Command;

use serde_json::Value;

use crate::house::{expect_none, root};

const ALLOWED: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
    "0BSD",
    "BSL-1.0",
    "Unlicense",
    "CC0-1.0",
    "Apache-2.0 WITH LLVM-exception",
];

/// Every package of the lock file that may be built on this machine. Not with `--offline`: what is
/// there is not asked for again, and a fresh machine lacks packages behind features nobody turns on.
fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let version = Command::new(&cargo).arg("-vV").output().expect("cargo tells its version");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).expect("cargo tells its host");
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let all: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata answers JSON");
    all["packages"].as_array().expect("metadata lists packages").clone()
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

/// Whether an SPDX expression can be met with the allowed licences. OR binds looser than AND, AND
/// looser than WITH (SPDX 2.3, annex D).
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let met = either(&mut words);
    met && words.is_empty()
}

fn either(words: &mut Vec<&str>) -> bool {
    let mut met = both(words);
    while words.last() == Some(&"OR") {
        words.pop();
        met |= both(words);
    }
    met
}

fn both(words: &mut Vec<&str>) -> bool {
    let mut met = one(words);
    while words.last() == Some(&"AND") {
        words.pop();
        met &= one(words);
    }
    met
}

fn one(words: &mut Vec<&str>) -> bool {
    match words.pop() {
        Some("(") => {
            let met = either(words);
            words.pop() == Some(")") && met
        }
        Some(name) if words.last() == Some(&"WITH") => {
            words.pop();
            words
                .pop()
                .is_some_and(|exception| ALLOWED.contains(&format!("{name} WITH {exception}").as_str()))
        }
        Some(name) => ALLOWED.contains(&name),
        None => false,
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_does() {
    for yes in
        ["MIT", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND Unicode-3.0", "MIT/Apache-2.0", "ISC AND (0BSD)"]
    {
        assert!(allows(yes), "{yes}");
    }
    for no in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND OpenSSL", "MIT WITH X", "MIT MIT"] {
        assert!(!allows(no), "{no}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_we_allow() {
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|p| !allows(text(p, "license")))
        .map(|p| format!("{} {}: {:?}", text(p, "name"), text(p, "version"), text(p, "license")))
        .collect();
    expect_none("a dependency's licence is one of the list", &wrong);
}

#[test]
fn only_one_crypto_provider_is_built() {
    // The tree knows which features are on; the metadata names every package that could be.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(tree.lines().any(|line| line.starts_with("aws-lc-rs ")), "the tree holds aws-lc-rs");
    let ring: Vec<String> = tree.lines().filter(|l| l.starts_with("ring ")).map(str::to_owned).collect();
    expect_none("the one crypto provider is aws-lc-rs", &ring);
}
