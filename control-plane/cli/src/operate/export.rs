//! export: messages copied out of a queue, a line of JSON each.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};

use super::documents::Named;
use super::filter::{Filter, Part};
use super::queue::chosen;
use super::{At, path};
use crate::ask::Question;
use crate::print::count;

/// A page has many bodies, read from a disk.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Where the next page begins.
const NEXT: &str = "tidegate-next";

/// Shows how far a long command is, on a terminal alone.
pub(super) fn bar(at: &At, of: u64, done: &str) -> ProgressBar {
    if at.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(of);
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{bar:40}} {{pos}} of {{len}} {done}, {{per_sec}}"))
    {
        bar.set_style(style);
    }
    bar
}

/// The same when nobody knows how long it is.
pub(super) fn spinner(at: &At, done: &str) -> ProgressBar {
    if at.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template(&format!("{{spinner}} {{pos}} {done}, {{per_sec}}")) {
        bar.set_style(style);
    }
    bar
}

/// Copies what is chosen; says on standard error how much that was.
pub(super) async fn run(
    at: &At,
    queue: &Named,
    part: Part,
    filter: &Filter,
    to: Option<PathBuf>,
) -> anyhow::Result<()> {
    let Some(file) = to else {
        let copied = copy(at, queue, part, filter, &mut std::io::stdout()).await?;
        eprintln!("{} exported", count(copied, "message"));
        return Ok(());
    };
    let mut opened = File::create_new(&file).with_context(|| format!("cannot make {}", file.display()))?;
    let copied = copy(at, queue, part, filter, &mut opened).await.with_context(|| incomplete(&file))?;
    opened.sync_all().with_context(|| incomplete(&file))?;
    eprintln!("{} exported to {}", count(copied, "message"), file.display());
    Ok(())
}

fn incomplete(file: &Path) -> String {
    format!("{} is not complete", file.display())
}

async fn copy(
    at: &At,
    queue: &Named,
    part: Part,
    filter: &Filter,
    to: &mut impl Write,
) -> anyhow::Result<u64> {
    let bar = spinner(at, "exported");
    let (mut after, mut copied) = (String::new(), 0);
    loop {
        let mut query = chosen(queue, part, filter);
        query.push(("after", &after));
        let question = Question::new(Method::GET, path("/queues/export", &query));
        let answer = at.asked(&Question { timeout: PAGE_TIMEOUT, ..question }).await?;
        let lines = answer.body.iter().filter(|byte| **byte == b'\n').count() as u64;
        match to.write_all(&answer.body).and_then(|()| to.flush()) {
            // Whoever reads has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            written => written.context("cannot write")?,
        }
        copied += lines;
        bar.inc(lines);
        after = answer.header(NEXT).to_owned();
        if after.is_empty() {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(copied)
}
