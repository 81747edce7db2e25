//! faults: what of a route cannot be carried out, by the functions that carry it out.

use policy::route::Action;
use resources::Route;
use resources::conditions::Reason;

use super::{Compiled, Fault, action, matches};
use crate::index::{AnyRoute, Index};

/// What of a route cannot be carried out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Everything, rule by rule.
    pub(crate) all: Vec<Fault>,
    /// Whether something is left that can.
    pub(crate) any_works: bool,
}

/// Looks at every rule of `route` as [`rules`](super::rules) compiles it.
pub(crate) fn faults(index: &Index, route: &AnyRoute) -> Faults {
    match route {
        AnyRoute::Http(route) => collect(index, route, "HTTPRoute", matches::http),
        AnyRoute::Grpc(route) => collect(index, route, "GRPCRoute", matches::grpc),
    }
}

fn collect<M: action::MatchesPath>(
    index: &Index,
    route: &Route<M>,
    kind: &str,
    read: impl Fn(Option<&M>) -> Compiled,
) -> Faults {
    let mut faults = Faults { any_works: route.rules.is_empty(), ..Faults::default() };
    for (r, rule) in route.rules.iter().enumerate() {
        let (action, of_action) = action::compile_and_tell(index, route, kind, r);
        faults.all.extend(of_action);
        let mut any_matches = rule.matches.is_empty();
        for (m, one) in rule.matches.iter().enumerate() {
            match read(Some(one)).fault {
                None => any_matches = true,
                Some(fault) => faults.all.push(Fault {
                    reason: Reason::UnsupportedValue,
                    cause: format!("rules[{r}].matches[{m}].{fault}"),
                }),
            }
        }
        faults.any_works |= any_matches && !matches!(action, Action::Fail { .. });
    }
    faults
}
