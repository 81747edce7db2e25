//! crds: a real API server takes our kinds, and holds them to what their readers say.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kubernetes::Cluster;
use resources::conditions::{
    Condition, ConditionType, Entry, Moment, Reason, Reference, Truth, policy_status,
};
use resources::{crd_files, parse_file};
use serde_json::{Value, json};

use crate::corpus::{Case, Verdict, cases};
use crate::world::World;

pub(crate) fn definitions_are_taken_and_are_structural(world: &mut World) -> Result<()> {
    let cluster = known(world)?;
    let definitions = cluster.get(&["crd"])?;
    let items = definitions["items"].as_array().context("a list has items")?;
    let ours: Vec<&Value> = items.iter().filter(|item| item["spec"]["group"] == "tidegate.dev").collect();
    ensure!(ours.len() == crd_files().len(), "{} definitions of {}", ours.len(), crd_files().len());
    for item in ours {
        let conditions = item["status"]["conditions"].as_array().context("a definition has conditions")?;
        let structural =
            conditions.iter().all(|c| c["type"] != "NonStructuralSchema" || c["status"] == "False");
        ensure!(structural, "{conditions:#?}");
    }
    Ok(())
}

/// A cluster with our kinds, and namespace `shop` for their objects.
fn known(world: &World) -> Result<&Cluster> {
    world.define()?;
    world.cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
    Ok(&world.cluster)
}

fn reader_accepts(document: &str) -> bool {
    let (objects, problems) = parse_file("case.yaml", document);
    objects.len() == 1 && problems.is_empty()
}

