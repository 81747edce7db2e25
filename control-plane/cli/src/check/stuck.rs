//! stuck: queues that do not drain, dead letters, and stores that are not open or take nothing in.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kube::Client;

use super::finding::Finding;
use crate::ask::AdminPort;
use crate::operate::{AT_ONCE, Named, Queues, Store};
use crate::pods::Sidecar;
use crate::print::{count, plain, span};

/// Sidecars that are asked for their queues, each over a connection of its own through the API server.
const ASKED_MAX: usize = 1000;
/// What a queue's `blocked` says when its dead letter is full.
const DEAD_LETTER_FULL: &str = "dead_letter_full";

/// Asks every sidecar that runs.
pub(super) async fn look(client: &Client, sidecars: &[Sidecar], stuck_after: Duration) -> Vec<Finding> {
    let running: Vec<&Sidecar> = sidecars.iter().filter(|sidecar| sidecar.is_running).collect();
    let asked = running
        .iter()
        .take(ASKED_MAX)
        .map(|sidecar| async move { (sidecar.named(), ask(&sidecar.port(client)).await) });
    let mut findings = Vec::new();
    let (mut with, mut heard) = (0, 0);
    let mut answers = stream::iter(asked).buffered(AT_ONCE);
    while let Some((pod, said)) = answers.next().await {
        match said {
            Ok(queues) => {
                heard += 1;
                with += usize::from(!queues.queues.is_empty());
                let whose = Whose { name: &pod, flag: "--pod" };
                findings.extend(judge(whose, &queues, stuck_after));
            }
            Err(error) => findings.push(Finding::unknown(format!("queues of {pod}"), format!("{error:#}"))),
        }
    }
    findings.push(Finding::ok("queues", format!("{with} of {} have any", count(heard, "sidecar"))));
    if running.len() > ASKED_MAX {
        let says = format!("{ASKED_MAX} of {} sidecars were asked", running.len());
        findings.push(Finding::unknown("queues", says));
    }
    findings
}

/// What is wrong with the queues of the proxy at an address; where nothing is, how many it has.
pub(super) async fn at(address: SocketAddr, stuck_after: Duration) -> Vec<Finding> {
    let name = address.to_string();
    match ask(&AdminPort::At(address)).await {
        Ok(queues) => {
            let findings = judge(Whose { name: &name, flag: "--proxy" }, &queues, stuck_after);
            if !findings.is_empty() {
                return findings;
            }
            let said = format!("{}, all well", count(queues.queues.len(), "queue"));
            vec![Finding::ok(format!("queues of {name}"), said)]
        }
        Err(error) => vec![Finding::unknown(format!("queues of {name}"), format!("{error:#}"))],
    }
}

async fn ask(port: &AdminPort) -> anyhow::Result<Queues> {
    Ok(serde_json::from_str(&port.text("/queues").await?)?)
}

/// Whose queues they are, and the flag that names it.
#[derive(Clone, Copy)]
struct Whose<'a> {
    name: &'a str,
    flag: &'static str,
}

/// What is wrong with the queues of one proxy.
fn judge(whose: Whose<'_>, queues: &Queues, stuck_after: Duration) -> Vec<Finding> {
    let pod = whose.name;
    let mut findings: Vec<Finding> = queues.stores.iter().flat_map(|store| store_of(pod, store)).collect();
    if let Some(why) = &queues.trouble {
        let said = format!("is not open, what is in it waits: {}", plain(why));
        let remedy = to_open(queues.trouble_condition.as_deref().unwrap_or_default());
        findings.push(Finding::failed(format!("store local of {pod}"), said, remedy));
    }
    for queue in &queues.queues {
        findings.extend(stuck(pod, queue, stuck_after));
        findings.extend(dead(whose, queue));
    }
    findings
}

/// What lets a directory be opened that is in this condition.
fn to_open(condition: &str) -> &'static str {
    match condition {
        "damaged" => "after a copy of its volume, start the proxy once with --queue-salvage",
        "in_use" => "one proxy has a directory: give each its own, or end the one that has it",
        "other_format" => "start the version that wrote it, and let it deliver what is in it",
        "other_owner" => "give this workload a volume of its own, or the other its own back",
        "volatile" => "give --queue-directory a volume of the pod",
        _ => "look at its volume and --queue-directory: is it there, writable, and not full?",
    }
}

