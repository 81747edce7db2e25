//! tests: the tables of the Gateway API.

use http::Request;
use policy::route::RuleName;
use prometheus_client::registry::Registry;

use super::*;
use crate::metrics::{Direction, Metrics, RouteLabels};

fn redirect(change: impl FnOnce(&mut Redirect)) -> CompiledRedirect {
    let mut redirect = Redirect { status: 302, ..Redirect::default() };
    change(&mut redirect);
    let matched = PathMatch::Prefix("/foo".to_owned());
    let labels = RouteLabels::new(Direction::outbound, &RuleName::none(), "redirect");
    let series = Metrics::new(&mut Registry::default()).series(labels);
    CompiledRedirect::new(&redirect, Some(&matched), Vec::new(), series).unwrap()
}

fn location(redirect: &CompiledRedirect, url: &str, meant: &str) -> String {
    let uri: Uri = url.parse().unwrap();
    let host = uri.authority().unwrap().as_str().to_owned();
    let request = Request::get(uri.path_and_query().unwrap().as_str()).header("host", host);
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let response = redirect.response(&parts, &meant.parse().unwrap()).unwrap();
    assert_eq!(response.status(), redirect.status);
    assert_eq!(response.headers()["proxy-status"], REDIRECTED);
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

/// HTTPPathModifier.replacePrefixMatch: the table of its documentation.
#[test]
fn a_prefix_is_replaced_by_whole_elements() {
    for (path, prefix, with, becomes) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/bar", "/", "/xyz", "/xyz/bar"),
    ] {
        let matched = PathMatch::Prefix(prefix.to_owned());
        let new = NewPath::new(&PathChange::Prefix(with.to_owned()), Some(&matched)).unwrap();
        assert_eq!(new.of(path), becomes, "{path}: {prefix} by {with}");
    }
    let exact = PathMatch::Exact("/foo".to_owned());
    assert!(NewPath::new(&PathChange::Prefix("/x".to_owned()), Some(&exact)).is_err());
}

/// HTTPRequestRedirectFilter.port and .scheme.
#[test]
fn a_location_has_the_port_that_is_written_or_the_schemes_or_the_one_asked() {
    let at = |change: fn(&mut Redirect), url, meant| location(&redirect(change), url, meant);
    assert_eq!(at(|_| {}, "http://echo/foo?a=1", "10.0.0.1:80"), "http://echo/foo?a=1");
    assert_eq!(at(|_| {}, "http://echo:8080/foo", "10.0.0.1:8080"), "http://echo:8080/foo");
    assert_eq!(
        at(|r| r.hostname = Some("other".parse().unwrap()), "http://echo:81/", "echo:81"),
        "http://other:81/"
    );
    assert_eq!(at(|r| r.scheme = Some(Scheme::Https), "http://echo:81/", "echo:81"), "https://echo/");
    assert_eq!(at(|r| r.port = Some(443), "http://echo/", "echo:80"), "http://echo:443/");
    let both = |r: &mut Redirect| (r.scheme, r.port) = (Some(Scheme::Https), Some(443));
    assert_eq!(at(both, "http://echo/", "echo:80"), "https://echo/");
    let path = |r: &mut Redirect| r.path = Some(PathChange::Full("/new".to_owned()));
    assert_eq!(at(path, "http://echo/foo?a=1", "echo:80"), "http://echo/new?a=1");
    let prefix = |r: &mut Redirect| r.path = Some(PathChange::Prefix("/new".to_owned()));
    assert_eq!(at(prefix, "http://echo/foo/x", "echo:80"), "http://echo/new/x");
}

#[test]
fn a_backend_sees_the_new_address_and_the_old_query() {
    let rewrite = Rewrite {
        hostname: Some("one.example".parse().unwrap()),
        path: Some(PathChange::Prefix("/one".to_owned())),
    };
    let matched = PathMatch::Prefix("/foo".to_owned());
    let rewrite = CompiledRewrite::new(&rewrite, Some(&matched)).unwrap();
    let rewritten = |uri: &str, host: Option<&str>| {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        rewrite.apply(&mut parts).unwrap();
        let host = parts.headers.get(HOST).map(|host| host.to_str().unwrap().to_owned());
        (parts.uri.to_string(), host)
    };
    let name = || Some("one.example".to_owned());
    // HTTP/1, HTTP/2, and HTTP/1.0 without a Host.
    assert_eq!(rewritten("/foo/x?a=1", Some("echo:80")), ("/one/x?a=1".to_owned(), name()));
    assert_eq!(rewritten("http://echo/foo", None), ("http://one.example/one".to_owned(), None));
    assert_eq!(rewritten("/foo", None), ("/one".to_owned(), name()));
    let (mut tunnel, ()) = Request::connect("echo:80").body(()).unwrap().into_parts();
    rewrite.apply(&mut tunnel).unwrap();
    assert_eq!(tunnel.uri, "echo:80");
}
