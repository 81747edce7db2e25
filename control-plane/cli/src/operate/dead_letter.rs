//! dead_letter: `tidegate dlq`, what could not be delivered, and bringing it back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::choose::Which;
use super::documents::{Message, Named, Redrive as Redriven, Redriving};
use super::everywhere::Everywhere;
use super::filter::{Filter, Part};
use super::queue::{Page, chosen, ended, list};
use super::{At, export, message, path, print_json, read};
use crate::print::{BAD, count, paint, plain, show, table};

/// How often a redrive under way is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Looks at dead letters, and brings them back.
#[derive(Debug, Args)]
#[command(after_help = "\
A message is in the dead letter because its receiver refused it for good (NonRetryable, Gone), its
attempts or its time were used up (Exhausted, Expired), or it cannot be sent (Misconfigured,
Damaged). Redriven, it keeps its id, joins the tail of its lane and has fresh attempts.

Examples:
  tidegate dlq ls                                          which queues have any
  tidegate dlq ls shop/orders-async --filter reason=Exhausted
  tidegate dlq show 019a91c2-7d3e-7400-8000-00050a000007   its attempts
  tidegate dlq redrive 019a91c2-7d3e-7400-8000-00050a000007
  tidegate dlq redrive shop/orders-async --rate 50 --filter status=503
  tidegate dlq export shop/orders-async --to dead.ndjson   before `queue purge --part dead`
  tidegate dlq ls --all-pods                               in a cluster; with --pod: of one pod

In a cluster the pod that keeps a message is found by the message's id.")]
pub(crate) struct DeadLetter {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Queues with dead letters, or the dead letters of one queue.
    Ls(Ls),
    /// One message, its attempts and what it was; never its credentials.
    Show(Show),
    /// Bring dead letters back into their queue.
    Redrive(Redrive),
    /// Copy dead letters with their bodies as NDJSON, a line each; they stay where they are.
    Export(Export),
}

#[derive(Debug, Args)]
struct Ls {
    /// The queue.
    queue: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where the page before ended.
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// The queues with dead letters of every pod with a sidecar, of the namespace given or of the whole
    /// mesh. Exits 1 when some did not answer, with what the others said, or when the directory of one is
    /// not open.
    #[arg(short = 'A', long, conflicts_with_all = ["queue", "fields", "after"])]
    all_pods: bool,
}

#[derive(Debug, Args)]
struct Show {
    /// The message's id.
    id: String,
}

#[derive(Debug, Args)]
struct Redrive {
    /// The queue, or the id of one message.
    #[arg(value_name = "QUEUE|ID")]
    what: String,
    #[command(flatten)]
    filter: Filter,
    /// Messages a second. Default: as fast as they can be written.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// End a redrive of this queue that is under way, and begin this one in its place.
    #[arg(long)]
    replace: bool,
    /// Do not wait for the end: the proxy goes on by itself, `queue ls -o json` says how far it is.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct Export {
    /// The queue.
    queue: String,
    #[command(flatten)]
    filter: Filter,
    /// A new file instead of standard output.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "a number of messages a second above 0 is expected".to_owned())
}

/// Whether it is an id and not the name of a queue, which has slashes.
fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

