//! documents: a link in a page leads somewhere.

use crate::house::{expect_none, files_under, read, root};

/// The targets of `[text](target)` outside of code fences.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(
                line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned),
            );
        }
    }
    found
}

/// The anchor a heading gets: lower case, spaces as dashes, nothing but letters, digits and dashes.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_between_pages_lead_to_files_and_headings() {
    let mut broken = Vec::new();
    for page in files_under("", ".md") {
        let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in links(&read(&page)).into_iter().filter(|link| !link.contains(':')) {
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { root().join(&page) } else { root().join(folder).join(path) };
            let known = |text: String| text.lines().any(|l| l.starts_with('#') && anchor(l) == heading);
            if !target.exists() {
                broken.push(format!("{page}: {link}"));
            } else if !heading.is_empty() && !std::fs::read_to_string(&target).is_ok_and(known) {
                broken.push(format!("{page}: {link} (no such heading)"));
            }
        }
    }
    expect_none("a relative link leads to something that exists", &broken);
}
