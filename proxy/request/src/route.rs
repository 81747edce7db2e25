//! route: which rule a request matches, and which of its backends takes it.
//!
//! The rules come sorted by the precedence of the Gateway API, so the first that matches wins. They
//! are compiled once for a snapshot; a request costs comparisons alone.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use policy::limits;
use policy::queue::AsyncPolicy;
use policy::retry::RetryPolicy;
use policy::route::{
    Action, BackendTarget, HeaderModifier, Match, NamedMatch, PathMatch, Redirect, Rule, RuleName,
    ValueMatch, WeightedBackend,
};
use policy::snapshot::{BackendKey, ServicePolicy};
use regex::Regex;

use crate::backend::BackendClient;
use crate::metrics::{Direction, Metrics, RouteLabels, Series};
use crate::outcome::is_grpc;
use crate::rewrite::{CompiledRedirect, CompiledRewrite};

/// The rules of one destination.
pub(crate) struct Router {
    rules: Vec<CompiledRule>,
    /// Where everything goes when there are no rules.
    default: Option<CompiledRule>,
    takes_messages: bool,
}

/// A rule ready to be compared.
pub(crate) struct CompiledRule {
    matches: CompiledMatch,
    pub(crate) name: Arc<RuleName>,
    pub(crate) action: CompiledAction,
}

pub(crate) enum CompiledAction {
    Forward(CompiledForward),
    Redirect(CompiledRedirect),
    Fail(String),
}

pub(crate) struct CompiledForward {
    pub(crate) request_headers: Vec<CompiledModifier>,
    pub(crate) response_headers: Vec<CompiledModifier>,
    pub(crate) rewrite: Option<CompiledRewrite>,
    backends: Vec<CompiledBackend>,
    weights: u64,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) asynchronous: Option<Arc<AsyncPolicy>>,
}

pub(crate) struct CompiledBackend {
    weight: u32,
    pub(crate) client: Result<Arc<BackendClient>, String>,
    pub(crate) request_headers: Vec<CompiledModifier>,
    pub(crate) response_headers: Vec<CompiledModifier>,
    pub(crate) series: Arc<Series>,
}

#[derive(Default)]
struct CompiledMatch {
    path: Option<CompiledPath>,
    headers: Vec<(HeaderName, CompiledValue)>,
    query: Vec<(String, CompiledValue)>,
    method: Option<Method>,
    grpc: bool,
}

enum CompiledPath {
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

enum CompiledValue {
    Exact(String),
    Regex(Regex),
}

/// Changes to headers.
pub(crate) struct CompiledModifier {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

fn regex(text: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(limits::REGEX_BYTES_MAX)
        .build()
        .map_err(|error| format!("the expression {text:?} cannot be used: {error}"))
}

impl Router {
    pub(crate) fn new(
        policy: &ServicePolicy,
        metrics: &Metrics,
        mut backend: impl FnMut(&BackendKey) -> Option<Arc<BackendClient>>,
    ) -> Self {
        let mut compile = |rule: &Rule| CompiledRule::new(rule, metrics, &mut backend);
        let rules: Vec<_> =
            policy.rules.iter().take(limits::RULES_PER_DESTINATION_MAX).map(&mut compile).collect();
        let default = rules.is_empty().then(|| compile(&everything_to(policy)));
        let router = Self { rules, default, takes_messages: false };
        let takes_messages = router.policies().next().is_some();
        Self { takes_messages, ..router }
    }

    /// Whether any rule has a policy for asynchronous requests.
    pub(crate) fn takes_messages(&self) -> bool {
        self.takes_messages
    }

    /// The policies of all rules.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Arc<AsyncPolicy>> {
        self.rules.iter().chain(&self.default).filter_map(|rule| match &rule.action {
            CompiledAction::Forward(plan) => plan.asynchronous.as_ref(),
            CompiledAction::Redirect(_) | CompiledAction::Fail(_) => None,
        })
    }

