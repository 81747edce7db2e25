//! route: which request goes to which backend, as HTTPRoute and GRPCRoute say it.
//!
//! Rules stand in the order in which a proxy tries them: the controller has sorted them by the
//! precedence of the Gateway API, so the first rule that matches wins.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Domain;
use crate::queue::AsyncPolicy;
use crate::retry::RetryPolicy;
use crate::snapshot::BackendKey;

/// Which kind a route was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RouteKind {
    /// `gateway.networking.k8s.io` HTTPRoute.
    #[serde(rename = "HTTPRoute")]
    Http,
    /// `gateway.networking.k8s.io` GRPCRoute.
    #[serde(rename = "GRPCRoute")]
    Grpc,
    /// No route: all of the Service's traffic to the Service itself.
    #[serde(rename = "default")]
    Default,
}

/// Where a rule was written, for metrics, logs and answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleName {
    /// The route's kind.
    pub kind: RouteKind,
    /// The route's namespace; empty for [`RouteKind::Default`].
    pub namespace: Arc<str>,
    /// The route's name; `default` for [`RouteKind::Default`].
    pub route: Arc<str>,
    /// The rule's own name, or its index.
    pub rule: Arc<str>,
}

impl RuleName {
    /// Of what no rule was written for.
    #[must_use]
    pub fn none() -> Self {
        let default: Arc<str> = "default".into();
        Self { kind: RouteKind::Default, namespace: "".into(), route: default.clone(), rule: default }
    }
}

/// One match of one rule with what happens then. A rule of a route with three matches stands here
/// three times, because precedence is decided match by match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Where it was written.
    pub name: RuleName,
    /// What a request must look like. The default matches every request.
    pub matches: Match,
    /// What happens to it.
    pub action: Arc<Action>,
}

/// What a request must look like; everything that is named must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Headers, names in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<NamedMatch>,
    /// Query parameters; the first of a name counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<NamedMatch>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only gRPC: HTTP/2 POST whose content type begins with `application/grpc`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grpc: bool,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path, letter by letter.
    Exact(String),
    /// Path elements: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    /// A regular expression that must match the whole path.
    Regex(String),
}

/// A named value and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedMatch {
    /// The header or parameter.
    pub name: String,
    /// The comparison.
    pub value: ValueMatch,
}

/// How a value is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// Letter by letter.
    Exact(String),
    /// A regular expression that must match the whole value.
    Regex(String),
}

/// What happens to a request that matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// It is sent on.
    Forward(Forward),
    /// Its client is told to go elsewhere.
    Redirect(Redirect),
    /// It is answered here with 500 (gRPC: INTERNAL) because the rule cannot be carried out.
    Fail {
        /// Why: the field and the value that were not understood.
        cause: String,
    },
}

/// How a request is sent on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forward {
    /// Changes to the request's headers, in the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<HeaderModifier>,
    /// Changes to the response's headers, in the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<HeaderModifier>,
    /// Another address for the backend to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Where to, each with its share. An empty list, or shares that are all 0, answers 500.
    pub backends: Vec<WeightedBackend>,
    /// For the whole of it, retries included (`timeouts.request`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Duration>,
    /// For one attempt (`timeouts.backendRequest`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<Duration>,
    /// Retries after a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Under which requests are taken in as messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<Arc<AsyncPolicy>>,
}

/// Where a client is told to go (HTTPRequestRedirectFilter of the Gateway API). What is not written stays as
/// the client asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The scheme; with it comes its own port where none is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Domain>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path; the query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// Changes to the response's headers, in the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<HeaderModifier>,
}

/// A scheme that clients are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Its own port (RFC 9110 §4.2).
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a backend sees instead of what was asked for (HTTPURLRewriteFilter of the Gateway API).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rewrite {
    /// The host, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Domain>,
    /// The path; the query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
}

/// How a path is changed (HTTPPathModifier of the Gateway API).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathChange {
    /// It is this one.
    Full(String),
    /// The prefix that the rule matched gives way to this.
    Prefix(String),
}

/// A backend and its share of the requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightedBackend {
    /// Its share, relative to the sum of all; 0 gets none.
    pub weight: u32,
    /// The backend, or why there is none (it then answers its share with 500).
    pub target: BackendTarget,
    /// Changes to the request's headers for this backend alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<HeaderModifier>,
    /// Changes to the response's headers from this backend alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<HeaderModifier>,
}

/// A backend, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendTarget {
    /// The document of this key, which is in every snapshot that holds the rule.
    Backend(BackendKey),
    /// The reference does not resolve; its share is answered with 500 and this cause.
    Invalid(String),
}

/// Changes to headers: set, then add, then remove (HTTPHeaderFilter of the Gateway API).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Replaced, or added where absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Added to what is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
    /// Taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}
