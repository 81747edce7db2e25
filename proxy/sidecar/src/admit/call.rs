//! call: a request and a response as a message carries them.
//!
//! Encoded as protobuf, so that a later version reads what an earlier one stored. Trailers of a
//! request are not kept, and Spill's synchronous attempt at a request that could be stored is made
//! without them too: no client of gRPC sends any, hardly one of HTTP/1 does.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, PROXY_AUTHORIZATION, TE, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use policy::limits;
use policy::queue::Sink;
use prost::Message as _;
use queue::{Class, MessageId};
use request::headers::{ORIG_PROTO, strip_hop_by_hop};
use store::message::{Position, Timestamp};

use super::answer::rfc3339;
use super::asked::{self, IDEMPOTENCY_KEY};
use super::seal::Sealer;
use crate::queues::Keys;
use crate::sink;

pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("tidegate-attempt");
pub(crate) const ENQUEUED_AT: HeaderName = HeaderName::from_static("tidegate-enqueued-at");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("tidegate-request-id");

/// A gRPC client's deadline is for its call, not for a delivery later on.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// As long as each (W3C Trace Context §3.2).
const ANY_TRACE: &str = "00-00000000000000000000000000000000-0000000000000000-00";
/// Headers that are the queue's own: not for the receiver.
const CONTROL: [HeaderName; 8] = [
    asked::CALLBACK,
    asked::DELAY,
    asked::EXPIRES,
    asked::KEY,
    asked::NOT_BEFORE,
    ATTEMPT,
    ENQUEUED_AT,
    REQUEST_ID,
];
/// Headers that let their bearer do something.
pub(crate) const CREDENTIALS: [HeaderName; 2] = [AUTHORIZATION, COOKIE];

/// A request without its body.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Call {
    #[prost(string, tag = "1")]
    pub(crate) method: String,
    #[prost(string, tag = "2")]
    pub(crate) authority: String,
    /// With its query.
    #[prost(string, tag = "3")]
    pub(crate) path: String,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<Field>,
    /// [`CREDENTIALS`], encrypted.
    #[prost(bytes = "bytes", tag = "5")]
    sealed: Bytes,
    #[prost(bool, tag = "6")]
    http2: bool,
    #[prost(bool, tag = "7")]
    pub(crate) grpc: bool,
    /// A callback: the queue (`NAMESPACE/POLICY/DESTINATION`) of the message whose end it tells. It
    /// goes to the name in `authority`, and is signed with that policy's key.
    #[prost(string, tag = "8")]
    pub(crate) callback_of: String,
    /// A dead letter on its way to its policy's sink.
    #[prost(bool, tag = "9")]
    pub(crate) sunk: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A message that cannot be made a request again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotACall {
    #[error("its head cannot be decoded")]
    Encoding(#[from] prost::DecodeError),
    #[error("its head is no request: {0}")]
    Http(#[from] http::Error),
    #[error("its credentials were encrypted with another key")]
    Sealed,
}

fn fields<'a>(headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Vec<Field> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| Field {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    headers.map(field).collect()
}

fn put(fields: &[Field], headers: &mut HeaderMap) -> Result<(), http::Error> {
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())?;
        headers.append(name, HeaderValue::from_maybe_shared(field.value.clone())?);
    }
    Ok(())
}

impl Call {
    /// What is kept of a request. Hop-by-hop headers must be gone already; with `sealer` its
    /// credentials are kept too, encrypted.
    pub(crate) fn of(parts: &Parts, authority: &str, grpc: bool, sealer: Option<&Sealer>) -> Self {
        let mut headers = for_receiver(parts);
        // An absolute URI stands above Host (RFC 9112 §3.2.2), and is the authority here.
        if parts.uri.authority().is_some() {
            headers.remove(HOST);
        }
        let mut secret = Secrets::default();
        for name in &CREDENTIALS {
            secret.headers.extend(fields(headers.get_all(name).iter().map(|value| (name, value))));
            headers.remove(name);
        }
        let sealed = match sealer {
            Some(sealer) if !secret.headers.is_empty() => sealer.seal(secret.encode_to_vec()),
            _ => Bytes::new(),
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        Self {
            method: parts.method.as_str().to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: fields(headers.iter()),
            sealed,
            http2: parts.version == Version::HTTP_2,
            grpc,
            callback_of: String::new(),
            sunk: false,
        }
    }

    /// The callback of a message of `queue`.
    pub(crate) fn callback(authority: String, path: String, headers: &HeaderMap, queue: &str) -> Self {
        Self {
            method: Method::POST.as_str().to_owned(),
            authority,
            path,
            headers: fields(headers.iter()),
            callback_of: queue.to_owned(),
            ..Self::default()
        }
    }

    /// The same as a dead letter, with `more` said of it.
    pub(crate) fn sunk(mut self, more: &HeaderMap) -> Self {
        let stays = |name: &str| !more.contains_key(name) && name != HOST && name != TE;
        self.headers.retain(|field| stays(&field.name));
        self.headers.extend(fields(more.iter()));
        Self { sealed: Bytes::new(), http2: false, sunk: true, ..self }
    }

    /// The same to a sink.
    pub(crate) fn to(self, sink: &Sink) -> Self {
        Self { authority: sink::authority(sink), path: sink.uri.clone(), ..self }
    }

    /// Whether a response speaks gRPC: a sink is sent a gRPC call too as plain HTTP, and may answer so.
    pub(crate) fn is_grpc(&self, response: &HeaderMap) -> bool {
        self.grpc && (!self.sunk || response.contains_key("grpc-status"))
    }

    /// Whether it has a header of this name, in lower case.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|field| field.name == name)
    }

