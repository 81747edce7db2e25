//! verdicts: what is said of each kind, by table.

use resources::ObjectId;
use resources::conditions::Condition;

use crate::index::tests::{SHOP, index};
use crate::status::verdict::{Part, Verdict, verdict};

const OURS: &str = "apiVersion: tidegate.dev/v1alpha1";
const PAY: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: bank}\n\
    spec: {ports: [{port: 80}]}\n---\n";

fn of(kind: &'static str, name: &str, objects: &str) -> Verdict {
    let namespace = if kind == "MeshTrust" { String::new() } else { "shop".to_owned() };
    let id = ObjectId { kind, namespace, name: name.to_owned() };
    verdict(&index(&format!("{SHOP}{objects}")), &id).expect("it is there")
}

fn words(conditions: &[Condition]) -> Vec<String> {
    let one = |c: &Condition| format!("{}={}/{}", c.about.as_str(), c.status.as_str(), c.reason.as_str());
    conditions.iter().map(one).collect()
}

fn message(part: &Part, place: usize) -> &str {
    &part.conditions[place].message
}

fn route(parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop, generation: 4}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, {parent}}}, {{name: a-gateway}}], rules: [{rules}]}}\n---\n"
    )
}

fn backend(to: &str) -> String {
    format!("{{backendRefs: [{{{to}}}]}}")
}

const GOOD: &str = "{backendRefs: [{name: orders, port: 80}]}";

#[test]
fn a_parent_is_a_service_with_the_port_that_is_meant() {
    let accepted = |parent: &str| {
        let verdict = of("HTTPRoute", "r", &route(parent, GOOD));
        assert_eq!((verdict.parts.len(), verdict.generation), (1, 4), "the gateway is another's");
        let part = &verdict.parts[0].1;
        assert_eq!(part.needs.is_some(), words(&part.conditions)[0].ends_with("True/Accepted"));
        (words(&part.conditions).remove(0), message(part, 0).to_owned())
    };
    for parent in ["name: orders", "name: orders, port: 80", "name: orders, sectionName: db"] {
        assert_eq!(accepted(parent).0, "Accepted=True/Accepted", "{parent}");
    }
    for (parent, why) in [
        ("name: none", "there is no Service shop/none"),
        ("name: orders, namespace: elsewhere", "there is no Service elsewhere/orders"),
        ("name: orders, port: 81", "Service shop/orders has no port 81; it has 80, 5432"),
        ("name: orders, sectionName: x", "Service shop/orders has no port named \"x\" that is meant"),
    ] {
        assert_eq!(accepted(parent), ("Accepted=False/NoMatchingParent".to_owned(), why.to_owned()));
    }
}

#[test]
fn a_reference_that_leads_nowhere_says_which_and_why() {
    let resolved = |rule: &str, objects: &str| {
        let verdict = of("HTTPRoute", "r", &format!("{}{objects}", route("name: orders", rule)));
        let part = &verdict.parts[0].1;
        assert_eq!(words(&part.conditions)[0], "Accepted=True/Accepted");
        (words(&part.conditions).remove(1), message(part, 1).to_owned())
    };
    for (to, reason, why) in [
        ("name: none, port: 80", "BackendNotFound", "there is no Service shop/none"),
        ("name: orders, port: 1", "BackendNotFound", "has no port 1"),
        ("name: orders", "BackendNotFound", "needs a port"),
        ("name: pay, namespace: bank, port: 80", "RefNotPermitted", "ReferenceGrant"),
        ("group: x.io, kind: Bucket, name: b", "InvalidKind", "\"Bucket\""),
    ] {
        let (word, message) = resolved(&backend(to), PAY);
        assert_eq!(word, format!("ResolvedRefs=False/{reason}"));
        assert!(
            message.starts_with("rules[0].backendRefs[0] of HTTPRoute shop/r: ") && message.contains(why),
            "{message}"
        );
    }
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: bank}\n\
        spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}\n---\n";
    let permitted = resolved(&backend("name: pay, namespace: bank, port: 80"), &format!("{PAY}{grant}"));
    assert_eq!(permitted.0, "ResolvedRefs=True/ResolvedRefs");
    let filter = "{filters: [{type: ExtensionRef, extensionRef: {group: tidegate.dev, kind: AsyncPolicy, name: none}}], \
        backendRefs: [{name: orders, port: 80}]}";
    // All that the route has is this rule, and the reference is what is wrong with it.
    let verdict = of("HTTPRoute", "r", &route("name: orders", &format!("{filter}, {GOOD}")));
    assert_eq!(words(&verdict.parts[0].1.conditions)[1], "ResolvedRefs=False/RefNotFound");
}

