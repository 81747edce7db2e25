//! print: words in colour where a person looks, plain where a file does.

use std::io::{IsTerminal as _, stdout};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};

/// It went as it should.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// It did not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// It did, and somebody should look at it.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// A heading.
pub(crate) const HEAD: Style = Style::new().bold();
/// Of less interest.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Whether standard output takes colours.
pub(crate) fn coloured() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The text in a style, where colours are taken.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if coloured() { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// A table with these headings and no frame around it.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    table
}

/// Prints a table, two columns in.
pub(crate) fn show(table: &Table) {
    for line in table.lines() {
        println!(" {}", line.trim_end());
    }
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The text without what could drive a terminal: control characters and those that turn the
/// direction of writing are dots.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if drives(c) { '·' } else { c }).collect()
}

/// The same, with its lines and tabs kept.
pub(crate) fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if drives(c) && !matches!(c, '\n' | '\t') { '·' } else { c }).collect()
}

fn drives(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text, at most so many letters of it.
pub(crate) fn cut(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// `17 B`, `1.5 KiB`, `2.0 GiB`.
#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
pub(crate) fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    let (mut number, mut unit) = (number as f64 / 1024.0, 0);
    let units = ["KiB", "MiB", "GiB", "TiB"];
    while number >= 1023.95 && unit + 1 < units.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", units[unit])
}

/// `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub(crate) fn span(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and saturating")]
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_drive_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\n\u{9b}c\u{202e}d"), "a·[2Jb···c·d");
        assert_eq!(plain_lines("a\n\tb\u{7}"), "a\n\tb·");
        assert_eq!(cut("abcdef", 4), "abc…");
    }

    #[test]
    fn sizes_and_spans_are_short_and_have_units() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 20, u64::MAX].map(bytes).join(" "),
            "0 B 1023 B 1.0 KiB 1.5 KiB 1.0 MiB 16777216.0 TiB"
        );
        assert_eq!(
            [0.04, 9.94, 59.6, 125.0, 7800.0, 273_600.0].map(span).join(", "),
            "0.0 s, 9.9 s, 1 min 0 s, 2 min 5 s, 2 h 10 min, 3 d 4 h"
        );
        assert_eq!((count(1u64, "file"), count(0u64, "file")), ("1 file".to_owned(), "0 files".to_owned()));
    }
}
