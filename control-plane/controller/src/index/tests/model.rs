//! model: after any changes the index answers as one made of the whole, and has named all that differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fastrand::Rng;
use policy::snapshot::{Backend, BackendKey, Destination, DestinationKey, Inbound};
use resources::{Located, Object, ObjectId};

use super::{empty, object};
use crate::index::{Affected, Hold, Index};
use crate::objects::Change;

const NAMESPACES: [&str; 3] = ["shop", "web", "ops"];
const CLIENTS: [&str; 4] = ["", "shop", "web", "ops"];
const RUNS: u64 = 30;
const BATCHES: usize = 20;

/// Every question that is asked, with its answer: equal ones are sent as the same bytes.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    destinations: BTreeMap<(DestinationKey, &'static str), Destination>,
    consumers: BTreeMap<DestinationKey, BTreeSet<String>>,
    destination_holds: BTreeMap<DestinationKey, Vec<Hold>>,
    backends: BTreeMap<BackendKey, Option<Backend>>,
    backend_holds: BTreeMap<BackendKey, Vec<Hold>>,
    inbound: BTreeMap<(String, String, String), Inbound>,
    anchors: Vec<String>,
    accounts: BTreeSet<(String, String)>,
}

fn keys() -> Vec<String> {
    let mut keys = vec!["1.1.1.1:80".to_owned(), "10.9.9.9:80".to_owned()];
    for port in [80, 81, 8080] {
        for namespace in NAMESPACES {
            keys.extend((0..4).map(|n| format!("s{n}.{namespace}.svc:{port}")));
        }
        keys.extend((1..=4).map(|n| format!("10.96.0.{n}:{port}")));
        keys.extend((1..=6).map(|n| format!("10.0.0.{n}:{port}")));
    }
    keys
}

fn answers(index: &Index) -> Answers {
    let mut answers =
        Answers { anchors: index.anchors().to_vec(), accounts: index.accounts(), ..Answers::default() };
    for text in keys() {
        let key: DestinationKey = text.parse().unwrap();
        for client in CLIENTS {
            answers.destinations.insert((key.clone(), client), index.lookup(&key, client).0);
        }
        answers.consumers.insert(key.clone(), index.consumers(&key));
        answers.destination_holds.insert(key.clone(), index.destination_holds(&key));
        let key: BackendKey = text.parse().unwrap();
        answers.backends.insert(key.clone(), index.backend(&key));
        answers.backend_holds.insert(key.clone(), index.backend_holds(&key));
    }
    for namespace in NAMESPACES {
        for pod in 0..5 {
            for account in ["a", "b"] {
                let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().unwrap();
                let inbound = index.inbound(&format!("p{pod}"), &identity);
                let named = (namespace.to_owned(), format!("p{pod}"), account.to_owned());
                answers.inbound.insert(named, inbound);
            }
        }
    }
    answers
}

/// What differs has to be named; what hangs on a thing is told by how it stood before.
fn check_named(before: &Answers, after: &Answers, affected: &Affected) {
    let named: BTreeSet<Hold> = affected.holds().collect();
    for ((key, client), destination) in &after.destinations {
        let holds = &before.destination_holds[key];
        let differs = before.destinations[&(key.clone(), *client)] != *destination
            || before.consumers[key] != after.consumers[key];
        assert!(
            !differs || holds.iter().any(|hold| named.contains(hold)),
            "{key} for {client}: {affected:?}"
        );
        let differs = *holds != after.destination_holds[key];
        assert!(
            !differs || holds.iter().any(|hold| named.contains(hold)),
            "{key} hangs elsewhere: {affected:?}"
        );
    }
    for (key, backend) in &after.backends {
        let holds = &before.backend_holds[key];
        let differs = before.backends[key] != *backend || *holds != after.backend_holds[key];
        assert!(!differs || holds.iter().any(|hold| named.contains(hold)), "backend {key}: {affected:?}");
    }
    for (pod, inbound) in &after.inbound {
        let is_named =
            affected.namespaces.contains(&pod.0) || affected.pods.contains(&(pod.0.clone(), pod.1.clone()));
        assert!(before.inbound[pod] == *inbound || is_named, "inbound of {pod:?}: {affected:?}");
    }
    assert!(before.anchors == after.anchors || affected.anchors);
    assert!(before.accounts == after.accounts || affected.accounts);
}