#[test]
fn a_value_that_is_not_carried_out_is_a_part_or_where_nothing_is_left_the_whole() {
    let bad = "{filters: [{type: Newest}], backendRefs: [{name: orders, port: 80}]}";
    let verdict = of("HTTPRoute", "r", &route("name: orders", &format!("{GOOD}, {bad}")));
    let part = &verdict.parts[0].1;
    assert_eq!(
        words(&part.conditions),
        [
            "Accepted=True/Accepted",
            "ResolvedRefs=True/ResolvedRefs",
            "PartiallyInvalid=True/UnsupportedValue"
        ]
    );
    assert!(
        message(part, 2).contains("filter type \"Newest\" in rules[1].filters[0]"),
        "{}",
        message(part, 2)
    );

    let part = &of("HTTPRoute", "r", &route("name: orders", bad)).parts[0].1;
    assert_eq!(
        words(&part.conditions),
        ["Accepted=False/UnsupportedValue", "ResolvedRefs=True/ResolvedRefs"]
    );
    let matches = "{matches: [{path: {type: Guess, value: /a}}], backendRefs: [{name: orders, port: 80}]}";
    let part = &of("HTTPRoute", "r", &route("name: orders", matches)).parts[0].1;
    assert_eq!(message(part, 0), "rules[0].matches[0].path: type \"Guess\" is not carried out");
}

fn backend_policy(name: &str, target: &str, created: &str) -> String {
    format!(
        "{OURS}\nkind: BackendPolicy\nmetadata: {{name: {name}, namespace: shop, creationTimestamp: '{created}'}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, name: {target}}}]}}\n---\n"
    )
}

#[test]
fn a_backend_policy_holds_where_its_service_is_there_and_no_other_holds() {
    let good = backend_policy("a", "orders", "2026-01-01T00:00:00Z");
    let whole = of("BackendPolicy", "a", &good).whole.unwrap();
    assert_eq!(words(&whole.conditions), ["Accepted=True/Accepted"]);
    let both = format!("{good}{}", backend_policy("b", "orders", "2026-01-02T00:00:00Z"));
    let verdict = of("BackendPolicy", "b", &both);
    let whole = verdict.whole.as_ref().unwrap();
    assert_eq!(words(&whole.conditions), ["Accepted=False/Conflicted"]);
    assert_eq!(message(whole, 0), "BackendPolicy shop/a holds for Service shop/orders: merge the two");
    assert!(verdict.parts[0].1.needs.is_none() && whole.needs.is_none());
    let nowhere = of("BackendPolicy", "a", &backend_policy("a", "none", "2026-01-01T00:00:00Z"));
    assert_eq!(words(&nowhere.whole.unwrap().conditions), ["Accepted=False/TargetNotFound"]);
}

fn access_policy(name: &str, ports: &str) -> String {
    format!(
        "{OURS}\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: orders}}}}, ports: [{ports}], default: Deny}}\n---\n"
    )
}

