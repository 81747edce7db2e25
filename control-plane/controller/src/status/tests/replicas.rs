//! replicas: one asks another over the real port.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::identity::Identity;
use policy::wire::operator::operator_server::OperatorServer;
use resources::ObjectId;
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::{OWN, tls};
use crate::documents::Documents;
use crate::documents::tests::documents;
use crate::index::tests::SHOP;
use crate::metrics::Metrics;
use crate::proxies::{Progress, Proxies};
use crate::serve::{Tls, serve};
use crate::status::{Operator, Replicas};

const POLICY: &str = "apiVersion: tidegate.dev/v1alpha1\nkind: AccessPolicy\n\
    metadata: {name: p, namespace: shop, generation: 3}\nspec: {selector: {}, default: Allow}\n---\n";

/// Another replica that answers whoever is `own`.
async fn other(own: &str, tls: &Arc<Tls>) -> (SocketAddr, Arc<Documents>) {
    let there = documents(&format!("{SHOP}{POLICY}"));
    let metrics = Arc::new(Metrics::new());
    let proxies = Arc::new(Proxies::new(there.clone(), metrics.clone()));
    let operator = Operator::new(there.clone(), proxies, own.parse().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, tls.clone(), Routes::new(OperatorServer::new(operator)), metrics));
    (address, there)
}

/// Us, in a mesh with a replica at `address`.
fn us(address: SocketAddr, tls: Arc<Tls>) -> Replicas {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: tidegate-controller, namespace: tidegate}}\n\
         spec: {{ports: [{{name: grpc, port: 8086}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: s, namespace: tidegate, labels: {{kubernetes.io/service-name: tidegate-controller}}}}\n\
         ports: [{{name: grpc, port: {}}}]\n\
         endpoints: [{{addresses: [{ip}], targetRef: {{kind: Pod, name: controller-2}}}}, \
         {{addresses: [127.0.0.9], targetRef: {{kind: Pod, name: controller-1}}}}]\n---\n",
        address.port(),
        ip = address.ip(),
    );
    Replicas::new(documents(&service), tls, ("tidegate", "controller-1"))
}

fn subject(generation: i64) -> (ObjectId, i64) {
    (ObjectId { kind: "AccessPolicy", namespace: "shop".to_owned(), name: "p".to_owned() }, generation)
}

#[tokio::test]
async fn another_replica_tells_how_far_its_proxies_have_come_with_this_spec_and_no_other() {
    let tls = tls();
    let (address, there) = other(OWN, &tls).await;
    let mut reader = there.enter(1, "spiffe://cluster.local/ns/shop/sa/orders".parse::<Identity>().unwrap());
    reader.stand("orders-0");
    let mut us = us(address, tls);
    let said = us.ask(&[subject(3)]).await;
    let one = Progress { needing: 1, current: 0, rejected: Vec::new() };
    assert_eq!(said[&subject(3).0], [Some(vec![one])]);
    let said = us.ask(&[subject(4)]).await;
    assert_eq!(said[&subject(4).0], [None], "it has not seen that spec yet");
}

#[tokio::test]
async fn who_is_not_the_controller_is_told_nothing() {
    let tls = tls();
    let (address, _there) = other("spiffe://cluster.local/ns/shop/sa/orders", &tls).await;
    let said = us(address, tls).ask(&[subject(3)]).await;
    assert_eq!(said[&subject(3).0], [None]);
}

#[tokio::test]
async fn a_replica_that_cannot_be_reached_is_one_whose_proxies_are_not_known() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let said = us(address, tls()).ask(&[subject(3)]).await;
    assert_eq!(said[&subject(3).0], [None]);
}
