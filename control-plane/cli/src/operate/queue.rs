//! queue: `tidegate queue`, the messages that wait and how fast they go.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};

use super::choose::Which as Asked;
use super::documents::{Messages, Named, Purged, Queues};
use super::everywhere::Everywhere;
use super::filter::{Filter, Part};
use super::{At, export, message, path, print_json, read};
use crate::print::{BAD, FAINT, bytes, count, paint, plain, show, span, table};

/// Looks at the queues of one proxy, and stops, empties or copies them.
#[derive(Debug, Args)]
#[command(after_help = "\
A queue's name is NAMESPACE/POLICY/DESTINATION, as `queue ls` prints it; NAMESPACE/POLICY does where
the policy has one queue. It has more with several destinations, and with callbacks or a sink for dead
letters: NAMESPACE/POLICY/callbacks, NAMESPACE/POLICY/dead-letter-sink. After a change of durability two
queues may have one name: NAME@local is the one on disk, NAME@memory the one in memory.
Every command speaks to one proxy: the one beside the callers.

Examples:
  tidegate queue ls                                        depth, age, rates, why nothing goes
  tidegate queue peek shop/orders-async                    the first messages that wait
  tidegate queue peek shop/orders-async --filter since=15m --limit 100 -o json
  tidegate queue pause shop/orders-async                   accepts on, delivers nothing
  tidegate queue resume shop/orders-async
  tidegate queue export shop/orders-async --to waiting.ndjson
  tidegate queue purge shop/orders-async --filter key=customer-7
  tidegate queue ls --pod shop/web-0                       a pod's, through the API server
  tidegate queue ls --all-pods                             every pod's; -n shop: of one namespace")]
pub(crate) struct Queue {
    #[command(flatten)]
    which: Asked,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The queues: how much waits, how old it is, how fast it comes and goes.
    Ls(Ls),
    /// Messages of a queue in the order of acceptance, without their bodies.
    Peek(Peek),
    /// Deliver nothing of a queue from now on. It is still filled; attempts under way end.
    Pause(Which),
    /// Deliver it again.
    Resume(Which),
    /// Throw messages away for good: no attempt, no dead letter.
    Purge(Purge),
    /// Copy messages with their bodies as NDJSON, a line each; they stay where they are.
    Export(Export),
}

#[derive(Debug, Args)]
struct Ls {
    /// Those of every pod with a sidecar, of the namespace given or of the whole mesh. Exits 1 when some
    /// did not answer, with what the others said, or when the directory of one is not open.
    #[arg(short = 'A', long)]
    all_pods: bool,
}

#[derive(Debug, Args)]
struct Which {
    /// The queue.
    queue: String,
}

#[derive(Debug, Args)]
struct Peek {
    /// The queue.
    queue: String,
    #[command(flatten)]
    filter: Filter,
    /// Which of its messages.
    #[arg(long, value_enum, default_value_t = Part::Waiting)]
    part: Part,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where the page before ended.
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
}