    /// The rule for a request; `None` when there are rules and none matches.
    pub(crate) fn select(&self, parts: &Parts) -> Option<&CompiledRule> {
        match &self.default {
            Some(default) => Some(default),
            None => self.rules.iter().find(|rule| rule.matches.matches(parts)),
        }
    }
}

/// What holds for a Service without routes.
fn everything_to(policy: &ServicePolicy) -> Rule {
    let backend = WeightedBackend {
        weight: 1,
        target: BackendTarget::Backend(policy.backend.clone()),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
    };
    let asynchronous = policy.asynchronous.clone();
    let forward = policy::route::Forward { backends: vec![backend], asynchronous, ..Default::default() };
    Rule { name: RuleName::none(), matches: Match::default(), action: Arc::new(Action::Forward(forward)) }
}

impl CompiledRule {
    fn new(
        rule: &Rule,
        metrics: &Metrics,
        backend: &mut impl FnMut(&BackendKey) -> Option<Arc<BackendClient>>,
    ) -> Self {
        let (matches, wrong) = CompiledMatch::new(&rule.matches);
        let action = match (&*rule.action, wrong) {
            (_, Some(wrong)) => Err(wrong),
            (Action::Fail { cause }, None) => Err(cause.clone()),
            (Action::Forward(forward), None) => {
                CompiledForward::new(forward, rule, metrics, backend).map(CompiledAction::Forward)
            }
            (Action::Redirect(told), None) => redirect(told, rule, metrics).map(CompiledAction::Redirect),
        };
        let action = action.unwrap_or_else(CompiledAction::Fail);
        Self { matches, name: Arc::new(rule.name.clone()), action }
    }

    /// Whether the rule is for one method only.
    pub(crate) fn names_method(&self) -> bool {
        self.matches.method.is_some()
    }
}

/// A redirection has no backend: its series says so in that place.
fn redirect(told: &Redirect, rule: &Rule, metrics: &Metrics) -> Result<CompiledRedirect, String> {
    let series = metrics.series(RouteLabels::new(Direction::outbound, &rule.name, "redirect"));
    CompiledRedirect::new(told, rule.matches.path.as_ref(), modifiers(&told.response_headers)?, series)
}

impl CompiledForward {
    fn new(
        forward: &policy::route::Forward,
        rule: &Rule,
        metrics: &Metrics,
        client: &mut impl FnMut(&BackendKey) -> Option<Arc<BackendClient>>,
    ) -> Result<Self, String> {
        let mut backends = Vec::with_capacity(forward.backends.len());
        for backend in &forward.backends {
            let (client, label) = match &backend.target {
                BackendTarget::Backend(key) => {
                    (client(key).ok_or_else(|| format!("{key} is not in this snapshot")), key.to_string())
                }
                BackendTarget::Invalid(cause) => (Err(cause.clone()), "invalid".to_owned()),
            };
            backends.push(CompiledBackend {
                weight: backend.weight,
                client,
                request_headers: modifiers(&backend.request_headers)?,
                response_headers: modifiers(&backend.response_headers)?,
                series: metrics.series(RouteLabels::new(Direction::outbound, &rule.name, &label)),
            });
        }
        let matched = rule.matches.path.as_ref();
        let rewrite = forward.rewrite.as_ref().map(|rewrite| CompiledRewrite::new(rewrite, matched));
        Ok(Self {
            rewrite: rewrite.transpose()?,
            request_headers: modifiers(&forward.request_headers)?,
            response_headers: modifiers(&forward.response_headers)?,
            weights: backends.iter().map(|backend| u64::from(backend.weight)).sum(),
            backends,
            request_timeout: forward.request_timeout,
            attempt_timeout: forward.attempt_timeout,
            retry: forward.retry.clone(),
            asynchronous: forward.asynchronous.clone(),
        })
    }

    /// Draws a backend by weight; `None` when there is none with a share.
    pub(crate) fn draw(&self) -> Option<&CompiledBackend> {
        if let [only] = self.backends.as_slice()
            && only.weight > 0
        {
            return Some(only);
        }
        if self.weights == 0 {
            return None;
        }
        let mut at = fastrand::u64(..self.weights);
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let hit = at < weight;
            at = at.wrapping_sub(weight);
            hit
        })
    }
}

