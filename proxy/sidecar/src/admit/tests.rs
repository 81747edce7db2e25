//! tests of taking in that need no receiver.

use std::future::poll_fn;
use std::pin::pin;

use http::HeaderValue;
use http::header::HOST;
use policy::queue::Durability;
use queue::Bound;

use super::*;
use crate::queues::tests::queues;

pub(super) fn policy() -> AsyncPolicy {
    let methods = vec!["POST".into()];
    let (mode, durability) = (Mode::Always, Durability::Memory);
    AsyncPolicy { mode, methods, durability, ordering_header: None, ..AsyncPolicy::new("shop/orders") }
}

fn admit() -> Admit {
    Admit::new(queues(None), &Metrics::new())
}

fn parts(uri: &str, host: Option<&'static str>) -> Parts {
    let mut request = Request::post(uri).body(()).unwrap();
    request.headers_mut().extend(host.map(|host| (HOST, HeaderValue::from_static(host))));
    request.into_parts().0
}

/// While its message is on its way to the disk too, a body takes the room it takes.
#[tokio::test]
async fn a_body_holds_its_room_until_it_is_stored() {
    let (admit, policy) = (admit(), Arc::new(policy()));
    admit.queues.open(Durability::Memory).await.unwrap();
    let total = admit.room.left_kib();
    let connected = Authority::from_static("10.96.0.7:80");
    let parts = parts("/orders", Some("orders.shop"));
    let going = Going::to("orders".into(), &parts, &connected);
    let answer = Answer::to(&parts, Preference::default());
    let asked = Asked::of(&parts.headers, None, SystemTime::now()).unwrap();
    let bounds = Bounds::to_store(&policy);
    let mut sent = http_body_util::Full::new(Bytes::from(vec![7; 3000]));
    let (body, held) = admit.room.read(&mut sent, Some(3000), &bounds).await.unwrap();
    let mut storing = pin!(admit.store(&policy, Ready { parts, body, asked, held }, &going, &answer));
    let mut held = Vec::new();
    let stored = poll_fn(|cx| {
        let polled = storing.as_mut().poll(cx);
        if polled.is_pending() {
            held.push(total - admit.room.left_kib());
        }
        polled
    });
    assert_eq!(stored.await.unwrap().status(), 202);
    assert!(!held.is_empty() && held.iter().all(|kib| *kib == 3), "{held:?}");
    assert_eq!(admit.room.left_kib(), total);
}

#[test]
fn a_request_goes_to_whom_it_names_wherever_its_connection_goes() {
    let connected = Authority::from_static("10.96.0.7:80");
    for (uri, host, named) in [
        ("/a", Some("orders.shop"), "orders.shop"),
        ("http://orders.shop:8080/a", Some("other"), "orders.shop:8080"),
        ("http://king:secret@orders.shop/a", None, "orders.shop"),
        ("/a", None, "10.96.0.7:80"),
        ("/a", Some("no authority"), "10.96.0.7:80"),
    ] {
        let going = Going::to("orders".into(), &parts(uri, host), &connected);
        assert_eq!(going.authority, named, "{uri} {host:?}");
    }
}

#[test]
fn what_speaks_of_this_hop_is_not_kept() {
    let mut parts = parts("/orders", Some("orders.shop"));
    for (name, value) in [("proxy-authorization", "Basic eA=="), ("trailer", "x-sum"), ("x-kept", "1")] {
        parts.headers.insert(name, HeaderValue::from_static(value));
    }
    let call = Call::of(&parts, "orders.shop", false, None);
    let kept: Vec<_> = call.shown().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(kept, ["host", "x-kept"]);
}

/// The same request by another address of its Service is the same request.
#[test]
fn a_key_is_compared_by_name_not_by_address() {
    let fingerprint = |address| {
        let parts = parts("/orders", Some("orders.shop"));
        let going = Going::to("orders".into(), &parts, &Authority::from_static(address));
        let ready = Ready { parts, body: Bytes::new(), asked: Asked::default(), held: None };
        ready.idempotency("k", &going).fingerprint
    };
    assert_eq!(fingerprint("10.96.0.7:80"), fingerprint("10.96.0.8:80"));
}

/// Row by row: what a queue refuses for, as HTTP tells it.
#[tokio::test]
async fn every_refusal_of_the_queue_has_its_status_type_and_time() {
    let retry_after = std::time::Duration::from_millis(2500);
    for (refused, status, kind, seconds) in [
        (Refused::QueueFull { bound: Bound::Messages(7), retry_after }, 429, "over-quota", Some("3")),
        (Refused::SourceOverQuota { retry_after }, 429, "over-quota", Some("3")),
        (Refused::TooManyKeys { keys_max: 7 }, 429, "too-many-keys", Some("60")),
        (Refused::TooManyQueues, 429, "over-quota", Some("1")),
        (Refused::OtherFingerprint, 422, "idempotency-key-reused", None),
        (Refused::Draining, 503, "draining", Some("1")),
        (Refused::DiskFull("no room".into()), 503, "disk-full", Some("1")),
        (Refused::TooLarge { bytes: 9, bytes_max: 8 }, 413, "body-too-large", None),
        (Refused::Poisoned("a flush failed".into()), 503, "outcome-unknown", None),
        (Refused::Invalid("the delay is too long"), 400, "bad-header", None),
    ] {
        let said = refused.to_string();
        let response = refusal(&refused, &policy()).into_response();
        assert_eq!(response.status(), status, "{said}");
        let after = response.headers().get(http::header::RETRY_AFTER).map(|after| after.to_str().unwrap());
        assert_eq!(after, seconds, "{said}");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(document["type"], format!("https://tidegate.dev/problems/{kind}"), "{said}");
        assert_eq!(document["status"], status, "{said}");
        let detail = document["detail"].as_str().unwrap();
        assert!(detail.contains(&said) && detail.contains("shop/orders"), "{detail}");
    }
}

