//! What a document keeps on the wire, and what is refused.

use super::*;
use crate::route::{Action, Forward, Match, PathMatch, RouteKind, Rule, RuleName};
use crate::snapshot::{Access, AccessRule, Destination, Inbound, InboundPort, Protocol, ServicePolicy};

fn destination() -> Document {
    Document::Destination(
        "orders.shop.svc:8080".parse().unwrap(),
        Arc::new(Destination::Service(ServicePolicy {
            service: Some("orders.shop.svc:8080".parse().unwrap()),
            protocol: Protocol::Http2,
            rules: vec![Rule {
                name: RuleName {
                    kind: RouteKind::Http,
                    namespace: "shop".into(),
                    route: "orders".into(),
                    rule: "0".into(),
                },
                matches: Match { path: Some(PathMatch::Prefix("/a".into())), ..Match::default() },
                action: Arc::new(Action::Forward(Forward::default())),
            }],
            backend: "orders.shop.svc:8080".parse().unwrap(),
        })),
    )
}

#[test]
fn a_document_reads_back_as_it_was_written() {
    let inbound = Document::Inbound(Arc::new(Inbound {
        identity: "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap(),
        ports: [(
            8080,
            InboundPort {
                rules: vec![
                    AccessRule::Identity("spiffe://cluster.local/ns/edge/sa/*".parse().unwrap()),
                    AccessRule::Network("10.0.0.0/8".parse().unwrap()),
                ],
                default: Some(Access::Deny),
                ..InboundPort::default()
            },
        )]
        .into(),
        other: InboundPort::default(),
    }));
    for document in [destination(), inbound] {
        assert_eq!(decode(&encode(&document)).unwrap().0, document);
    }
}

#[test]
fn a_field_that_is_not_known_here_refuses_the_whole_document() {
    let mut wire = encode(&destination());
    let mut body: serde_json::Value = serde_json::from_slice(&wire.body).unwrap();
    body["service"]["onlyOnTuesdays"] = true.into();
    wire.body = serde_json::to_vec(&body).unwrap();
    wire.version = Version::of(&wire.body).to_string();
    let error = decode(&wire).unwrap_err().to_string();
    assert!(error.contains("onlyOnTuesdays") && error.contains("orders.shop.svc:8080"), "{error}");
}

#[test]
fn a_body_that_is_not_what_its_version_says_is_refused() {
    let mut wire = encode(&destination());
    wire.body.push(b' ');
    assert!(matches!(decode(&wire), Err(DocumentError::Content(_))));
}
