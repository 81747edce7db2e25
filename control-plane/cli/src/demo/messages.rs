//! messages: sent while their receiver is away, kept through a kill, delivered when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pods::{MAIL, MAIL_HOST, WEB};
use super::processes::Processes;
use super::story::Story;
use super::traffic::connect;
use super::{QUEUE, start_sidecar, start_workload};
use crate::ask;
use crate::figures::Figures;
use crate::workload::{Counts, REQUEST_ID};

/// How many are sent. The policy lets a hundred a second go, so that they take two seconds to leave.
const MESSAGES: u64 = 200;
/// Their ordering keys. What has one key is sent one after another, the keys at once.
pub(crate) const KEYS: u64 = 4;
/// How long all of one key may take to be accepted: each waits for a flush of the disk.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the queue may take to drain: twice what the policy's rate makes of it, and the backoff.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// The pause between two looks that are told.
const TELL_PAUSE: Duration = Duration::from_millis(400);

/// The ordering key of a message.
pub(crate) fn key(id: u64) -> u64 {
    id % KEYS
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// How many were sent.
    pub(crate) sent: u64,
    /// The ids that were answered 202 with durability `local`.
    pub(crate) accepted: BTreeSet<u64>,
    /// Other answers, by what they were.
    pub(crate) refused: BTreeMap<String, u64>,
    /// How many waited when web's sidecar was killed.
    pub(crate) waiting_at_kill: u64,
    /// How many were not delivered in time.
    pub(crate) left: u64,
    /// How many are dead letters.
    pub(crate) dead: u64,
    /// What their receiver says that arrived.
    pub(crate) received: Counts,
}

/// What web's sidecar says of its queues.
struct Waiting {
    depth: f64,
    oldest_seconds: f64,
    drain_seconds: f64,
    dead: f64,
}

impl Waiting {
    async fn look() -> anyhow::Result<Self> {
        let web = Figures::read(&ask::text(WEB.admin(), "/metrics").await?);
        let sum = |name| web.of(name).fold(0.0, |sum, sample| sum + sample.value);
        Ok(Self {
            depth: sum("tidegate_queue_messages"),
            oldest_seconds: sum("tidegate_queue_oldest_message_age_seconds"),
            drain_seconds: sum("tidegate_queue_drain_estimate_seconds"),
            dead: sum("tidegate_queue_dead_letter_messages"),
        })
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth == 0.0 {
            return f.write_str("no message waits");
        }
        // The queue's index keeps whole seconds: an age is up to one too high.
        write!(f, "{} messages wait, the oldest for {:.1} s at most", self.depth, self.oldest_seconds)?;
        if self.drain_seconds.is_finite() {
            write!(f, ", to be drained in {:.1} s", self.drain_seconds)?;
        }
        Ok(())
    }
}

/// Stop the receiver, send, kill and restart the sender's sidecar, start the receiver, wait for the
/// end. With `lose`, the queue's directory is removed while the sidecar is down.
pub(crate) async fn walk(processes: &mut Processes, story: &Story, lose: bool) -> anyhow::Result<Messages> {
    processes.stop(&MAIL.workload()).await?;
    story.step(MAIL.name, "application stopped: nobody takes what is sent to it");
    let mut messages = send().await?;
    let (accepted, sent) = (messages.accepted.len(), messages.sent);
    story.step(
        "messages",
        &format!("{accepted} of {sent} answered 202, Tidegate-Durability: local, with {KEYS} keys"),
    );
    let directory = processes.path(QUEUE);
    let said = format!("kept in {}: a demo's directory may be volatile (tmpfs)", directory.display());
    story.step("messages", &said);
    let before = Waiting::look().await?;
    story.step("queue", &before.to_string());

    processes.kill(&WEB.sidecar()).await?;
    story.step(WEB.name, "sidecar killed (SIGKILL)");
    if lose {
        std::fs::remove_dir_all(&directory).context("cannot remove the queue's directory")?;
        story.step(WEB.name, "its queue's directory removed");
    }
    start_sidecar(processes, WEB, WEB.account)?;
    processes.ready(&WEB.sidecar(), WEB.admin(), "/ready").await?;
    story.step(WEB.name, "sidecar started again");
    story.step("queue", &Waiting::look().await?.to_string());

    start_workload(processes, MAIL)?;
    processes.ready(&MAIL.workload(), MAIL.application(), "/counts").await?;
    story.step(MAIL.name, "application started again; its AsyncPolicy lets 100 a second go");
    let after = drained(story).await?;
    messages.received = serde_json::from_str(&ask::text(MAIL.application(), "/counts").await?)?;
    messages.waiting_at_kill = whole(before.depth);
    (messages.left, messages.dead) = (whole(after.depth), whole(after.dead));
    Ok(messages)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "gauges of messages are whole and not negative"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Looks until nothing waits, or the time for that is over.
async fn drained(story: &Story) -> anyhow::Result<Waiting> {
    let begun = Instant::now();
    let mut tell = begun + TELL_PAUSE;
    loop {
        let waiting = Waiting::look().await?;
        let now = Instant::now();
        if waiting.depth == 0.0 || now > begun + DRAIN_TIMEOUT {
            let seconds = (now - begun).as_secs_f64();
            story.step("queue", &format!("{waiting}, {seconds:.1} s after its receiver is back"));
            return Ok(waiting);
        }
        if now >= tell {
            story.step("queue", &waiting.to_string());
            tell = now + TELL_PAUSE;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Sends all.
async fn send() -> anyhow::Result<Messages> {
    let mut clients = JoinSet::new();
    for key in 0..KEYS {
        clients.spawn(tokio::time::timeout(SEND_TIMEOUT, send_of(key)));
    }
    let mut messages = Messages { sent: MESSAGES, ..Messages::default() };
    while let Some(client) = clients.join_next().await {
        let answers = client.context("a client broke")?;
        let seconds = SEND_TIMEOUT.as_secs();
        let answers = answers.with_context(|| format!("messages were not accepted within {seconds} s"))??;
        for (id, answer) in answers {
            if answer == format!("{} local", StatusCode::ACCEPTED.as_u16()) {
                messages.accepted.insert(id);
            } else {
                *messages.refused.entry(answer).or_default() += 1;
            }
        }
    }
    Ok(messages)
}

/// Sends those of one key, one after another on one connection; each with its status and durability.
async fn send_of(of: u64) -> anyhow::Result<Vec<(u64, String)>> {
    let mut sender = connect(WEB.outbound()).await.context("web's sidecar takes no connection")?;
    let mut answers = Vec::new();
    for id in (0..MESSAGES).filter(|id| key(*id) == of) {
        let request = Request::post(format!("/mail/{id}"))
            .header(header::HOST, MAIL_HOST)
            .header("prefer", "respond-async")
            .header("tidegate-key", of)
            .header(REQUEST_ID, id)
            .body(Full::new(Bytes::from(format!("{{\"mail\":{id}}}"))))?;
        sender.ready().await.context("web's sidecar closed the connection")?;
        let (parts, body) = sender.send_request(request).await.context("no answer")?.into_parts();
        body.collect().await.context("the answer broke off")?;
        let durability = parts.headers.get("tidegate-durability").and_then(|value| value.to_str().ok());
        answers.push((id, format!("{} {}", parts.status.as_u16(), durability.unwrap_or("not kept"))));
    }
    Ok(answers)
}
