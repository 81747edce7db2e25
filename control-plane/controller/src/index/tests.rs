//! tests: apply objects and look.

use policy::snapshot::{
    Access, AccessRule, BackendKey, Destination, DestinationKey, Inbound, Mesh, Protocol, ServicePolicy,
};

use resources::{Located, Object};

use super::{Index, Sidecars};
use crate::objects::Change;

mod affected;
mod model;

pub(crate) fn mesh() -> Mesh {
    Mesh {
        trust_domain: "cluster.local".parse().unwrap(),
        cluster_domain: "cluster.local".parse().unwrap(),
        networks: vec!["10.0.0.0/8".parse().unwrap()],
    }
}

pub(crate) fn empty() -> Index {
    Index::new(mesh(), Sidecars::Asked)
}

/// All of `text` put in.
pub(crate) fn put(text: &str) -> Vec<Change> {
    let (objects, problems) = resources::parse_file("test.yaml", text);
    assert_eq!(problems, []);
    objects.into_iter().map(Change::Put).collect()
}

/// The one object of `text`.
pub(crate) fn object(text: &str) -> Located<Object> {
    let (mut objects, problems) = resources::parse_file("test.yaml", text);
    assert_eq!((problems.as_slice(), objects.len()), (&[][..], 1), "{text}");
    objects.remove(0)
}

pub(crate) fn index(text: &str) -> Index {
    let mut index = empty();
    index.apply(put(text));
    index
}

#[test]
fn in_a_cluster_only_the_injectors_mark_says_that_a_sidecar_is_there() {
    let peer = |sidecars, shop: &str| {
        let mut index = Index::new(mesh(), sidecars);
        index.apply(put(shop));
        let backend = index.backend(&"orders.shop.svc:80".parse().unwrap()).unwrap();
        backend.endpoints.iter().any(|endpoint| endpoint.peer.is_some())
    };
    assert!(peer(Sidecars::Asked, SHOP));
    assert!(!peer(Sidecars::Marked, SHOP), "a pod may be older than the word of its namespace");
    let marked = SHOP.replace(
        "labels: {app: orders}}",
        "labels: {app: orders}, annotations: {tidegate.dev/injected: '1'}}",
    );
    assert!(peer(Sidecars::Marked, &marked));
}

#[test]
fn a_port_that_a_pod_says_is_opaque_is_so_for_its_clients_and_for_itself() {
    let said = "labels: {app: orders}, annotations: {tidegate.dev/opaque-ports: '25, 8080'}}";
    let shop = index(&SHOP.replace("labels: {app: orders}}", said));
    let of_service = |key: &str| match shop.lookup(&key.parse().unwrap(), "web").0 {
        Destination::Service(policy) => policy.protocol,
        other => panic!("{other:?}"),
    };
    assert_eq!(of_service("orders.shop.svc:80"), Protocol::Opaque, "before appProtocol");
    assert_eq!(of_service("orders.shop.svc:5432"), Protocol::Detect, "another port");
    let identity = "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap();
    let inbound = shop.inbound("orders-0", &identity);
    assert_eq!(inbound.ports[&8080].protocol, Protocol::Opaque);
    assert_eq!(inbound.ports[&25].protocol, Protocol::Opaque, "no Service stands before it");
}

pub(crate) const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {tidegate.dev/inject: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: orders}, ports: [{name: http, port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}, {name: db, port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-0, namespace: shop, labels: {app: orders}}
spec:
  serviceAccountName: orders
  containers: [{name: app, ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {path: /ready, port: http}}}]
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-1, namespace: shop, labels: {app: orders}, annotations: {tidegate.dev/inject: disabled}}
spec: {serviceAccountName: orders, containers: []}
status: {podIP: 10.0.0.2}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-a, namespace: shop, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: db, port: 5432}]
endpoints:
- {addresses: [10.0.0.2], zone: a, targetRef: {kind: Pod, name: orders-1}}
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: orders-0}}
- {addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.4], conditions: {ready: false, serving: true}}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec: {type: ExternalName, externalName: Example.com.}
---
";

fn destination(index: &Index, key: &str) -> Destination {
    index.lookup(&key.parse::<DestinationKey>().unwrap(), "web").0
}

