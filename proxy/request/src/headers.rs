//! headers: those that belong to one hop, and those that sidecars tell each other.
//!
//! HTTP/1 travels between sidecars as HTTP/2 and is restored on the far side; the header
//! `l5d-orig-proto` says so (linkerd2-proxy, `linkerd/proxy/http/src/orig_proto.rs`, tag
//! `release/v2.366.0`).

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version};
use policy::limits;

/// Says, between sidecars, what a request was before it became HTTP/2.
pub const ORIG_PROTO: HeaderName = HeaderName::from_static("l5d-orig-proto");
pub(crate) const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");
pub(crate) const PROXY_ERROR: HeaderName = HeaderName::from_static("l5d-proxy-error");
pub(crate) const PROXY_CONNECTION_L5D: HeaderName = HeaderName::from_static("l5d-proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The protocol a client asks to change to, when it asks (RFC 9110 §7.8). `h2c` is not one: its use
/// in `Upgrade` is obsolete (RFC 9113 §3.1), and Java's client asks for it on every first request.
#[must_use]
pub fn wants_upgrade<B>(request: &Request<B>) -> bool {
    if request.method() == Method::CONNECT {
        return true;
    }
    if request.version() == Version::HTTP_2 {
        return false;
    }
    request.headers().get(UPGRADE).is_some_and(|value| {
        let mut protocols = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        protocols.any(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case(b"h2c"))
    })
}

/// What no `Connection` may name away (RFC 9110 §7.6.1 asks so of senders): it says whom a message is
/// for, who sent it, and where it ends.
const ENDS_TO_END: [HeaderName; 5] = [HOST, VIA, CONTENT_LENGTH, CLIENT_ID, ORIG_PROTO];

/// Says that a body follows whose length nobody knows (RFC 9112 §6.1). Without it a GET's would be
/// taken for none.
pub(crate) fn say_chunked<B: http_body::Body>(request: &mut Request<B>) {
    if request.version() == Version::HTTP_11
        && !request.body().is_end_stream()
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Takes away what belongs to the connection it came on (RFC 9110 §7.6.1). `te: trailers` stays:
/// gRPC asks for it on every hop.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let split = |value: &HeaderValue| {
            let names = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
            names.filter_map(|name| HeaderName::from_bytes(name).ok()).collect::<Vec<_>>()
        };
        let named: Vec<_> = headers.get_all(CONNECTION).iter().flat_map(split).collect();
        headers.remove(CONNECTION);
        for name in named {
            if !ENDS_TO_END.contains(&name) {
                headers.remove(name);
            }
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(TE);
    }
}

/// Takes away what a client shows the proxy it speaks to (RFC 9110 §11.7.2): that is us. Where
/// `absolute_form` says that the application did not take us for one, a request in that form or a CONNECT
/// is for a proxy behind us, and so is what it shows.
pub(crate) fn strip_for_us<B>(request: &mut Request<B>, absolute_form: bool) {
    let to_a_proxy = request.method() == Method::CONNECT
        || (request.version() != Version::HTTP_2 && request.uri().authority().is_some());
    if !(absolute_form && to_a_proxy) {
        request.headers_mut().remove(PROXY_AUTHORIZATION);
    }
}

/// Takes away what only a sidecar may say: an application, or whoever has no identity, cannot speak
/// as one.
pub(crate) fn strip_forged(headers: &mut HeaderMap) {
    for name in [ORIG_PROTO, CLIENT_ID, PROXY_ERROR, PROXY_CONNECTION_L5D] {
        headers.remove(name);
    }
}

/// Whether a request names more than one host: whoever checks one and routes by the other is fooled
/// (RFC 9112 §3.2).
pub(crate) fn has_two_hosts(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).iter().nth(1).is_some()
}

/// Whether a head has more fields or bytes than are taken. HTTP/1 connections refuse it themselves.
pub(crate) fn is_too_large<B>(request: &Request<B>) -> bool {
    // Each field counts 32 bytes more than its letters (RFC 9113 §10.5.1).
    let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    request.version() == Version::HTTP_2
        && (request.headers().len() > limits::HEADER_COUNT_MAX
            || request.headers().iter().map(bytes).sum::<usize>() > limits::HEADER_BYTES_MAX)
}

/// For a request that asks to change protocols: everything stays but what forges or confuses.
pub(crate) fn strip_for_upgrade(headers: &mut HeaderMap) {
    headers.remove(HTTP2_SETTINGS);
    headers.remove(PROXY_CONNECTION);
    if headers.contains_key(CONNECTION) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Adds our name to `Via` (RFC 9110 §7.6.3). Says how often it stood there already, so that a
/// request that goes round is seen.
pub(crate) fn pass_via(headers: &mut HeaderMap, name: &HeaderValue) -> usize {
    let ours = name.as_bytes();
    let pseudonym = ours.split(|b| *b == b' ').nth(1).unwrap_or(ours);
    let count = |value: &HeaderValue| {
        value.as_bytes().split(|b| matches!(b, b',' | b' ')).filter(|word| *word == pseudonym).count()
    };
    let passed = headers.get_all(VIA).iter().map(count).sum();
    headers.append(VIA, name.clone());
    passed
}

/// Whether a request passed here so often that it must be going round.
pub(crate) fn is_loop(passed: usize) -> bool {
    passed >= limits::HOPS_MAX
}

/// The authority a request names: that of its URI, or its `Host`.
#[must_use]
pub(crate) fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    Authority::try_from(headers.get(HOST)?.as_bytes()).ok()
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

/// `Host` has no userinfo (RFC 9110 §7.2).
fn without_userinfo(authority: &Authority) -> &str {
    authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host)
}

