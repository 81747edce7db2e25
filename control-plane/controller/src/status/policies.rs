//! policies: what there is to say of our own kinds.

use policy::name::{Domain, Label};
use resources::conditions::{Condition, Reason, Reference};
use resources::{AccessPolicy, AsyncPolicy, AsyncTarget, BackendPolicy, MeshTrust, Meta, Pod, PortRef};

use super::verdict::{Part, Verdict, Wrong, accepted, joined, resolved};
use crate::documents::Need;
use crate::index::{Index, Named, access_policy_in_force};

const IN_FORCE: &str = "It is valid, and in force.";

/// Target by target: the Service is there, and no other policy holds for it.
pub(super) fn backend(index: &Index, policy: &BackendPolicy) -> Verdict {
    let target = |name: &Label| {
        let service = (policy.meta.namespace.to_string(), name.to_string());
        let wrong = no_service(index, &service).or_else(|| {
            let holds = index.backend_policy_in_force(&service).map(|holder| &holder.meta);
            let holder = holds.filter(|holder| holder.name != policy.meta.name)?;
            Some(conflicted(
                &format!("BackendPolicy {}/{}", holder.namespace, holder.name),
                &service_called(&service),
            ))
        });
        Target { of: Reference::service(name), wrong, services: vec![service] }
    };
    of_targets(&policy.meta, policy.targets.iter().map(target).collect(), None)
}

/// Target by target, and what it names beside them.
pub(super) fn asynchronous(index: &Index, policy: &AsyncPolicy) -> Verdict {
    let namespace = &policy.meta.namespace;
    let own: &str = &policy.says.name;
    let target = |target: &AsyncTarget| {
        let wrong = no_target(index, namespace, target).or_else(|| {
            let holder = index.async_policy_in_force(namespace, target).filter(|holder| **holder != *own)?;
            Some(conflicted(&format!("AsyncPolicy {holder}"), &target.within(namespace)))
        });
        let services = match target {
            AsyncTarget::Service(name) => vec![(namespace.to_string(), name.to_string())],
            AsyncTarget::Route(name) | AsyncTarget::Rule(name, _) => {
                index.services_of_route(&(namespace.to_string(), name.to_string()))
            }
        };
        Target { of: target.into(), wrong, services }
    };
    let references = joined([no_secret(index, policy), no_sink(index, policy)].iter().flatten());
    let has_any = policy.callback_secret.is_some() || policy.sink.is_some();
    let references = has_any.then(|| resolved(references.as_ref()));
    let mut verdict = of_targets(&policy.meta, policy.targets.iter().map(target).collect(), references);
    if let Some(needs) = verdict.whole.as_mut().and_then(|whole| whole.needs.as_mut()) {
        let by_filter = index.services_by_filter(namespace.as_str(), policy.meta.name.as_str());
        needs.extend(by_filter.into_iter().map(Need::Service));
    }
    verdict
}

/// In force where it holds for each pod it selects.
pub(super) fn access(index: &Index, policy: &AccessPolicy) -> Verdict {
    let pods: Vec<(&Named, &Pod)> = index.selected(policy).collect();
    let wrong = unknown_port(policy, &pods).or_else(|| contested(index, policy, &pods));
    let said = if pods.is_empty() { "It is valid; no pod is selected now." } else { IN_FORCE };
    let needs = wrong.is_none().then(|| pods.iter().map(|(named, _)| Need::Pod((*named).clone())).collect());
    let whole = Part { conditions: vec![accepted(wrong.as_ref(), said)], needs };
    Verdict { generation: policy.meta.generation, whole: Some(whole), parts: Vec::new() }
}

/// One holds for the whole mesh.
pub(super) fn trust(index: &Index, trust: &MeshTrust) -> Verdict {
    let holder = index.trust_in_force().filter(|holder| holder.meta.name != trust.meta.name);
    let wrong = holder.map(|holder| {
        let message = format!(
            "MeshTrust {} holds for the whole mesh, and one can: put the anchors there",
            holder.meta.name
        );
        Wrong::new(Reason::Conflicted, message)
    });
    let needs = wrong.is_none().then(|| vec![Need::All]);
    let whole = Part { conditions: vec![accepted(wrong.as_ref(), IN_FORCE)], needs };
    Verdict { generation: trust.meta.generation, whole: Some(whole), parts: Vec::new() }
}

/// What is found of one target.
struct Target {
    of: Reference,
    wrong: Option<Wrong>,
    services: Vec<Named>,
}

