//! Headers as they are on either side of a hop.

use super::*;

fn request(version: Version, uri: &str, headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::builder().version(version).uri(uri).body(()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

fn fallback() -> Authority {
    Authority::from_static("orders.shop.svc:8080")
}

/// (version, URI, Host) as an application sends it, `l5d-orig-proto` as linkerd2-proxy writes it for
/// that request (`linkerd/proxy/http/src/orig_proto.rs`, `Upgrade`, tag `release/v2.366.0`),
/// `:authority`.
const VECTORS: [(Version, &str, Option<&str>, &str, &str); 4] = [
    (Version::HTTP_11, "/a?b=c", Some("orders"), "HTTP/1.1", "orders"),
    (Version::HTTP_11, "http://orders/a", Some("orders"), "HTTP/1.1; absolute-form", "orders"),
    (Version::HTTP_10, "/", Some("orders:81"), "HTTP/1.0", "orders:81"),
    (Version::HTTP_10, "http://orders/", None, "HTTP/1.0; absolute-form", "orders"),
];

#[test]
fn http1_goes_through_http2_and_comes_out_as_it_was() {
    for (version, uri, host, tag, authority) in VECTORS {
        let headers: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
        let mut request = request(version, uri, &headers);
        to_http2(&mut request, &fallback(), uri.starts_with("http"));
        assert_eq!(request.headers()[ORIG_PROTO], tag);
        assert_eq!(request.uri().authority().unwrap(), authority);
        assert_eq!((request.version(), request.headers().contains_key(HOST)), (Version::HTTP_2, false));
        assert_eq!(restore_http1(&mut request), Some(version));
        assert_eq!((request.version(), request.uri().to_string().as_str()), (version, uri));
        assert_eq!(request.headers()[HOST], authority);
        assert!(!request.headers().contains_key(ORIG_PROTO));
    }
}

/// (version of the application's response, `l5d-orig-proto` as linkerd2-proxy writes it into the
/// response that it hands to the other sidecar: `linkerd/proxy/http/src/orig_proto.rs`, `Downgrade`,
/// tag `release/v2.366.0`).
const WRITTEN: [(Version, &str); 2] = [(Version::HTTP_11, "HTTP/1.1"), (Version::HTTP_10, "HTTP/1.0")];

#[test]
fn the_response_is_tagged_with_its_version() {
    for (version, tag) in WRITTEN {
        let mut response = Response::builder().version(version).body(()).unwrap();
        tag_response(&mut response);
        assert_eq!(
            (response.version(), &response.headers()[ORIG_PROTO]),
            (Version::HTTP_2, &tag.parse().unwrap())
        );
        assert_eq!(response.headers().len(), 1);
        assert_eq!(untag_response(&mut response, version), PeerWords::default());
        assert_eq!((response.version(), response.headers().len()), (version, 0));
    }
}

/// Headers of a response.
type Headers = &'static [(&'static str, &'static str)];

/// (status, headers, whether the client's connection is to be closed, why the sidecar answered) of
/// responses as linkerd2-proxy's inbound side makes them: `linkerd/app/core/src/errors/respond.rs`,
/// `http_response` and `grpc_response`, read at 05eb000d. The first is an application's own.
const READ: [(u16, Headers, bool, Option<&str>); 5] = [
    (200, &[("l5d-orig-proto", "HTTP/1.1")], false, None),
    (
        502,
        &[("l5d-proxy-error", "Connection refused (os error 111)"), ("l5d-proxy-connection", "close")],
        true,
        Some("Connection refused (os error 111)"),
    ),
    (
        504,
        &[
            ("l5d-proxy-error", "connect timed out after 1s"),
            ("connection", "close"),
            ("l5d-proxy-connection", "close"),
        ],
        true,
        Some("connect timed out after 1s"),
    ),
    (
        403,
        &[("l5d-proxy-error", "client 10.0.0.1:5: server: 10.0.0.2:80: unauthorized request on route")],
        false,
        Some("client 10.0.0.1:5: server: 10.0.0.2:80: unauthorized request on route"),
    ),
    (
        200,
        &[
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("grpc-message", "connection error"),
            ("l5d-proxy-error", "connection error"),
            ("l5d-proxy-connection", "close"),
        ],
        true,
        Some("connection error"),
    ),
];

#[test]
fn what_a_sidecar_says_in_a_response_is_understood_and_goes_no_further() {
    for (status, headers, close, error) in READ {
        let mut response = Response::builder().status(status).version(Version::HTTP_2).body(()).unwrap();
        for (name, value) in headers {
            response.headers_mut().append(*name, value.parse().unwrap());
        }
        let words = untag_response(&mut response, Version::HTTP_11);
        let error = error.map(|text| text.parse().unwrap());
        assert_eq!(words, PeerWords { close, error }, "{headers:?}");
        assert_eq!((response.status().as_u16(), response.version()), (status, Version::HTTP_11));
        let left = |name: &HeaderName| !name.as_str().starts_with("l5d-") && *name != CONNECTION;
        assert!(response.headers().keys().all(left), "{:?}", response.headers());
        ask_to_close(&mut response);
        assert_eq!(response.headers()[CONNECTION], "close");
    }
}

#[test]
fn what_belongs_to_one_hop_stays_behind_and_te_trailers_goes_on() {
    let list = [
        ("connection", "close, x-private"),
        ("connection", "x-second, l5d-client-id, host, content-length"),
        ("l5d-client-id", "web"),
        ("host", "orders"),
        ("x-second", "2"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-sum"),
    ];
    let mut request = request(Version::HTTP_11, "/", &list);
    strip_hop_by_hop(request.headers_mut());
    let mut left: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["host", "l5d-client-id", "te", "trailer"]);
    request.headers_mut().insert(TE, HeaderValue::from_static("gzip"));
    strip_hop_by_hop(request.headers_mut());
    assert!(!request.headers().contains_key(TE));
}

#[test]
fn what_a_client_shows_its_proxy_stays_with_us_unless_it_means_another() {
    let proxy = ("proxy-authorization", "Basic b3VyczpzZWNyZXQ=");
    for (version, uri, absolute_form, stays) in [
        (Version::HTTP_11, "/", false, false),
        (Version::HTTP_11, "http://orders.shop/", false, false),
        (Version::HTTP_2, "http://orders.shop/", true, false),
        (Version::HTTP_11, "/", true, false),
        (Version::HTTP_11, "http://example.com/", true, true),
    ] {
        let mut request = request(version, uri, &[proxy]);
        strip_for_us(&mut request, absolute_form);
        let has = request.headers().contains_key("proxy-authorization");
        assert_eq!(has, stays, "{version:?} {uri} {absolute_form}");
    }
}

#[test]
fn an_upgrade_to_h2c_is_none_and_one_to_websocket_is_one() {
    let asks = |protocol| wants_upgrade(&request(Version::HTTP_11, "/", &[("upgrade", protocol)]));
    assert!(!asks("h2c"));
    assert!(!asks("H2C"));
    assert!(asks("websocket"));
    assert!(asks("h2c, websocket"));
    assert!(!wants_upgrade(&request(Version::HTTP_2, "/", &[("upgrade", "websocket")])));
}

#[test]
fn our_name_in_via_is_counted_and_that_of_others_is_not() {
    let ours = HeaderValue::from_static("1.1 tidegate-1");
    let mut request = request(Version::HTTP_11, "/", &[("via", "1.1 tidegate-2, 1.1 varnish")]);
    for passed in 0..limits::HOPS_MAX {
        assert_eq!(pass_via(request.headers_mut(), &ours), passed);
        assert!(!is_loop(passed));
    }
    assert!(is_loop(pass_via(request.headers_mut(), &ours)));
}
