//! What a document keeps on the wire, and what is refused.

use std::time::Duration;

use super::*;
use crate::queue::{AsyncPolicy, Credentials, Delivery, Durability, GrpcAck, Mode, RateLimits, Secret, Sink};
use crate::route::{Action, Forward, Match, PathMatch, RouteKind, Rule, RuleName};
use crate::snapshot::{
    Access, AccessRule, Destination, Inbound, InboundPort, Protocol, ServicePolicy, Snapshot,
};

fn destination() -> Document {
    destination_with(None)
}

fn destination_with(asynchronous: Option<Arc<AsyncPolicy>>) -> Document {
    let forward = Forward { asynchronous: asynchronous.clone(), ..Forward::default() };
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
                action: Arc::new(Action::Forward(forward)),
            }],
            backend: "orders.shop.svc:8080".parse().unwrap(),
            asynchronous,
        })),
    )
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn asynchronous() -> Arc<AsyncPolicy> {
    Arc::new(AsyncPolicy {
        name: "shop/orders-async".into(),
        mode: Mode::Spill,
        methods: vec!["POST".to_owned()],
        durability: Durability::Memory,
        queue_bytes_max: 1 << 30,
        queue_messages_max: 7,
        body_bytes_max: 4096,
        ordering_header: Some("tidegate-key".to_owned()),
        delivery: Delivery {
            retry: 3,
            backoff_delay: Duration::from_millis(250),
            sink: Some(Sink { service: "dead.ops.svc:80".parse().unwrap(), uri: "/orders?a=b".to_owned() }),
            ..Delivery::default()
        },
        rate: RateLimits { per_second: Some(0.5), ..RateLimits::default() },
        idempotency_required: true,
        idempotency_window: Duration::from_secs(60),
        result_ttl: Duration::ZERO,
        result_bytes_max: 0,
        callback_hosts: vec!["*.shop.svc".to_owned()],
        callback_secret: Some(Secret::new(SECRET)),
        credentials: Credentials::Store,
        grpc_ack: Some(GrpcAck::EmptyMessage),
        paused: true,
    })
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
    for document in [destination(), destination_with(Some(asynchronous())), inbound] {
        assert_eq!(decode(&encode(&document)).unwrap().0, document);
    }
}

#[test]
fn a_secret_passes_over_the_wire_and_is_shown_nowhere() {
    let document = destination_with(Some(asynchronous()));
    let (read, version) = decode(&encode(&document)).unwrap();
    let Document::Destination(_, destination) = &read else { panic!() };
    let Destination::Service(policy) = &**destination else { panic!() };
    let secret = policy.asynchronous.as_ref().unwrap().callback_secret.as_ref().unwrap();
    assert_eq!(secret.reveal(), SECRET);

    let mut snapshot = Snapshot::default();
    snapshot.put(read.clone(), version);
    let shown = serde_json::to_string(&snapshot).unwrap();
    for text in [&shown, &format!("{read:?}"), &format!("{snapshot:#?}"), &format!("{secret:?}")] {
        assert!(text.contains("(secret)") && !text.contains("whsec_"), "{text}");
    }
    // In the rule and beside the rules.
    assert_eq!(shown.matches("\"callbackSecret\":\"(secret)\"").count(), 2, "{shown}");
    assert!(shown.contains("\"queueMessagesMax\":7"), "all else is shown: {shown}");
}

#[test]
fn without_a_policy_nothing_is_written_that_an_older_proxy_does_not_know() {
    let body = String::from_utf8(encode(&destination()).body).unwrap();
    assert!(!body.contains("asynchronous"), "{body}");
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
