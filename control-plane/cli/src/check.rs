//! check: is the controller there, is each proxy ready, does each hold what it was sent.

use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use http::StatusCode;
use serde::Deserialize;

use crate::print::{BAD, GOOD, count, paint, show, table};
use crate::{ask, print};

/// Asks the controller and proxies how they are, and says what to do about what is wrong.
///
/// Exits 1 when a check failed or the controller is not there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate check                                      the controller on this machine
  tidegate check --proxy 127.0.0.1:4191               and a proxy's own word
  kubectl -n tidegate port-forward deploy/tidegate-controller 8087 & tidegate check")]
pub(crate) struct Check {
    /// The controller's admin address.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8087")]
    controller_admin: SocketAddr,
    /// Admin addresses of proxies.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    proxy: Vec<SocketAddr>,
}

/// What `/status` of the controller says, as far as it is read here.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    /// Problems of the manifests.
    problems: Vec<Problem>,
    /// Connected proxies.
    pub(crate) proxies: Vec<Proxy>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    file: String,
    line: usize,
    #[serde(default)]
    object: String,
    #[serde(default)]
    field: Option<String>,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        for part in [self.object.as_str(), self.field.as_deref().unwrap_or_default()] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// One connected proxy.
#[derive(Debug, Deserialize)]
pub(crate) struct Proxy {
    /// Whom its certificate names.
    pub(crate) identity: String,
    /// The pod it says it stands in.
    pub(crate) pod: String,
    sent: u64,
    acknowledged: u64,
    digest_ok: bool,
    documents: usize,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    key: String,
    reason: String,
}

/// One row: what was looked at, what is wrong with it if anything, and what helps.
struct Finding {
    subject: String,
    said: String,
    remedy: Option<String>,
}

impl Finding {
    fn good(subject: impl Into<String>, said: impl Into<String>) -> Self {
        Self { subject: subject.into(), said: said.into(), remedy: None }
    }

    fn bad(subject: impl Into<String>, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject: subject.into(), said: said.into(), remedy: Some(remedy.into()) }
    }
}

/// Reads the controller's status.
///
/// # Errors
/// When there is no answer, or one of another version.
pub(crate) async fn status(admin: SocketAddr) -> anyhow::Result<Status> {
    let text = ask::text(admin, "/status").await?;
    serde_json::from_str(&text).context("the controller's /status is not as this version writes it")
}

impl Check {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let admin = self.controller_admin;
        let ready = ask::get(admin, "/ready").await.with_context(|| {
            format!(
                "no controller on {admin}: start tidegate-controller with --admin {admin}, \
                 or name its address with --controller-admin"
            )
        })?;
        let mut findings = vec![readiness(format!("controller {admin}"), &ready)];
        let mut status = status(admin).await?;
        status.proxies.sort_by(|a, b| (&a.pod, &a.identity).cmp(&(&b.pod, &b.identity)));
        findings.push(manifests(admin, &status.problems));
        findings.extend(status.proxies.iter().map(held));
        if status.proxies.is_empty() {
            let remedy = "start sidecars with --controller at its --listen address";
            findings.push(Finding::bad("proxies", "none is connected", remedy));
        }
        for &proxy in &self.proxy {
            findings.push(match ask::get(proxy, "/ready").await {
                Ok(answer) => readiness(format!("proxy {proxy}"), &answer),
                Err(error) => {
                    let remedy = "is tidegate-proxy running, with --admin at this address?";
                    Finding::bad(format!("proxy {proxy}"), format!("{error:#}"), remedy)
                }
            });
        }
        Ok(report(&findings))
    }
}

fn readiness(subject: String, answer: &ask::Answer) -> Finding {
    let said = answer.text().split_whitespace().collect::<Vec<_>>().join(" ");
    if answer.status == StatusCode::OK {
        return Finding::good(subject, said);
    }
    let remedy = "wait for what it names; its log says more";
    Finding::bad(subject, format!("{}: {said}", answer.status.as_u16()), remedy)
}

fn manifests(admin: SocketAddr, problems: &[Problem]) -> Finding {
    let Some(first) = problems.first() else { return Finding::good("manifests", "no problems") };
    let said = format!("{}, the first: {first}", count(problems.len(), "problem"));
    Finding::bad("manifests", said, format!("tidegate validate; all of them: curl http://{admin}/status"))
}

/// Whether a proxy holds what it was sent.
fn held(proxy: &Proxy) -> Finding {
    let subject = format!("proxy of {} ({})", proxy.pod, proxy.identity);
    let behind = proxy.sent.saturating_sub(proxy.acknowledged);
    if let Some(first) = proxy.rejected.first() {
        let said = format!(
            "refused {}, the first {}: {}",
            count(proxy.rejected.len(), "document"),
            first.key,
            first.reason
        );
        return Finding::bad(subject, said, "is it older than the controller? upgrade it");
    }
    if behind > 0 {
        let said = format!("{} unacknowledged", count(behind, "answer"));
        return Finding::bad(subject, said, "ask again; when it stays, see the proxy's log");
    }
    if !proxy.digest_ok {
        let remedy = "ask again: the controller sends all anew; when it stays, restart the proxy";
        return Finding::bad(subject, "holds something else than was sent", remedy);
    }
    Finding::good(subject, format!("holds {}, lag 0", count(proxy.documents, "document")))
}

fn report(findings: &[Finding]) -> ExitCode {
    let mut rows = table(&["", "check", "says"]);
    for finding in findings {
        let mark = match finding.remedy {
            None => paint(GOOD, "ok"),
            Some(_) => paint(BAD, "failed"),
        };
        rows.add_row([mark, finding.subject.clone(), finding.said.clone()]);
    }
    show(&rows);
    for finding in findings {
        if let Some(remedy) = &finding.remedy {
            println!("  {}: {remedy}", finding.subject);
        }
    }
    let failed = findings.iter().filter(|finding| finding.remedy.is_some()).count();
    if failed == 0 {
        println!("{}", paint(print::GOOD, &format!("{} passed", count(findings.len(), "check"))));
        return ExitCode::SUCCESS;
    }
    println!("{}", paint(BAD, &format!("{failed} of {} failed", count(findings.len(), "check"))));
    ExitCode::FAILURE
}