fn store_of(pod: &str, store: &Store) -> Vec<Finding> {
    let object = format!("store {} of {pod}", plain(&store.durability));
    let remedy_full = "nothing is taken in until it drains: see its queues; tidegate queue purge makes room";
    let words = [
        (
            &store.poisoned,
            "cannot be trusted",
            "restart the container; messages that were answered 202 are kept",
        ),
        (&store.damaged, "is damaged", "start the proxy with --queue-salvage, after a copy of its volume"),
        (&store.full, "is full", remedy_full),
    ];
    let told = words.into_iter().filter_map(|(why, what, remedy)| Some((why.as_ref()?, what, remedy)));
    let mut findings: Vec<Finding> = told
        .map(|(why, what, remedy)| Finding::failed(&*object, format!("{what}: {}", plain(why)), remedy))
        .collect();
    if let Some(why) = &store.doubted {
        let says = format!("goes on with files whose disk had failed: {}", plain(why));
        let remedy = "make room on its volume and restart the container: what checks is copied then";
        findings.push(Finding::warning(object, says, remedy));
    }
    findings
}

/// A queue whose oldest message waits for long, and that has no prospect of draining.
fn stuck(pod: &str, queue: &Named, after: Duration) -> Option<Finding> {
    let object = || format!("queue {} of {pod}", plain(&queue.name));
    let waits = || {
        let oldest = queue.oldest_age_seconds.unwrap_or(0.0);
        format!("{} waiting, the oldest for {}", count(queue.depth, "message"), span(oldest))
    };
    if queue.blocked.as_deref() == Some(DEAD_LETTER_FULL) {
        let remedy = "tidegate dlq redrive, or export and purge --part dead: then it goes on";
        return Some(Finding::failed(object(), format!("its dead letter is full; {}", waits()), remedy));
    }
    let is_old = queue.oldest_age_seconds.is_some_and(|age| age > after.as_secs_f64());
    if queue.depth == 0 || !is_old {
        return None;
    }
    if let Some(by) = &queue.paused {
        let remedy = match by.as_str() {
            "policy" => "its AsyncPolicy says paused: true",
            _ => "tidegate queue resume",
        };
        let why = queue.waits_for().unwrap_or_default();
        return Some(Finding::warning(object(), format!("{why}; {}", waits()), remedy));
    }
    if queue.drain_estimate_seconds.is_some() || queue.is_at_its_pace() {
        return None;
    }
    let why = queue.waits_for().map(|why| format!("{why}; ")).unwrap_or_default();
    let remedy = "is its receiver there and ready? tidegate queue peek shows the last attempts";
    Some(Finding::failed(object(), format!("does not drain: {why}{}", waits()), remedy))
}

