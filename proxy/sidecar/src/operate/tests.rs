//! tests: which paths are ours, and who may ask.
//!
//! What is answered is tested with whole programs, in `tests/tests/demo/queues.rs`.

use http::header::{HOST, ORIGIN};

use super::*;

#[test]
fn paths_of_queues_requests_and_the_page_are_ours() {
    for ours in ["/", "/queues", "/queues/purge", "/page/style.css", "/.tidegate/requests/x"] {
        assert!(is_ours(ours), "{ours}");
    }
    for other in ["/live", "/metrics", "/queuesque", "/config", "/.well-known/x", ""] {
        assert!(!is_ours(other), "{other}");
    }
}

#[test]
fn a_foreign_page_may_neither_post_nor_read_under_a_name_of_its_own() {
    let asked = |method: Method, host: &'static str, origin: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        guarded(&method, &headers).is_ok()
    };
    assert!(asked(Method::POST, "127.0.0.1:4191", None));
    assert!(asked(Method::POST, "127.0.0.1:4191", Some("http://127.0.0.1:4191")));
    assert!(!asked(Method::POST, "127.0.0.1:4191", Some("https://evil.example")));
    assert!(!asked(Method::DELETE, "127.0.0.1:4191", Some("null")));
    assert!(!asked(Method::GET, "evil.example:4191", None));
}

#[test]
fn a_button_leads_back_to_its_queue_and_says_what_it_did() {
    let query =
        Query::read("queue=a%2Fb%2Fc&durability=local&part=dead&from=page", SystemTime::now()).unwrap();
    let response = back(&query, "purged", Some(3));
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[LOCATION], "/?queue=a%2Fb%2Fc&durability=local&part=dead&said=purged&n=3");
}
