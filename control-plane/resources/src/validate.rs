//! validate: what is wrong between objects, and in routes beyond their form.

mod asynchronous;

use std::collections::{BTreeMap, BTreeSet};

use crate::access_policy::AccessPolicy;
use crate::document::Located;
use crate::kubernetes::{Pod, PortRef};
use crate::object::{Object, ObjectId};
use crate::problem::Problem;
use crate::route::{GrpcMatch, HttpMatch, NamedMatchSpec, PathSpec, Route, ValueKind};

/// What is wrong between objects that are right one by one, in the order they are given.
///
/// None of it takes an object out of force as a whole: of two that contradict each other the earlier
/// one holds, a rule with a bad expression fails alone.
#[must_use]
pub fn validate_all<'a>(objects: impl IntoIterator<Item = &'a Located<Object>>) -> Vec<Problem> {
    let objects: Vec<&Located<Object>> = objects.into_iter().collect();
    let mut problems = Vec::new();
    duplicates(&objects, &mut problems);
    let first = in_force(&objects);
    backend_policies(&first, &mut problems);
    access_policies(&first, &mut problems);
    asynchronous::check(&first, &mut problems);
    let trusts = first.iter().filter(|object| matches!(object.value, Object::MeshTrust(_)));
    for extra in trusts.skip(1) {
        let message = "there is another MeshTrust, and one holds for the whole mesh: put its anchors there";
        problems.push(problem(extra, None, message.to_owned()));
    }
    for object in &first {
        match &object.value {
            Object::HttpRoute(route) => expressions(object, route, http_patterns, &mut problems),
            Object::GrpcRoute(route) => {
                expressions(object, route, |found, into| grpc_patterns(found, into), &mut problems);
            }
            _ => {}
        }
    }
    problems
}

/// The first object of every name.
fn in_force<'a>(objects: &[&'a Located<Object>]) -> Vec<&'a Located<Object>> {
    let mut seen = BTreeSet::new();
    objects.iter().copied().filter(|object| seen.insert(object.value.id())).collect()
}

fn problem(at: &Located<Object>, field: Option<String>, message: String) -> Problem {
    Problem { file: at.file.clone(), line: at.line, object: at.value.id().to_string(), field, message }
}

/// An object with where it stands, where that says more than its name.
fn told(at: &Located<Object>) -> String {
    let id = at.value.id();
    if at.line == 0 { id.to_string() } else { format!("{id} ({})", at.place()) }
}

fn duplicates(objects: &[&Located<Object>], problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<ObjectId, &Located<Object>> = BTreeMap::new();
    for object in objects {
        let id = object.value.id();
        if let Some(first) = seen.get(&id) {
            let message = format!("stands at {} already, which holds: remove one", first.place());
            problems.push(problem(object, None, message));
        } else {
            seen.insert(id, object);
        }
    }
}

fn backend_policies(objects: &[&Located<Object>], problems: &mut Vec<Problem>) {
    let mut holds: BTreeMap<(String, String), &Located<Object>> = BTreeMap::new();
    for object in objects {
        let Object::BackendPolicy(policy) = &object.value else { continue };
        for (i, target) in policy.targets.iter().enumerate() {
            let service = (policy.meta.namespace.to_string(), target.to_string());
            match holds.get(&service) {
                Some(first) => {
                    let message = format!(
                        "Service {}/{} has {} already, which holds for it: merge the two",
                        service.0,
                        service.1,
                        told(first)
                    );
                    problems.push(problem(object, Some(format!("spec.targetRefs[{i}]")), message));
                }
                None => {
                    holds.insert(service, object);
                }
            }
        }
    }
}

fn access_policies(objects: &[&Located<Object>], problems: &mut Vec<Problem>) {
    let policies: Vec<(&Located<Object>, &AccessPolicy)> = objects
        .iter()
        .filter_map(|object| match &object.value {
            Object::AccessPolicy(policy) => Some((*object, policy)),
            _ => None,
        })
        .collect();
    for (object, policy) in &policies {
        unknown_ports(object, policy, objects, problems);
    }
    let mut reported = BTreeSet::new();
    for object in objects {
        let Object::Pod(pod) = &object.value else { continue };
        let selecting: Vec<_> = policies.iter().filter(|(_, policy)| selects(policy, pod)).collect();
        for (i, (first_at, first)) in selecting.iter().enumerate() {
            for (second_at, second) in &selecting[i + 1..] {
                let Some(port) = shared_port(first, second, pod) else { continue };
                if reported.insert((first_at.value.id(), second_at.value.id())) {
                    let message = format!(
                        "selects {port} of pod {}/{} as {} does, which holds for it: merge the two",
                        pod.meta.namespace,
                        pod.meta.name,
                        told(first_at)
                    );
                    problems.push(problem(second_at, Some("spec.selector".to_owned()), message));
                }
            }
        }
    }
}

