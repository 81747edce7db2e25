//! tests: hello, subscribe, answer.

use std::collections::HashMap;
use std::sync::Arc;

use policy::snapshot::{Destination, Snapshot};
use policy::wire::{decode, v1};
use resources::ObjectId;

use super::session::Session;
use crate::documents::Documents;
use crate::documents::tests::{change, documents};
use crate::index::tests::SHOP;
use crate::objects::Change;

fn unnamed(documents: &Arc<Documents>, number: u64) -> Session {
    Session::new(documents.enter(number, "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap()))
}

fn session(documents: &Arc<Documents>) -> Session {
    let mut session = unnamed(documents, 1);
    session.hello(v1::Hello { pod: "orders-0".to_owned(), ..v1::Hello::default() });
    session
}

fn add(keys: &[&str]) -> v1::Subscribe {
    v1::Subscribe { add: keys.iter().map(|key| (*key).to_owned()).collect(), remove: Vec::new() }
}

/// What a proxy does with an answer.
fn apply(snapshot: &mut Snapshot, answer: &v1::WatchResponse) {
    for document in &answer.changed {
        let (document, version) = decode(document).unwrap();
        snapshot.put(document, version);
    }
    answer.removed.iter().for_each(|key| snapshot.remove(key));
    assert_eq!(snapshot.digest().to_string(), answer.digest);
}

fn keys(answer: &v1::WatchResponse) -> Vec<&str> {
    answer.changed.iter().map(|document| document.key.as_str()).collect()
}

#[test]
fn a_proxy_gets_mesh_inbound_destinations_and_their_backends_and_then_only_what_changed() {
    let documents = documents(SHOP);
    let (mut session, mut snapshot) = (session(&documents), Snapshot::default());
    session.subscribe(add(&["orders.shop.svc:80", "nonsense"]));
    let first = session.answer().unwrap();
    assert_eq!(
        keys(&first),
        ["mesh", "inbound", "backend/orders.shop.svc:80", "destination/orders.shop.svc:80"]
    );
    apply(&mut snapshot, &first);
    assert!(session.answer().is_none());

    change(&documents, &SHOP.replace("[10.0.0.4], conditions: {ready: false, serving: true}", "[10.0.0.4]"));
    let second = session.answer().unwrap();
    assert_eq!(keys(&second), ["backend/orders.shop.svc:80"]);
    apply(&mut snapshot, &second);
    let digest = snapshot.digest().to_string();
    assert_eq!(session.acknowledge(1, &digest, true), None, "a newer answer is on its way");
    assert_eq!(session.acknowledge(2, "", true), Some(false));
    assert_eq!(session.acknowledge(2, &digest, true), Some(true));

    session.subscribe(v1::Subscribe { add: Vec::new(), remove: vec!["orders.shop.svc:80".to_owned()] });
    let third = session.answer().unwrap();
    assert_eq!(third.removed, ["backend/orders.shop.svc:80", "destination/orders.shop.svc:80"]);
    apply(&mut snapshot, &third);
}

#[test]
fn what_is_held_from_before_is_kept_and_not_sent_again() {
    let documents = documents(SHOP);
    let mut before = session(&documents);
    before.subscribe(add(&["orders.shop.svc:80"]));
    let first = before.answer().unwrap();
    let held: HashMap<String, String> =
        first.changed.iter().map(|document| (document.key.clone(), document.version.clone())).collect();

    let mut again = unnamed(&documents, 2);
    again.hello(v1::Hello { pod: "orders-0".to_owned(), held, ..v1::Hello::default() });
    let answer = again.answer().unwrap();
    assert!(answer.changed.is_empty() && answer.removed.is_empty());
    assert_eq!(answer.digest, first.digest);
}

#[test]
fn a_policy_or_secret_that_changes_is_sent_as_its_destination_alone() {
    let policy = "apiVersion: tidegate.dev/v1alpha1\nkind: AsyncPolicy\nmetadata: {name: p, namespace: shop}\n\
        spec: {targetRefs: [{name: orders}], callback: {allowedHosts: [mail], secretRef: {name: key}}}\n---\n";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: key, namespace: shop}\n\
        stringData: {secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}\n---\n";
    let held = |snapshot: &Snapshot| {
        let Destination::Service(policy) = &**snapshot.destinations.values().next().unwrap() else {
            panic!()
        };
        policy.asynchronous.clone()
    };
    let documents = documents(SHOP);
    let (mut session, mut snapshot) = (session(&documents), Snapshot::default());
    session.subscribe(add(&["orders.shop.svc:80"]));
    apply(&mut snapshot, &session.answer().unwrap());
    assert_eq!(held(&snapshot), None);
    for (objects, paused, signed) in [
        (policy.to_owned(), false, false),
        (policy.to_owned() + secret, false, true),
        (policy.replace("spec: {", "spec: {paused: true, ") + secret, true, true),
    ] {
        change(&documents, &objects);
        let answer = session.answer().unwrap();
        assert_eq!(keys(&answer), ["destination/orders.shop.svc:80"]);
        apply(&mut snapshot, &answer);
        let now = held(&snapshot).unwrap();
        assert_eq!((now.paused, now.callback_secret.is_some()), (paused, signed));
    }
    let id = ObjectId { kind: "AsyncPolicy", namespace: "shop".to_owned(), name: "p".to_owned() };
    documents.apply(vec![Change::Remove(id)]);
    apply(&mut snapshot, &session.answer().unwrap());
    assert_eq!(held(&snapshot), None, "a policy that is gone holds no more");
}