pub(crate) fn service(index: &Index, key: &str) -> ServicePolicy {
    match destination(index, key) {
        Destination::Service(policy) => policy,
        other => panic!("{key} is {other:?}"),
    }
}

fn cause(index: &Index, key: &str) -> String {
    match destination(index, key) {
        Destination::Unknown { cause } => cause,
        other => panic!("{key} is {other:?}"),
    }
}

#[test]
fn a_service_is_found_by_its_name_and_its_address() {
    let index = index(SHOP);
    let by_name = service(&index, "orders.shop.svc:80");
    assert_eq!(by_name.protocol, Protocol::Http2);
    assert_eq!(by_name.backend, "orders.shop.svc:80".parse().unwrap());
    assert_eq!(service(&index, "10.96.0.1:80"), by_name);
    assert_eq!(
        destination(&index, "far.shop.svc:1"),
        Destination::ExternalName("example.com".parse().unwrap())
    );
}

#[test]
fn what_is_not_there_says_why_and_what_is_outside_passes() {
    let index = index(SHOP);
    assert_eq!(cause(&index, "order.shop.svc:80"), "there is no Service shop/order");
    assert_eq!(cause(&index, "10.96.0.1:81"), "Service shop/orders has no port 81; it has 80, 5432");
    assert!(cause(&index, "10.9.9.9:80").starts_with("10.9.9.9 is an address of the mesh's networks"));
    assert_eq!(destination(&index, "1.1.1.1:443"), Destination::External);
}

#[test]
fn a_pod_dialled_by_its_address_is_that_pod_alone() {
    let index = index(SHOP);
    let policy = service(&index, "10.0.0.1:8080");
    assert_eq!(policy.service, Some("orders.shop.svc:80".parse().unwrap()));
    assert_eq!(policy.protocol, Protocol::Http2);
    assert_eq!(policy.backend, BackendKey::Address("10.0.0.1:8080".parse().unwrap()));
    let backend = index.backend(&policy.backend).unwrap();
    assert_eq!(backend.endpoints.len(), 1);
    assert!(backend.endpoints[0].peer.is_some());
    assert_eq!(service(&index, "10.0.0.1:9999").service, None);
}