impl CompiledMatch {
    /// The comparison, and what of it cannot be made: the rule then fails for all that the rest of
    /// it matches.
    fn new(source: &Match) -> (Self, Option<String>) {
        let mut wrong = None;
        let mut keep = |result: Result<CompiledValue, String>| match result {
            Ok(value) => Some(value),
            Err(error) => {
                wrong = Some(error);
                None
            }
        };
        let mut compiled = Self { grpc: source.grpc, ..Self::default() };
        for NamedMatch { name, value } in &source.headers {
            let header =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header"));
            let value = keep(header.clone().and_then(|_| CompiledValue::new(value)));
            if let (Ok(header), Some(value)) = (header, value) {
                compiled.headers.push((header, value));
            }
        }
        for NamedMatch { name, value } in &source.query {
            if let Some(value) = keep(CompiledValue::new(value)) {
                compiled.query.push((name.clone(), value));
            }
        }
        compiled.path = match &source.path {
            None => None,
            Some(PathMatch::Exact(path)) => Some(CompiledPath::Exact(path.clone())),
            Some(PathMatch::Prefix(path)) => {
                Some(CompiledPath::Prefix(path.trim_end_matches('/').to_owned()))
            }
            Some(PathMatch::Regex(text)) => match keep(regex(text).map(CompiledValue::Regex)) {
                Some(CompiledValue::Regex(regex)) => Some(CompiledPath::Regex(regex)),
                _ => None,
            },
        };
        if let Some(method) = &source.method {
            match Method::from_bytes(method.as_bytes()) {
                Ok(method) => compiled.method = Some(method),
                Err(_) => wrong = Some(format!("{method:?} is no method")),
            }
        }
        (compiled, wrong)
    }

    fn matches(&self, parts: &Parts) -> bool {
        self.method.as_ref().is_none_or(|method| *method == parts.method)
            && self.path.as_ref().is_none_or(|path| path.matches(parts.uri.path()))
            && (!self.grpc
                || (parts.version == Version::HTTP_2
                    && parts.method == Method::POST
                    && is_grpc(&parts.headers)))
            && self.headers.iter().all(|(name, value)| header_matches(&parts.headers, name, value))
            && (self.query.is_empty() || self.query_matches(parts.uri.query().unwrap_or("")))
    }

    fn query_matches(&self, query: &str) -> bool {
        self.query.iter().all(|(name, value)| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).is_some_and(|(_, given)| value.matches(&given))
        })
    }
}

fn header_matches(headers: &HeaderMap, name: &HeaderName, value: &CompiledValue) -> bool {
    let mut given = headers.get_all(name).iter();
    match (given.next(), given.next()) {
        (None, _) => false,
        (Some(only), None) => only.to_str().is_ok_and(|text| value.matches(text)),
        // Several fields of one name are one list (RFC 9110 §5.3).
        _ => {
            let all: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
            value.matches(&all.join(","))
        }
    }
}

impl CompiledPath {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl CompiledValue {
    fn new(value: &ValueMatch) -> Result<Self, String> {
        match value {
            ValueMatch::Exact(text) => Ok(Self::Exact(text.clone())),
            ValueMatch::Regex(text) => regex(text).map(Self::Regex),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn modifiers(list: &[HeaderModifier]) -> Result<Vec<CompiledModifier>, String> {
    let name =
        |text: &str| HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is no header"));
    let pair = |(key, value): &(String, String)| {
        let parsed =
            HeaderValue::from_str(value).map_err(|_| format!("the value of {key:?} is no header value"));
        Ok::<_, String>((name(key)?, parsed?))
    };
    list.iter()
        .map(|modifier| {
            Ok(CompiledModifier {
                set: modifier.set.iter().map(pair).collect::<Result<_, _>>()?,
                add: modifier.add.iter().map(pair).collect::<Result<_, _>>()?,
                remove: modifier.remove.iter().map(|text| name(text)).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

impl CompiledModifier {
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
