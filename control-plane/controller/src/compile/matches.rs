//! matches: one match of a route into the proxy's words.
//!
//! A condition that cannot be carried out (a type that is not known, a bad expression) is left out
//! of the match and makes it fail: what the other conditions still catch is answered with an error
//! rather than let through to a rule that was not meant for it.

use policy::route::{Match, NamedMatch, PathMatch, ValueMatch};
use resources::{
    GrpcMatch, GrpcMethod, HttpMatch, NamedMatchSpec, PathSpec, ValueKind, check_regex, escape_regex,
};

use super::{Compiled, path_rank};

/// A match of an HTTPRoute; `None` is a rule without matches.
pub(super) fn http(spec: Option<&HttpMatch>) -> Compiled {
    let mut fault = None;
    let Some(spec) = spec else {
        let matches = Match { path: Some(PathMatch::Prefix("/".to_owned())), ..Match::default() };
        return Compiled { rank: (path_rank(matches.path.as_ref()), 0, 0), matches, fault };
    };
    let (path, rank) = path(&spec.path, &mut fault);
    let (headers, header_count) = named("headers", &spec.headers, true, &mut fault);
    let (query, query_count) = named("queryParams", &spec.query, false, &mut fault);
    let matches = Match { path, headers, query, method: spec.method.clone(), grpc: false };
    Compiled { matches, rank: (rank, header_count, query_count), fault }
}

/// A match of a GRPCRoute; `None` is a rule without matches.
pub(super) fn grpc(spec: Option<&GrpcMatch>) -> Compiled {
    let mut fault = None;
    let path = spec.and_then(|spec| spec.method.as_ref()).and_then(|method| grpc_path(method, &mut fault));
    // The more is said of the service the earlier: a method alone comes after every service, and
    // what is not usable takes only what nothing else takes.
    let rank = match &path {
        _ if fault.is_some() => (6, 0),
        Some(PathMatch::Regex(pattern)) if spec.is_some_and(names_no_service) => (3, pattern.len()),
        path => path_rank(path.as_ref()),
    };
    let specs = spec.map_or(&[][..], |spec| &spec.headers);
    let (headers, header_count) = named("headers", specs, true, &mut fault);
    let rank = (rank, header_count, 0);
    Compiled { matches: Match { path, headers, grpc: true, ..Match::default() }, rank, fault }
}

fn path(spec: &PathSpec, fault: &mut Option<String>) -> (Option<PathMatch>, (u8, usize)) {
    let path = match spec {
        PathSpec::Exact(path) => PathMatch::Exact(path.clone()),
        PathSpec::Prefix(path) => PathMatch::Prefix(path.clone()),
        PathSpec::Regex(pattern) => match check_regex(pattern) {
            Ok(()) => PathMatch::Regex(pattern.clone()),
            Err(error) => {
                fault.get_or_insert(format!("path: {error}"));
                // It takes only what no other rule takes.
                return (None, (6, 0));
            }
        },
        PathSpec::Unknown(kind) => {
            fault.get_or_insert(format!("path: type {kind:?} is not carried out"));
            return (None, (6, 0));
        }
    };
    let rank = path_rank(Some(&path));
    (Some(path), rank)
}

/// The conditions that can be carried out, and how many are written.
fn named(
    list: &str,
    specs: &[NamedMatchSpec],
    lower: bool,
    fault: &mut Option<String>,
) -> (Vec<NamedMatch>, usize) {
    let mut names: Vec<String> = Vec::new();
    let mut matches = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        let name = if lower { spec.name.to_ascii_lowercase() } else { spec.name.clone() };
        // Of entries with one name the first counts (HTTPRouteMatch.headers).
        if names.contains(&name) {
            continue;
        }
        names.push(name.clone());
        match value(spec) {
            Ok(value) => matches.push(NamedMatch { name, value }),
            Err(error) => {
                fault.get_or_insert(format!("{list}[{i}]: {error}"));
            }
        }
    }
    (matches, names.len())
}

fn value(spec: &NamedMatchSpec) -> Result<ValueMatch, String> {
    match &spec.kind {
        ValueKind::Exact => Ok(ValueMatch::Exact(spec.value.clone())),
        ValueKind::Regex => check_regex(&spec.value).map(|()| ValueMatch::Regex(spec.value.clone())),
        ValueKind::Unknown(kind) => Err(format!("type {kind:?} is not carried out")),
    }
}

/// A gRPC method is the path `/SERVICE/METHOD`.
fn names_no_service(spec: &GrpcMatch) -> bool {
    spec.method.as_ref().is_none_or(|method| method.service.is_none())
}

fn grpc_path(spec: &GrpcMethod, fault: &mut Option<String>) -> Option<PathMatch> {
    const ANY: &str = "[^/]+";
    match (&spec.kind, &spec.service, &spec.method) {
        (_, None, None) => None,
        (ValueKind::Exact, Some(service), Some(method)) => {
            Some(PathMatch::Exact(format!("/{service}/{method}")))
        }
        (ValueKind::Exact, Some(service), None) => Some(PathMatch::Prefix(format!("/{service}"))),
        (ValueKind::Exact, None, Some(method)) => {
            Some(PathMatch::Regex(format!("/{ANY}/{}", escape_regex(method))))
        }
        (ValueKind::Regex, service, method) => {
            for pattern in service.iter().chain(method) {
                if let Err(error) = check_regex(pattern) {
                    fault.get_or_insert(format!("method: {error}"));
                    return None;
                }
            }
            let part =
                |text: &Option<String>| text.as_ref().map_or(ANY.to_owned(), |text| format!("(?:{text})"));
            Some(PathMatch::Regex(format!("/{}/{}", part(service), part(method))))
        }
        (ValueKind::Unknown(kind), ..) => {
            fault.get_or_insert(format!("method: type {kind:?} is not carried out"));
            None
        }
    }
}
