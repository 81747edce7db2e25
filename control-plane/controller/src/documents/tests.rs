//! tests: who is woken, what is kept, and who is current.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use resources::ObjectId;

use super::*;
use crate::index::tests::{SHOP, mesh, put};

/// With the objects of `text`.
pub(crate) fn documents(text: &str) -> Arc<Documents> {
    let documents = Arc::new(Documents::new(mesh(), Sidecars::Asked));
    documents.apply(put(text));
    documents
}

/// Puts in all of `text`.
pub(crate) fn change(documents: &Documents, text: &str) {
    documents.apply(put(text));
}

fn reader(documents: &Arc<Documents>, number: u64, namespace: &str) -> Reader {
    documents.enter(number, format!("spiffe://cluster.local/ns/{namespace}/sa/orders").parse().unwrap())
}

fn wants(documents: &Arc<Documents>, number: u64, namespace: &str, keys: &[&str]) -> Reader {
    let mut reader = reader(documents, number, namespace);
    assert!(keys.iter().all(|key| reader.want(&key.parse().unwrap())));
    reader
}

/// Takes the wake that waits, if one does.
fn is_woken(reader: &Reader) -> bool {
    pin!(reader.woken()).as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

const STOCK: &str = "
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}
---
";

/// SHOP's slice with one more endpoint in force.
fn moved() -> String {
    let slice = SHOP.split("---\n").find(|document| document.contains("kind: EndpointSlice")).unwrap();
    slice.replace("[10.0.0.4], conditions: {ready: false, serving: true}", "[10.0.0.4]")
}

#[test]
fn only_those_are_woken_whose_documents_are_others() {
    let documents = documents(&format!("{SHOP}{STOCK}"));
    let by_name = wants(&documents, 1, "web", &["orders.shop.svc:80"]);
    let by_address = wants(&documents, 2, "web", &["10.96.0.1:5432", "1.1.1.1:443"]);
    let other = wants(&documents, 3, "web", &["stock.shop.svc:80"]);
    let mut pod = reader(&documents, 4, "shop");
    pod.stand("orders-0");
    let woken = || [&by_name, &by_address, &other, &pod].map(is_woken);
    assert_eq!(woken(), [false; 4]);

    change(&documents, &moved());
    assert_eq!(woken(), [true, true, false, false]);
    change(&documents, &moved());
    assert_eq!(woken(), [false; 4], "it was so before");
    change(&documents, &moved().replace("metadata: {", "metadata: {annotations: {a: b}, "));
    assert_eq!(woken(), [false; 4], "no byte of a document is another");

    let access = "apiVersion: tidegate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: p, namespace: shop}\n\
        spec: {selector: {matchLabels: {app: orders}}, default: Deny}\n";
    change(&documents, access);
    assert_eq!(woken(), [false, false, false, true]);
}

#[test]
fn a_route_of_a_clients_namespace_wakes_its_clients_alone() {
    let documents = documents(&format!("{SHOP}{STOCK}"));
    let web = wants(&documents, 1, "web", &["orders.shop.svc:80"]);
    let edge = wants(&documents, 2, "edge", &["orders.shop.svc:80"]);
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: c, namespace: web}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: orders, namespace: shop}], rules: [{backendRefs: [{name: stock, namespace: shop, port: 80}]}]}\n---\n";
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: shop}\n\
        spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}], to: [{group: '', kind: Service}]}\n";
    change(&documents, &format!("{route}{grant}"));
    assert_eq!([&web, &edge].map(is_woken), [true, false]);
    // It names another backend now, which it did not before.
    change(&documents, &STOCK.replace("port: 80", "port: 80, appProtocol: http"));
    assert_eq!([&web, &edge].map(is_woken), [true, false]);
    let id = ObjectId { kind: "HTTPRoute", namespace: "web".to_owned(), name: "c".to_owned() };
    documents.apply(vec![crate::objects::Change::Remove(id)]);
    assert_eq!([&web, &edge].map(is_woken), [true, false]);
    change(&documents, STOCK);
    assert_eq!([&web, &edge].map(is_woken), [false, false]);
}

#[test]
fn what_nobody_reads_is_not_kept() {
    let documents = documents(SHOP);
    let mut first = wants(&documents, 1, "web", &["orders.shop.svc:80", "10.0.0.1:8080", "1.1.1.1:443"]);
    let mut second = wants(&documents, 2, "shop", &["orders.shop.svc:80"]);
    second.stand("orders-0");
    second.stand("orders-1");
    first.unwant(&"10.0.0.1:8080".parse().unwrap());
    drop(first);
    assert!(!documents.lock().shared.is_empty());
    drop(second);
    assert!(documents.lock().shared.is_empty());
}