/// The names of those the server would create, and what it says of others; in one run, which goes on past
/// what is refused.
pub(crate) fn server_accepts(
    cluster: &Cluster,
    cases: &[(String, Case)],
) -> Result<(BTreeSet<String>, String)> {
    let documents: Vec<String> = cases.iter().map(|(name, case)| case.document(name)).collect();
    let args = ["create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-"];
    let out = cluster.tell(&args, &documents.join("---\n"))?;
    let said = String::from_utf8_lossy(&out.stdout);
    let names = said.lines().filter_map(|line| line.rsplit_once('/')).map(|(_, name)| name.to_owned());
    Ok((names.collect(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

pub(crate) fn reader_and_api_server_agree_on_every_spec_of_the_corpus(world: &mut World) -> Result<()> {
    let cluster = known(world)?;
    let cases: Vec<(String, Case)> =
        cases().into_iter().enumerate().map(|(i, case)| (format!("case-{i:03}"), case)).collect();
    let (accepted, refusals) = server_accepts(cluster, &cases)?;
    let mut wrong = Vec::new();
    for (name, case) in &cases {
        let reader = reader_accepts(&case.document(name));
        let server = accepted.contains(name);
        let (should_reader, should_server) = match case.verdict {
            Verdict::Accepted => (true, true),
            Verdict::Refused => (false, false),
            Verdict::RefusedByTheReaderAlone(why) => {
                println!("for the webhook: {} {}: {why}", case.kind, case.spec);
                (false, true)
            }
        };
        for (who, is, should) in [("reader", reader, should_reader), ("API server", server, should_server)] {
            if is != should {
                let verb = if is { "accepts" } else { "refuses" };
                let said: String = refusals
                    .lines()
                    .filter(|line| line.contains(name.as_str()))
                    .collect::<Vec<_>>()
                    .join("\n    ");
                wrong.push(format!(
                    "the {who} {verb} {name}: {} {:.300}\n    {said:.600}",
                    case.kind, case.spec
                ));
            }
        }
    }
    println!("{} specs, {} accepted", cases.len(), accepted.len());
    ensure!(wrong.is_empty(), "{} of {} specs:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

/// The samples but for the route, whose definition is the Gateway API's.
const SAMPLES: [&str; 5] = [
    include_str!("../../../../manifests/samples/services.yaml"),
    include_str!("../../../../manifests/samples/access-policy.yaml"),
    include_str!("../../../../manifests/samples/async-policy.yaml"),
    include_str!("../../../../manifests/samples/backend-policy.yaml"),
    include_str!("../../../../manifests/samples/mesh-trust.yaml"),
];

pub(crate) fn every_sample_is_taken(world: &mut World) -> Result<()> {
    let cluster = known(world)?;
    for sample in SAMPLES {
        cluster.apply(sample)?;
    }
    let found = cluster.kubectl(&["get", "tidegate", "-A", "-o", "name"])?;
    let mut names: Vec<&str> = found.lines().collect();
    names.sort_unstable();
    let wanted = [
        "accesspolicy.tidegate.dev/orders",
        "asyncpolicy.tidegate.dev/orders-async",
        "backendpolicy.tidegate.dev/orders",
        "meshtrust.tidegate.dev/mesh",
    ];
    ensure!(names == wanted, "category tidegate holds {names:?}");
    Ok(())
}

pub(crate) fn what_has_one_default_shows_it(world: &mut World) -> Result<()> {
    let cluster = known(world)?;
    let bare = Case { kind: "AsyncPolicy", spec: "{}".to_owned(), verdict: Verdict::Accepted };
    cluster.apply(&bare.document("bare"))?;
    let spec = cluster.get(&["asyncpol", "bare", "-n", "shop"])?["spec"].clone();
    let wanted = json!({
        "mode": "Preferred", "methods": ["POST", "PUT", "PATCH", "DELETE"], "durability": "Local",
        "queue": {"maxBytes": "256Mi", "maxMessages": 100_000}, "maxBodyBytes": "4Mi",
        "ordering": {"key": "header:Tidegate-Key"},
        "delivery": {"retry": 12, "backoffPolicy": "exponential", "backoffDelay": "PT0.5S", "backoffMax": "PT5M",
            "timeout": "PT30S", "retryAfterMax": "PT10M", "maxAge": "PT24H"},
        "rateLimits": {"maxConcurrentDispatches": 20, "maxBurstSize": 100, "key": "destination"},
        "idempotency": {"required": false, "window": "PT24H"},
        "result": {"ttl": "PT1H", "maxBytes": "256Ki"},
        "credentials": "Refuse", "paused": false,
    });
    ensure!(spec == wanted, "{spec:#}");
    // They are the reader's own: with them written out a policy says what it says without.
    let filled = Case { spec: spec.to_string(), ..bare.clone() };
    let read = |case: &Case| {
        parse_file("case.yaml", &case.document("bare")).0.into_iter().map(|o| o.value).collect()
    };
    let (with, without): (Vec<_>, Vec<_>) = (read(&filled), read(&bare));
    ensure!(with.len() == 1 && with == without, "{with:#?}\nis not\n{without:#?}");

    let backend = Case { kind: "BackendPolicy", spec: "{targetRefs: [{name: a}]}".to_owned(), ..bare };
    cluster.apply(&backend.document("bare"))?;
    let spec = cluster.get(&["backendpol", "bare", "-n", "shop"])?["spec"].clone();
    let wanted = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "a"}],
        "loadBalancing": {"algorithm": "PeakEWMA"},
        "retry": {"budget": {"percent": 20, "interval": "10s", "minPerSecond": 10}, "maxBodyBytes": 262_144},
        "limits": {"maxInFlight": 2000, "queue": 500},
    });
    ensure!(spec == wanted, "{spec:#}");
    cluster.kubectl(&["delete", "asyncpol/bare", "backendpol/bare", "-n", "shop"])?;
    Ok(())
}

pub(crate) fn what_is_not_known_is_refused_and_pruned_where_nobody_is_strict(
    world: &mut World,
) -> Result<()> {
    let cluster = known(world)?;
    let slip = Case { kind: "AsyncPolicy", spec: "{moed: Always}".to_owned(), verdict: Verdict::Refused };
    let slip = slip.document("slip");
    // As everybody calls it, on the client's side and on the server's.
    for (args, wanted) in [
        (&["apply", "-f", "-"][..], "unknown field \"spec.moed\""),
        (&["apply", "--server-side", "-f", "-"], ".spec.moed: field not declared in schema"),
    ] {
        let out = cluster.tell(args, &slip)?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(!out.status.success() && said.contains(wanted), "{args:?}: {said}");
    }
    let out = cluster.tell(&["apply", "--validate=ignore", "-f", "-"], &slip)?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let spec = cluster.get(&["asyncpol", "slip", "-n", "shop"])?["spec"].clone();
    ensure!(spec.get("moed").is_none() && spec["mode"] == "Preferred", "{spec:#}");
    cluster.kubectl(&["delete", "asyncpol", "slip", "-n", "shop"])?;
    Ok(())
}

pub(crate) fn a_status_is_taken_as_it_is_made_waited_for_and_shown_in_columns(
    world: &mut World,
) -> Result<()> {
    let cluster = known(world)?;
    let object = cluster.get(&["backendpol", "orders", "-n", "shop"])?;
    let generation = object["metadata"]["generation"].as_i64().context("an object has a generation")?;
    let condition = |about, reason, message: &str| Condition {
        about,
        status: Truth::True,
        reason,
        message: message.to_owned(),
    };
    let said = vec![
        condition(ConditionType::Accepted, Reason::Accepted, ""),
        condition(ConditionType::Programmed, Reason::NoSubscribers, "no connected proxy needs it"),
    ];
    let target = Entry { of: Reference::service(&"orders".parse()?), conditions: said.clone() };
    let at = Moment { generation, time: "2026-01-31T08:00:00Z" };
    let targets = [target];
    let status = policy_status(&object["status"], &said, &targets, at).context("it had none")?;
    let patch = json!({ "status": status }).to_string();
    let args =
        ["patch", "backendpol", "orders", "-n", "shop", "--subresource=status", "--type=merge", "-p", &patch];
    cluster.kubectl(&args)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Accepted",
        "backendpol/orders",
        "-n",
        "shop",
        "--timeout=10s",
    ])?;
    let stands = cluster.get(&["backendpol", "orders", "-n", "shop"])?;
    ensure!(stands["metadata"]["generation"] == generation, "a status is no new generation");
    ensure!(stands["status"] == status, "{:#}\nis not\n{status:#}", stands["status"]);
    let again =
        policy_status(&stands["status"], &said, &targets, Moment { time: "2026-01-31T09:00:00Z", ..at });
    ensure!(again.is_none(), "the server's own form is no change: {again:#?}");
    columns(cluster)?;
    // Its anchor would be trusted from now on.
    cluster.kubectl(&["delete", "meshtrust", "mesh"]).map(drop)
}

