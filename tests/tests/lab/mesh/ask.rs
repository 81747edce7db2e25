//! ask: curl inside a pod, and what came back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Pod, until};
use serde_json::Value;

/// How long a change may take to be in force everywhere.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How often in a row an answer must be right. What weights decide by halves would pass by chance once in
/// 2^16; balancing within one Service may well prefer one server that often, and proves nothing.
const IN_A_ROW: usize = 16;

/// How often is asked to judge shares by.
pub(super) const DRAWS: u64 = 3_000;

/// Between the parts of what curl prints, and after each response: neither is in any body here.
const PART: char = '\u{1e}';
const END: char = '\u{1d}';

/// One response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    headers: BTreeMap<String, Vec<String>>,
    pub(super) body: String,
}

impl Reply {
    /// A header, its values joined as RFC 9110 §5.3 has it.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|values| values.join(","))
    }

    pub(super) fn proxy_status(&self) -> String {
        self.header("proxy-status").unwrap_or_default()
    }

    /// The server that answered; empty when a proxy did.
    pub(super) fn server(&self) -> String {
        self.header("x-server").unwrap_or_default()
    }

    /// A header of the request, as the server saw it.
    pub(super) fn seen(&self, name: &str) -> Option<String> {
        let echo: Value = serde_json::from_str(&self.body).ok()?;
        let values: Vec<String> = echo["headers"]
            .as_array()?
            .iter()
            .filter(|pair| pair[0] == name)
            .filter_map(|pair| Some(pair[1].as_str()?.to_owned()))
            .collect();
        (!values.is_empty()).then(|| values.join(",").replace(", ", ","))
    }

    /// Whether a proxy answered this status, and its `Proxy-Status` holds all these words.
    pub(super) fn is_told(&self, status: u16, words: &[&str]) -> bool {
        let told = self.proxy_status();
        self.status == status && words.iter().all(|word| told.contains(word))
    }
}

/// Asks with these arguments of curl, among them one URL or more (curl's `[1-9]` counts); all
/// requests go over one connection, one after the other.
pub(super) fn ask(pod: &Pod, args: &[&str]) -> Result<Vec<Reply>> {
    let format = format!("{PART}%{{http_code}}{PART}%{{header_json}}{END}");
    let said = pod.run(pod.command("curl").args(["-sS", "--max-time", "30", "-w", &format]).args(args))?;
    said.split_terminator(END).map(reply).collect()
}

fn reply(text: &str) -> Result<Reply> {
    let mut parts = text.splitn(3, PART);
    let mut part = || parts.next().with_context(|| format!("curl printed {text:?}"));
    let (body, status, headers) = (part()?.to_owned(), part()?.parse()?, serde_json::from_str(part()?)?);
    Ok(Reply { status, headers, body })
}

/// Asks once.
pub(super) fn ask_once(pod: &Pod, args: &[&str]) -> Result<Reply> {
    ask(pod, args)?.pop().context("curl was given no URL")
}

/// Asks until the answer is right, many times in a row.
pub(super) fn expect(pod: &Pod, args: &[&str], right: impl Fn(&Reply) -> bool) -> Result<()> {
    let (url, more) = args.split_last().context("the URL comes last")?;
    let urls = vec![*url; IN_A_ROW];
    let mut last = String::new();
    let asked = until(&format!("the right answer to curl {args:?}"), PATIENCE, || {
        let replies = match ask(pod, &[more, &urls].concat()) {
            Ok(replies) => replies,
            Err(error) => {
                last = format!("{error:#}");
                return Ok(None);
            }
        };
        let wrong = replies.iter().find(|reply| !right(reply));
        last = wrong.map(|reply| format!("{reply:#?}")).unwrap_or_default();
        Ok(wrong.is_none().then_some(()))
    });
    asked.with_context(|| format!("pod {} was last answered {last}", pod.name()))
}

/// Expects 200 from this server.
pub(super) fn expect_server(pod: &Pod, args: &[&str], server: &str) -> Result<()> {
    expect(pod, args, |reply| reply.status == 200 && reply.server() == server)
}

/// Checks shares of a whole, each within 0.05 of what is wanted, and that nobody else has any.
///
/// Of [`DRAWS`] independent draws the standard deviation is at most √(0.25/3000) = 0.0091, and 0.05 is
/// 5.5 of them: chance alone passes it once in 25 million times.
pub(super) fn check_shares(counts: &BTreeMap<String, u64>, wanted: &[(&str, f64)]) -> Result<()> {
    let total: u64 = counts.values().sum();
    ensure!(total >= DRAWS, "{total} draws are too few to judge by");
    for name in counts.keys() {
        ensure!(wanted.iter().any(|(other, _)| name == other), "{name:?} has a share: {counts:?}");
    }
    for (name, share) in wanted {
        #[allow(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
        let got = counts.get(*name).copied().unwrap_or(0) as f64 / total as f64;
        ensure!((got - share).abs() <= 0.05, "{name} has {got:.3} instead of {share:.3}: {counts:?}");
    }
    Ok(())
}

/// Asks [`DRAWS`] times, over one connection, and counts by what `key` says of each reply.
pub(super) fn count(pod: &Pod, url: &str, key: impl Fn(&Reply) -> String) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for reply in ask(pod, &[&format!("{url}?draw=[1-{DRAWS}]")])? {
        *counts.entry(key(&reply)).or_default() += 1;
    }
    Ok(counts)
}
