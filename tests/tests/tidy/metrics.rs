//! metrics: each one in the code stands once in the table of the docs, and the other way round.

use std::collections::{BTreeMap, BTreeSet};

use crate::house::{expect_none, files_under, is_test, read, root, without_tests};

const TABLE: &str = "docs/metrics.md";

/// The words `tidegate_…` in a text that stand between these two signs.
fn names(text: &str, open: char, close: char) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in text.match_indices("tidegate_") {
        let rest: String = text[at..]
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
            .collect();
        let ends = text[at + rest.len()..].starts_with(close) || text[at + rest.len()..].starts_with('{');
        if text[..at].ends_with(open) && ends && rest.len() > word.len() {
            found.push(rest);
        }
    }
    found
}

/// The name of every string literal in the programs that names a metric. A counter is registered
/// without the `_total` that its exposition ends with, so both spellings are one name here.
fn in_code() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in ["proxy", "control-plane"] {
        for path in files_under(folder, ".rs").into_iter().filter(|path| !is_test(path)) {
            let text = read(&path);
            for name in names(without_tests(&text), '"', '"') {
                found.insert(name.trim_end_matches("_total").to_owned(), path.clone());
            }
        }
    }
    found
}

/// The first cell of every row of the table.
fn in_table() -> Vec<String> {
    if !root().join(TABLE).exists() {
        return Vec::new();
    }
    read(TABLE)
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| names(line.split('|').nth(1).unwrap_or_default(), '`', '`'))
        .map(|name| name.trim_end_matches("_total").to_owned())
        .collect()
}

#[test]
fn every_metric_of_the_code_stands_once_in_the_table() {
    let table = in_table();
    let wrong: Vec<String> = in_code()
        .into_iter()
        .filter_map(|(name, path)| {
            let rows = table.iter().filter(|row| **row == name).count();
            (rows != 1).then(|| format!("{name} ({path}) has {rows} rows"))
        })
        .collect();
    expect_none("docs/metrics.md has one row for each metric", &wrong);
}

#[test]
fn table_names_no_metric_that_the_code_lacks() {
    let code = in_code();
    let gone: BTreeSet<String> = in_table().into_iter().filter(|name| !code.contains_key(name)).collect();
    expect_none("docs/metrics.md names only what is there", &gone.into_iter().collect::<Vec<_>>());
}
