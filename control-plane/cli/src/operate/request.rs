//! request: `tidegate request`, what became of one request.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use http::{Method, StatusCode};

use super::choose::Which as Asked;
use super::documents::{Message, Refusal};
use super::{At, message, print_json, read, refusal};
use crate::ask::{Answer, Question};
use crate::print::{count, plain, plain_lines};

/// One wait for a result; the proxy answers 202 when it is over.
const WAIT_SECONDS: u64 = 30;
/// How much longer the answer to it may take.
const WAIT_GRACE: Duration = Duration::from_secs(10);
/// The pause between two questions when the proxy does not let us wait.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// How a problem document of the proxy's own names its type.
const OURS: &str = "https://tidegate.dev/problems/";

/// Follows one request that was answered 202.
#[derive(Debug, Args)]
#[command(after_help = "\
The id is the last part of the 202's Location.

Examples:
  tidegate request get 019a91c2-7d3e-7400-8000-00050a000007       its state and attempts
  tidegate request attach 019a91c2-7d3e-7400-8000-00050a000007    wait, then print its response
  tidegate request cancel 019a91c2-7d3e-7400-8000-00050a000007    no further attempt

In a cluster the pod that keeps the request is found by the id; --pod or --proxy name another.

attach exits 0 when the request was delivered and 1 when it ended otherwise.")]
pub(crate) struct Request {
    #[command(flatten)]
    which: Asked,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Its state and its attempts.
    Get(Which),
    /// Make sure that there is no further attempt. Refused while one is under way.
    Cancel(Which),
    /// Wait for its end and print the response: the body to standard output, the rest to standard
    /// error.
    Attach(Attach),
}

#[derive(Debug, Args)]
struct Which {
    /// The request's id.
    id: String,
}

#[derive(Debug, Args)]
struct Attach {
    /// The request's id.
    id: String,
    /// Give up after so long: 90s, PT5M. Default: never.
    #[arg(long, value_name = "DURATION", value_parser = resources::parse_iso_or_go)]
    timeout: Option<Duration>,
}

fn path(id: &str) -> anyhow::Result<String> {
    let shaped = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    ensure!(shaped, "{id:?} is not the id of a request, such as 019a91c2-7d3e-7400-8000-00050a000007");
    Ok(format!("/.tidegate/requests/{id}"))
}

impl Request {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let id = match &self.command {
            Command::Get(which) | Command::Cancel(which) => &which.id,
            Command::Attach(attach) => &attach.id,
        };
        let at = &self.which.keeping(id).await?;
        match self.command {
            Command::Get(which) => get(at, &which.id).await?,
            Command::Cancel(which) => {
                at.asked(&Question::new(Method::DELETE, path(&which.id)?)).await?;
                if at.is_json() {
                    println!("{}", serde_json::json!({ "id": which.id, "state": "Cancelled" }));
                } else {
                    println!("{}: cancelled, there is no further attempt", which.id);
                }
            }
            Command::Attach(attach) => return attach.run(at).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn get(at: &At, id: &str) -> anyhow::Result<()> {
    let answer = at.ask(&Question::new(Method::GET, path(id)?)).await?;
    if answer.status == StatusCode::NOT_FOUND
        && let Some(holder) = at.other_holder(id)
    {
        bail!("{}\nthe id names {holder} as its holder: --proxy {holder}:PORT asks there", refusal(&answer));
    }
    ensure!(answer.status.is_success(), "{}", refusal(&answer));
    if at.is_json() {
        return print_json(&answer);
    }
    let message: Message = read(&answer)?;
    let why = if has_ended(&message) { None } else { at.why_it_waits(&message).await };
    message::whole(&message, why);
    Ok(())
}

/// Whether nothing more happens to it.
fn has_ended(message: &Message) -> bool {
    matches!(message.state.as_str(), "Succeeded" | "DeadLettered" | "Cancelled")
}

impl Attach {
    async fn run(&self, at: &At) -> anyhow::Result<ExitCode> {
        let path = path(&self.id)?;
        let end = self.timeout.map(|timeout| Instant::now() + timeout);
        let message = loop {
            let message: Message = read(&at.get(path.clone()).await?)?;
            if has_ended(&message) {
                break message;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                bail!("{} has not ended: {}", self.id, plain(&message.state));
            }
            let wait = left.map_or(WAIT_SECONDS, |left| left.as_secs().clamp(1, WAIT_SECONDS));
            let asked = Instant::now();
            at.ask(&result(&path, wait)).await?;
            if asked.elapsed() < ASK_PAUSE {
                tokio::time::sleep(ASK_PAUSE).await;
            }
        };
        let answer = at.ask(&result(&path, 1)).await?;
        told(at, &message, &answer)?;
        Ok(if message.state == "Succeeded" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn result(path: &str, wait: u64) -> Question {
    Question {
        wait_seconds: Some(wait),
        timeout: Duration::from_secs(wait) + WAIT_GRACE,
        ..Question::new(Method::GET, format!("{path}/result"))
    }
}

/// Whether the proxy says itself that there is no response.
fn is_without(answer: &Answer) -> bool {
    answer.header("content-type").starts_with("application/problem+json")
        && serde_json::from_slice::<Refusal>(&answer.body).is_ok_and(|said| said.r#type.starts_with(OURS))
}

fn told(at: &At, message: &Message, answer: &Answer) -> anyhow::Result<()> {
    let without = is_without(answer);
    if at.is_json() {
        let body = if without { None } else { Some(answer.text()) };
        let status = if without { None } else { Some(answer.status.as_u16()) };
        let document = serde_json::json!({
            "id": message.id,
            "state": message.state,
            "reason": message.reason,
            "attemptsUsed": message.attempts_used,
            "status": status,
            "body": body,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    let reason = message.reason.as_ref().map(|reason| format!(" ({})", plain(reason))).unwrap_or_default();
    eprintln!(
        "{}: {}{reason} after {}",
        plain(&message.id),
        plain(&message.state),
        count(message.attempts_used, "attempt")
    );
    if without {
        eprintln!("{}", refusal(answer));
        return Ok(());
    }
    let status = StatusCode::canonical_reason(&answer.status).unwrap_or_default();
    eprintln!("{} {status}", answer.status.as_u16());
    let mut stdout = std::io::stdout();
    let written = if stdout.is_terminal() {
        // What the receiver wrote must not drive the terminal.
        writeln!(stdout, "{}", plain_lines(&answer.text()))
    } else {
        stdout.write_all(&answer.body)
    };
    written.and_then(|()| stdout.flush()).context("cannot write")
}
