//! print: words in colour where a person looks, plain where a file does.

use std::io::{IsTerminal as _, stdout};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};

/// It went as it should.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// It did not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
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
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
