//! action: what a rule does, or why it cannot.

use std::sync::Arc;

use policy::limits;
use policy::name::Label;
use policy::queue::AsyncPolicy;
use policy::retry::RetryPolicy;
use policy::route::{Action, BackendTarget, Forward, HeaderModifier, PathChange, Rewrite, WeightedBackend};
use policy::snapshot::BackendKey;
use resources::conditions::Reason;
use resources::{
    BackendRef, Filter, GrpcMatch, HttpMatch, Meta, ParentRef, PathSpec, RetrySpec, Route, Rule,
};

use crate::index::{Index, Named, no_port, service_port};

/// The action of rule number `r`.
pub(super) fn compile<M: MatchesPath>(index: &Index, route: &Route<M>, kind: &str, r: usize) -> Action {
    compile_and_tell(index, route, kind, r).0
}

/// Likewise, and everything in it that cannot be carried out.
pub(super) fn compile_and_tell<M: MatchesPath>(
    index: &Index,
    route: &Route<M>,
    kind: &str,
    r: usize,
) -> (Action, Vec<Fault>) {
    let at = format!("{kind} {}/{}", route.meta.namespace, route.meta.name);
    let writer = Writer { meta: &route.meta, parents: &route.parents, kind };
    let mut faults = Vec::new();
    let action = match redirect(&writer, (r, &route.rules[r]), &at).transpose().unwrap_or_else(|| {
        forward(index, &writer, (r, &route.rules[r]), &at, &mut faults).map(Action::Forward)
    }) {
        Ok(action) => action,
        Err(fault) => {
            faults.push(fault.clone());
            Action::Fail { cause: fault.cause }
        }
    };
    (action, faults)
}

/// Why a part of a rule cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In one word of the Gateway API.
    pub(crate) reason: Reason,
    /// In many, with the place.
    pub(crate) cause: String,
}

fn unsupported(cause: String) -> Fault {
    Fault { reason: Reason::UnsupportedValue, cause }
}

/// Who refers to a backend.
struct Writer<'a> {
    meta: &'a Meta,
    parents: &'a [ParentRef],
    kind: &'a str,
}

impl Writer<'_> {
    /// Whether the route is attached to `named` itself: a consumer's route may always send to the
    /// Service whose requests it takes.
    fn is_attached_to(&self, named: &(String, String)) -> bool {
        self.parents.iter().any(|parent| {
            parent.kind == "Service"
                && parent.name == named.1
                && parent.namespace.as_ref().unwrap_or(&self.meta.namespace).as_str() == named.0
        })
    }
}

/// A rule that sends its clients elsewhere: nothing else is done with their requests.
fn redirect<M: MatchesPath>(
    writer: &Writer<'_>,
    (r, rule): (usize, &Rule<M>),
    at: &str,
) -> Result<Option<Action>, Fault> {
    let mut told = None;
    for (f, filter) in rule.filters.iter().enumerate() {
        let Filter::Redirect(redirect) = filter else { continue };
        let place = format!("rules[{r}].filters[{f}]");
        if told.is_some() {
            return Err(unsupported(format!("{place} of {at} is a second RequestRedirect, one can hold")));
        }
        change_of_path(writer, rule, redirect.path.as_ref(), &format!("{place} of {at}"))?;
        told = Some(redirect.clone());
    }
    let Some(mut told) = told else { return Ok(None) };
    if !rule.backends.is_empty() {
        return Err(unsupported(format!(
            "rules[{r}].backendRefs of {at}: a rule with a RequestRedirect sends nothing on, take one of the two out"
        )));
    }
    for (f, filter) in rule.filters.iter().enumerate() {
        match filter {
            Filter::ResponseHeaders(modifier) => told.response_headers.push(modifier.clone()),
            Filter::Redirect(_) | Filter::RequestHeaders(_) => {}
            Filter::Rewrite(_) | Filter::Asynchronous(_) | Filter::Unknown(_) => {
                return Err(unsupported(format!(
                    "rules[{r}].filters[{f}] of {at} is not carried out beside a RequestRedirect"
                )));
            }
        }
    }
    Ok(Some(Action::Redirect(told)))
}

