//! look: queues and messages as they are, in the words of [`shown`](super::shown).

use std::time::{Duration, SystemTime};

use policy::limits;
use policy::queue::Durability;
use queue::{
    Attempt, Blocked, Exported, Filter, MessageId, Peeked, Queue, QueueView, Sample, Status, Timestamp,
};

use super::query::Query;
use super::shown::{Inside, Listed, Overview, Point, Redrive, Shown, Store, Tried};
use super::{BAD_QUERY, Operate, Problem, failed, part_of};
use crate::admit::answer::rfc3339;
use crate::admit::call::Call;
use crate::admit::problem;
use crate::policies::Word;

/// Pages read for one answer when a filter chooses few: then the answer says where to go on.
const PAGES_MAX: usize = 20;

/// The word of a class.
pub(super) fn word(durability: Durability) -> &'static str {
    match durability {
        Durability::Local => "local",
        Durability::Memory => "memory",
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Operate {
    /// Every queue.
    pub(super) async fn overview(&self) -> Result<Overview, Problem> {
        let (mut stores, mut queues) = (Vec::new(), Vec::new());
        for (durability, queue) in self.opened() {
            let condition = queue.condition();
            stores.push(Store {
                durability: word(durability),
                bytes: condition.bytes,
                bytes_max: condition.bytes_max,
                full: condition.full.as_deref().map(str::to_owned),
                damaged: condition.damaged.as_deref().map(str::to_owned),
                doubted: condition.doubted.as_deref().map(str::to_owned),
                poisoned: condition.poisoned.as_deref().map(str::to_owned),
            });
            let views = queue.queues().await.map_err(failed)?;
            queues.extend(views.iter().map(|view| listed(durability, view, self.word_on(&view.name))));
        }
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        let trouble = self.queues.trouble();
        Ok(Overview {
            pod: self.pod.clone(),
            identity: self.queues.owner().to_string(),
            trouble_condition: trouble.as_ref().map(|trouble| trouble.condition),
            trouble: trouble.map(|trouble| trouble.why),
            stores,
            queues,
        })
    }

    /// One message, with what may be told of its call.
    pub(super) async fn message(&self, query: &Query) -> Result<Shown, Problem> {
        let id = query.id.as_deref();
        let id = id.ok_or_else(|| Problem::new(BAD_QUERY, "id= is needed"))?;
        let id: MessageId = id
            .parse()
            .map_err(|_| Problem::new(BAD_QUERY, format!("id={id:?} is not the id of a message")))?;
        let unknown = || Problem::new(problem::UNKNOWN, format!("no message {id} is known here"));
        let queue = self.queues.keeping(id)?.ok_or_else(unknown)?;
        let status = queue.status(id).await.map_err(failed)?.ok_or_else(unknown)?;
        let page = queue.export(&status.queue, part_of(status.state), before(id), 1).await;
        let found =
            page.ok().and_then(|page| page.items.into_iter().find(|item| item.peeked.status.id == id));
        // One that has ended otherwise has nothing left but its status.
        Ok(found.map_or_else(|| ended(&status), |exported| whole(&exported)))
    }
}

fn listed(durability: Durability, view: &QueueView, says: Word) -> Listed {
    // `NAMESPACE/POLICY/DESTINATION`; neither of the first two has a slash.
    let policy = view.name.match_indices('/').nth(1).map_or(view.name.len(), |(at, _)| at);
    let by_policy = view.blocked == Some(Blocked::PausedByPolicy);
    let paused = match (by_policy, says) {
        (true, Word::Gone) => Some("policy-gone"),
        (true, _) => Some("policy"),
        (false, _) => view.paused.then_some("operator"),
    };
    let finite = |number: f64| number.is_finite().then_some(number);
    Listed {
        policy: view.name[..policy].to_owned(),
        destination: view.name.get(policy + 1..).unwrap_or_default().to_owned(),
        name: view.name.clone(),
        durability: word(durability),
        depth: view.messages,
        messages_max: view.messages_max,
        bytes: view.bytes,
        bytes_max: view.bytes_max,
        oldest_age_seconds: (view.messages > 0).then_some(view.oldest_age.as_secs_f64()),
        in_flight: view.in_flight,
        scheduled: view.scheduled,
        retrying: view.retrying,
        dead_letters: view.dead,
        dead_letter_bytes: view.dead_bytes,
        quarantined: view.quarantined,
        paused,
        blocked: view.blocked.map(blocked),
        redriving: view.redrive.as_ref().is_some_and(|redrive| redrive.under_way),
        redrive: view.redrive.as_ref().map(redrive),
        arrivals_per_second: view.arrivals,
        completions_per_second: view.served,
        utilisation: finite(view.utilisation),
        drain_estimate_seconds: finite(view.drain_seconds),
        history: view.history.iter().map(point).collect(),
    }
}

pub(super) fn redrive(redrive: &queue::Redrive) -> Redrive {
    Redrive {
        number: redrive.number,
        of: redrive.of,
        meant: redrive.meant,
        redriven: redrive.redriven,
        under_way: redrive.under_way,
        failed: redrive.failed.as_deref().map(str::to_owned),
    }
}

fn blocked(blocked: Blocked) -> String {
    match blocked {
        Blocked::Unavailable(token) => format!("{}: {token}", blocked.as_str()),
        blocked => blocked.as_str().to_owned(),
    }
}

fn point(sample: &Sample) -> Point {
    Point {
        at: rfc3339(sample.at),
        depth: sample.messages,
        oldest_age_seconds: sample.oldest_age.as_secs_f64(),
        arrivals_per_second: sample.arrivals,
        completions_per_second: sample.served,
    }
}

/// Whether a filter means a message.
pub(super) fn means(filter: &Filter, peeked: &Peeked) -> bool {
    let (status, at) = (&peeked.status, peeked.status.enqueued_at);
    let last = status.attempts.last().and_then(|attempt| attempt.status);
    filter.reason.is_none_or(|reason| status.reason == Some(reason))
        && filter.key.as_ref().is_none_or(|key| peeked.key.as_ref() == Some(key))
        && filter.status.is_none_or(|wanted| last == Some(wanted))
        && filter.before.is_none_or(|before| at < before)
        && filter.since.is_none_or(|since| at >= since)
}

/// Messages of a queue that are meant, and where the next page begins.
pub(super) async fn messages(
    queue: &Queue,
    name: &str,
    query: &Query,
) -> Result<(Vec<Shown>, Option<u64>), Problem> {
    let (found, next) = choose(queue, name, query, query.limit).await?;
    Ok((found.iter().map(shown).collect(), next))
}

/// The same as they come, at most `limit`.
pub(super) async fn choose(
    queue: &Queue,
    name: &str,
    query: &Query,
    limit: usize,
) -> Result<(Vec<Peeked>, Option<u64>), Problem> {
    let all = query.filter == Filter::default();
    let (mut found, mut after) = (Vec::new(), query.after);
    for _ in 0..PAGES_MAX {
        let size = if all { limit - found.len() } else { limits::PEEK_MAX };
        let page = queue.peek(name, query.part, after, size).await.map_err(failed)?;
        for peeked in page.items {
            let position = peeked.status.id.position().0;
            if means(&query.filter, &peeked) {
                found.push(peeked);
            }
            if found.len() >= limit {
                return Ok((found, Some(position)));
            }
        }
        if page.next.is_none() {
            return Ok((found, None));
        }
        after = page.next;
    }
    Ok((found, after))
}

fn age(at: Timestamp) -> f64 {
    Duration::from_millis(now().0.saturating_sub(at.0)).as_secs_f64()
}

fn tried(attempt: &Attempt) -> Tried {
    Tried {
        at: rfc3339(attempt.at),
        status: attempt.status,
        grpc: attempt.grpc,
        error: attempt.error.clone(),
        duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A message without its call.
pub(super) fn shown(peeked: &Peeked) -> Shown {
    Shown {
        about: peeked.about.clone(),
        key: peeked.key.clone(),
        priority: Some(peeked.priority),
        bytes: Some(peeked.bytes),
        expires_at: peeked.expires_at.map(rfc3339),
        ..ended(&peeked.status)
    }
}

/// What is known of one whose call is gone.
fn ended(status: &Status) -> Shown {
    Shown {
        id: status.id.to_string(),
        state: status.state.as_str(),
        reason: status.reason.map(|reason| reason.as_str()),
        queue: status.queue.clone(),
        durability: status.durability.as_str(),
        enqueued_at: rfc3339(status.enqueued_at),
        age_seconds: age(status.enqueued_at),
        attempts: status.attempts.iter().map(tried).collect(),
        attempts_used: status.attempts_used,
        next_attempt_at: status.next_attempt_at.map(rfc3339),
        ended_at: status.ended_at.map(rfc3339),
        expires_at: None,
        about: String::new(),
        key: None,
        priority: None,
        bytes: None,
        call: None,
    }
}

fn whole(exported: &Exported) -> Shown {
    let call = Call::decode(exported.call.clone()).ok().map(|call| Inside {
        headers: call.shown().map(|(name, _)| name.to_owned()).collect(),
        credentials: call.has_credentials(),
        body_bytes: exported.body.len() as u64,
        authority: call.authority,
    });
    Shown { call, ..shown(&exported.peeked) }
}

/// Where a page begins that begins with this message.
pub(super) fn before(id: MessageId) -> Option<u64> {
    id.position().0.checked_sub(1)
}
