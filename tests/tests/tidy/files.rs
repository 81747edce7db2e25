//! files: each is declared, opens with its purpose, is short, and has a name that says something.

use crate::house::{ROOMS, expect_none, files_under, is_generated, is_test, read, root, without_tests};

/// Lines a file may have, without tests.
const LINES_MAX: usize = 400;

/// Files longer than that for now, each with the length it must not pass. It only gets shorter.
const RATCHET: &[(&str, usize)] = &[];

/// Names under which anything could hide.
const SAY_NOTHING: &[&str] = &["mod", "util", "utils", "common", "helper", "helpers", "misc", "manager"];

fn all() -> Vec<String> {
    ["proxy", "control-plane", "tests"].iter().flat_map(|folder| files_under(folder, ".rs")).collect()
}

fn stem(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs")
}

/// The files that may declare the module in this one: `a/b/c.rs` is declared in `a/b.rs`, or by
/// the crate's first file when `a/b` is its `src`.
fn parents(path: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    vec![
        format!("{folder}.rs"),
        format!("{folder}/lib.rs"),
        format!("{folder}/main.rs"),
        format!("{folder}/mod.rs"),
    ]
}

fn declares(parent: &str, module: &str, file: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(root().join(parent)) else { return false };
    text.lines().map(str::trim).any(|line| {
        let word = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
        word == format!("mod {module};")
            || word == format!("mod {module} {{")
            || (line.starts_with("#[path") || line.starts_with("include!")) && line.contains(file)
    })
}

/// Files that cargo itself starts from.
fn is_start(path: &str) -> bool {
    let Some((home, inside)) = ROOMS
        .iter()
        .filter_map(|(home, ..)| path.strip_prefix(&format!("{home}/")).map(|inside| (*home, inside)))
        .min_by_key(|(_, inside)| inside.len())
    else {
        return false;
    };
    let manifest = read(&format!("{home}/Cargo.toml"));
    let in_tests = |folder: &str| {
        inside.strip_prefix(folder).is_some_and(|rest| !rest.contains('/') || rest.ends_with("/main.rs"))
    };
    matches!(inside, "src/lib.rs" | "src/main.rs" | "build.rs")
        || in_tests("src/bin/")
        || manifest.contains(&format!("path = \"{inside}\""))
        || !manifest.contains("autotests = false") && in_tests("tests/")
        || in_tests("benches/")
        || in_tests("examples/")
}

#[test]
fn every_file_is_declared_by_a_module() {
    let lost: Vec<String> = all()
        .into_iter()
        .filter(|path| !is_start(path))
        .filter(|path| {
            let file = path.rsplit('/').next().unwrap_or(path);
            !parents(path).iter().any(|parent| declares(parent, stem(path), file))
        })
        .collect();
    expect_none("a file that no `mod` declares is never compiled", &lost);
}

#[test]
fn every_file_opens_with_its_purpose() {
    let silent: Vec<String> =
        all().into_iter().filter(|path| !is_generated(path) && !read(path).starts_with("//! ")).collect();
    expect_none("the first line is `//! name: what it is for.`", &silent);
}

#[test]
fn files_are_short_enough_to_read() {
    let mut long = Vec::new();
    for path in all().into_iter().filter(|path| !is_generated(path) && !is_test(path)) {
        let lines = without_tests(&read(&path)).lines().count();
        let max = RATCHET.iter().find(|(at, _)| *at == path).map_or(LINES_MAX, |(_, max)| *max);
        if lines > max {
            long.push(format!("{path}: {lines} lines, at most {max}"));
        }
    }
    expect_none("a long file wants a wall", &long);
}

#[test]
fn ratchet_holds_only_files_that_are_still_long() {
    let done: Vec<String> = RATCHET
        .iter()
        .filter(|(path, _)| {
            !root().join(path).exists() || without_tests(&read(path)).lines().count() <= LINES_MAX
        })
        .map(|(path, _)| (*path).to_owned())
        .collect();
    expect_none("a file that is short again leaves the ratchet", &done);
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let vague: Vec<String> = all().into_iter().filter(|path| SAY_NOTHING.contains(&stem(path))).collect();
    expect_none("a file is named for the one thing it does", &vague);
}

#[test]
fn every_room_of_the_table_that_exists_has_a_first_file() {
    let empty: Vec<String> = ROOMS
        .iter()
        .filter(|(home, ..)| root().join(home).join("Cargo.toml").exists())
        .filter(|(home, ..)| files_under(home, ".rs").is_empty())
        .map(|(home, ..)| (*home).to_owned())
        .collect();
    expect_none("a room without a file is no room", &empty);
}
