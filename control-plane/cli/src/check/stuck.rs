//! stuck: queues that do not drain, dead letters, and stores that take nothing in.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kube::Client;

use super::finding::Finding;
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
    let asked = running.iter().take(ASKED_MAX).map(|sidecar| async move {
        let said = sidecar.port(client).text("/queues").await;
        (sidecar.named(), said.and_then(|text| Ok(serde_json::from_str::<Queues>(&text)?)))
    });
    let mut findings = Vec::new();
    let (mut with, mut heard) = (0, 0);
    let mut answers = stream::iter(asked).buffered(AT_ONCE);
    while let Some((pod, said)) = answers.next().await {
        match said {
            Ok(queues) => {
                heard += 1;
                with += usize::from(!queues.queues.is_empty());
                findings.extend(judge(&pod, &queues, stuck_after));
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

/// What is wrong with the queues of one pod.
fn judge(pod: &str, queues: &Queues, stuck_after: Duration) -> Vec<Finding> {
    let mut findings: Vec<Finding> = queues.stores.iter().flat_map(|store| store_of(pod, store)).collect();
    if let Some(why) = &queues.trouble {
        let remedy = "its volume: is it full, read-only, or on a network file system?";
        let said = format!("its directory is not open: {}", plain(why));
        findings.push(Finding::failed(format!("store of {pod}"), said, remedy));
    }
    for queue in &queues.queues {
        findings.extend(stuck(pod, queue, stuck_after));
        findings.extend(dead(pod, queue));
    }
    findings
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
        return Some(Finding::warning(object(), format!("paused by {}; {}", plain(by), waits()), remedy));
    }
    if queue.drain_estimate_seconds.is_some() {
        return None;
    }
    let why = queue.blocked.as_ref().map(|why| format!("{}; ", plain(why))).unwrap_or_default();
    let remedy = "is its receiver there and ready? tidegate queue peek shows the last attempts";
    Some(Finding::failed(object(), format!("does not drain: {why}{}", waits()), remedy))
}

fn dead(pod: &str, queue: &Named) -> Option<Finding> {
    if queue.dead_letters == 0 && queue.quarantined == 0 {
        return None;
    }
    let mut said = count(queue.dead_letters, "dead letter");
    if queue.quarantined > 0 {
        said = format!("{said}, {}", count(queue.quarantined, "damaged message"));
    }
    let object = format!("queue {} of {pod}", plain(&queue.name));
    Some(Finding::warning(object, said, format!("tidegate dlq ls --pod {pod} QUEUE says why each died")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::Level;
    use super::*;

    const AFTER: Duration = Duration::from_secs(300);

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
        let findings = judge("shop/web-0", &queues, AFTER);
        assert_eq!(findings[0].says, "cannot be trusted: a flush failed");
        assert_eq!(findings[0].level, Level::Failed);
        let queues: Queues = serde_json::from_value(json!({
            "stores": [{"durability": "local", "bytes": 1, "bytesMax": 2, "doubted": "no room"}], "queues": [],
        }))
        .unwrap();
        let doubted = &judge("shop/web-0", &queues, AFTER)[0];
        assert_eq!(doubted.level, Level::Warning);
        assert!(doubted.says.ends_with("had failed: no room"), "{}", doubted.says);
        let finding = dead("shop/web-0", &queue(|queue| queue["deadLetters"] = 3.into())).unwrap();
        assert_eq!((finding.level, finding.says.as_str()), (Level::Warning, "3 dead letters"));
        assert_eq!(dead("shop/web-0", &queue(|_| {})), None);
    }
}
