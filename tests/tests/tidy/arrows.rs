//! arrows: which room may import which.

use crate::house::{ROOMS, expect_none, files_under, is_test, read, without_tests};

/// The names a manifest depends on to run; what only its tests need is its own affair, unless the
/// name is one of ours.
fn dependencies(manifest: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut section = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            // `[dependencies.name]` names one in its header.
            if let Some((table, name)) = section.split_once("dependencies.") {
                found.push((name.to_owned(), table == "dev-"));
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let name: String =
                line.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
            if !name.is_empty() {
                found.push((name, section.ends_with("dev-dependencies")));
            }
        }
    }
    found
}

fn manifests() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for folder in ["proxy", "control-plane", "tests"] {
        for path in files_under(folder, "Cargo.toml") {
            let home = path.trim_end_matches("/Cargo.toml").to_owned();
            all.push((home, read(&path)));
        }
    }
    all
}

#[test]
fn every_crate_is_a_room_of_the_table() {
    let strangers: Vec<String> = manifests()
        .into_iter()
        .filter(|(home, text)| {
            !ROOMS.iter().any(|(at, name, _)| at == home && text.contains(&format!("name = \"{name}\"")))
        })
        .map(|(home, _)| home)
        .collect();
    expect_none("a crate stands in the table of rooms in house.rs", &strangers);
}

#[test]
fn crates_import_only_the_rooms_below_them() {
    let mut wrong = Vec::new();
    for (home, text) in manifests() {
        let Some((_, room, below)) = ROOMS.iter().find(|(at, ..)| *at == home) else { continue };
        for (name, _) in dependencies(&text) {
            let ours = ROOMS.iter().any(|(_, other, _)| *other == name);
            if ours && !below.contains(&name.as_str()) {
                wrong.push(format!("{room} must not import {name}"));
            }
        }
    }
    expect_none("arrows point down", &wrong);
}

/// What a room must stay free of, whoever offers it.
const BANNED: &[(&str, &[&str])] = &[
    ("policy", &["hyper", "hyper-util", "kube"]),
    ("transport", &["kube"]),
    ("request", &["kube"]),
    // Of tokio it has the channels; its clock is looked for below.
    ("store", &["hyper", "hyper-util", "chrono", "jiff", "time", "kube"]),
    ("queue", &["hyper", "hyper-util", "kube"]),
    ("sidecar", &["kube"]),
    ("resources", &["tokio", "hyper"]),
];

#[test]
fn rooms_stay_free_of_what_the_table_forbids() {
    let mut wrong = Vec::new();
    for (home, text) in manifests() {
        let Some((_, room, _)) = ROOMS.iter().find(|(at, ..)| *at == home) else { continue };
        let banned = BANNED.iter().find(|(at, _)| at == room).map_or(&[][..], |(_, names)| names);
        for (name, only_tests) in dependencies(&text) {
            if !only_tests && banned.contains(&name.as_str()) {
                wrong.push(format!("{room} must not use {name}"));
            }
        }
    }
    expect_none("a room stays free of what it must never know", &wrong);
}

#[test]
fn the_store_has_no_clock_but_the_one_it_is_given() {
    let mut wrong = Vec::new();
    for path in files_under("proxy/store/src", ".rs") {
        let text = read(&path);
        for clock in ["Instant::now", "SystemTime", "tokio::time", "thread::sleep"] {
            if !is_test(&path) && without_tests(&text).contains(clock) {
                wrong.push(format!("{path}: {clock}"));
            }
        }
    }
    expect_none("the store has no clock of its own", &wrong);
}