/// Target by target, and the sum of it, which holds where all do.
fn of_targets(meta: &Meta, targets: Vec<Target>, references: Option<Condition>) -> Verdict {
    let wrong = joined(targets.iter().filter_map(|target| target.wrong.as_ref()));
    let in_force = targets.iter().filter(|target| target.wrong.is_none());
    let needs: Vec<Need> =
        in_force.flat_map(|target| target.services.iter().cloned().map(Need::Service)).collect();
    let is_in_force = targets.is_empty() || targets.iter().any(|target| target.wrong.is_none());
    let part = |wrong: Option<&Wrong>, needs: Option<Vec<Need>>| {
        let conditions = std::iter::once(accepted(wrong, IN_FORCE)).chain(references.clone());
        Part { conditions: conditions.collect(), needs }
    };
    let whole = part(wrong.as_ref(), is_in_force.then_some(needs));
    let parts = targets.into_iter().map(|target| {
        let needs = target.services.into_iter().map(Need::Service).collect();
        (target.of, part(target.wrong.as_ref(), target.wrong.is_none().then_some(needs)))
    });
    Verdict { generation: meta.generation, parts: parts.collect(), whole: Some(whole) }
}

fn service_called((namespace, name): &Named) -> String {
    format!("Service {namespace}/{name}")
}

fn conflicted(holder: &str, target: &str) -> Wrong {
    Wrong::new(Reason::Conflicted, format!("{holder} holds for {target}: merge the two"))
}

fn no_service(index: &Index, service: &Named) -> Option<Wrong> {
    let what = service_called(service);
    let message = match index.service(service) {
        None => format!("there is no {what}"),
        Some(service) if service.external_name.is_some() => {
            format!("{what} is an ExternalName, whose requests are passed on as they are")
        }
        Some(_) => return None,
    };
    Some(Wrong::new(Reason::TargetNotFound, message))
}

fn no_target(index: &Index, namespace: &Label, target: &AsyncTarget) -> Option<Wrong> {
    let route = |name: &Domain| index.http_route(&(namespace.to_string(), name.to_string()));
    let is_there = match target {
        AsyncTarget::Service(name) => {
            return no_service(index, &(namespace.to_string(), name.to_string()));
        }
        AsyncTarget::Route(name) => route(name).is_some(),
        AsyncTarget::Rule(name, rule) => route(name).is_some_and(|route| route.has_rule(rule)),
    };
    (!is_there)
        .then(|| Wrong::new(Reason::TargetNotFound, format!("there is no {}", target.within(namespace))))
}

fn no_secret(index: &Index, policy: &AsyncPolicy) -> Option<Wrong> {
    let name = policy.callback_secret.as_ref()?;
    let named = (policy.meta.namespace.to_string(), name.to_string());
    let what = format!("Secret {}/{}", named.0, named.1);
    let wrong = match index.secret_named(&named).map(|secret| &secret.signing_key) {
        Some(Ok(_)) => return None,
        Some(Err(error)) => format!("{what} {error}"),
        None => format!("there is no {what}, or it may not be read"),
    };
    Some(Wrong::new(Reason::RefNotFound, format!("{wrong}: the policy holds without callbacks")))
}

fn no_sink(index: &Index, policy: &AsyncPolicy) -> Option<Wrong> {
    let (sink, own) = (policy.sink.as_ref()?, &policy.meta.namespace);
    let named = (sink.namespace.to_string(), sink.name.to_string());
    let granted = index.is_granted("AsyncPolicy", own.as_str(), &named);
    let wrong = sink.resolve(own, index.service(&named), granted).err()?;
    let reason = if granted { Reason::BackendNotFound } else { Reason::RefNotPermitted };
    Some(Wrong::new(reason, format!("{wrong}: the built-in dead letter holds")))
}

/// A port name that no selected pod has protects nothing.
fn unknown_port(policy: &AccessPolicy, pods: &[(&Named, &Pod)]) -> Option<Wrong> {
    let is_unknown = |port: &&PortRef| pods.iter().all(|(_, pod)| pod.resolve(port).is_none());
    let port = policy.ports.iter().find(is_unknown).filter(|_| !pods.is_empty())?;
    let PortRef::Name(name) = port else { return None };
    let message = format!(
        "no selected pod has a container port named {name:?}, so nothing is protected there: name one in the \
         pod, or write the number"
    );
    Some(Wrong::new(Reason::Invalid, message))
}

/// The pod and port for which another policy holds.
fn contested(index: &Index, policy: &AccessPolicy, pods: &[(&Named, &Pod)]) -> Option<Wrong> {
    pods.iter().find_map(|(named, pod)| {
        let policies = index.access_policies_of(pod);
        let numbers = policy.ports.iter().filter_map(|port| pod.resolve(port)).map(Some);
        let ports: Vec<Option<u16>> = if policy.ports.is_empty() { vec![None] } else { numbers.collect() };
        let (port, holder) = ports.into_iter().find_map(|port| {
            let holder = access_policy_in_force(&policies, pod, port)?;
            (holder.meta.name != policy.meta.name).then_some((port, holder))
        })?;
        let port = port.map_or("every port".to_owned(), |port| format!("port {port}"));
        let target = format!("{port} of pod {}/{}", named.0, named.1);
        Some(conflicted(&format!("AccessPolicy {}/{}", holder.meta.namespace, holder.meta.name), &target))
    })
}
