//! asynchronous: what AsyncPolicies name that is not there, and which of two holds.

use std::collections::{BTreeMap, BTreeSet};

use super::{problem, told};
use crate::async_policy::{AsyncPolicy, AsyncTarget};
use crate::document::Located;
use crate::grant::ReferenceGrant;
use crate::kubernetes::Service;
use crate::object::{Meta, Object};
use crate::problem::Problem;
use crate::route::{Filter, HttpRoute, Route};
use crate::secret::{Secret, SigningKeyError};

type At<'a, T> = (&'a Located<Object>, &'a T);

/// What is wrong with the AsyncPolicies among `objects`, and with what refers to them.
pub(super) fn check(objects: &[&Located<Object>], problems: &mut Vec<Problem>) {
    let known = Known::of(objects);
    let mut referred = BTreeSet::new();
    for object in objects {
        match &object.value {
            Object::HttpRoute(route) => known.filters(object, route, &mut referred, problems),
            Object::GrpcRoute(route) => known.filters(object, route, &mut referred, problems),
            _ => {}
        }
    }
    for at in &known.policies {
        known.targets(at, problems);
        known.secret(at, problems);
        known.sink(at, problems);
        let (object, policy) = at;
        if policy.targets.is_empty() && !referred.contains(&named(&policy.meta)) {
            let message = "names nothing, and no route's filter names this policy: it does nothing";
            problems.push(problem(object, Some("spec.targetRefs".to_owned()), message.to_owned()));
        }
    }
    known.contests(problems);
}

fn named(meta: &Meta) -> (&str, &str) {
    (meta.namespace.as_str(), meta.name.as_str())
}

/// What policies name and what names them.
#[derive(Default)]
struct Known<'a> {
    policies: Vec<At<'a, AsyncPolicy>>,
    names: BTreeSet<(&'a str, &'a str)>,
    routes: BTreeMap<(&'a str, &'a str), &'a HttpRoute>,
    services: BTreeMap<(&'a str, &'a str), &'a Service>,
    grants: Vec<&'a ReferenceGrant>,
    secrets: BTreeMap<(&'a str, &'a str), &'a Secret>,
}

impl<'a> Known<'a> {
    fn of(objects: &[&'a Located<Object>]) -> Self {
        let mut known = Self::default();
        for object in objects {
            let name = named(object.value.meta());
            match &object.value {
                Object::AsyncPolicy(policy) => {
                    known.policies.push((object, policy));
                    known.names.insert(name);
                }
                Object::HttpRoute(route) => {
                    known.routes.insert(name, route);
                }
                Object::Service(service) => {
                    known.services.insert(name, service);
                }
                Object::ReferenceGrant(grant) => known.grants.push(grant),
                Object::Secret(secret) => {
                    known.secrets.insert(name, secret);
                }
                _ => {}
            }
        }
        known
    }

    /// Why `target` of `policy` is nothing it could hold for.
    fn missing(&self, policy: &AsyncPolicy, target: &AsyncTarget) -> Option<String> {
        let namespace = &policy.meta.namespace;
        let what = target.within(namespace);
        match target {
            AsyncTarget::Service(name) => match self.services.get(&(namespace.as_str(), name.as_str())) {
                None => Some(format!("there is no {what}: the policy does nothing for it")),
                Some(service) if service.external_name.is_some() => Some(format!(
                    "{what} is an ExternalName, whose requests are passed on as they are: the policy does \
                     nothing for it"
                )),
                Some(_) => None,
            },
            AsyncTarget::Route(name) | AsyncTarget::Rule(name, _) => {
                let Some(route) = self.routes.get(&(namespace.as_str(), name.as_str())) else {
                    let message = format!("there is no HTTPRoute {namespace}/{name}");
                    return Some(format!("{message}: the policy does nothing for it"));
                };
                let AsyncTarget::Rule(_, section) = target else { return None };
                let has = route.rules.iter().any(|rule| rule.name.as_ref() == Some(section));
                (!has).then(|| format!("there is no {what}: the policy does nothing for it"))
            }
        }
    }

    fn targets(&self, (object, policy): &At<'a, AsyncPolicy>, problems: &mut Vec<Problem>) {
        for (i, target) in policy.targets.iter().enumerate() {
            if let Some(message) = self.missing(policy, target) {
                problems.push(problem(object, Some(format!("spec.targetRefs[{i}]")), message));
            }
        }
    }

    fn secret(&self, (object, policy): &At<'a, AsyncPolicy>, problems: &mut Vec<Problem>) {
        let Some(name) = &policy.callback_secret else { return };
        let namespace = &policy.meta.namespace;
        let wrong = match self.secrets.get(&(namespace.as_str(), name.as_str())) {
            None => format!("there is no Secret {namespace}/{name}"),
            Some(Secret { signing_key: Err(error), .. }) => {
                let remedy = match error {
                    SigningKeyError::Missing => " (whsec_ and the base64 of a key of 24 to 64 bytes)",
                    SigningKeyError::Form => "",
                };
                format!("Secret {namespace}/{name} {error}{remedy}")
            }
            Some(_) => return,
        };
        let message = format!("{wrong}: the policy holds without callbacks");
        problems.push(problem(object, Some("spec.callback.secretRef".to_owned()), message));
    }

    fn sink(&self, (object, policy): &At<'a, AsyncPolicy>, problems: &mut Vec<Problem>) {
        let Some(sink) = &policy.sink else { return };
        let (own, at) = (&policy.meta.namespace, (sink.namespace.as_str(), sink.name.as_str()));
        let granted = self.grants.iter().any(|grant| grant.lets("AsyncPolicy", own.as_str(), at));
        if let Err(wrong) = sink.resolve(own, self.services.get(&at).copied(), granted) {
            let message = format!("{wrong}: the built-in dead letter holds");
            problems.push(problem(object, Some("spec.delivery.deadLetterSink.ref".to_owned()), message));
        }
    }

    /// Two policies for one target.
    fn contests(&self, problems: &mut Vec<Problem>) {
        let mut holds: BTreeMap<(&str, &AsyncTarget), &At<'a, AsyncPolicy>> = BTreeMap::new();
        let mut ranked: Vec<_> = self.policies.iter().collect();
        ranked.sort_by(|(_, a), (_, b)| a.rank().cmp(&b.rank()));
        for at in ranked {
            let (object, policy) = at;
            let namespace = &policy.meta.namespace;
            for (i, target) in policy.targets.iter().enumerate() {
                let Some((first, _)) = holds.get(&(namespace.as_str(), target)) else {
                    holds.insert((namespace.as_str(), target), at);
                    continue;
                };
                let message = format!(
                    "{} has {} already, which holds for it: merge the two",
                    target.within(namespace),
                    told(first)
                );
                problems.push(problem(object, Some(format!("spec.targetRefs[{i}]")), message));
            }
        }
    }

    fn filters<M>(
        &self,
        object: &'a Located<Object>,
        route: &'a Route<M>,
        referred: &mut BTreeSet<(&'a str, &'a str)>,
        problems: &mut Vec<Problem>,
    ) {
        for (r, rule) in route.rules.iter().enumerate() {
            for (f, filter) in rule.filters.iter().enumerate() {
                let Filter::Asynchronous(name) = filter else { continue };
                let policy = (route.meta.namespace.as_str(), name.as_str());
                if !self.names.contains(&policy) {
                    let message =
                        format!("there is no AsyncPolicy {}/{name}: the rule answers 500", policy.0);
                    problems.push(problem(object, Some(format!("spec.rules[{r}].filters[{f}]")), message));
                }
                referred.insert(policy);
            }
        }
    }
}
