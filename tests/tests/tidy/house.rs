//! house: where the rooms are, and which files each holds.

use std::path::{Path, PathBuf};

/// Each crate's folder, its name, and the rooms it may import: the table of the house.
pub(crate) const ROOMS: &[(&str, &str, &[&str])] = &[
    ("proxy/policy", "policy", &[]),
    ("proxy/transport", "transport", &["policy"]),
    ("proxy/request", "request", &["transport", "policy"]),
    ("proxy/store", "store", &[]),
    ("proxy/queue", "queue", &["store", "policy"]),
    ("proxy/sidecar", "sidecar", &["policy", "transport", "request", "store", "queue"]),
    ("control-plane/resources", "resources", &["policy"]),
    ("control-plane/controller", "controller", &["resources", "policy"]),
    ("control-plane/cli", "cli", &["resources", "policy"]),
    ("tests/lab", "lab", &[]),
    ("tests/kubernetes", "kubernetes", &["lab", "resources"]),
    (
        "tests",
        "tests",
        &[
            "lab",
            "policy",
            "transport",
            "request",
            "store",
            "queue",
            "sidecar",
            "resources",
            "controller",
            "cli",
        ],
    ),
];

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace has a folder")
}

/// The text of a file of the house, by its path from the root.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The files under a folder whose names end so, as sorted paths from the root. Build output and
/// hidden folders are no part of the house. A folder that is not there holds nothing.
pub(crate) fn files_under(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root().join(folder)];
    while let Some(folder) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder's entry can be read").path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    left.push(path);
                }
            } else if name.ends_with(ending) {
                let inside = path.strip_prefix(root()).expect("a file of the house is under its root");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Whether a Rust file holds only tests, by its name or its folder.
pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests")
}

/// A file's text up to the module of its tests, which stands last.
pub(crate) fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// Whether a Rust file is made from a proto file.
pub(crate) fn is_generated(path: &str) -> bool {
    path.contains("/wire/") && path.ends_with(".v1.rs")
}

/// Fails with every finding at once, one a line.
#[track_caller]
pub(crate) fn expect_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}