/// Whoever is answered 202 reads how its message stands, and asks again only where something may change.
#[tokio::test]
async fn a_message_that_has_ended_is_told_so_and_not_to_be_asked_for_again() {
    let (admit, policy) = (admit(), Arc::new(policy()));
    let queue = admit.queues.open(Durability::Memory).await.unwrap();
    let parts = parts("/orders", Some("orders.shop"));
    let going = Going::to("orders".into(), &parts, &Authority::from_static("10.96.0.7:80"));
    let answer = Answer::to(&parts, Preference::default());
    let key = Some("k".to_owned());
    let send = async || {
        let asked = Asked { idempotency_key: key.clone(), ..Asked::default() };
        let ready = Ready { parts: parts.clone(), body: Bytes::new(), asked, held: None };
        let response = admit.store(&policy, ready, &going, &answer).await.unwrap();
        let (head, body) = response.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (document, head.headers.contains_key("retry-after"), head.headers.contains_key("tidegate-duplicate"))
    };
    let (first, asks_again, duplicate) = send().await;
    assert_eq!((first["state"].as_str(), asks_again, duplicate), (Some("Queued"), true, false));
    queue.cancel(first["id"].as_str().unwrap().parse().unwrap()).await.unwrap();
    let (again, asks_again, duplicate) = send().await;
    assert_eq!((&again["id"], again["state"].as_str()), (&first["id"], Some("Cancelled")));
    assert_eq!((asks_again, duplicate), (false, true));
}

/// A receiver that is busy, or is not there.
struct Busy(Option<usize>);

impl Proxy for Busy {
    async fn forward(&self, _: Request<Received>) -> Result<Response<Body>, Failure> {
        let bytes = self.0.ok_or_else(|| Failure::new(Cause::NoEndpoint, "nobody is there"))?;
        let busy = Response::builder().status(503).header("retry-after", "7").header("x-load", "9");
        Ok(busy.body(Body::full(vec![b'x'; bytes])).unwrap())
    }

    fn check(&self, _: &mut Request<()>) -> Result<(), Failure> {
        Ok(())
    }
}

/// What a client of mode Spill is told is its receiver's where nothing can be stored.
#[tokio::test]
async fn what_cannot_be_spilled_is_answered_as_it_was() {
    let admit = admit();
    let mut none = policy();
    none.durability = Durability::Local;
    let mut full = AsyncPolicy { queue_messages_max: 1, ..policy() };
    full.name = "shop/full".into();
    let parts = parts("/orders", Some("orders.shop"));
    let going = Going::to("orders".into(), &parts, &Authority::from_static("10.96.0.7:80"));
    let answer = Answer::to(&parts, Preference::default());
    let ready = || {
        let asked = Asked::of(&parts.headers, None, SystemTime::now()).unwrap();
        Ready { parts: parts.clone(), body: Bytes::new(), asked, held: None }
    };
    let full = Arc::new(full);
    let stored = admit.try_ready(&full, ready(), &going, &answer, &Busy(Some(10))).await.unwrap();
    assert_eq!(stored.unwrap().status(), 202, "there is room for one");
    for (policy, row) in [(full.clone(), "full"), (Arc::new(none), "no directory")] {
        let tried = admit.try_ready(&policy, ready(), &going, &answer, &Busy(Some(10))).await.unwrap();
        let busy = tried.unwrap();
        assert_eq!(busy.status(), 503, "{row}");
        assert_eq!(busy.headers()["retry-after"], "7", "{row}");
        assert_eq!(busy.headers()["x-load"], "9", "{row}");
        let body = http_body_util::BodyExt::collect(busy.into_body()).await.unwrap().to_bytes();
        assert_eq!(body, "x".repeat(10), "{row}");
        let tried = admit.try_ready(&policy, ready(), &going, &answer, &Busy(None)).await.unwrap();
        assert!(matches!(tried, Err(failure) if failure.cause == Cause::NoEndpoint), "{row}");
    }
    let long = admit.try_ready(&full, ready(), &going, &answer, &Busy(Some(100_000))).await.unwrap().unwrap();
    let body = http_body_util::BodyExt::collect(long.into_body()).await.unwrap().to_bytes();
    assert_eq!(body.len(), 100_000, "one that is too long to be looked through is passed on whole");
}