/// A port name that no selected pod has protects nothing: most likely it is misspelled.
fn unknown_ports(
    object: &Located<Object>,
    policy: &AccessPolicy,
    objects: &[&Located<Object>],
    problems: &mut Vec<Problem>,
) {
    let pods: Vec<&Pod> = objects
        .iter()
        .filter_map(|object| match &object.value {
            Object::Pod(pod) if selects(policy, pod) => Some(pod),
            _ => None,
        })
        .collect();
    for (i, port) in policy.ports.iter().enumerate() {
        let PortRef::Name(name) = port else { continue };
        if !pods.is_empty() && pods.iter().all(|pod| pod.resolve(port).is_none()) {
            let message = format!(
                "no selected pod has a container port named {name:?}, so nothing is protected: \
                 name one in the pod, or write the number"
            );
            problems.push(problem(object, Some(format!("spec.ports[{i}]")), message));
        }
    }
}

fn selects(policy: &AccessPolicy, pod: &Pod) -> bool {
    policy.meta.namespace == pod.meta.namespace
        && policy.selector.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value))
}

fn shared_port(first: &AccessPolicy, second: &AccessPolicy, pod: &Pod) -> Option<String> {
    let numbers = |policy: &AccessPolicy| -> BTreeSet<u16> {
        policy.ports.iter().filter_map(|port| pod.resolve(port)).collect()
    };
    match (first.ports.is_empty(), second.ports.is_empty()) {
        (true, true) => Some("every port".to_owned()),
        // A policy for one port goes before one for all: they do not contradict each other.
        (true, false) | (false, true) => None,
        (false, false) => {
            numbers(first).intersection(&numbers(second)).next().map(|port| format!("port {port}"))
        }
    }
}

type Patterns<'a> = Vec<(String, &'a str)>;

fn expressions<'a, M>(
    object: &Located<Object>,
    route: &'a Route<M>,
    patterns: impl Fn(&'a M, &mut Patterns<'a>),
    problems: &mut Vec<Problem>,
) {
    for (r, rule) in route.rules.iter().enumerate() {
        for (m, matched) in rule.matches.iter().enumerate() {
            let mut found = Vec::new();
            patterns(matched, &mut found);
            for (field, pattern) in found {
                if let Err(message) = check_regex(pattern) {
                    let field = format!("spec.rules[{r}].matches[{m}].{field}");
                    problems.push(problem(object, Some(field), message));
                }
            }
        }
    }
}

fn http_patterns<'a>(matched: &'a HttpMatch, into: &mut Patterns<'a>) {
    if let PathSpec::Regex(pattern) = &matched.path {
        into.push(("path".to_owned(), pattern));
    }
    named_patterns("headers", &matched.headers, into);
    named_patterns("queryParams", &matched.query, into);
}

fn grpc_patterns<'a>(matched: &'a GrpcMatch, into: &mut Patterns<'a>) {
    if let Some(method) = matched.method.as_ref().filter(|method| method.kind == ValueKind::Regex) {
        into.extend(
            method.service.iter().chain(&method.method).map(|text| ("method".to_owned(), text.as_str())),
        );
    }
    named_patterns("headers", &matched.headers, into);
}

fn named_patterns<'a>(list: &str, named: &'a [NamedMatchSpec], into: &mut Patterns<'a>) {
    for (i, spec) in named.iter().enumerate() {
        if spec.kind == ValueKind::Regex {
            into.push((format!("{list}[{i}]"), spec.value.as_str()));
        }
    }
}

/// Whether a proxy can use `pattern` over a whole value.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check_regex(pattern: &str) -> Result<(), String> {
    match regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(policy::limits::REGEX_BYTES_MAX)
        .build()
    {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(format!("{pattern:?} is not a regular expression: {last}"))
        }
    }
}

/// `text` as an expression that matches it letter by letter.
#[must_use]
pub fn escape_regex(text: &str) -> String {
    regex::escape(text)
}
