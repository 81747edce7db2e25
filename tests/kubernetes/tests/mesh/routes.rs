//! routes: the Gateway API's routes, with their statuses, in a town of two versions.

use anyhow::{Context, Result, ensure};
use lab::until;
use serde_json::{Value, json};

use crate::asked::Reply;
use crate::objects::{self, with_spec};
use crate::town::{EDGE, PATIENCE, SHOP, Town};

/// The version of the Gateway API's routes.
pub(crate) const ROUTES: &str = "gateway.networking.k8s.io/v1";
/// Who asks.
pub(crate) const CLIENT: (&str, &str) = (SHOP, "deploy/web");

/// A route of the Service `echo`.
fn route(name: &str, rules: &Value) -> Value {
    let parents = json!([{"group": "", "kind": "Service", "name": "echo", "port": 80}]);
    with_spec(ROUTES, "HTTPRoute", (SHOP, name), json!({"parentRefs": parents, "rules": rules}))
}

fn to(name: &str) -> Value {
    json!([{"name": name, "port": 80}])
}

/// Two versions, a Service for each and one for both.
pub(crate) fn open(town: &Town) -> Result<()> {
    let mut list = Vec::new();
    for name in ["echo-v1", "echo-v2"] {
        let mut deployment = objects::deployment(SHOP, name, &objects::nginx());
        deployment["spec"]["template"]["metadata"]["labels"]["town"] = json!("echo");
        list.extend([deployment, objects::service(SHOP, name, name)]);
    }
    let mut both = objects::service(SHOP, "echo", "echo");
    both["spec"]["selector"] = json!({"town": "echo"});
    list.push(both);
    town.apply(&list)?;
    town.rolled_out(SHOP, "echo-v1")?;
    town.rolled_out(SHOP, "echo-v2")
}

/// The conditions that our controller wrote for a route's parent.
fn conditions(town: &Town, name: &str) -> Result<Vec<(String, String)>> {
    let route = town.api().get(&["httproute", name, "-n", SHOP])?;
    let parents = route["status"]["parents"].as_array().cloned().unwrap_or_default();
    let ours = parents.iter().filter(|parent| {
        parent["controllerName"].as_str().is_some_and(|name| name.starts_with("tidegate.dev/"))
    });
    let all = ours.flat_map(|parent| parent["conditions"].as_array().cloned().unwrap_or_default());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(all.map(|one| (text(&one["type"]), text(&one["status"]))).collect())
}

fn has_conditions(town: &Town, name: &str, wanted: &[(&str, &str)]) -> Result<()> {
    let mut last = Vec::new();
    let waited = until(&format!("the conditions {wanted:?} of {name}"), PATIENCE, || {
        last = conditions(town, name)?;
        let has = |(kind, status): &(&str, &str)| last.iter().any(|(k, s)| k == kind && s == status);
        Ok(wanted.iter().all(has).then_some(()))
    });
    waited.with_context(|| format!("it has {last:?}"))
}

fn gone(town: &Town, name: &str) -> Result<()> {
    town.api().kubectl(&["delete", "httproute", name, "-n", SHOP]).map(drop)
}

pub(crate) fn a_canary_gets_its_share_and_the_route_says_what_became_of_it(town: &mut Town) -> Result<()> {
    open(town)?;
    let weighed = |one: u32, two: u32| {
        route(
            "canary",
            &json!([{"backendRefs": [{"name": "echo-v1", "port": 80, "weight": one},
                                                 {"name": "echo-v2", "port": 80, "weight": two}]}]),
        )
    };
    for (one, two) in [(0, 1), (90, 10), (50, 50), (1, 0)] {
        town.apply(&[weighed(one, two)])?;
        let share = f64::from(two) / f64::from(one + two);
        // Of 1000 draws the standard deviation is at most 0.016, and 0.08 is five of them.
        until(&format!("a share of {share}"), PATIENCE, || {
            let counts = town.shares(CLIENT, "http://echo/", 1000)?;
            let got = f64::from(counts.get("echo-v2").copied().unwrap_or(0)) / 1000.0;
            Ok(((got - share).abs() <= if two == 0 || one == 0 { 0.0 } else { 0.08 }).then_some(()))
        })?;
    }
    has_conditions(
        town,
        "canary",
        &[("Accepted", "True"), ("ResolvedRefs", "True"), ("Programmed", "True")],
    )?;
    town.apply(&[route("canary", &json!([{"backendRefs": to("nowhere")}]))])?;
    has_conditions(town, "canary", &[("Accepted", "True"), ("ResolvedRefs", "False")])?;
    town.expect(CLIENT, &["http://echo/"], |reply| reply.status == 500)?;
    gone(town, "canary")?;
    town.expect(CLIENT, &["http://echo/"], |reply| reply.status == 200)
}

