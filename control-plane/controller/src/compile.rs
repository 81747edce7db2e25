//! compile: the routes of a Service port into rules, sorted by precedence.
//!
//! Precedence of the Gateway API (HTTPRouteRule.matches): exact path, longest prefix, regular
//! expression; then a method, more headers, more query parameters; then the older route, its name,
//! the order in it. GRPCRoutes go first: what is gRPC is theirs.

mod action;
mod faults;
mod matches;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;

use policy::limits;
use policy::queue::AsyncPolicy;
use policy::route::{Action, Match, PathMatch, RouteKind, Rule, RuleName};
use resources::{HttpRule, Meta, Route, ServicePortSpec};

pub(crate) use action::Fault;
pub(crate) use faults::faults;

use crate::index::{AnyRoute, Attached, Index, Named};

/// The rules for one Service port and a client of namespace `client`.
pub(crate) fn rules(index: &Index, service: &Named, port: &ServicePortSpec, client: &str) -> Vec<Rule> {
    let attached = index.attached(service).iter().filter(|attached| is_for(attached, port));
    let (own, foreign): (Vec<_>, Vec<_>) =
        attached.partition(|attached| attached.route.namespace() == service.0);
    // GAMMA: routes of the client's own namespace (consumer routes) replace the Service's.
    let consumer: Vec<_> = foreign.into_iter().filter(|a| a.route.namespace() == client).collect();
    let chosen = if consumer.is_empty() || client == service.0 { own } else { consumer };
    let mut compiled = Vec::new();
    let inherited = index.async_policies().of_service(service);
    for attached in chosen {
        match &attached.route {
            AnyRoute::Http(route) => {
                let own = |rule: &HttpRule| index.async_policies().of_rule(&route.meta, rule.name.as_deref());
                let actions = route.rules.iter().enumerate().map(|(r, rule)| {
                    let action = action::compile(index, route, "HTTPRoute", r);
                    Arc::new(with_policy(action, || own(rule).or_else(|| inherited.clone())))
                });
                compile(route, RouteKind::Http, actions, matches::http, &mut compiled);
            }
            AnyRoute::Grpc(route) => {
                let actions = (0..route.rules.len()).map(|r| {
                    let action = action::compile(index, route, "GRPCRoute", r);
                    Arc::new(with_policy(action, || inherited.clone()))
                });
                compile(route, RouteKind::Grpc, actions, matches::grpc, &mut compiled);
            }
        }
    }
    compiled.sort_by(|(a, _), (b, _)| a.cmp(b));
    // A route may name one Service twice, as a whole and by its port.
    compiled.dedup_by(|(a, _), (b, _)| a == b);
    if compiled.len() > limits::RULES_PER_DESTINATION_MAX {
        tracing::warn!(
            service = %format!("{}/{}:{}", service.0, service.1, port.port),
            rules = compiled.len(),
            limit = limits::RULES_PER_DESTINATION_MAX,
            "rules beyond the limit are left out"
        );
        compiled.truncate(limits::RULES_PER_DESTINATION_MAX);
    }
    compiled.into_iter().map(|(_, rule)| rule).collect()
}

fn is_for(attached: &Attached, port: &ServicePortSpec) -> bool {
    is_meant(attached.port, attached.section.as_deref(), port)
}

/// Whether a parent with this port and section name means `port` of its Service.
pub(crate) fn is_meant(number: Option<u16>, section: Option<&str>, port: &ServicePortSpec) -> bool {
    number.is_none_or(|number| number == port.port) && section.is_none_or(|name| *name == *port.name)
}

/// Where a rule stands; smaller is tried first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    kind: u8,
    path: (u8, Reverse<usize>),
    no_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    /// A route without a time is as new as can be.
    undated: bool,
    created: Option<String>,
    route: (String, String),
    written: (usize, usize),
}

/// A match, and why it cannot be carried out where it cannot.
struct Compiled {
    matches: Match,
    /// Kind of path and its length, headers, query parameters as they are written: a condition that
    /// cannot be carried out still counts.
    rank: ((u8, usize), usize, usize),
    fault: Option<String>,
}

/// `action` with the AsyncPolicy it inherits where its rule names none itself.
fn with_policy(mut action: Action, inherited: impl FnOnce() -> Option<Arc<AsyncPolicy>>) -> Action {
    if let Action::Forward(forward) = &mut action
        && forward.asynchronous.is_none()
    {
        forward.asynchronous = inherited();
    }
    action
}

fn compile<M>(
    route: &Route<M>,
    kind: RouteKind,
    actions: impl Iterator<Item = Arc<Action>>,
    read: impl Fn(Option<&M>) -> Compiled,
    into: &mut Vec<(Rank, Rule)>,
) {
    let meta = &route.meta;
    let kind_name = if kind == RouteKind::Grpc { "GRPCRoute" } else { "HTTPRoute" };
    for ((r, rule), action) in route.rules.iter().enumerate().zip(actions) {
        let name = RuleName {
            kind,
            namespace: meta.namespace.as_str().into(),
            route: meta.name.as_str().into(),
            rule: rule.name.clone().unwrap_or_else(|| r.to_string()).into(),
        };
        let all: Vec<Option<&M>> =
            if rule.matches.is_empty() { vec![None] } else { rule.matches.iter().map(Some).collect() };
        for (m, one) in all.into_iter().enumerate() {
            let compiled = read(one);
            let rank = rank(meta, kind, &compiled, (r, m));
            let action = match compiled.fault {
                Some(fault) => Arc::new(Action::Fail {
                    cause: format!(
                        "rules[{r}].matches[{m}].{fault} (in {kind_name} {}/{})",
                        meta.namespace, meta.name
                    ),
                }),
                None => action.clone(),
            };
            into.push((rank, Rule { name: name.clone(), matches: compiled.matches, action }));
        }
    }
}

fn rank(meta: &Meta, kind: RouteKind, compiled: &Compiled, written: (usize, usize)) -> Rank {
    let matches = &compiled.matches;
    let (path, headers, query) = compiled.rank;
    Rank {
        kind: u8::from(kind != RouteKind::Grpc),
        path: (path.0, Reverse(path.1)),
        no_method: matches.method.is_none(),
        headers: Reverse(headers),
        query: Reverse(query),
        undated: meta.created.is_none(),
        created: meta.created.clone(),
        route: (meta.namespace.to_string(), meta.name.to_string()),
        written,
    }
}

/// Kind of path and its length.
fn path_rank(path: Option<&PathMatch>) -> (u8, usize) {
    match path {
        Some(PathMatch::Exact(path)) => (0, path.len()),
        // Where an expression ranks is left to implementations: before prefixes, or a rule for "/"
        // would leave it nothing.
        Some(PathMatch::Regex(path)) => (1, path.len()),
        Some(PathMatch::Prefix(path)) => (2, path.len()),
        None => (5, 0),
    }
}
