//! guard: a web page of somebody else's must not use an operator's browser as its hand.
//!
//! Whoever reaches loopback may operate, and a browser beside does. Two ways lead from a foreign page
//! to us: it posts to our address (the browser names the page in `Origin`; Fetch §3.2), or it has a
//! name of its own answered with 127.0.0.1 (DNS rebinding; then that name stands in `Host`).

use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

/// Whether it is an address, or the one name that no DNS server answers for (RFC 6761 §6.3).
fn is_address(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok()
        || v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

/// Why a request was not meant for this address: its `Host` is a name.
pub(crate) fn misnamed(headers: &HeaderMap) -> Option<&'static str> {
    let ours = host(headers).is_some_and(is_address);
    (!ours).then_some("the Host must be an address or localhost: a name could be anybody's")
}

/// Why a request came from a foreign page: its `Origin` is not this address.
pub(crate) fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    let origin = headers.get(ORIGIN)?;
    let authority = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    let same = authority.zip(host(headers)).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host));
    let ours = same && authority.is_some_and(is_address);
    (!ours).then_some("a page of another origin may not ask this")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(host: &'static str, origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn a_host_must_be_an_address() {
        for ours in ["127.0.0.1:4191", "127.0.1.2", "localhost:9999", "LocalHost", "[::1]:4191"] {
            assert_eq!(misnamed(&headers(ours, None)), None, "{ours}");
        }
        for theirs in
            ["evil.example:4191", "a", "localhost.evil.example", "", "127.0.0.1.evil.example", "u@h:1:2"]
        {
            assert!(misnamed(&headers(theirs, None)).is_some(), "{theirs}");
        }
        assert!(misnamed(&HeaderMap::new()).is_some());
    }

    #[test]
    fn an_origin_must_be_the_same_address_or_absent() {
        let foreign = |host, origin| foreign(&headers(host, origin)).is_some();
        assert!(!foreign("127.0.0.1:4191", None));
        assert!(!foreign("127.0.0.1:4191", Some("http://127.0.0.1:4191")));
        assert!(!foreign("localhost:4191", Some("http://localhost:4191")));
        // Another page on this machine, a page over TLS, a hidden origin, a rebound name.
        assert!(foreign("127.0.0.1:4191", Some("http://127.0.0.1:8080")));
        assert!(foreign("127.0.0.1:4191", Some("https://127.0.0.1:4191")));
        assert!(foreign("127.0.0.1:4191", Some("null")));
        assert!(foreign("evil.example:4191", Some("http://evil.example:4191")));
    }
}