/// What a rule's backends see of the address.
fn rewrite<M: MatchesPath>(
    writer: &Writer<'_>,
    (r, rule): (usize, &Rule<M>),
    at: &str,
) -> Result<Option<Rewrite>, Fault> {
    let mut found = None;
    for (f, filter) in rule.filters.iter().enumerate() {
        let Filter::Rewrite(rewrite) = filter else { continue };
        let place = format!("rules[{r}].filters[{f}] of {at}");
        if found.is_some() {
            return Err(unsupported(format!("{place} is a second URLRewrite, one can hold")));
        }
        change_of_path(writer, rule, rewrite.path.as_ref(), &place)?;
        found = Some(rewrite.clone());
    }
    Ok(found)
}

/// A prefix can be replaced where every match of the rule is by one; calls of gRPC have no other address.
fn change_of_path<M: MatchesPath>(
    writer: &Writer<'_>,
    rule: &Rule<M>,
    change: Option<&PathChange>,
    place: &str,
) -> Result<(), Fault> {
    if writer.kind == "GRPCRoute" {
        return Err(unsupported(format!("{place} is a filter of HTTPRoutes alone")));
    }
    if matches!(change, Some(PathChange::Prefix(_))) && !rule.matches.iter().all(MatchesPath::is_by_prefix) {
        return Err(unsupported(format!(
            "{place}: replacePrefixMatch takes matches of type PathPrefix alone in its rule"
        )));
    }
    Ok(())
}

/// How a match looks at a path.
pub(super) trait MatchesPath {
    /// Whether by a prefix, which "/" is where none is written.
    fn is_by_prefix(&self) -> bool;
}

impl MatchesPath for HttpMatch {
    fn is_by_prefix(&self) -> bool {
        matches!(self.path, PathSpec::Prefix(_))
    }
}

impl MatchesPath for GrpcMatch {
    fn is_by_prefix(&self) -> bool {
        false
    }
}

fn forward<M: MatchesPath>(
    index: &Index,
    writer: &Writer<'_>,
    (r, rule): (usize, &Rule<M>),
    at: &str,
    faults: &mut Vec<Fault>,
) -> Result<Forward, Fault> {
    let (request_headers, response_headers) = modifiers(&rule.filters, &format!("rules[{r}]"), at)?;
    let asynchronous = asynchronous(index, writer, r, &rule.filters)?;
    let retry = rule.retry.as_ref().map(|retry| retry_policy(retry, r, at)).transpose()?;
    let mut invalid = |fault: Fault| {
        faults.push(fault.clone());
        BackendTarget::Invalid(fault.cause)
    };
    let backend = |(b, reference): (usize, &BackendRef)| {
        let place = format!("rules[{r}].backendRefs[{b}]");
        let changes = not_asynchronous(&reference.filters, &place, at);
        match changes.and_then(|()| modifiers(&reference.filters, &place, at)) {
            Ok((request_headers, response_headers)) => WeightedBackend {
                weight: reference.weight,
                target: match resolve(index, writer, reference) {
                    Ok(key) => BackendTarget::Backend(key),
                    Err(Fault { reason, cause }) => {
                        invalid(Fault { reason, cause: format!("{place} of {at}: {cause}") })
                    }
                },
                request_headers,
                response_headers,
            },
            Err(fault) => WeightedBackend {
                weight: reference.weight,
                target: invalid(fault),
                request_headers: Vec::new(),
                response_headers: Vec::new(),
            },
        }
    };
    Ok(Forward {
        request_headers,
        response_headers,
        rewrite: rewrite(writer, (r, rule), at)?,
        backends: rule.backends.iter().enumerate().map(backend).collect(),
        request_timeout: rule.timeouts.request,
        attempt_timeout: rule.timeouts.backend_request,
        retry,
        asynchronous,
    })
}

/// The AsyncPolicy that a rule's filters name; one that is not there fails the rule, for a filter
/// must not be skipped (HTTPRouteFilter.extensionRef).
fn asynchronous(
    index: &Index,
    writer: &Writer<'_>,
    r: usize,
    filters: &[Filter],
) -> Result<Option<Arc<AsyncPolicy>>, Fault> {
    let (namespace, mut found) = (&writer.meta.namespace, None);
    for (f, filter) in filters.iter().enumerate() {
        let Filter::Asynchronous(name) = filter else { continue };
        let place = format!("rules[{r}].filters[{f}] of {} {namespace}/{}", writer.kind, writer.meta.name);
        if found.is_some() {
            return Err(unsupported(format!("{place} names a second AsyncPolicy, one can hold")));
        }
        let policy = index.async_policies().named(namespace.as_str(), name);
        found = Some(policy.ok_or_else(|| Fault {
            reason: Reason::RefNotFound,
            cause: format!("{place}: there is no AsyncPolicy {namespace}/{name}"),
        })?);
    }
    Ok(found)
}