fn absolute(authority: Authority, path: PathAndQuery) -> Option<Uri> {
    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build().ok()
}

/// Makes an HTTP/1 request travel as HTTP/2. `fallback` is used where it names no authority
/// (HTTP/1.0). `absolute_form`: it had an absolute URI that its receiver must see.
pub(crate) fn to_http2<B>(request: &mut Request<B>, fallback: &Authority, absolute_form: bool) {
    let named = match (request.version(), absolute_form) {
        (Version::HTTP_10, true) => "HTTP/1.0; absolute-form",
        (Version::HTTP_10, false) => "HTTP/1.0",
        (_, true) => "HTTP/1.1; absolute-form",
        (_, false) => "HTTP/1.1",
    };
    let host = authority(request.uri(), request.headers()).unwrap_or_else(|| fallback.clone());
    let headers = request.headers_mut();
    headers.insert(ORIG_PROTO, HeaderValue::from_static(named));
    headers.remove(HOST);
    headers.remove(TE);
    if let Some(uri) = absolute(host, path(request.uri())) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

/// Restores an HTTP/1 request that came as HTTP/2. `None`: it did not.
pub(crate) fn restore_http1<B>(request: &mut Request<B>) -> Option<Version> {
    let named = request.headers_mut().remove(ORIG_PROTO)?;
    let mut words = named.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let version = match words.next() {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        Some(b"HTTP/1.1") => Version::HTTP_11,
        _ => return None,
    };
    let absolute_form = words.any(|word| word == b"absolute-form");
    *request.version_mut() = version;
    if let Some(authority) = request.uri().authority().cloned() {
        if !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(without_userinfo(&authority))
        {
            request.headers_mut().insert(HOST, host);
        }
        if !absolute_form {
            *request.uri_mut() = Uri::from(path(request.uri()));
        }
    }
    Some(version)
}

/// Makes a request fit for an HTTP/1 connection: origin form and a `Host`.
pub(crate) fn to_http1<B>(request: &mut Request<B>, fallback: &Authority, absolute_form: bool) {
    // An absolute URI stands above Host (RFC 9112 §3.2.2); where the receiver sees the URI too, both
    // go on as they came.
    if !absolute_form && request.uri().authority().is_some() {
        request.headers_mut().remove(HOST);
    }
    if !request.headers().contains_key(HOST) && request.version() != Version::HTTP_10 {
        let host = authority(request.uri(), request.headers()).unwrap_or_else(|| fallback.clone());
        if let Ok(host) = HeaderValue::from_str(without_userinfo(&host)) {
            request.headers_mut().insert(HOST, host);
        }
    }
    if request.method() != Method::CONNECT && !absolute_form && request.uri().authority().is_some() {
        *request.uri_mut() = Uri::from(path(request.uri()));
    }
    if request.version() != Version::HTTP_10 {
        *request.version_mut() = Version::HTTP_11;
    }
}

/// Tags a response to a request that [`restore_http1`] restored.
pub(crate) fn tag_response<B>(response: &mut Response<B>) {
    let named = match response.version() {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    response.headers_mut().insert(ORIG_PROTO, HeaderValue::from_static(named));
    *response.version_mut() = Version::HTTP_2;
}

/// What the sidecar beside the application says in a response, besides what the application says
/// (linkerd2-proxy, `linkerd/app/core/src/errors/respond.rs`, read at 05eb000d).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerWords {
    /// The client's connection is to be closed, so that it looks for another way.
    pub(crate) close: bool,
    /// It has answered in the application's place, and this is why.
    pub(crate) error: Option<HeaderValue>,
}

impl PeerWords {
    /// Takes them out of a response's headers. Heed them only when they come from a sidecar.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        headers.remove(ORIG_PROTO);
        let close = headers.remove(PROXY_CONNECTION_L5D).is_some_and(|value| value == "close");
        Self { close, error: headers.remove(PROXY_ERROR) }
    }
}

/// Takes a hop's words out of a response, a sidecar's among them, and makes it one of version `to`.
pub(crate) fn untag_response<B>(response: &mut Response<B>, to: Version) -> PeerWords {
    let words = PeerWords::take(response.headers_mut());
    strip_hop_by_hop(response.headers_mut());
    *response.version_mut() = to;
    words
}

/// Asks the client to end its connection after this response. HTTP/2 has no word for it.
pub(crate) fn ask_to_close<B>(response: &mut Response<B>) {
    if response.version() != Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests;