/// Who is no consumer shares what all others get.
fn check_shared(answers: &Answers) {
    for ((key, client), destination) in &answers.destinations {
        if !answers.consumers[key].contains(*client) {
            assert_eq!(*destination, answers.destinations[&(key.clone(), "")], "{key} for {client}");
        }
    }
}

#[test]
fn after_any_changes_the_index_answers_as_one_made_of_the_whole_and_has_named_all_that_differs() {
    for seed in 0..RUNS {
        let mut rng = Rng::with_seed(seed);
        let (mut index, mut whole) = (empty(), BTreeMap::<ObjectId, Located<Object>>::new());
        let mut before = answers(&index);
        for batch in 0..BATCHES {
            let changes = changes(&mut rng, &mut whole);
            let told = format!("seed {seed}, batch {batch}: {changes:#?}");
            let affected = index.apply(changes);
            let after = answers(&index);
            let mut all: Vec<_> = whole.values().cloned().map(Change::Put).collect();
            rng.shuffle(&mut all);
            let mut fresh = empty();
            fresh.apply(all);
            let check = std::panic::AssertUnwindSafe(|| {
                assert_eq!(after, answers(&fresh));
                check_shared(&after);
                check_named(&before, &after, &affected);
            });
            if let Err(panic) = std::panic::catch_unwind(check) {
                eprintln!("{told}");
                std::panic::resume_unwind(panic);
            }
            before = after;
        }
    }
}

/// A few changes; what is put in may be there already, as it was or otherwise.
fn changes(rng: &mut Rng, whole: &mut BTreeMap<ObjectId, Located<Object>>) -> Vec<Change> {
    // At first much comes at once, as when a program starts.
    let most = if whole.is_empty() { 60 } else { 4 };
    (0..rng.usize(1..=most)).map(|_| change(rng, whole)).collect()
}

fn change(rng: &mut Rng, whole: &mut BTreeMap<ObjectId, Located<Object>>) -> Change {
    if whole.len() > 20 && rng.u8(..4) == 0 {
        let id = whole.keys().nth(rng.usize(..whole.len())).unwrap().clone();
        whole.remove(&id);
        return Change::Remove(id);
    }
    let mut located = object(&text(rng));
    located.file = ["a.yaml", "b.yaml", "kubernetes"][rng.usize(..3)].into();
    whole.insert(located.value.id(), located.clone());
    Change::Put(located)
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

/// As many of `of` as chance will have, in any order.
fn some<'a>(rng: &mut Rng, of: &[&'a str]) -> String {
    let mut of: Vec<&'a str> = of.iter().copied().filter(|_| rng.bool()).collect();
    rng.shuffle(&mut of);
    of.join(", ")
}

