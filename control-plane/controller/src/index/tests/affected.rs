//! affected: a change names what hangs on it and no more.

use resources::ObjectId;

use super::{SHOP, index, put};
use crate::index::Affected;
use crate::objects::Change;

/// What a change of SHOP names: destinations, backends, pods.
fn named(affected: &Affected) -> (Vec<String>, Vec<String>, Vec<String>) {
    let print = |set: &std::collections::BTreeSet<(String, String)>| {
        set.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
    };
    (print(&affected.destinations), print(&affected.backends), print(&affected.pods))
}

/// The document of SHOP that holds `mark`, with `from` written `to`.
fn changed(mark: &str, from: &str, to: &str) -> Affected {
    let document = SHOP.split("---\n").find(|document| document.contains(mark)).unwrap();
    assert!(document.contains(from));
    index(SHOP).apply(put(&document.replace(from, to)))
}

#[test]
fn an_endpoint_that_becomes_ready_names_its_services_backend_alone() {
    let affected = changed("kind: EndpointSlice", "{ready: false, serving: true}}", "{ready: true}}");
    assert_eq!(named(&affected), (vec![], vec!["shop/orders".to_owned()], vec![]));
    assert!(affected.addresses.is_empty() && affected.namespaces.is_empty() && !affected.accounts);
}

#[test]
fn what_is_put_in_as_it_was_names_nothing() {
    let affected = index(SHOP).apply(put(SHOP));
    assert_eq!(named(&affected), (vec![], vec![], vec![]));
    assert_eq!(affected.holds().count(), 0);
}

#[test]
fn a_pod_names_itself_its_address_and_the_backends_it_stands_in() {
    let affected = changed("name: orders-0", "serviceAccountName: orders", "serviceAccountName: other");
    let orders = vec!["shop/orders".to_owned()];
    assert_eq!(named(&affected), (vec![], orders, vec!["shop/orders-0".to_owned()]));
    assert!(affected.accounts && affected.addresses.len() == 1);
}

#[test]
fn a_namespace_that_changes_its_mind_names_its_pods_backends_and_one_that_does_not_names_nothing() {
    let affected = changed("kind: Namespace", "enabled", "disabled");
    assert_eq!(named(&affected), (vec![], vec!["shop/orders".to_owned()], vec![]));
    let affected = changed("kind: Namespace", "annotations", "labels");
    assert_eq!(named(&affected), (vec![], vec![], vec![]));
}

#[test]
fn a_service_names_the_destinations_that_send_to_it() {
    let stock = "apiVersion: v1\nkind: Service\nmetadata: {name: stock, namespace: shop}\nspec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}\n---\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\n\
         spec: {parentRefs: [{group: '', kind: Service, name: orders}], rules: [{backendRefs: [{name: stock, port: 80}]}]}\n---\n";
    let mut index = index(&format!("{SHOP}{stock}{route}"));
    let id = ObjectId { kind: "Service", namespace: "shop".to_owned(), name: "stock".to_owned() };
    let affected = index.apply(vec![Change::Remove(id)]);
    let both = ["shop/orders".to_owned(), "shop/stock".to_owned()];
    assert_eq!(named(&affected), (both.to_vec(), both[1..].to_vec(), vec![]));
}