/// A message is taken in before its backend is chosen.
fn not_asynchronous(filters: &[Filter], place: &str, at: &str) -> Result<(), Fault> {
    match filters.iter().position(|filter| matches!(filter, Filter::Asynchronous(_))) {
        Some(f) => Err(unsupported(format!(
            "{place}.filters[{f}] of {at}: an AsyncPolicy for one backend alone is not carried out"
        ))),
        None => Ok(()),
    }
}

type Modifiers = (Vec<HeaderModifier>, Vec<HeaderModifier>);

fn modifiers(filters: &[Filter], place: &str, at: &str) -> Result<Modifiers, Fault> {
    let (mut request, mut response) = (Vec::new(), Vec::new());
    let is_the_rules = !place.contains("backendRefs");
    for (f, filter) in filters.iter().enumerate() {
        let not_for_one = |kind: &str| {
            unsupported(format!(
                "filter {kind} in {place}.filters[{f}] of {at}: for one backend alone it is not carried out"
            ))
        };
        match filter {
            Filter::RequestHeaders(modifier) => request.push(modifier.clone()),
            Filter::ResponseHeaders(modifier) => response.push(modifier.clone()),
            Filter::Asynchronous(_) => {}
            // The rule's own are looked at where it is carried out as a whole.
            Filter::Rewrite(_) | Filter::Redirect(_) if is_the_rules => {}
            Filter::Rewrite(_) => return Err(not_for_one("URLRewrite")),
            Filter::Redirect(_) => return Err(not_for_one("RequestRedirect")),
            Filter::Unknown(kind) => {
                return Err(unsupported(format!(
                    "filter type {kind:?} in {place}.filters[{f}] of {at} is not carried out"
                )));
            }
        }
    }
    Ok((request, response))
}

fn retry_policy(spec: &RetrySpec, r: usize, at: &str) -> Result<RetryPolicy, Fault> {
    let most = limits::RETRY_ATTEMPTS_MAX;
    match u32::try_from(spec.attempts) {
        Ok(attempts) if attempts <= most => {
            Ok(RetryPolicy { attempts, codes: spec.codes.clone(), backoff: spec.backoff })
        }
        _ => Err(unsupported(format!(
            "rules[{r}].retry.attempts of {at} is {}, at most {most} are carried out",
            spec.attempts
        ))),
    }
}

fn resolve(index: &Index, writer: &Writer<'_>, reference: &BackendRef) -> Result<BackendKey, Fault> {
    let kind = writer.kind;
    let fault = |reason: Reason, cause: String| Fault { reason, cause };
    if !matches!(reference.group.as_str(), "" | "core") || reference.kind != "Service" {
        let cause = format!("kind {:?} of group {:?} is no Service", reference.kind, reference.group);
        return Err(fault(Reason::InvalidKind, cause));
    }
    let own = writer.meta.namespace.as_str();
    let namespace = reference.namespace.as_ref().map_or(own, Label::as_str);
    let named = (namespace.to_owned(), reference.name.clone());
    if !writer.is_attached_to(&named) && !index.is_granted(kind, own, &named) {
        let cause = format!(
            "namespace {namespace} does not let {kind}s of {own} refer to Service {}: it takes a ReferenceGrant there",
            reference.name
        );
        return Err(fault(Reason::RefNotPermitted, cause));
    }
    in_service(index, &named, reference.port).map_err(|cause| fault(Reason::BackendNotFound, cause))
}

/// The port of the Service `named`.
fn in_service(index: &Index, named: &Named, port: Option<u16>) -> Result<BackendKey, String> {
    let (namespace, name) = named;
    let service = index.service(named).ok_or_else(|| format!("there is no Service {namespace}/{name}"))?;
    let port = port.ok_or("a Service needs a port, none is written")?;
    if service.external_name.is_some() {
        return Err(format!("Service {namespace}/{name} is an ExternalName, which has no endpoints"));
    }
    if !service.ports.iter().any(|spec| spec.port == port) {
        return Err(no_port(named, service, port));
    }
    service_port(named, port)
        .map(BackendKey::Service)
        .ok_or_else(|| format!("{name:?} is not a Service's name"))
}