impl DeadLetter {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let at = &match &self.command {
            Command::Ls(Ls { all_pods: true, .. }) => return ls_everywhere(&self.which).await,
            Command::Show(Show { id }) => self.which.keeping(id).await?,
            Command::Redrive(redrive) if is_id(&redrive.what) => self.which.keeping(&redrive.what).await?,
            _ => self.which.one().await?,
        };
        match self.command {
            Command::Ls(ls) => return ls.run(at).await,
            Command::Show(show) => {
                let answer = at.get(path("/queues/message", &[("id", &show.id)])).await?;
                if at.is_json() {
                    print_json(&answer)?;
                } else {
                    message::whole(&read::<Message>(&answer)?, None);
                }
            }
            Command::Redrive(redrive) if is_id(&redrive.what) => redrive.one(at).await?,
            Command::Redrive(redrive) => redrive.all(at).await?,
            Command::Export(export) => {
                let queue = at.find(&export.queue).await?;
                export::run(at, &queue, Part::Dead, &export.filter, export.to).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Ls {
    async fn run(&self, at: &At) -> anyhow::Result<ExitCode> {
        let Some(queue) = &self.queue else { return self.queues(at).await };
        let after = self.after.map(|after| after.to_string()).unwrap_or_default();
        let page = Page { part: Part::Dead, filter: &self.filter, limit: self.limit, after: &after };
        list(at, queue, &page).await?;
        Ok(ExitCode::SUCCESS)
    }

    async fn queues(&self, at: &At) -> anyhow::Result<ExitCode> {
        if !self.filter.is_empty() || self.after.is_some() {
            bail!("--filter and --after need the name of a queue");
        }
        let (queues, answer) = at.queues().await?;
        let end = ended(&queues);
        if at.is_json() {
            let document = with_dead_letters(read(&answer)?);
            println!("{}", serde_json::to_string_pretty(&document)?);
            return Ok(end);
        }
        let dead: Vec<&Named> = queues.queues.iter().filter(|queue| queue.dead_letters > 0).collect();
        if let Some(why) = &queues.trouble {
            println!("{}", paint(BAD, &format!("the queue's directory is not open: {}", plain(why))));
        }
        if dead.is_empty() {
            if queues.trouble.is_none() {
                println!("no dead letters");
            }
            return Ok(end);
        }
        let mut rows = table(&COLUMNS);
        for queue in dead {
            rows.add_row(row(queue));
        }
        show(&rows);
        Ok(end)
    }
}

/// What the proxy says, of queues with dead letters alone.
fn with_dead_letters(mut document: Value) -> Value {
    if let Some(queues) = document["queues"].as_array_mut() {
        queues.retain(|queue| queue["deadLetters"].as_u64() > Some(0));
    }
    document
}

const COLUMNS: [&str; 4] = ["queue", "kept", "dead letters", "state"];

fn row(queue: &Named) -> [String; 4] {
    let state = queue.waits_for().unwrap_or_else(|| "ok".to_owned());
    [plain(&queue.name), plain(&queue.durability), queue.dead_letters.to_string(), state]
}

async fn ls_everywhere(which: &Which) -> anyhow::Result<ExitCode> {
    let mut everywhere = Everywhere::ask(which).await?;
    if which.is_json() {
        everywhere.only(with_dead_letters);
        everywhere.print_json()?;
        return Ok(everywhere.end());
    }
    let mut rows = table(&[&["pod"], &COLUMNS[..]].concat());
    let mut found = 0;
    for (pod, queues) in &everywhere.pods {
        for queue in queues.queues.iter().filter(|queue| queue.dead_letters > 0) {
            rows.add_row(std::iter::once(plain(pod)).chain(row(queue)));
            found += 1;
        }
        if let Some(why) = &queues.trouble {
            let said = format!("{}: the queue's directory is not open: {}", plain(pod), plain(why));
            println!("{}", paint(BAD, &said));
        }
    }
    if found > 0 {
        show(&rows);
    } else {
        println!("no dead letters in {}", count(everywhere.pods.len(), "pod"));
    }
    Ok(everywhere.end())
}

impl Redrive {
    async fn one(&self, at: &At) -> anyhow::Result<()> {
        if self.rate.is_some() || self.replace || !self.filter.is_empty() {
            bail!("--rate, --filter and --replace are for a whole queue");
        }
        let answer = at.change(format!("/.tidegate/requests/{}:redrive", self.what)).await?;
        if at.is_json() {
            return print_json(&answer);
        }
        println!("{}: back in its queue", plain(&self.what));
        Ok(())
    }

    async fn all(&self, at: &At) -> anyhow::Result<()> {
        let queue = at.find(&self.what).await?;
        let rate = self.rate.map(|rate| rate.to_string()).unwrap_or_default();
        let mut query = chosen(&queue, Part::Dead, &self.filter);
        query.push(("rate", &rate));
        if self.replace {
            query.push(("replace", "true"));
        }
        let answer = at.change(path("/queues/redrive", &query)).await?;
        if self.no_wait {
            if at.is_json() {
                return print_json(&answer);
            }
            println!("{}: being redriven, dead letters: {}", plain(&queue.name), queue.dead_letters);
            return Ok(());
        }
        let Redriving { redrive: begun } = read(&answer)?;
        let bar = export::bar(at, begun.of, "redriven");
        let (now, redrive) = loop {
            let mut now = at.find(&queue.spelled()).await?;
            let name = plain(&queue.name);
            let Some(redrive) = now.redrive.take() else {
                bail!("{name}: its proxy has been restarted, which ends a redrive: see tidegate dlq ls");
            };
            if redrive.number != begun.number {
                bail!("{name}: another redrive has taken the place of this one");
            }
            bar.set_position(redrive.redriven);
            if !redrive.under_way {
                break (now, redrive);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        };
        bar.finish_and_clear();
        let came = came(&redrive, !self.filter.is_empty());
        if let Some(why) = &redrive.failed {
            bail!("{}: {came}, then it ended: {}", plain(&queue.name), plain(why));
        }
        if at.is_json() {
            let done = serde_json::json!({
                "queue": queue.name,
                "matched": redrive.meant,
                "redriven": redrive.redriven,
                "deadLettersBefore": redrive.of,
                "deadLetters": now.dead_letters,
            });
            println!("{done}");
        } else {
            println!("{}: {came}", plain(&queue.name));
        }
        Ok(())
    }
}

/// How much came of a redrive.
fn came(redrive: &Redriven, filtered: bool) -> String {
    match (redrive.meant, filtered) {
        (0, true) => "no dead letter matches the filter".to_owned(),
        (0, false) => "there are no dead letters".to_owned(),
        // What died meanwhile may have come too.
        _ => format!(
            "{} of {} redriven",
            redrive.redriven,
            count(redrive.of.max(redrive.meant), "dead letter")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_of_the_queues_that_people_are() {
        let said = serde_json::json!({"pod": "web", "queues": [
            {"name": "a", "deadLetters": 0}, {"name": "b", "deadLetters": 2}, {"name": "c"}]});
        let left = with_dead_letters(said);
        assert_eq!(left["queues"], serde_json::json!([{"name": "b", "deadLetters": 2}]));
        assert_eq!(left["pod"], "web");
    }

    #[test]
    fn what_came_of_a_redrive_is_counted() {
        let of = |meant, redriven| {
            let (number, of, under_way, failed) = (1, 37, false, None);
            Redriven { number, of, meant, redriven, under_way, failed }
        };
        assert_eq!(came(&of(4, 3), true), "3 of 37 dead letters redriven");
        assert_eq!(came(&of(0, 0), true), "no dead letter matches the filter");
        assert_eq!(came(&of(0, 0), false), "there are no dead letters");
    }

    #[test]
    fn an_id_is_told_from_the_name_of_a_queue() {
        assert!(is_id("01900000-0001-7400-8000-00050a000007"));
        assert!(!is_id("shop/orders-async/orders.shop.svc:80"));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("NaN").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
    }
}