fn text(rng: &mut Rng) -> String {
    let namespace = one(rng, &NAMESPACES);
    let created = one(
        rng,
        &[
            "",
            "",
            ", creationTimestamp: '2020-01-01T00:00:00Z'",
            ", creationTimestamp: '2021-01-01T00:00:00Z'",
        ],
    );
    let meta = |name: String, more: &str| {
        format!("metadata: {{name: {name}, namespace: {namespace}{created}{more}}}\n")
    };
    let n = rng.u8(..3);
    match rng.u8(..16) {
        0 => format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}{}}}\n", said(rng)),
        1..=3 => {
            let app = one(rng, &["a", "b"]);
            let inject = said(rng);
            let more = format!(", labels: {{app: {app}}}{inject}").replacen(
                ", labels: {tidegate",
                ", extra: {tidegate",
                1,
            );
            format!("apiVersion: v1\nkind: Pod\n{}{}", meta(format!("p{}", rng.u8(..5)), &more), pod(rng))
        }
        4..=5 => format!(
            "apiVersion: v1\nkind: Service\n{}{}",
            meta(format!("s{}", rng.u8(..4)), ""),
            service(rng)
        ),
        6..=8 => {
            let owner = one(rng, &["s0", "s1", "s2", "s3", "gone"]);
            let label = format!(", labels: {{kubernetes.io/service-name: {owner}}}");
            let more = if rng.u8(..8) == 0 { "" } else { &label };
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{}{}",
                meta(format!("e{n}"), more),
                slice(rng)
            )
        }
        9 => format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{}{}",
            meta(format!("r{n}"), ""),
            route(rng, true)
        ),
        10 => format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n{}{}",
            meta(format!("r{n}"), ""),
            route(rng, false)
        ),
        11 => {
            let (kind, from) = (one(rng, &["HTTPRoute", "GRPCRoute", "AsyncPolicy"]), one(rng, &NAMESPACES));
            let only = one(rng, &["", ", name: s0", ", name: s1"]);
            format!(
                "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n{}spec: {{from: [{{group: g, kind: {kind}, namespace: {from}}}], to: [{{group: '', kind: Service{only}}}]}}\n",
                meta(format!("g{n}"), "")
            )
        }
        12 => {
            let (target, protocol) =
                (some(rng, &["{name: s0}", "{name: s1}"]), one(rng, &["HTTP", "Opaque"]));
            format!(
                "apiVersion: tidegate.dev/v1alpha1\nkind: BackendPolicy\n{}spec: {{targetRefs: [{target}{{name: s2}}], protocol: {{'80': {protocol}}}, limits: {{maxInFlight: {}}}}}\n",
                meta(format!("b{n}"), ""),
                rng.u8(1..3)
            ).replace("}{name: s2}", "}, {name: s2}")
        }
        13 => {
            let selector = one(rng, &["{}", "{matchLabels: {app: a}}", "{matchLabels: {app: b}}"]);
            let (ports, default) = (some(rng, &["http", "8080", "81"]), one(rng, &["Allow", "Deny"]));
            format!(
                "apiVersion: tidegate.dev/v1alpha1\nkind: AccessPolicy\n{}spec: {{selector: {selector}, ports: [{ports}], default: {default}}}\n",
                meta(format!("x{n}"), "")
            )
        }
        14 => format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: AsyncPolicy\n{}{}",
            meta(format!("a{n}"), ""),
            async_policy(rng)
        ),
        _ if rng.bool() => {
            let key = one(
                rng,
                &[
                    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                    "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                    "short",
                ],
            );
            format!(
                "apiVersion: v1\nkind: Secret\n{}stringData: {{secret: {key}}}\n",
                meta(format!("k{}", n % 2), "")
            )
        }
        _ => format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: MeshTrust\nmetadata: {{name: t{n}}}\nspec: {{anchors: ['-----BEGIN CERTIFICATE----- {} -----END CERTIFICATE-----']}}\n",
            rng.u8(..3)
        ),
    }
}

/// What an object says of injection.
fn said(rng: &mut Rng) -> String {
    let word = |rng: &mut Rng| one(rng, &["enabled", "disabled"]);
    match rng.u8(..6) {
        0 => format!(", annotations: {{tidegate.dev/inject: {}}}", word(rng)),
        1 => format!(
            ", annotations: {{tidegate.dev/inject: {}, tidegate.dev/proxy-inbound-port: '5143'}}",
            word(rng)
        ),
        2 => format!(
            ", annotations: {{tidegate.dev/injected: '1', tidegate.dev/opaque-ports: '{}'}}",
            one(rng, &["80", "81", "8080, 81"])
        ),
        3 => format!(", labels: {{tidegate.dev/inject: {}}}", word(rng)),
        _ => String::new(),
    }
}

fn pod(rng: &mut Rng) -> String {
    let ports = some(rng, &["{name: http, containerPort: 8080}", "{name: db, containerPort: 81}"]);
    let probe = one(rng, &["", ", readinessProbe: {httpGet: {path: /ready, port: 8080}}"]);
    let account = one(rng, &["a", "b"]);
    let addresses = match rng.u8(..5) {
        0 => String::new(),
        1 => format!(
            "status: {{podIPs: [{{ip: 10.0.0.{}}}, {{ip: 10.0.0.{}}}]}}\n",
            rng.u8(1..4),
            rng.u8(4..7)
        ),
        _ => format!("status: {{podIP: 10.0.0.{}}}\n", rng.u8(1..7)),
    };
    format!(
        "spec: {{serviceAccountName: {account}, containers: [{{name: app, ports: [{ports}]{probe}}}]}}\n{addresses}"
    )
}