#[test]
fn an_access_policy_names_the_one_that_holds_for_a_pod_of_its_own() {
    let accepted = |name: &str, objects: &str| {
        let whole = of("AccessPolicy", name, objects).whole.unwrap();
        (words(&whole.conditions).remove(0), message(&whole, 0).to_owned())
    };
    let two = format!("{}{}", access_policy("a", "80"), access_policy("b", ""));
    assert_eq!(accepted("a", &two).0, "Accepted=True/Accepted");
    assert_eq!(accepted("b", &two).0, "Accepted=True/Accepted", "one for a port goes before one for all");
    let contest = format!("{}{}", access_policy("a", "80"), access_policy("b", "80"));
    let (word, message) = accepted("b", &contest);
    assert_eq!(word, "Accepted=False/Conflicted");
    assert_eq!(message, "AccessPolicy shop/a holds for port 80 of pod shop/orders-0: merge the two");
    let (word, message) = accepted("a", &access_policy("a", "nameless"));
    assert_eq!(word, "Accepted=False/Invalid");
    assert!(message.contains("\"nameless\""), "{message}");
}

fn async_policy(name: &str, spec: &str) -> String {
    format!("{OURS}\nkind: AsyncPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n---\n")
}

#[test]
fn an_async_policy_says_what_it_names_that_is_not_there() {
    let on_orders = "targetRefs: [{kind: Service, name: orders}]";
    let plain = of("AsyncPolicy", "a", &async_policy("a", on_orders)).whole.unwrap();
    assert_eq!(words(&plain.conditions), ["Accepted=True/Accepted"], "it refers to nothing");
    let two = format!("{}{}", async_policy("a", on_orders), async_policy("b", on_orders));
    let second = of("AsyncPolicy", "b", &two).whole.unwrap();
    assert_eq!(words(&second.conditions), ["Accepted=False/Conflicted"]);
    assert_eq!(message(&second, 0), "AsyncPolicy shop/a holds for Service shop/orders: merge the two");
    let sink = |to: &str| {
        let spec = format!("{on_orders}, delivery: {{deadLetterSink: {{ref: {{kind: Service, {to}}}}}}}");
        let whole = of("AsyncPolicy", "a", &format!("{PAY}{}", async_policy("a", &spec))).whole.unwrap();
        assert!(whole.needs.is_some(), "the policy holds");
        words(&whole.conditions).remove(1)
    };
    assert_eq!(sink("name: orders, port: 80"), "ResolvedRefs=True/ResolvedRefs");
    assert_eq!(sink("name: none, port: 80"), "ResolvedRefs=False/BackendNotFound");
    assert_eq!(sink("name: pay, namespace: bank"), "ResolvedRefs=False/RefNotPermitted");
    let callback =
        format!("{on_orders}, callback: {{allowedHosts: [example.com], secretRef: {{name: key}}}}");
    let whole = of("AsyncPolicy", "a", &async_policy("a", &callback)).whole.unwrap();
    assert_eq!(words(&whole.conditions)[1], "ResolvedRefs=False/RefNotFound");
    let rule = "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r, sectionName: x}]";
    let verdict =
        of("AsyncPolicy", "a", &format!("{}{}", route("name: orders", GOOD), async_policy("a", rule)));
    assert_eq!(words(&verdict.whole.unwrap().conditions), ["Accepted=False/TargetNotFound"]);
}

#[test]
fn one_mesh_trust_holds() {
    let trust = |name: &str| {
        let pem = "\"-----BEGIN CERTIFICATE-----\\n-----END CERTIFICATE-----\"";
        format!("{OURS}\nkind: MeshTrust\nmetadata: {{name: {name}}}\nspec: {{anchors: [{pem}]}}\n---\n")
    };
    let both = format!("{}{}", trust("a"), trust("b"));
    assert_eq!(words(&of("MeshTrust", "a", &both).whole.unwrap().conditions), ["Accepted=True/Accepted"]);
    let second = of("MeshTrust", "b", &both).whole.unwrap();
    assert_eq!(words(&second.conditions), ["Accepted=False/Conflicted"]);
    assert!(message(&second, 0).starts_with("MeshTrust a holds"), "{}", message(&second, 0));
}
