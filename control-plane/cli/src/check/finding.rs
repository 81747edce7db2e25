//! finding: what a check says, how that is told, and with what status the program ends.

use std::process::ExitCode;

use serde::Serialize;

use crate::operate::Output;
use crate::print::{BAD, FAINT, GOOD, HEAD, WARN, count, cut, paint, plain, show, table};

/// Findings of one kind that are told in a section; of the others their number.
const TOLD_MAX: usize = 20;
/// Letters of what is said of one object: the server's words may be long.
const SAYS_MAX: usize = 400;
/// Exit code when something could not be looked at.
const UNKNOWN: u8 = 2;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It could not be looked at.
    Unknown,
    /// It does not work.
    Failed,
}

/// One object, what is to be said of it, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(super) object: String,
    pub(super) says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn ok(object: impl Into<String>, says: impl Into<String>) -> Self {
        Self { level: Level::Ok, object: object.into(), says: says.into(), remedy: None }
    }

    pub(crate) fn warning(
        object: impl Into<String>,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, remedy: Some(remedy.into()), ..Self::ok(object, says) }
    }

    pub(crate) fn failed(
        object: impl Into<String>,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Failed, remedy: Some(remedy.into()), ..Self::ok(object, says) }
    }

    /// What it says, in one line.
    pub(crate) fn sentence(&self) -> String {
        let remedy = self.remedy.as_ref().map(|remedy| format!(": {remedy}")).unwrap_or_default();
        format!("{} {}{remedy}", self.object, self.says)
    }

    pub(crate) fn unknown(object: impl Into<String>, says: impl Into<String>) -> Self {
        let remedy = Some("ask again as somebody who may look at it".to_owned());
        Self { level: Level::Unknown, remedy, ..Self::ok(object, says) }
    }
}

/// What belongs together.
#[derive(Debug, Serialize)]
struct Section {
    section: &'static str,
    findings: Vec<Finding>,
    /// Findings that are not told.
    more: usize,
}

/// What is told while it is found, and summed up.
pub(super) struct Report {
    output: Output,
    sections: Vec<Section>,
    levels: Vec<Level>,
}

impl Report {
    pub(super) fn new(output: Output) -> Self {
        Self { output, sections: Vec::new(), levels: Vec::new() }
    }

    /// Takes the findings of a section, and tells them unless a program reads.
    pub(super) fn tell(&mut self, section: &'static str, mut findings: Vec<Finding>) {
        self.levels.extend(findings.iter().map(|finding| finding.level));
        // The worst first; of equals the order they were found in.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let all = findings.len();
        let findings = few(findings);
        let section = Section { section, more: all - findings.len(), findings };
        if self.output == Output::Table {
            section.print();
        }
        self.sections.push(section);
    }

    fn of(&self, level: Level) -> usize {
        self.levels.iter().filter(|of| **of == level).count()
    }

    /// Sums up: 1 when something failed, 2 when something could not be looked at.
    pub(super) fn end(&self) -> anyhow::Result<ExitCode> {
        let [passed, warnings, unknown, failed] =
            [Level::Ok, Level::Warning, Level::Unknown, Level::Failed].map(|level| self.of(level));
        if self.output == Output::Json {
            let document = serde_json::json!({
                "sections": self.sections,
                "passed": passed, "warnings": warnings, "unknown": unknown, "failed": failed,
            });
            println!("{}", serde_json::to_string_pretty(&document)?);
        } else {
            println!("{}", sum(passed, warnings, unknown, failed));
        }
        Ok(match (failed, unknown) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(UNKNOWN),
            _ => ExitCode::FAILURE,
        })
    }
}

fn sum(passed: usize, warnings: usize, unknown: usize, failed: usize) -> String {
    let all = passed + warnings + unknown + failed;
    if passed == all {
        return paint(GOOD, &format!("{} passed", count(all, "check")));
    }
    let mut parts = Vec::new();
    for (number, word, style) in [(failed, "failed", BAD), (unknown, "not looked at", WARN)] {
        if number > 0 {
            parts.push(paint(style, &format!("{number} of {} {word}", count(all, "check"))));
        }
    }
    if warnings > 0 {
        parts.push(paint(WARN, &count(warnings, "warning")));
    }
    parts.join(", ")
}

/// The first of each kind.
fn few(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told = [0; 4];
    let mut is_told = |finding: &Finding| {
        let told = &mut told[finding.level as usize];
        *told += 1;
        *told <= TOLD_MAX
    };
    findings.into_iter().filter(|finding| is_told(finding)).collect()
}

impl Section {
    fn print(&self) {
        if !self.section.is_empty() {
            println!("{}", paint(HEAD, self.section));
        }
        let mut rows = table(&["", "check", "says"]);
        for (at, finding) in self.findings.iter().enumerate() {
            let mark = match finding.level {
                Level::Ok => paint(GOOD, "ok"),
                Level::Warning => paint(WARN, "warning"),
                Level::Unknown => paint(WARN, "unknown"),
                Level::Failed => paint(BAD, "failed"),
            };
            rows.add_row([mark, plain(&finding.object), cut(&plain(&finding.says), SAYS_MAX)]);
            // A remedy of several is said once, behind the last.
            let next = self.findings.get(at + 1).and_then(|next| next.remedy.as_ref());
            if let Some(remedy) = finding.remedy.as_ref().filter(|remedy| next != Some(remedy)) {
                rows.add_row([String::new(), String::new(), paint(FAINT, &format!("→ {}", plain(remedy)))]);
            }
        }
        show(&rows);
        if self.more > 0 {
            println!("          and {} more", self.more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told_first_and_of_many_the_first() {
        let mut report = Report::new(Output::Json);
        let mut findings = vec![Finding::ok("a", "well"), Finding::warning("b", "so so", "look")];
        findings.extend((0..50).map(|n| Finding::failed(format!("c{n}"), "ill", "mend")));
        report.tell("x", findings);
        let section = &report.sections[0];
        assert_eq!((section.findings.len(), section.more), (22, 30));
        assert_eq!((section.findings[0].object.as_str(), section.findings[21].object.as_str()), ("c0", "a"));
        assert_eq!(report.of(Level::Failed), 50, "counted all the same");
    }

    #[test]
    fn what_could_not_be_looked_at_is_no_success() {
        let ended = |findings| {
            let mut report = Report::new(Output::Json);
            report.tell("x", findings);
            report.end().unwrap()
        };
        let ok = || Finding::ok("a", "well");
        assert_eq!(ended(vec![ok(), Finding::warning("b", "c", "d")]), ExitCode::SUCCESS);
        assert_eq!(ended(vec![ok(), Finding::unknown("b", "c")]), ExitCode::from(2));
        let failed = Finding::failed("e", "f", "g");
        assert_eq!(ended(vec![failed, Finding::unknown("b", "c")]), ExitCode::FAILURE);
    }

    #[test]
    fn the_sum_names_what_is_not_well() {
        assert_eq!(sum(3, 0, 0, 0), "3 checks passed");
        assert_eq!(sum(3, 1, 0, 2), "2 of 6 checks failed, 1 warning");
        assert_eq!(sum(0, 0, 1, 0), "1 of 1 check not looked at");
    }
}
