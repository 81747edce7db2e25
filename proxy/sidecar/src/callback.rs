//! callback: telling a caller that its request has ended.
//!
//! The end is told as a CloudEvent 1.0 in structured mode, POSTed to the address that came with the
//! request, signed as Standard Webhooks asks (HMAC-SHA256 over id, timestamp and body). It is a
//! message itself, with the same guarantees; it is signed when it goes out, because receivers
//! refuse old timestamps.

use std::time::SystemTime;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use policy::queue::{AsyncPolicy, Secret};
use queue::{CallbackCall, CallbackOf, MessageState};
use serde_json::json;

use crate::admit::answer::rfc3339;
use crate::admit::call::{Answered, Call};
use crate::admit::problem::{self, Problem};
use crate::authority;

pub(crate) const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
pub(crate) const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(crate) const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Whether a callback may go to `address`.
///
/// # Errors
/// The problem to answer.
pub(crate) fn check(address: &str, policy: &AsyncPolicy) -> Result<Uri, Problem> {
    let problem = |kind, why: String| Problem::new(kind, format!("Tidegate-Callback {address:?}: {why}"));
    let unusable = |why: &str| problem(problem::BAD_CALLBACK, why.to_owned());
    let refused = |why: String| problem(problem::CALLBACK_NOT_ALLOWED, why);
    let uri: Uri = address.parse().map_err(|_| unusable("it is not a URI"))?;
    if uri.scheme_str() != Some("http") {
        return Err(unusable("it must be http://: the mesh encrypts it on its way"));
    }
    let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let has_userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if host.is_empty() || has_userinfo {
        return Err(unusable("it must name a host, and no user"));
    }
    if let Some(Err(error)) = uri.authority().map(authority::port) {
        return Err(unusable(&error.to_string()));
    }
    if !policy.callback_hosts.iter().any(|pattern| fits(pattern, &host)) {
        return Err(refused(format!(
            "AsyncPolicy {} does not allow its host (callback.allowedHosts)",
            policy.name
        )));
    }
    if policy.callback_secret.is_none() {
        return Err(refused(format!(
            "AsyncPolicy {} names no key to sign callbacks with (callback.secretRef)",
            policy.name
        )));
    }
    Ok(uri)
}

/// `*.` stands for one or more labels.
fn fits(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

/// The request that tells of `end`.
pub(crate) fn call(end: &CallbackOf<'_>) -> Option<CallbackCall> {
    let uri: Uri = end.callback.parse().ok()?;
    let what = match end.state {
        MessageState::Succeeded => "completed",
        _ => "deadlettered",
    };
    let event = json!({
        "specversion": "1.0",
        "id": event_id(end, what),
        "source": end.owner,
        "type": format!("dev.tidegate.request.{what}"),
        "subject": format!("/.tidegate/requests/{}", end.id),
        "time": rfc3339(end.at),
        "datacontenttype": "application/json",
        "data": {
            "id": end.id.to_string(),
            "state": end.state.as_str(),
            "reason": end.reason.map(|reason| reason.as_str()),
            "attempts": end.attempts,
            "enqueuedAt": rfc3339(end.enqueued_at),
            "response": end.response.and_then(response),
        },
    });
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
    headers.insert(CONTENT_TYPE, json);
    let authority = uri.authority()?.as_str().to_owned();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let destination = format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(80));
    Some(CallbackCall {
        destination: destination.into(),
        call: Call::callback(authority, path, &headers, end.queue).encode(),
        body: serde_json::to_vec(&event).ok()?.into(),
    })
}

/// One for each end of a request, which may die, be redriven and end again: a consumer may take two events
/// of one source and id for the same (CloudEvents 1.0.2, "id"). Each attempt to tell of an end has the same.
fn event_id(end: &CallbackOf<'_>, what: &str) -> String {
    format!("{}/{what}/{}", end.id, rfc3339(end.at))
}

