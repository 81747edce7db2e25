//! tests: evidence made by hand, judged.

use super::*;
use crate::demo::evidence::Receiver;

/// Ten requests that went as they should: 0, 4 and 8 are POSTs.
fn evidence() -> Evidence {
    let mut evidence = Evidence { requests: 10, before_restart: Some(1), ..Evidence::default() };
    evidence.sent.classes = [("2xx".to_owned(), 10)].into();
    evidence.responses = evidence.sent.classes.clone();
    evidence.identities = PODS.iter().map(|pod| (pod.name.to_owned(), pod.identity())).collect();
    let share =
        [("orders-1", &[0, 4][..], &[2, 3][..]), ("orders-2", &[8], &[5, 7]), ("prices", &[], &[1, 6, 9])];
    for (pod, posts, others) in share {
        let mut receiver = Receiver::default();
        receiver.counts.posts = posts.iter().map(|id| (*id, 1)).collect();
        receiver.counts.others = others.iter().map(|id| (*id, 1)).collect();
        receiver.attempts.insert("success".to_owned(), receiver.counts.requests());
        receiver.peers.insert((WEB.identity(), true), receiver.counts.requests());
        evidence.receivers.insert(pod, receiver);
    }
    let mut messages = Messages { sent: 8, accepted: (0..8).collect(), ..Messages::default() };
    messages.received.posts = (0..8).map(|id| (id, 1)).collect();
    messages.received.order = vec![0, 1, 5, 4, 2, 3, 7, 6];
    evidence.messages = Some(messages);
    evidence
}

fn failures(evidence: &Evidence) -> Vec<String> {
    verdicts(evidence).into_iter().filter_map(Result::err).collect()
}

#[test]
fn all_is_well_when_it_is() {
    assert_eq!(failures(&evidence()), [""; 0]);
    assert_eq!(verdicts(&evidence()).len(), 12);
}

#[test]
fn a_post_that_two_receivers_took_is_named() {
    let mut evidence = evidence();
    evidence.receivers.get_mut("prices").unwrap().counts.posts.insert(4, 1);
    assert_eq!(failures(&evidence), ["POST 4 was received 2 times"]);
}

#[test]
fn a_request_that_nobody_received_is_named() {
    let mut evidence = evidence();
    evidence.receivers.get_mut("prices").unwrap().counts.others.remove(&9);
    assert_eq!(failures(&evidence), ["1 of 10 requests reached no application"]);
}

#[test]
fn a_failed_request_is_named_with_its_status() {
    let mut evidence = evidence();
    evidence.sent.classes = [("2xx".to_owned(), 7), ("5xx".to_owned(), 2)].into();
    evidence.sent.unanswered = [("no answer".to_owned(), 1)].into();
    evidence.responses = evidence.sent.classes.clone();
    assert_eq!(failures(&evidence), ["3 of 10 requests failed: 2 × 5xx and 1 × no answer"]);
}

#[test]
fn answers_that_the_sidecar_did_not_count_are_named() {
    let mut evidence = evidence();
    evidence.responses = [("2xx".to_owned(), 9)].into();
    let sentence = "web's sidecar counted 9 × 2xx as answers, its client saw 10 × 2xx";
    assert_eq!(failures(&evidence), [sentence]);
}

#[test]
fn another_identity_is_named_on_either_side() {
    let mut evidence = evidence();
    evidence
        .identities
        .insert("orders-2".to_owned(), "spiffe://cluster.local/ns/shop/sa/intruder".to_owned());
    evidence.receivers.get_mut("prices").unwrap().peers.insert((String::new(), true), 1);
    let failures = failures(&evidence);
    assert!(failures[0].starts_with("wrong identity: the sidecar of orders-2 proves"), "{failures:?}");
    assert!(failures[1].starts_with("wrong identity: prices was asked by nobody"), "{failures:?}");
}

#[test]
fn plaintext_and_unused_endpoints_are_named() {
    let mut evidence = evidence();
    evidence.receivers.get_mut("prices").unwrap().peers.insert((WEB.identity(), false), 3);
    let orders = evidence.receivers.get_mut("orders-2").unwrap();
    orders.attempts = [("refused".to_owned(), 4)].into();
    let failures = failures(&evidence);
    assert_eq!(failures[0], "3 requests between sidecars were in plaintext");
    assert_eq!(
        failures[1],
        "unused endpoint: orders-2 (127.0.1.4:8080) answered no request; attempts: refused × 4"
    );
    assert_eq!(failures[2], "unused endpoint: orders-2 took no request after its restart");
}

#[test]
fn a_message_that_arrived_again_is_counted_and_one_that_never_did_is_named() {
    let mut evidence = evidence();
    let received = &mut evidence.messages.as_mut().unwrap().received;
    received.posts.insert(3, 2);
    let told = verdicts(&evidence)[9].clone();
    assert!(told.is_ok_and(|told| told.contains("8 accepted messages arrived, 1 of them again")));
    let received = &mut evidence.messages.as_mut().unwrap().received;
    received.posts.remove(&6);
    received.order.pop();
    assert_eq!(failures(&evidence), ["lost message: 1 of 8 accepted never arrived, 6 the first"]);
}

#[test]
fn messages_of_one_key_in_the_wrong_order_are_named() {
    let mut evidence = evidence();
    evidence.messages.as_mut().unwrap().received.order.swap(1, 2);
    assert_eq!(failures(&evidence), ["wrong order: of key 1, message 5 arrived before 1"]);
}

#[test]
fn messages_refused_waiting_or_dead_are_named() {
    let mut evidence = evidence();
    let messages = evidence.messages.as_mut().unwrap();
    messages.accepted.remove(&7);
    messages.refused.insert("503 not kept".to_owned(), 1);
    (messages.left, messages.dead) = (2, 1);
    let sentences =
        ["7 of 8 messages were accepted; 1 × 503 not kept", "2 messages still wait, 1 are dead letters"];
    assert_eq!(failures(&evidence), sentences);
}