fn service(rng: &mut Rng) -> String {
    if rng.u8(..8) == 0 {
        return "spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}\n".to_owned();
    }
    let selector = one(rng, &["{}", "{app: a}", "{app: b}"]);
    let target = one(rng, &["http", "8080", "80"]);
    let http = format!("{{name: http, port: 80, targetPort: {target}}}");
    let protocol = one(rng, &["http", "grpc", "tcp"]);
    let data = format!("{{name: db, port: 81, appProtocol: {protocol}}}");
    let ports = some(rng, &[&http, &data, "{name: http, port: 8080}"]);
    let address = match rng.u8(..4) {
        0 => "None".to_owned(),
        _ => format!("10.96.0.{}", rng.u8(1..5)),
    };
    format!("spec: {{clusterIP: {address}, selector: {selector}, ports: [{ports}]}}\n")
}

fn slice(rng: &mut Rng) -> String {
    let mut endpoints = String::new();
    for _ in 0..rng.u8(..4) {
        let addresses = match rng.u8(..6) {
            0 => format!("10.0.0.{}, 10.0.0.{}", rng.u8(1..7), rng.u8(1..7)),
            _ => format!("10.0.0.{}", rng.u8(1..7)),
        };
        let conditions =
            one(rng, &["{}", "{ready: false}", "{ready: false, serving: true, terminating: true}"]);
        let zone = one(rng, &["", ", zone: a", ", zone: b"]);
        let target = if rng.bool() {
            format!(", targetRef: {{kind: Pod, name: p{}}}", rng.u8(..5))
        } else {
            String::new()
        };
        let _ = writeln!(endpoints, "- {{addresses: [{addresses}], conditions: {conditions}{zone}{target}}}");
    }
    let ports = some(rng, &["{name: http, port: 8080}", "{name: db, port: 81}"]);
    format!(
        "addressType: IPv4\nports: [{ports}]\nendpoints:{}\n{endpoints}",
        if endpoints.is_empty() { " []" } else { "" }
    )
}

/// A Service, now and then of another namespace.
fn reference(rng: &mut Rng) -> String {
    let namespace =
        if rng.bool() { format!(", namespace: {}", one(rng, &NAMESPACES)) } else { String::new() };
    format!("name: s{}{namespace}", rng.u8(..4))
}

fn route(rng: &mut Rng, http: bool) -> String {
    let parent = |rng: &mut Rng| {
        let port = one(rng, &["", "", ", port: 80", ", sectionName: db"]);
        format!("{{group: '', kind: Service, {}{port}}}", reference(rng))
    };
    let mut parents = parent(rng);
    if rng.bool() {
        parents = format!("{parents}, {}", parent(rng));
    }
    let mut rules = String::new();
    for rule in 0..rng.u8(1..3) {
        let filter = match rng.u8(..4) {
            0 => format!(
                "{{type: ExtensionRef, extensionRef: {{group: tidegate.dev, kind: AsyncPolicy, name: a{}}}}}",
                rng.u8(..3)
            ),
            _ => String::new(),
        };
        let backend = format!("{{{}, port: {}}}", reference(rng), one(rng, &["80", "81", "82"]));
        let matches = match http {
            true => format!("matches: [{{path: {{value: /{}}}}}]", rng.u8(..3)),
            false => format!("matches: [{{method: {{service: s{}}}}}]", rng.u8(..3)),
        };
        let _ =
            write!(rules, "{{name: rule{rule}, {matches}, filters: [{filter}], backendRefs: [{backend}]}}, ");
    }
    format!("spec: {{parentRefs: [{parents}], rules: [{}]}}\n", rules.trim_end_matches(", "))
}

fn async_policy(rng: &mut Rng) -> String {
    const ROUTE: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r0}";
    const RULE: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r1, sectionName: rule0}";
    let targets = some(rng, &["{kind: Service, name: s0}", "{kind: Service, name: s1}", ROUTE, RULE]);
    let callback = match rng.u8(..3) {
        0 => format!(", callback: {{allowedHosts: [mail], secretRef: {{name: k{}}}}}", rng.u8(..2)),
        _ => String::new(),
    };
    let sink = match rng.bool() {
        true => format!(", delivery: {{deadLetterSink: {{ref: {{kind: Service, {}}}}}}}", reference(rng)),
        false => String::new(),
    };
    format!("spec: {{targetRefs: [{targets}], paused: {}{callback}{sink}}}\n", rng.bool())
}
