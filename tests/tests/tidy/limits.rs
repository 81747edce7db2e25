//! limits: every bound says what it bounds.

use crate::house::{expect_none, files_under, read};

#[test]
fn every_limit_has_a_sentence() {
    let mut silent = Vec::new();
    for file in files_under("proxy/policy/src", ".rs").into_iter().filter(|file| file.contains("/limits")) {
        let text = read(&file);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub const ")) {
            let above = lines[..at].iter().rev().find(|line| !line.starts_with("#["));
            if !above.is_some_and(|line| line.starts_with("/// ")) {
                silent.push(format!("{file} line {}: {line}", at + 1));
            }
        }
    }
    expect_none("a limit states its unit, its reason and what happens at its edge", &silent);
}
