//! verdict: what the evidence proves, a sentence each.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;

use super::evidence::Evidence;
use super::messages::{KEYS, Messages, key};
use super::pods::{ORDERS_1, ORDERS_2, PODS, PRICES, Pod, RECEIVERS, WEB};
use super::traffic::Plan;

/// One thing that was to be shown: the sentence that says it was, or the one that says what was not.
pub(crate) type Verdict = Result<String, String>;

/// Judges.
pub(crate) fn verdicts(evidence: &Evidence) -> Vec<Verdict> {
    let mut verdicts = vec![answered(evidence), once(evidence), identities(evidence), clients(evidence)];
    verdicts.push(plaintext(evidence));
    verdicts.push(used(evidence));
    verdicts.push(routed(evidence));
    verdicts.extend(restarted(evidence));
    if let Some(messages) = &evidence.messages {
        verdicts.extend([accepted(messages), arrived(messages)]);
        verdicts.extend(in_order(messages));
        verdicts.push(drained(messages));
    }
    verdicts
}

/// `a`, `a and b`, `a, b and c`.
fn list(items: &[String]) -> String {
    match items {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// By what web's sidecar counts; its client must have seen the same.
fn answered(evidence: &Evidence) -> Verdict {
    let (requests, counted, seen) = (evidence.requests, &evidence.responses, &evidence.sent.classes);
    let spell = |counts: &BTreeMap<String, u64>| -> Vec<String> {
        counts.iter().map(|(what, number)| format!("{number} × {what}")).collect()
    };
    if counted != seen {
        let (counted, seen) = (list(&spell(counted)), list(&spell(seen)));
        return Err(format!("web's sidecar counted {counted} as answers, its client saw {seen}"));
    }
    let answered = counted.get("2xx").copied().unwrap_or(0);
    if answered == requests && evidence.sent.unanswered.is_empty() {
        return Ok(format!("all {requests} requests were answered 2xx: web's sidecar and its client agree"));
    }
    let mut others = counted.clone();
    others.remove("2xx");
    let others = [spell(&others), spell(&evidence.sent.unanswered)].concat();
    Err(format!("{} of {requests} requests failed: {}", requests.saturating_sub(answered), list(&others)))
}

/// Every id was received; a POST once in all, whoever received it.
fn once(evidence: &Evidence) -> Verdict {
    let mut posts: BTreeMap<u64, u32> = BTreeMap::new();
    let mut others: BTreeSet<u64> = BTreeSet::new();
    for receiver in evidence.receivers.values() {
        for (id, number) in &receiver.counts.posts {
            *posts.entry(*id).or_default() += number;
        }
        others.extend(receiver.counts.others.keys());
    }
    if let Some((id, number)) = posts.iter().find(|(_, number)| **number > 1) {
        return Err(format!("POST {id} was received {number} times"));
    }
    let is_post = |id: &u64| Plan::method(*id) == Method::POST;
    let lost = (0..evidence.requests).filter(|id| !posts.contains_key(id) && !others.contains(id)).count();
    if lost > 0 {
        return Err(format!("{lost} of {} requests reached no application", evidence.requests));
    }
    let sent = (0..evidence.requests).filter(is_post).count();
    Ok(format!("each of the {sent} POSTs was received exactly once, every GET at least once"))
}

/// Each sidecar's certificate names its pod's own service account.
fn identities(evidence: &Evidence) -> Verdict {
    for pod in PODS {
        let expected = pod.identity();
        match evidence.identities.get(pod.name) {
            Some(found) if *found == expected => {}
            Some(found) => {
                let web =
                    if reached(evidence, pod) { "spoke to it all the same" } else { "would not speak to it" };
                return Err(format!(
                    "wrong identity: the sidecar of {} proves {found} instead of {expected}; web's sidecar {web}",
                    pod.name,
                ));
            }
            None => return Err(format!("the sidecar of {} is not connected to the controller", pod.name)),
        }
    }
    Ok("every sidecar proves the identity of its pod's service account".to_owned())
}

fn reached(evidence: &Evidence, pod: Pod) -> bool {
    evidence.receivers.get(pod.name).is_some_and(|receiver| receiver.attempts("success") > 0)
}

/// Receivers saw web's identity and no other.
fn clients(evidence: &Evidence) -> Verdict {
    let web = WEB.identity();
    for pod in RECEIVERS {
        let Some(receiver) = evidence.receivers.get(pod.name) else { continue };
        let proven = receiver.peers.keys().map(|(client, _)| client).find(|client| **client != web);
        let told = receiver.counts.clients.keys().find(|client| **client != WEB.client_id());
        if let Some(other) = proven.or(told) {
            let other = if other.is_empty() { "nobody" } else { other };
            return Err(format!("wrong identity: {} was asked by {other}, not by {web}", pod.name));
        }
    }
    Ok(format!("receivers were asked by {web} alone, and their applications told so"))
}

fn plaintext(evidence: &Evidence) -> Verdict {
    let peers = || evidence.receivers.values().flat_map(|receiver| &receiver.peers);
    let sum = |over_tls: bool| -> u64 {
        peers().filter(|((_, tls), _)| *tls == over_tls).map(|(_, number)| number).sum()
    };
    match (sum(true), sum(false)) {
        (0, 0) => Err("no receiver's sidecar counted a request".to_owned()),
        (tls, 0) => Ok(format!("{tls} requests between sidecars over TLS, 0 in plaintext")),
        (_, plain) => Err(format!("{plain} requests between sidecars were in plaintext")),
    }
}

fn used(evidence: &Evidence) -> Verdict {
    let mut shares = Vec::new();
    for pod in [ORDERS_1, ORDERS_2] {
        let Some(receiver) = evidence.receivers.get(pod.name) else { continue };
        let (succeeded, received) = (receiver.attempts("success"), receiver.counts.requests());
        if succeeded == 0 || received == 0 {
            let tried = receiver.attempts.iter().filter(|(_, number)| **number > 0);
            let tried: Vec<String> = tried.map(|(result, number)| format!("{result} × {number}")).collect();
            return Err(format!(
                "unused endpoint: {} ({}) answered no request; attempts: {}",
                pod.name,
                pod.application(),
                if tried.is_empty() { "none".to_owned() } else { tried.join(", ") }
            ));
        }
        shares.push(format!("{} {received}", pod.name));
    }
    Ok(format!("both endpoints of orders were used: {}", list(&shares)))
}

fn routed(evidence: &Evidence) -> Verdict {
    let received = evidence.receivers.get(PRICES.name).map_or(0, |receiver| receiver.counts.requests());
    if received == 0 {
        return Err("the HTTPRoute sent nothing to prices".to_owned());
    }
    Ok(format!("the HTTPRoute sent {received} requests under /prices to prices"))
}

fn restarted(evidence: &Evidence) -> Option<Verdict> {
    let before = evidence.before_restart?;
    let after = evidence.receivers.get(ORDERS_2.name)?.attempts("success").saturating_sub(before);
    Some(if after > 0 {
        Ok(format!("orders-2 was stopped in the middle and took {after} requests after its restart"))
    } else {
        Err("unused endpoint: orders-2 took no request after its restart".to_owned())
    })
}

/// Each was answered 202 with the durability of its policy.
fn accepted(messages: &Messages) -> Verdict {
    let (accepted, sent) = (messages.accepted.len(), messages.sent);
    if messages.refused.is_empty() {
        return Ok(format!("all {sent} messages were accepted: 202, durability local"));
    }
    let refused = messages.refused.iter().map(|(what, number)| format!("{number} × {what}"));
    Err(format!("{accepted} of {sent} messages were accepted; {}", list(&refused.collect::<Vec<_>>())))
}

/// At least once, by the receiver's own count.
fn arrived(messages: &Messages) -> Verdict {
    let (accepted, arrivals) = (messages.accepted.len(), &messages.received.posts);
    let lost: Vec<&u64> = messages.accepted.iter().filter(|id| !arrivals.contains_key(id)).collect();
    if let Some(first) = lost.first() {
        let lost = lost.len();
        return Err(format!("lost message: {lost} of {accepted} accepted never arrived, {first} the first"));
    }
    let again: u64 = arrivals.values().map(|times| u64::from(times.saturating_sub(1))).sum();
    let queued = messages.waiting_at_kill;
    Ok(format!(
        "all {accepted} accepted messages arrived, {again} of them again; web's sidecar was killed with {queued} queued"
    ))
}

/// First arrivals ascend per key; there is nothing to say when nothing arrived.
fn in_order(messages: &Messages) -> Option<Verdict> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for id in &messages.received.order {
        if let Some(before) = last.insert(key(*id), *id).filter(|before| before > id) {
            let key = key(*id);
            return Some(Err(format!("wrong order: of key {key}, message {before} arrived before {id}")));
        }
    }
    let said = format!("messages of each of the {KEYS} keys first arrived in the order they were sent");
    (!last.is_empty()).then_some(Ok(said))
}

/// Nothing waits any more, and nothing was given up.
fn drained(messages: &Messages) -> Verdict {
    match (messages.left, messages.dead) {
        (0, 0) => Ok("the queue is drained, 0 dead letters".to_owned()),
        (left, dead) => Err(format!("{left} messages still wait, {dead} are dead letters")),
    }
}

#[cfg(test)]
mod tests;