    /// Its headers, without [`CREDENTIALS`].
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let shown = |field: &&Field| !CREDENTIALS.iter().any(|name| name.as_str() == field.name);
        self.headers.iter().filter(shown).map(|field| (field.name.as_str(), &*field.value))
    }

    /// Whether it has any, encrypted.
    pub(crate) fn has_credentials(&self) -> bool {
        !self.sealed.is_empty()
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, NotACall> {
        Ok(<Self as prost::Message>::decode(bytes)?)
    }

    /// The request as it goes out, in its attempt number `attempt`.
    pub(crate) fn request<B>(
        &self,
        body: B,
        attempt: &AttemptOf,
        keys: &Keys,
    ) -> Result<Request<B>, NotACall> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).map_err(http::Error::from)?;
        let version = if self.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.version_mut() = version;
        *request.uri_mut() = match version {
            Version::HTTP_2 => Uri::builder()
                .scheme("http")
                .authority(self.authority.as_str())
                .path_and_query(self.path.as_str())
                .build()?,
            _ => self.path.parse::<Uri>().map_err(http::Error::from)?,
        };
        let headers = request.headers_mut();
        put(&self.headers, headers)?;
        if !self.sealed.is_empty() {
            let opened = keys.sealer().ok().and_then(|sealer| sealer.open(&self.sealed));
            let opened = opened.ok_or(NotACall::Sealed)?;
            put(&Secrets::decode(opened.as_slice())?.headers, headers)?;
        }
        if version != Version::HTTP_2 && !headers.contains_key(HOST) {
            headers.insert(HOST, HeaderValue::try_from(self.authority.as_str()).map_err(http::Error::from)?);
        }
        attempt.tell(headers)?;
        Ok(request)
    }
}

/// A request's headers without those that are the queue's, and those that speak of this hop: what is shown
/// to a proxy (RFC 9110 §11.7.2), and which trailers follow.
fn for_receiver(parts: &Parts) -> HeaderMap {
    let mut headers = parts.headers.clone();
    asked::strip_preference(&mut headers);
    let others = [&GRPC_TIMEOUT, &PROXY_AUTHORIZATION, &TRAILER];
    CONTROL.iter().chain(&sink::FIELDS).chain(others).for_each(|name| drop(headers.remove(name)));
    headers
}

/// A head as large as any attempt's at this request: between sidecars it travels as HTTP/2, with a length and,
/// instead of `Host`, a word on what it came as.
pub(crate) fn outline(parts: &Parts) -> Request<()> {
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    *headers = for_receiver(parts);
    strip_hop_by_hop(headers);
    headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(limits::MESSAGE_BODY_BYTES_CAP));
    // Two of them are refused as such.
    if parts.version != Version::HTTP_2 && headers.get_all(HOST).iter().nth(1).is_none() {
        headers.remove(HOST);
        headers.insert(ORIG_PROTO, HeaderValue::from_static("HTTP/1.1"));
    }
    let id = MessageId::new(Class::Local, Timestamp(0), Position(0), Ipv4Addr::UNSPECIFIED);
    let attempt = AttemptOf { id, number: u32::MAX, enqueued_at: Timestamp(0) };
    // Fails for no value of these.
    let _ = attempt.tell(headers);
    headers.entry(TRACEPARENT).or_insert(HeaderValue::from_static(ANY_TRACE));
    request
}

/// Which attempt a request is.
#[derive(Debug, Clone)]
pub(crate) struct AttemptOf {
    pub(crate) id: MessageId,
    /// From 1.
    pub(crate) number: u32,
    pub(crate) enqueued_at: Timestamp,
}

impl AttemptOf {
    /// Says in a request's headers which it is.
    fn tell(&self, headers: &mut HeaderMap) -> Result<(), http::Error> {
        let id = HeaderValue::try_from(self.id.to_string())?;
        headers.entry(IDEMPOTENCY_KEY).or_insert(id.clone());
        headers.insert(REQUEST_ID, id);
        headers.insert(ATTEMPT, HeaderValue::from(self.number));
        headers.insert(ENQUEUED_AT, HeaderValue::try_from(rfc3339(self.enqueued_at))?);
        Ok(())
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Secrets {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<Field>,
}

/// A response without its body.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answered {
    #[prost(uint32, tag = "1")]
    status: u32,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    trailers: Vec<Field>,
}

impl Answered {
    /// What is kept of a response. Hop-by-hop headers must be gone already.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap, trailers: Option<&HeaderMap>) -> Self {
        Self {
            status: status.as_u16().into(),
            headers: fields(headers.iter()),
            trailers: trailers.map(|trailers| fields(trailers.iter())).unwrap_or_default(),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// The status, headers and trailers again.
    pub(crate) fn decode(bytes: Bytes) -> Result<(StatusCode, HeaderMap, HeaderMap), NotACall> {
        let answered = <Self as prost::Message>::decode(bytes)?;
        let status = u16::try_from(answered.status).unwrap_or_default();
        let status = StatusCode::from_u16(status).map_err(http::Error::from)?;
        let (mut headers, mut trailers) = (HeaderMap::new(), HeaderMap::new());
        put(&answered.headers, &mut headers)?;
        put(&answered.trailers, &mut trailers)?;
        Ok((status, headers, trailers))
    }
}