#[test]
fn endpoints_are_sorted_meshed_by_annotation_and_the_unready_are_left_out() {
    let index = index(SHOP);
    let backend = index.backend(&"orders.shop.svc:80".parse().unwrap()).unwrap();
    let endpoints: Vec<_> =
        backend.endpoints.iter().map(|e| (e.address.to_string(), e.peer.is_some(), e.terminating)).collect();
    assert_eq!(
        endpoints,
        [
            ("10.0.0.1:8080".to_owned(), true, false),
            ("10.0.0.2:8080".to_owned(), false, false),
            ("10.0.0.3:8080".to_owned(), false, true)
        ]
    );
    let peer = backend.endpoints[0].peer.clone().unwrap();
    assert_eq!(peer.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/orders");
    assert_eq!(peer.inbound_port, Some(4143));
    assert_eq!(backend.endpoints[1].zone.as_deref(), Some("a"));
}

#[test]
fn an_inbound_port_is_the_meshs_own_or_the_pods_word_and_none_where_the_pod_says_that() {
    for (said, known) in [
        (r#"{}"#, Some(4143)),
        (r#"{tidegate.dev/proxy-inbound-port: "5143"}"#, Some(5143)),
        (r#"{tidegate.dev/proxy-inbound-port: none}"#, None),
        // No guess at what was meant: redirection brings TLS to the sidecar wherever it listens.
        (r#"{tidegate.dev/proxy-inbound-port: "0"}"#, None),
        (r#"{tidegate.dev/proxy-inbound-port: "51430"}"#, Some(51430)),
        (r#"{tidegate.dev/proxy-inbound-port: "514300"}"#, None),
    ] {
        let shop = SHOP.replace(
            "name: orders-0, namespace: shop,",
            &format!("name: orders-0, namespace: shop, annotations: {said},"),
        );
        let backend = index(&shop).backend(&"orders.shop.svc:80".parse().unwrap()).unwrap();
        let peer = backend.endpoints[0].peer.clone().unwrap();
        assert_eq!(peer.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/orders");
        assert_eq!(peer.inbound_port, known, "{said}");
    }
}

#[test]
fn labels_say_of_injection_what_annotations_do_and_a_pod_marked_as_injected_has_a_sidecar() {
    let meshed = |from: &str, to: &str| {
        assert!(SHOP.contains(from));
        let backend = index(&SHOP.replace(from, to)).backend(&"orders.shop.svc:80".parse().unwrap()).unwrap();
        backend.endpoints.iter().map(|endpoint| endpoint.peer.is_some()).collect::<Vec<_>>()
    };
    let namespace = "annotations: {tidegate.dev/inject: enabled}";
    assert_eq!(meshed(namespace, "labels: {tidegate.dev/inject: enabled}"), [true, false, false]);
    let both = "annotations: {tidegate.dev/inject: disabled}, labels: {tidegate.dev/inject: enabled}";
    assert_eq!(meshed(namespace, both), [false; 3], "the annotation goes before the label");
    let own = "labels: {app: orders}, annotations: {tidegate.dev/inject: disabled}";
    let label = "labels: {app: orders, tidegate.dev/inject: disabled}";
    assert_eq!(meshed(own, label), [true, false, false]);
    let marked = own.replace("{tidegate.dev/inject", "{tidegate.dev/injected: 0.1.0, tidegate.dev/inject");
    assert_eq!(meshed(own, &marked), [true, true, false]);
}

fn inbound(index: &Index, pod: &str, account: &str) -> Inbound {
    index.inbound(pod, &format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap())
}

#[test]
fn inbound_knows_protocols_probes_and_policies_of_its_own_pod_alone() {
    let policies = "
apiVersion: tidegate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all, namespace: shop}
spec: {selector: {}, default: Allow}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: orders, namespace: shop}
spec: {selector: {matchLabels: {app: orders}}, ports: [http], rules: [{from: [{serviceAccount: {name: web}}, {network: 10.0.0.0/8, unauthenticated: true}]}]}
";
    let index = index(&format!("{SHOP}{policies}"));
    let own = inbound(&index, "orders-0", "orders");
    let http = own.port(8080);
    assert_eq!((http.protocol, http.probes.as_slice()), (Protocol::Http2, &["/ready".to_owned()][..]));
    assert_eq!((http.policy.as_deref(), http.default), (Some("shop/orders"), Some(Access::Deny)));
    assert_eq!(http.rules[0], AccessRule::Identity("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()));
    assert_eq!(own.port(9999).policy.as_deref(), Some("shop/all"));
    let foreign = inbound(&index, "orders-0", "thief");
    assert!(foreign.ports.is_empty() && foreign.other.policy.is_none());
}

#[test]
fn a_backend_policy_sets_protocol_budget_and_bounds() {
    let policy = "
apiVersion: tidegate.dev/v1alpha1
kind: BackendPolicy
metadata: {name: orders, namespace: shop}
spec: {targetRefs: [{name: orders}], protocol: {'5432': Opaque}, retry: {budget: {percent: 50}}, limits: {maxInFlight: 7}}
";
    let index = index(&format!("{SHOP}{policy}"));
    assert_eq!(service(&index, "orders.shop.svc:5432").protocol, Protocol::Opaque);
    let settings = index.backend(&"orders.shop.svc:5432".parse().unwrap()).unwrap().settings;
    assert_eq!((settings.budget.ratio, settings.in_flight_max, settings.queue_max), (0.5, 7, 500));
    assert_eq!(inbound(&index, "orders-1", "orders").port(5432).protocol, Protocol::Opaque);
}

#[test]
fn a_pod_nobody_knows_is_closed_where_its_namespace_has_policies_and_left_to_the_default_elsewhere() {
    let access = "apiVersion: tidegate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: p, namespace: shop}\n\
        spec: {selector: {matchLabels: {app: orders}}, default: Deny}\n---\n";
    let identity = "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap();
    let default = |objects: &str| index(objects).inbound("gone", &identity).other.default;
    assert_eq!(default(&format!("{SHOP}{access}")), Some(policy::snapshot::Access::Deny));
    assert_eq!(default(SHOP), None);
}