#[derive(Debug, Args)]
struct Purge {
    /// The queue.
    queue: String,
    #[command(flatten)]
    filter: Filter,
    /// Which of its messages.
    #[arg(long, value_enum, default_value_t = Part::Waiting)]
    part: Part,
    /// Do not ask first.
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Export {
    /// The queue.
    queue: String,
    #[command(flatten)]
    filter: Filter,
    /// Which of its messages.
    #[arg(long, value_enum, default_value_t = Part::Waiting)]
    part: Part,
    /// A new file instead of standard output.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Queue {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if let Command::Ls(Ls { all_pods: true }) = self.command {
            return ls_everywhere(&self.which).await;
        }
        let at = &self.which.one().await?;
        match self.command {
            Command::Ls(_) => return ls(at).await,
            Command::Peek(peek) => {
                let after = peek.after.map(|after| after.to_string()).unwrap_or_default();
                let page = Page { part: peek.part, filter: &peek.filter, limit: peek.limit, after: &after };
                list(at, &peek.queue, &page).await?;
            }
            Command::Pause(which) => pause(at, &which.queue, true).await?,
            Command::Resume(which) => pause(at, &which.queue, false).await?,
            Command::Purge(purge) => purge.run(at).await?,
            Command::Export(export) => {
                let queue = at.find(&export.queue).await?;
                export::run(at, &queue, export.part, &export.filter, export.to).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn ls(at: &At) -> anyhow::Result<ExitCode> {
    let (queues, answer) = at.queues().await?;
    let end = ended(&queues);
    if at.is_json() {
        print_json(&answer)?;
        return Ok(end);
    }
    if !queues.queues.is_empty() {
        let mut rows = table(&COLUMNS);
        for queue in &queues.queues {
            rows.add_row(row(queue));
        }
        show(&rows);
    } else if queues.trouble.is_none() {
        println!("no queues: no request was taken in yet");
    }
    stores(&queues);
    Ok(end)
}

/// Of a directory that is not open nobody knows what waits in it.
pub(super) fn ended(queues: &Queues) -> ExitCode {
    if queues.trouble.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn ls_everywhere(which: &Asked) -> anyhow::Result<ExitCode> {
    let everywhere = Everywhere::ask(which).await?;
    if which.is_json() {
        everywhere.print_json()?;
        return Ok(everywhere.end());
    }
    let mut rows = table(&[&["pod"], &COLUMNS[..]].concat());
    for (pod, queues) in &everywhere.pods {
        for queue in &queues.queues {
            rows.add_row(std::iter::once(plain(pod)).chain(row(queue)));
        }
    }
    let with = everywhere.pods.iter().filter(|(_, queues)| !queues.queues.is_empty()).count();
    if with > 0 {
        show(&rows);
    }
    let asked = count(everywhere.pods.len(), "pod");
    println!("{}", paint(FAINT, &format!("{with} of {asked} have queues")));
    for (pod, queues) in &everywhere.pods {
        for said in troubles(queues) {
            println!("{}", paint(BAD, &format!("{}: {said}", plain(pod))));
        }
    }
    Ok(everywhere.end())
}

const COLUMNS: [&str; 11] =
    ["queue", "kept", "depth", "size", "oldest", "in flight", "dead", "in/s", "out/s", "empty in", "state"];

fn row(queue: &Named) -> [String; 11] {
    let dead = queue.dead_letters.to_string();
    let drains = match queue.drain_estimate_seconds {
        _ if queue.depth == 0 => "-".to_owned(),
        Some(seconds) => span(seconds),
        None => "never at this rate".to_owned(),
    };
    let state = match queue.waits_for() {
        Some(why) if queue.is_at_its_pace() => why,
        Some(why) => paint(BAD, &why),
        None => "ok".to_owned(),
    };
    let state = match queue.quarantined {
        0 => state,
        damaged => format!("{state}, {}", paint(BAD, &format!("{damaged} damaged"))),
    };
    [
        plain(&queue.name),
        plain(&queue.durability),
        queue.depth.to_string(),
        bytes(queue.bytes),
        queue.oldest_age_seconds.map_or_else(|| "-".to_owned(), span),
        queue.in_flight.to_string(),
        if queue.dead_letters > 0 { paint(BAD, &dead) } else { dead },
        format!("{:.1}", queue.arrivals_per_second),
        format!("{:.1}", queue.completions_per_second),
        drains,
        state,
    ]
}

fn stores(queues: &Queues) {
    for store in &queues.stores {
        let said =
            format!("{}: {} of {}", plain(&store.durability), bytes(store.bytes), bytes(store.bytes_max));
        println!("{}", paint(FAINT, &said));
    }
    for said in troubles(queues) {
        println!("{}", paint(BAD, &said));
    }
}

/// What is wrong with the places where messages lie.
fn troubles(queues: &Queues) -> Vec<String> {
    let mut troubles = Vec::new();
    for store in &queues.stores {
        let words = [
            ("the store is full, nothing is taken in", &store.full),
            ("the store is damaged; start the proxy with --queue-salvage", &store.damaged),
            ("the store's disk had failed; make room and restart the proxy", &store.doubted),
            ("the store cannot be trusted; restart the proxy", &store.poisoned),
        ];
        let said = words.into_iter().filter_map(|(what, why)| Some((what, why.as_ref()?)));
        troubles
            .extend(said.map(|(what, why)| format!("{}: {what}: {}", plain(&store.durability), plain(why))));
    }
    let closed = |why: &String| format!("the queue's directory is not open: {}", plain(why));
    troubles.extend(queues.trouble.as_ref().map(closed));
    troubles
}

/// Which messages are listed.
pub(super) struct Page<'a> {
    pub(super) part: Part,
    pub(super) filter: &'a Filter,
    pub(super) limit: u32,
    pub(super) after: &'a str,
}

/// Prints a page of a queue's messages.
pub(super) async fn list(at: &At, queue: &str, page: &Page<'_>) -> anyhow::Result<()> {
    let queue = at.find(queue).await?;
    let limit = page.limit.to_string();
    let mut query = chosen(&queue, page.part, page.filter);
    query.extend([("limit", limit.as_str()), ("after", page.after)]);
    let answer = at.get(path("/queues/messages", &query)).await?;
    if at.is_json() {
        return print_json(&answer);
    }
    let listed: Messages = read(&answer)?;
    message::list(&listed.messages);
    if let Some(next) = listed.next {
        println!("{}", paint(FAINT, &format!("there may be more: --after {next}")));
    }
    Ok(())
}

/// The query that chooses messages.
pub(super) fn chosen<'a>(queue: &'a Named, part: Part, filter: &'a Filter) -> Vec<(&'a str, &'a str)> {
    let queue =
        [("queue", queue.name.as_str()), ("durability", queue.durability.as_str()), ("part", part.as_str())];
    queue.into_iter().chain(filter.query()).collect()
}

async fn pause(at: &At, queue: &str, paused: bool) -> anyhow::Result<()> {
    let queue = at.find(queue).await?;
    let resource = if paused { "/queues/pause" } else { "/queues/resume" };
    let query = [("queue", queue.name.as_str()), ("durability", queue.durability.as_str())];
    let answer = at.change(path(resource, &query)).await?;
    if at.is_json() {
        return print_json(&answer);
    }
    let said = if paused { "paused: it is filled and not delivered" } else { "resumed" };
    println!("{}: {said}; waiting: {}", plain(&queue.name), count(queue.depth, "message"));
    if !paused && queue.paused.as_deref() == Some("policy") {
        println!("its policy still says paused: true");
    }
    Ok(())
}

impl Purge {
    async fn run(&self, at: &At) -> anyhow::Result<()> {
        let queue = at.find(&self.queue).await?;
        let (number, kind) = match self.part {
            Part::Waiting => (queue.depth, "waiting"),
            Part::Dead => (queue.dead_letters, "dead"),
            Part::Quarantined => (queue.quarantined, "damaged"),
        };
        let of = if self.filter.is_empty() { "all" } else { "those chosen of" };
        let what = format!("{of} {number} {kind} messages of {}", plain(&queue.name));
        if !self.yes {
            confirm(&what)?;
        }
        let query = chosen(&queue, self.part, &self.filter);
        let bar = export::spinner(at, "purging");
        let done = at.change(path("/queues/purge", &query)).await;
        bar.finish_and_clear();
        let Purged { purged } = read(&done?)?;
        if at.is_json() {
            println!("{}", serde_json::json!({ "queue": queue.name, "purged": purged }));
        } else if purged == 0 && !self.filter.is_empty() {
            println!("{}: no message matches the filter", plain(&queue.name));
        } else {
            println!("{}: {} purged", plain(&queue.name), count(purged, "message"));
        }
        Ok(())
    }
}

/// Asks whoever sits at the terminal.
fn confirm(what: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    ensure!(stdin.is_terminal(), "this would throw away {what}: say --yes where nobody can be asked");
    eprint!("Throw away {what}? They are neither delivered nor kept. Type yes: ");
    std::io::stderr().flush().context("cannot ask")?;
    let mut said = String::new();
    stdin.lock().read_line(&mut said).context("cannot read the answer")?;
    ensure!(matches!(said.trim(), "yes" | "y"), "nothing was thrown away");
    Ok(())
}