/// A response in words of JSON: text as it is, other bytes in base64.
fn response(response: &queue::Response) -> Option<serde_json::Value> {
    let (status, headers, _) = Answered::decode(response.head.clone()).ok()?;
    let mut named = serde_json::Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        named.insert(name.to_string(), json!(values.collect::<Vec<_>>().join(", ")));
    }
    let mut data = json!({ "status": status.as_u16(), "headers": named });
    match std::str::from_utf8(&response.body) {
        Ok(text) => data["body"] = json!(text),
        Err(_) => data["bodyBase64"] = json!(STANDARD.encode(&response.body)),
    }
    Some(data)
}

/// Signs a callback that is about to go out (Standard Webhooks, "Signature scheme").
pub(crate) fn sign(headers: &mut HeaderMap, id: &str, body: &[u8], secret: &Secret, now: SystemTime) {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let encoded = secret.reveal().trim();
    let key = encoded.strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
    let key = key.unwrap_or_else(|| encoded.as_bytes().to_vec());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{seconds}.").as_bytes());
    context.update(body);
    let signature = format!("v1,{}", STANDARD.encode(context.sign().as_ref()));
    for (name, value) in [
        (WEBHOOK_ID, id.to_owned()),
        (WEBHOOK_TIMESTAMP, seconds.to_string()),
        (WEBHOOK_SIGNATURE, signature),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_host_fits_its_name_or_a_wildcard_of_whole_labels() {
        for (pattern, host, fitting) in [
            ("mail.shop.svc", "mail.shop.svc", true),
            ("*.shop.svc", "mail.shop.svc", true),
            ("*.shop.svc", "a.mail.shop.svc", true),
            ("*.shop.svc", "shop.svc", false),
            ("*.shop.svc", "evilshop.svc", false),
            ("*.shop.svc", ".shop.svc", false),
        ] {
            assert_eq!(fits(pattern, host), fitting, "{pattern} {host}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_callback_is_told_apart_from_a_host_that_is_not_allowed() {
        let mut policy = AsyncPolicy::new("shop/orders");
        policy.callback_hosts = vec!["cb.shop".into()];
        policy.callback_secret = Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        let kind = |address| check(address, &policy).map(drop).map_err(|problem| problem.kind.name);
        assert_eq!(kind("http://cb.shop:8080/x"), Ok(()));
        for bad in [
            "cb.shop",
            "https://cb.shop/",
            "http://u@cb.shop/",
            "http://cb.shop:99999/x",
            "http://cb.shop:0/",
        ] {
            assert_eq!(kind(bad), Err("bad-callback"), "{bad}");
        }
        assert_eq!(kind("http://other.shop/"), Err("callback-not-allowed"));
    }

    #[test]
    fn each_end_of_a_request_is_an_event_of_its_own_that_names_the_request() {
        let id: queue::MessageId = "01900000-0001-7400-8000-00050a000007".parse().unwrap();
        let policy = AsyncPolicy::new("shop/orders");
        let end = |state, at| CallbackOf {
            id,
            queue: "shop/orders/orders.shop:80",
            policy: &policy,
            callback: "http://hooks.shop/done",
            owner: "spiffe://d/ns/shop/sa/web",
            state,
            reason: None,
            response: None,
            attempts: 1,
            enqueued_at: queue::Timestamp(0),
            at: queue::Timestamp(at),
        };
        let event = |state, at| -> serde_json::Value {
            serde_json::from_slice(&call(&end(state, at)).unwrap().body).unwrap()
        };
        let events = [
            event(MessageState::DeadLettered, 1000),
            event(MessageState::DeadLettered, 2000),
            event(MessageState::Succeeded, 2000),
        ];
        let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event["id"].to_string()).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
        assert_eq!(events[0], event(MessageState::DeadLettered, 1000), "told again, it is the same");
        for event in &events {
            assert_eq!(event["subject"], format!("/.tidegate/requests/{id}"), "{event}");
            assert_eq!(event["data"]["id"], id.to_string(), "{event}");
        }
    }

    /// The example of the Standard Webhooks reference libraries.
    #[test]
    fn a_signature_is_the_one_the_reference_libraries_make() {
        let mut headers = HeaderMap::new();
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_614_265_330);
        sign(&mut headers, "msg_p5jXN8AQM9LWM0D4loKWxJek", b"{\"test\": 2432232314}", &secret, at);
        let signature = headers[WEBHOOK_SIGNATURE].to_str().unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