#[test]
fn all_is_encoded_once() {
    let documents = documents(SHOP);
    let keys = ["orders.shop.svc:80"];
    let (first, second) = (wants(&documents, 1, "web", &keys), wants(&documents, 2, "edge", &keys));
    let of = |reader: &Reader| reader.needed().unwrap().documents;
    let (first, second) = (of(&first), of(&second));
    assert_eq!(first.len(), 3);
    assert!(first.iter().zip(&second).all(|(first, second)| Arc::ptr_eq(first, second)));
}

#[test]
fn nobody_is_answered_before_the_first_batch_which_wakes_all() {
    let documents = Arc::new(Documents::new(mesh(), Sidecars::Asked));
    let waits = wants(&documents, 1, "web", &["orders.shop.svc:80"]);
    assert!(waits.needed().is_none());
    change(&documents, SHOP);
    assert!(is_woken(&waits));
    assert_eq!(waits.needed().unwrap().documents.len(), 3);
}

fn standing(documents: &Documents, need: &Need) -> (usize, usize) {
    let standing = documents.standing(std::slice::from_ref(need), documents.generation());
    (standing.needing, standing.current)
}

/// Fetches what waits and sends it.
fn send(reader: &Reader) {
    let needed = reader.needed().unwrap();
    reader.send(&needed, true);
}

#[test]
fn a_reader_is_current_once_all_is_acknowledged_and_stays_so_while_nothing_is_changed_for_it() {
    let documents = documents(&format!("{SHOP}{STOCK}"));
    let orders = Need::Service(("shop".to_owned(), "orders".to_owned()));
    let stock = Need::Service(("shop".to_owned(), "stock".to_owned()));
    let first = wants(&documents, 1, "web", &["10.96.0.1:80"]);
    let second = wants(&documents, 2, "web", &["stock.shop.svc:80"]);
    assert_eq!(
        [&Need::All, &orders, &stock].map(|need| standing(&documents, need)),
        [(2, 0), (1, 0), (1, 0)]
    );
    for reader in [&first, &second] {
        send(reader);
        reader.acknowledge(true);
    }
    assert_eq!(
        [&Need::All, &orders, &stock].map(|need| standing(&documents, need)),
        [(2, 2), (1, 1), (1, 1)]
    );

    let before = documents.generation();
    change(&documents, &moved());
    assert_eq!(
        [&Need::All, &orders, &stock].map(|need| standing(&documents, need)),
        [(2, 1), (1, 0), (1, 1)]
    );
    assert_eq!(
        documents.standing(std::slice::from_ref(&orders), before).current,
        1,
        "through the one before it is"
    );
    send(&first);
    change(&documents, STOCK);
    assert_eq!(standing(&documents, &orders), (1, 0));
    first.acknowledge(true);
    assert_eq!(standing(&documents, &Need::All), (2, 2));
}

#[test]
fn what_changes_while_an_answer_is_on_its_way_is_not_acknowledged_with_it() {
    let documents = documents(SHOP);
    let reader = wants(&documents, 1, "web", &["orders.shop.svc:80"]);
    send(&reader);
    change(&documents, &moved());
    let through = documents.generation();
    reader.acknowledge(true);
    assert_eq!(documents.standing(&[Need::All], through - 1).current, 1);
    let behind = documents.standing(&[Need::All], through);
    assert_eq!((behind.current, behind.behind), (0, vec![1]));
    send(&reader);
    reader.acknowledge(false);
    assert_eq!(documents.standing(&[Need::All], through).current, 0, "something of it was refused");
    reader.acknowledge(true);
    assert_eq!(documents.standing(&[Need::All], through).current, 1);
}

#[test]
fn a_pod_is_needed_by_the_proxy_in_it_and_nothing_by_none() {
    let documents = documents(SHOP);
    let pod = Need::Pod(("shop".to_owned(), "orders-0".to_owned()));
    assert_eq!(standing(&documents, &pod), (0, 0));
    let mut reader = reader(&documents, 1, "shop");
    reader.stand("orders-0");
    assert_eq!(standing(&documents, &pod), (1, 0));
    drop(reader);
    assert_eq!([&pod, &Need::All].map(|need| standing(&documents, need)), [(0, 0), (0, 0)]);
}