fn columns(cluster: &Cluster) -> Result<()> {
    let table = |kind: &str| -> Result<Vec<Vec<String>>> {
        let said = cluster.kubectl(&["get", kind, "-n", "shop"])?;
        Ok(said.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
    };
    for (kind, head, row) in [
        ("backendpol", "NAME TARGET ACCEPTED PROGRAMMED AGE", "orders orders True True"),
        ("asyncpol", "NAME TARGET MODE ACCEPTED PROGRAMMED AGE", "orders-async orders Preferred"),
        ("accesspol", "NAME TARGET DEFAULT ACCEPTED PROGRAMMED AGE", "orders {\"app\":\"orders\"} Deny"),
        ("trust", "NAME ACCEPTED PROGRAMMED AGE", "mesh"),
    ] {
        let table = table(kind)?;
        let line = |at: usize| table.get(at).map(|words| words.join(" ")).unwrap_or_default();
        ensure!(line(0) == head, "{kind}: {table:?}");
        ensure!(line(1).starts_with(row), "{kind}: {table:?}");
    }
    Ok(())
}

pub(crate) fn kubectl_explains_and_finds_our_kinds(world: &mut World) -> Result<()> {
    let cluster = known(world)?;
    for (path, wanted) in [
        ("asyncpolicy", "Requests that are taken to disk by the sender's sidecar"),
        ("asyncpolicy.spec.delivery.maxAge", "From acceptance to the dead letter"),
        ("asyncpolicy.spec.mode", "ENUM: Preferred Spill Always"),
        ("backendpolicy.spec.retry.budget.percent", "in percent of the requests"),
        ("accesspolicy.spec.rules.from.identity", "spiffe://cluster.local/ns/edge/sa/*"),
        ("meshtrust.spec.anchors", "Certificates in PEM"),
        ("backendpolicy.status.ancestors.ancestorRef", "The target, as the policy names it"),
    ] {
        let said = cluster.kubectl(&["explain", path])?;
        // Lines are wrapped to the terminal.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(said.contains(wanted), "kubectl explain {path}: {said}");
    }
    // Nothing of what is written for people is left out: every field of every spec says what it is.
    let definitions: Value = resources::crds().into();
    let mut silent = Vec::new();
    for definition in definitions.as_array().into_iter().flatten() {
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        undescribed(spec, &definition["spec"]["names"]["kind"].to_string(), &mut silent);
    }
    ensure!(silent.is_empty(), "without a description: {silent:?}");
    Ok(())
}

fn undescribed(schema: &Value, path: &str, silent: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if field["description"].as_str().is_none_or(str::is_empty) {
            silent.push(path.clone());
        }
        undescribed(field, &path, silent);
    }
    if schema["items"].is_object() {
        undescribed(&schema["items"], path, silent);
    }
}

pub(crate) fn an_object_of_another_version_is_told_apart(world: &mut World) -> Result<()> {
    let cluster = known(world)?;
    let document =
        "apiVersion: tidegate.dev/v1\nkind: AsyncPolicy\nmetadata: {name: a, namespace: shop}\nspec: {}\n";
    let out = cluster.tell(&["apply", "-f", "-"], document)?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let wanted = "no matches for kind \"AsyncPolicy\" in version \"tidegate.dev/v1\"";
    ensure!(!out.status.success() && said.contains(wanted), "{said}");
    let (_, problems) = parse_file("a.yaml", document);
    let told = problems.first().context("the reader refuses it too")?.to_string();
    ensure!(told.contains("write \"tidegate.dev/v1alpha1\""), "{told}");
    Ok(())
}
