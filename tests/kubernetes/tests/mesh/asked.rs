//! asked: curl in a pod, and what came back.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::Value;

use crate::town::{PATIENCE, Town};

/// How often in a row an answer must be right: by halves it would be so by chance once in 65,536 times.
const IN_A_ROW: usize = 16;
/// Between the parts of what curl prints, and after each response; in no body here.
const PART: char = '\u{1e}';
const END: char = '\u{1d}';

/// One response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Value,
    pub(crate) body: String,
}

impl Reply {
    /// A header's value; of several the first.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name][0].as_str().unwrap_or_default()
    }

    /// What the server saw, by the name that the server gives it.
    pub(crate) fn seen(&self, name: &str) -> String {
        let said: Value = serde_json::from_str(&self.body).unwrap_or_default();
        said[name].as_str().unwrap_or_default().to_owned()
    }

    /// Whether the server is a pod of this Deployment.
    pub(crate) fn is_of(&self, app: &str) -> bool {
        self.status == 200 && self.header("x-server").starts_with(&format!("{app}-"))
    }
}

impl Town {
    /// Asks from a pod's application with these arguments of curl; one reply for each URL.
    pub(crate) fn curl(&self, namespace: &str, of: &str, args: &[&str]) -> Result<Vec<Reply>> {
        let format = format!("{PART}%{{http_code}}{PART}%{{header_json}}{END}");
        let curl = ["curl", "-sS", "--max-time", "20", "-w", &format];
        let said = self.exec(namespace, of, &[&curl[..], args].concat())?;
        said.split_terminator(END).map(reply).collect()
    }

    /// Asks once.
    pub(crate) fn ask(&self, namespace: &str, of: &str, args: &[&str]) -> Result<Reply> {
        self.curl(namespace, of, args)?.pop().context("curl was given no URL")
    }

    /// Asks until the answer is right, many times in a row; the URL comes last.
    pub(crate) fn expect(
        &self,
        (namespace, of): (&str, &str),
        args: &[&str],
        right: impl Fn(&Reply) -> bool,
    ) -> Result<()> {
        let (url, more) = args.split_last().context("the URL comes last")?;
        let urls = vec![*url; IN_A_ROW];
        let mut last = String::new();
        let asked = until(&format!("the right answer to curl {args:?}"), PATIENCE, || {
            last = match self.curl(namespace, of, &[more, &urls].concat()) {
                Ok(replies) => match replies.iter().find(|reply| !right(reply)) {
                    None => return Ok(Some(())),
                    Some(wrong) => format!("{wrong:#?}"),
                },
                Err(why) => format!("{why:#}"),
            };
            Ok(None)
        });
        asked.with_context(|| format!("{of} in {namespace} was last answered {last}"))
    }

    /// How many of so many requests each Deployment's pods answered.
    pub(crate) fn shares(&self, of: (&str, &str), url: &str, draws: u32) -> Result<BTreeMap<String, u32>> {
        let mut counts = BTreeMap::new();
        for reply in self.curl(of.0, of.1, &[&format!("{url}?draw=[1-{draws}]")])? {
            ensure!(reply.status == 200, "{reply:#?}");
            // DEPLOYMENT-REPLICASET-POD
            let server = reply.header("x-server").rsplitn(3, '-').last().unwrap_or_default().to_owned();
            *counts.entry(server).or_default() += 1;
        }
        Ok(counts)
    }
}

fn reply(text: &str) -> Result<Reply> {
    let mut parts = text.splitn(3, PART);
    let mut part = || parts.next().with_context(|| format!("curl printed {text:?}"));
    let (body, status, headers) = (part()?.to_owned(), part()?.parse()?, serde_json::from_str(part()?)?);
    Ok(Reply { status, headers, body })
}