fn dead(whose: Whose<'_>, queue: &Named) -> Option<Finding> {
    if queue.dead_letters == 0 && queue.quarantined == 0 {
        return None;
    }
    let mut said = count(queue.dead_letters, "dead letter");
    if queue.quarantined > 0 {
        said = format!("{said}, {}", count(queue.quarantined, "damaged message"));
    }
    let Whose { name, flag } = whose;
    let object = format!("queue {} of {name}", plain(&queue.name));
    Some(Finding::warning(object, said, format!("tidegate dlq ls {flag} {name} QUEUE says why each died")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::Level;
    use super::*;

    const AFTER: Duration = Duration::from_secs(300);
    const WEB: Whose<'_> = Whose { name: "shop/web-0", flag: "--pod" };

    fn queue(change: impl FnOnce(&mut Value)) -> Named {
        let mut queue = json!({
            "name": "shop/orders/orders.shop:80", "policy": "shop/orders", "durability": "local",
            "depth": 7, "bytes": 70, "oldestAgeSeconds": 600.0, "inFlight": 0, "deadLetters": 0,
            "paused": null, "blocked": null, "arrivalsPerSecond": 1.0, "completionsPerSecond": 0.0,
            "drainEstimateSeconds": null,
        });
        change(&mut queue);
        serde_json::from_value(queue).unwrap()
    }

    fn stuck_says(change: impl FnOnce(&mut Value)) -> Option<(Level, String)> {
        stuck("shop/web-0", &queue(change), AFTER).map(|finding| (finding.level, finding.says))
    }

    #[test]
    fn a_queue_is_stuck_when_it_is_old_and_does_not_drain() {
        let waits = "7 messages waiting, the oldest for 10 min 0 s";
        let unavailable = stuck_says(|queue| queue["blocked"] = "unavailable: connection_refused".into());
        let said = format!("does not drain: unavailable: connection_refused; {waits}");
        assert_eq!(unavailable, Some((Level::Failed, said)));
        let paused = stuck_says(|queue| queue["paused"] = "operator".into());
        assert_eq!(paused, Some((Level::Warning, format!("paused by operator; {waits}"))));
        let full = stuck_says(|queue| {
            queue["blocked"] = DEAD_LETTER_FULL.into();
            queue["oldestAgeSeconds"] = 1.0.into();
        });
        assert_eq!(full.map(|(level, _)| level), Some(Level::Failed), "however young");
    }

    #[test]
    fn a_queue_that_drains_or_is_young_is_not_stuck() {
        assert_eq!(stuck_says(|queue| queue["drainEstimateSeconds"] = 90.0.into()), None);
        assert_eq!(stuck_says(|queue| queue["oldestAgeSeconds"] = 299.0.into()), None);
        assert_eq!(stuck_says(|queue| queue["depth"] = 0.into()), None);
    }

    #[test]
    fn dead_letters_and_stores_that_cannot_be_used_are_told() {
        let queues: Queues = serde_json::from_value(json!({
            "stores": [{"durability": "local", "bytes": 1, "bytesMax": 2, "poisoned": "a flush failed"}],
            "queues": [],
        }))
        .unwrap();
        let findings = judge(WEB, &queues, AFTER);
        assert_eq!(findings[0].says, "cannot be trusted: a flush failed");
        assert_eq!(findings[0].level, Level::Failed);
        let queues: Queues = serde_json::from_value(json!({
            "stores": [{"durability": "local", "bytes": 1, "bytesMax": 2, "doubted": "no room"}], "queues": [],
        }))
        .unwrap();
        let doubted = &judge(WEB, &queues, AFTER)[0];
        assert_eq!(doubted.level, Level::Warning);
        assert!(doubted.says.ends_with("had failed: no room"), "{}", doubted.says);
        let finding = dead(WEB, &queue(|queue| queue["deadLetters"] = 3.into())).unwrap();
        assert_eq!((finding.level, finding.says.as_str()), (Level::Warning, "3 dead letters"));
        assert_eq!(dead(WEB, &queue(|_| {})), None);
    }

    #[test]
    fn a_directory_that_is_not_open_and_a_full_store_fail_with_what_helps() {
        let said = |document: Value| {
            let queues: Queues = serde_json::from_value(document).unwrap();
            let finding = judge(WEB, &queues, AFTER).remove(0);
            assert_eq!(finding.level, Level::Failed, "{finding:?}");
            finding.sentence()
        };
        let closed = |condition: &str| {
            said(json!({"trouble": "why", "troubleCondition": condition, "stores": [], "queues": []}))
        };
        assert_eq!(
            closed("damaged"),
            "store local of shop/web-0 is not open, what is in it waits: why: after a copy of its volume, \
             start the proxy once with --queue-salvage"
        );
        assert!(closed("in_use").contains("give each its own"));
        assert!(closed("unusable").contains("is it there, writable"));
        let full = json!({"durability": "local", "bytes": 1, "bytesMax": 2, "full": "no room"});
        let full = said(json!({"stores": [full], "queues": []}));
        assert!(full.starts_with("store local of shop/web-0 is full: no room: "), "{full}");
    }
}