/// How a reply is to be.
type Check = Box<dyn Fn(&Reply) -> bool>;

/// A rule or more, and what is answered: arguments of curl before the URL's end, and how it is to be.
struct Told {
    name: &'static str,
    rules: Value,
    answers: Vec<(&'static [&'static str], Check)>,
}

fn is(server: &'static str) -> Check {
    Box::new(move |reply| reply.is_of(server))
}

fn sees(name: &'static str, value: &'static str) -> Check {
    Box::new(move |reply| reply.status == 200 && reply.seen(name) == value)
}

/// Whether a client is told to go there with this status, by a proxy and no server.
fn told_to(status: u16, location: &'static str) -> Check {
    Box::new(move |reply| {
        let by_proxy = reply.header("x-server").is_empty();
        reply.status == status && reply.header("location") == location && by_proxy
    })
}

/// Those that send a client elsewhere, or a backend another address.
fn addresses() -> Vec<Told> {
    let told = |name, rules, answers| Told { name, rules, answers };
    let redirect =
        |redirect: Value| json!([{"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}]);
    let url: &[&str] = &["http://echo/here"];
    let host = "example.org";
    let status = |code: u16| redirect(json!({"hostname": host, "statusCode": code}));
    let there = |code| vec![(url, told_to(code, "http://example.org/here"))];
    let replaced = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/one"});
    let rewrite = json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/prefix"}}],
                          "filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": host, "path": replaced}}],
                          "backendRefs": to("echo-v1")}]);
    vec![
        told("MeshHTTPRouteRedirectHostAndStatus", status(301), there(301)),
        told(
            "MeshHTTPRouteRedirectPath",
            redirect(json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/there"}})),
            vec![(url, told_to(302, "http://echo/there"))],
        ),
        told(
            "MeshHTTPRouteRedirectPort",
            redirect(json!({"port": 8083})),
            vec![(url, told_to(302, "http://echo:8083/here"))],
        ),
        told(
            "MeshHTTPRouteSchemeRedirect",
            redirect(json!({"scheme": "https"})),
            vec![(url, told_to(302, "https://echo/here"))],
        ),
        told("MeshHTTPRoute303Redirect", status(303), there(303)),
        told("MeshHTTPRoute307Redirect", status(307), there(307)),
        told("MeshHTTPRoute308Redirect", status(308), there(308)),
        told(
            "MeshHTTPRouteRewritePath",
            rewrite,
            vec![
                (&["http://echo/prefix/two?a=1"], sees("uri", "/one/two?a=1")),
                (&["http://echo/prefix/two"], sees("host", host)),
            ],
        ),
    ]
}

