//! headers: set, added and removed on the way to the server.
#![allow(non_snake_case, reason = "the conformance suite's own names")]

use anyhow::Result;

use super::ask::expect;
use super::town::Town;

/// The changes of each path; both cases make the same, at another place of the route.
const CHANGES: [(&str, &str); 5] = [
    ("/set", "set: [{ name: X-Header-Set, value: set-overwrites-values }]"),
    ("/add", "add: [{ name: X-Header-Add, value: add-appends-values }]"),
    ("/remove", "remove: [X-Header-Remove]"),
    (
        "/multiple",
        "set: [{ name: X-Header-Set-1, value: header-set-1 }, { name: X-Header-Set-2, value: header-set-2 }],
        add:
        [{ name: X-Header-Add-1, value: header-add-1 }, { name: X-Header-Add-2, value: header-add-2 },
         { name: X-Header-Add-3, value: header-add-3 }],
        remove: [X-Header-Remove-1, X-Header-Remove-2]",
    ),
    (
        "/case-insensitivity",
        "set: [{ name: X-Header-Set, value: header-set }],
        add: [{ name: X-Header-Add, value: header-add }], remove: [X-Header-Remove]",
    ),
];

/// What is asked, and which headers the server must see, or must not.
struct Case {
    path: &'static str,
    sent: &'static [&'static str],
    seen: &'static [(&'static str, Option<&'static str>)],
}

const CASES: [Case; 7] = [
    Case {
        path: "/set",
        sent: &["Some-Other-Header: val"],
        seen: &[("some-other-header", Some("val")), ("x-header-set", Some("set-overwrites-values"))],
    },
    Case {
        path: "/set",
        sent: &["Some-Other-Header: val", "X-Header-Set: some-other-value"],
        seen: &[("some-other-header", Some("val")), ("x-header-set", Some("set-overwrites-values"))],
    },
    Case {
        path: "/add",
        sent: &["Some-Other-Header: val"],
        seen: &[("some-other-header", Some("val")), ("x-header-add", Some("add-appends-values"))],
    },
    Case {
        path: "/add",
        sent: &["Some-Other-Header: val", "X-Header-Add: some-other-value"],
        seen: &[
            ("some-other-header", Some("val")),
            ("x-header-add", Some("some-other-value,add-appends-values")),
        ],
    },
    Case { path: "/remove", sent: &["X-Header-Remove: val"], seen: &[("x-header-remove", None)] },
    Case {
        path: "/multiple",
        sent: &[
            "X-Header-Set-2: set-val-2",
            "X-Header-Add-2: add-val-2",
            "X-Header-Remove-2: remove-val-2",
            "Another-Header: another-header-val",
        ],
        seen: &[
            ("x-header-set-1", Some("header-set-1")),
            ("x-header-set-2", Some("header-set-2")),
            ("x-header-add-1", Some("header-add-1")),
            ("x-header-add-2", Some("add-val-2,header-add-2")),
            ("x-header-add-3", Some("header-add-3")),
            ("another-header", Some("another-header-val")),
            ("x-header-remove-1", None),
            ("x-header-remove-2", None),
        ],
    },
    Case {
        path: "/case-insensitivity",
        sent: &[
            "x-header-set: original-val-set",
            "x-header-add: original-val-add",
            "x-header-remove: original-val-remove",
            "Another-Header: another-header-val",
        ],
        seen: &[
            ("x-header-set", Some("header-set")),
            ("x-header-add", Some("original-val-add,header-add")),
            ("another-header", Some("another-header-val")),
            ("x-header-remove", None),
        ],
    },
];

fn filters(changes: &str, indent: &str) -> String {
    format!(
        "{indent}filters:
{indent}- {{ type: RequestHeaderModifier, requestHeaderModifier: {{ {changes} }} }}"
    )
}

/// Puts a route of these rules in force and asks every case.
fn check(rule: impl Fn(&str, &str) -> String) -> Result<()> {
    let town = Town::new()?;
    let rules: Vec<String> = CHANGES.iter().map(|(path, changes)| rule(path, changes)).collect();
    town.route("headers", "name: echo", &rules.join("\n"))?;
    for client in town.clients() {
        for case in &CASES {
            let mut args: Vec<&str> = case.sent.iter().flat_map(|header| ["-H", header]).collect();
            let url = format!("http://echo{}", case.path);
            args.push(&url);
            expect(client, &args, |reply| {
                let seen = |(name, value): &(&str, Option<&str>)| reply.seen(name).as_deref() == *value;
                reply.status == 200 && reply.server() == "echo-v1" && case.seen.iter().all(seen)
            })?;
        }
    }
    Ok(())
}

#[test]
fn MeshHTTPRouteRequestHeaderModifier() -> Result<()> {
    check(|path, changes| {
        format!(
            "  - matches: [{{ path: {{ type: PathPrefix, value: {path} }} }}]
{}
    backendRefs: [{{ name: echo-v1, port: 8080 }}]",
            filters(changes, "    ")
        )
    })
}

#[test]
fn MeshHTTPRouteBackendRequestHeaderModifier() -> Result<()> {
    check(|path, changes| {
        format!(
            "  - matches: [{{ path: {{ type: PathPrefix, value: {path} }} }}]
    backendRefs:
    - name: echo-v1
      port: 8080
{}",
            filters(changes, "      ")
        )
    })
}
