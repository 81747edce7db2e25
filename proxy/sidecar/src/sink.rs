//! sink: a dead letter as its policy's sink is sent it.
//!
//! The request as its receiver was sent it, but for four things: it goes to the sink's path, as HTTP/1.1,
//! which every receiver speaks, without credentials, which were meant for another, and with fields that say
//! what happened. A CloudEvent in binary mode has the attributes by which Knative's dispatchers say it, too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use policy::limits;
use policy::queue::Sink;
use queue::SunkOf;

use crate::admit::asked::IDEMPOTENCY_KEY;
use crate::admit::call::Call;

/// Why it died.
const REASON: HeaderName = HeaderName::from_static("tidegate-dead-letter-reason");
/// Its id, at which what became of it can be asked.
const ID: HeaderName = HeaderName::from_static("tidegate-dead-letter-id");
/// Where it could not be delivered.
const DESTINATION: HeaderName = HeaderName::from_static("tidegate-dead-letter-destination");
/// What its last attempt was answered.
const STATUS: HeaderName = HeaderName::from_static("tidegate-dead-letter-status");
/// What says of a message that it died.
pub(crate) const FIELDS: [HeaderName; 4] = [REASON, ID, DESTINATION, STATUS];

/// CloudEvents HTTP binding §3.1: a header for each attribute.
const CE_SPECVERSION: &str = "ce-specversion";
const CE_ERROR_DEST: HeaderName = HeaderName::from_static("ce-knativeerrordest");
const CE_ERROR_CODE: HeaderName = HeaderName::from_static("ce-knativeerrorcode");
const CE_ERROR_DATA: HeaderName = HeaderName::from_static("ce-knativeerrordata");

/// The call that tells `of`.
pub(crate) fn call(of: &SunkOf<'_>) -> Option<Bytes> {
    let call = Call::decode(of.call.clone()).ok()?;
    let mut fields = HeaderMap::new();
    let mut say = |name: HeaderName, value: String| {
        HeaderValue::try_from(value).map(|value| fields.insert(name, value)).ok()
    };
    let (id, destination) = (of.id.to_string(), format!("http://{}{}", call.authority, call.path));
    let status = of.last.and_then(|last| last.status.filter(|_| !last.grpc));
    say(REASON, of.reason.as_str().to_owned());
    say(DESTINATION, destination.clone());
    if let Some(status) = status {
        say(STATUS, status.to_string());
    }
    if call.has_header(CE_SPECVERSION) {
        say(CE_ERROR_DEST, destination);
        if let Some(status) = status {
            say(CE_ERROR_CODE, status.to_string());
        }
        if let Some(response) = of.response.filter(|response| !response.body.is_empty()) {
            let most = response.body.len().min(limits::SINK_ERROR_DATA_BYTES_MAX);
            say(CE_ERROR_DATA, STANDARD.encode(&response.body[..most]));
        }
    }
    if !call.has_header(IDEMPOTENCY_KEY.as_str()) {
        // What its receiver was told, so that one who saw both can tell.
        say(IDEMPOTENCY_KEY, id.clone());
    }
    say(ID, id)?;
    Some(call.sunk(&fields).to(of.sink).encode())
}

/// How a sink's Service is called.
pub(crate) fn authority(sink: &Sink) -> String {
    let (name, namespace, port) = (&sink.service.name, &sink.service.namespace, sink.service.port);
    match port {
        80 => format!("{name}.{namespace}.svc"),
        port => format!("{name}.{namespace}.svc:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{Request, Version};
    use queue::{Class, MessageId, Reason, Timestamp};
    use store::message::Position;

    use super::*;

    fn sink() -> Sink {
        Sink { service: "dead.ops.svc:80".parse().unwrap(), uri: "/d".to_owned() }
    }

    #[test]
    fn a_grpc_call_is_sunk_as_plain_http_and_only_an_answer_that_says_so_is_grpc() {
        let request =
            Request::post("http://orders.shop/a.B/C").version(Version::HTTP_2).header("te", "trailers");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let stored = Call::of(&parts, "orders.shop", true, None).encode();
        let id = MessageId::new(Class::Local, Timestamp(0), Position(1), Ipv4Addr::LOCALHOST);
        let sink = sink();
        let of =
            SunkOf { id, sink: &sink, call: &stored, reason: Reason::Expired, last: None, response: None };
        let sunk = Call::decode(call(&of).unwrap()).unwrap();
        assert_eq!((sunk.authority.as_str(), sunk.path.as_str()), ("dead.ops.svc", "/d"));
        let said: Vec<_> =
            sunk.shown().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect();
        let wanted = [
            "tidegate-dead-letter-reason: Expired".to_owned(),
            "tidegate-dead-letter-destination: http://orders.shop/a.B/C".to_owned(),
            format!("idempotency-key: {id}"),
            format!("tidegate-dead-letter-id: {id}"),
        ];
        assert_eq!(said.len(), wanted.len(), "{said:?}");
        assert!(wanted.iter().all(|field| said.contains(field)), "{said:?}");
        let mut answered = HeaderMap::new();
        assert!(!sunk.is_grpc(&answered) && Call::decode(stored).unwrap().is_grpc(&answered));
        answered.insert("grpc-status", HeaderValue::from_static("7"));
        assert!(sunk.is_grpc(&answered), "a sidecar that denies it says so in gRPC's words");
    }
}