/// The cases of Gateway API's mesh conformance suite, by its names; others stand in `conformance`.
fn cases() -> Vec<Told> {
    let told = |name, rules, answers| Told { name, rules, answers };
    let url: &[&str] = &["http://echo/"];
    vec![
        told(
            "MeshHTTPRouteSimpleSameNamespace",
            json!([{"backendRefs": to("echo-v1")}]),
            vec![(url, is("echo-v1"))],
        ),
        told(
            "MeshHTTPRouteMatching",
            json!([
                {"matches": [{"path": {"type": "PathPrefix", "value": "/v2"}},
                             {"headers": [{"name": "version", "value": "two"}]}],
                 "backendRefs": to("echo-v2")},
                {"backendRefs": to("echo-v1")}]),
            vec![
                (url, is("echo-v1")),
                (&["http://echo/v2/x"], is("echo-v2")),
                (&["http://echo/v2x"], is("echo-v1")),
                (&["-H", "Version: two", "http://echo/"], is("echo-v2")),
            ],
        ),
        told(
            "MeshHTTPRouteQueryParamMatching",
            json!([
                {"matches": [{"queryParams": [{"name": "animal", "value": "whale"}]}],
                 "backendRefs": to("echo-v2")},
                {"backendRefs": to("echo-v1")}]),
            vec![
                (&["http://echo/?animal=whale"], is("echo-v2")),
                (&["http://echo/?animal=cat"], is("echo-v1")),
            ],
        ),
        told(
            "MeshHTTPRouteNamedRule",
            json!([{"name": "named", "backendRefs": to("echo-v2")}]),
            vec![(url, is("echo-v2"))],
        ),
        told(
            "MeshHTTPRouteRequestHeaderModifier",
            json!([{"backendRefs": to("echo-v1"), "filters": [
                {"type": "RequestHeaderModifier", "requestHeaderModifier": {
                    "set": [{"name": "X-Header-Set", "value": "set"}],
                    "add": [{"name": "X-Header-Add", "value": "add"}], "remove": ["X-Header-Remove"]}}]}]),
            vec![
                (&["-H", "X-Header-Set: old", "http://echo/"], sees("set", "set")),
                (url, sees("added", "add")),
                (&["-H", "X-Header-Remove: x", "http://echo/"], sees("removed", "")),
            ],
        ),
        told(
            "MeshHTTPRouteBackendRequestHeaderModifier",
            json!([{"backendRefs": [
                {"name": "echo-v2", "port": 80, "filters": [{"type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "X-Header-Set", "value": "backend"}]}}]}]}]),
            vec![(url, sees("set", "backend"))],
        ),
    ]
}

pub(crate) fn routes_of_the_mesh_conformance_suite_do_what_its_cases_say(town: &mut Town) -> Result<()> {
    open(town)?;
    let mut wrong = Vec::new();
    for case in cases().into_iter().chain(addresses()) {
        let done = town.apply(&[route("case", &case.rules)]).and_then(|()| {
            case.answers.iter().try_for_each(|(args, right)| town.expect(CLIENT, args, right))
        });
        println!("  {} {}", case.name, if done.is_ok() { "holds" } else { "does not hold" });
        if let Err(why) = done {
            wrong.push(format!("{}: {why:#}", case.name));
        }
    }
    gone(town, "case")?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A consumer's own route counts for its own namespace alone.
pub(crate) fn mesh_consumer_route_counts_in_its_own_namespace_alone(town: &mut Town) -> Result<()> {
    open(town)?;
    let spec = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "echo", "namespace": SHOP,
                                      "port": 80}],
                      "rules": [{"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {
                          "set": [{"name": "X-Consumer", "value": "edge"}]}}],
                          "backendRefs": [{"name": "echo-v1", "namespace": SHOP, "port": 80}]}]});
    town.apply(&[with_spec(ROUTES, "HTTPRoute", (EDGE, "consumer"), spec)])?;
    let grant = json!({"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": EDGE}],
                       "to": [{"group": "", "kind": "Service"}]});
    town.apply(&[with_spec("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", (SHOP, "edge"), grant)])?;
    let url = ["http://echo.shop/"];
    town.expect((EDGE, "deploy/web"), &url, |reply| {
        reply.header("x-consumer") == "edge" && reply.is_of("echo-v1")
    })?;
    town.expect(CLIENT, &url, |reply| reply.status == 200 && reply.header("x-consumer").is_empty())?;
    town.api().kubectl(&["delete", "httproute", "consumer", "-n", EDGE])?;
    town.api().kubectl(&["delete", "referencegrant", "edge", "-n", SHOP]).map(drop)
}
