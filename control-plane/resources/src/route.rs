//! route: HTTPRoute and GRPCRoute of the Gateway API.
//!
//! Values this version does not know are kept as `Unknown`, so that the rule they stand in fails and
//! no other.

mod address;

use std::time::Duration;

use policy::name::Label;
use policy::route::{HeaderModifier, Redirect, Rewrite};

use crate::node::{Node, Read};
use crate::object::Meta;

/// A route whose rules match by `M`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route<M> {
    /// The name.
    pub meta: Meta,
    /// What it is attached to.
    pub parents: Vec<ParentRef>,
    /// Its rules.
    pub rules: Vec<Rule<M>>,
}

/// An HTTPRoute.
pub type HttpRoute = Route<HttpMatch>;
/// A GRPCRoute.
pub type GrpcRoute = Route<GrpcMatch>;
/// A rule of an HTTPRoute.
pub type HttpRule = Rule<HttpMatch>;
/// A rule of a GRPCRoute.
pub type GrpcRule = Rule<GrpcMatch>;

/// What a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    /// The API group; the Gateway API's own where none is written.
    pub group: String,
    /// The kind; `Gateway` where none is written.
    pub kind: String,
    /// The namespace; `None` is the route's own.
    pub namespace: Option<Label>,
    /// The name.
    pub name: String,
    /// One port of it; `None` is all.
    pub port: Option<u16>,
    /// A part of it by name, for Services a port.
    pub section: Option<String>,
}

impl ParentRef {
    /// Whether a Service is meant.
    #[must_use]
    pub fn is_service(&self) -> bool {
        matches!(self.group.as_str(), "" | "core") && self.kind == "Service"
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule<M> {
    /// Its name.
    pub name: Option<String>,
    /// Any of these is enough; none matches all.
    pub matches: Vec<M>,
    /// Changes on the way.
    pub filters: Vec<Filter>,
    /// Where to.
    pub backends: Vec<BackendRef>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Retries after a response.
    pub retry: Option<RetrySpec>,
}

/// One match of an HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpMatch {
    /// The path; prefix `/` where none is written.
    pub path: PathSpec,
    /// Headers.
    pub headers: Vec<NamedMatchSpec>,
    /// Query parameters.
    pub query: Vec<NamedMatchSpec>,
    /// The method.
    pub method: Option<String>,
}

/// One match of a GRPCRoute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcMatch {
    /// The service and method.
    pub method: Option<GrpcMethod>,
    /// Headers.
    pub headers: Vec<NamedMatchSpec>,
}

/// A gRPC service and method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcMethod {
    /// How both are compared.
    pub kind: ValueKind,
    /// The service.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSpec {
    /// The whole path.
    Exact(String),
    /// Path elements.
    Prefix(String),
    /// A regular expression over the whole path.
    Regex(String),
    /// A type this version does not know.
    Unknown(String),
}

/// A header or query parameter and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedMatchSpec {
    /// Its name.
    pub name: String,
    /// How.
    pub kind: ValueKind,
    /// With what.
    pub value: String,
}

/// How a value is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueKind {
    /// Letter by letter.
    Exact,
    /// A regular expression over the whole value.
    Regex,
    /// A type this version does not know.
    Unknown(String),
}

/// A change on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Changes to the request's headers.
    RequestHeaders(HeaderModifier),
    /// Changes to the response's headers.
    ResponseHeaders(HeaderModifier),
    /// The client is told to go elsewhere.
    Redirect(Redirect),
    /// The backend sees another address.
    Rewrite(Rewrite),
    /// The AsyncPolicy of this name, of the route's own namespace.
    Asynchronous(String),
    /// Any other type, or a known one with a part that is not known; it is not carried out.
    Unknown(String),
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// The API group.
    pub group: String,
    /// The kind; `Service` where none is written.
    pub kind: String,
    /// The namespace; `None` is the route's own.
    pub namespace: Option<Label>,
    /// The name.
    pub name: String,
    /// The port; a Service needs one.
    pub port: Option<u16>,
    /// Its share; 1 where none is written.
    pub weight: u32,
    /// Changes on the way to this one alone.
    pub filters: Vec<Filter>,
}

/// How long a request may take; `None` is without end (`0s` too).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Retries included.
    pub request: Option<Duration>,
    /// One attempt.
    pub backend_request: Option<Duration>,
}

/// Retries after a response (GEP-1731).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySpec {
    /// Tries after the first; 1 where none is written.
    pub attempts: u64,
    /// Statuses that are tried again.
    pub codes: Vec<u16>,
    /// The shortest wait.
    pub backoff: Option<Duration>,
}

impl HttpRoute {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        read_route(root, |rule| {
            Ok(Rule { timeouts: timeouts(rule)?, retry: retry(rule)?, ..read_rule(rule, http_match)? })
        })
    }
}

impl GrpcRoute {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        read_route(root, |rule| read_rule(rule, grpc_match))
    }
}

fn read_route<'a, M>(root: &Node<'a>, rule: impl Fn(&Node<'a>) -> Read<Rule<M>>) -> Read<Route<M>> {
    let spec = root.need("spec")?;
    Ok(Route {
        meta: Meta::read(root)?,
        parents: spec.each("parentRefs", parent_ref)?,
        rules: spec.each("rules", rule)?,
    })
}

fn read_rule<'a, M>(node: &Node<'a>, read: impl Fn(&Node<'a>) -> Read<M>) -> Read<Rule<M>> {
    Ok(Rule {
        name: node.text_of("name")?,
        matches: node.each("matches", read)?,
        filters: node.each("filters", filter)?,
        backends: node.each("backendRefs", backend_ref)?,
        timeouts: Timeouts::default(),
        retry: None,
    })
}

fn parent_ref(node: &Node<'_>) -> Read<ParentRef> {
    Ok(ParentRef {
        group: node.text_or("group", "gateway.networking.k8s.io")?,
        kind: node.text_or("kind", "Gateway")?,
        namespace: node.label_of("namespace")?,
        name: node.need("name")?.text()?.to_owned(),
        port: node.port_of("port")?,
        section: node.text_of("sectionName")?,
    })
}

fn backend_ref(node: &Node<'_>) -> Read<BackendRef> {
    Ok(BackendRef {
        group: node.text_or("group", "")?,
        kind: node.text_or("kind", "Service")?,
        namespace: node.label_of("namespace")?,
        name: node.need("name")?.text()?.to_owned(),
        port: node.port_of("port")?,
        weight: node.get("weight")?.map_or(Ok(1), |weight| weight.number_in(0..=1_000_000))?,
        filters: node.each("filters", filter)?,
    })
}

fn http_match(node: &Node<'_>) -> Read<HttpMatch> {
    let path = match node.get("path")? {
        Some(path) => path_spec(&path)?,
        None => PathSpec::Prefix("/".to_owned()),
    };
    Ok(HttpMatch {
        path,
        headers: node.each("headers", named_match)?,
        query: node.each("queryParams", named_match)?,
        method: node.text_of("method")?,
    })
}

fn path_spec(node: &Node<'_>) -> Read<PathSpec> {
    let value = node.text_or("value", "/")?;
    let kind = node.text_or("type", "PathPrefix")?;
    if matches!(kind.as_str(), "Exact" | "PathPrefix") && !value.starts_with('/') {
        return Err(node.fault(format!("{value:?} does not begin with \"/\"")));
    }
    Ok(match kind.as_str() {
        "Exact" => PathSpec::Exact(value),
        "PathPrefix" => PathSpec::Prefix(value),
        "RegularExpression" => PathSpec::Regex(value),
        _ => PathSpec::Unknown(kind),
    })
}

fn grpc_match(node: &Node<'_>) -> Read<GrpcMatch> {
    let method = match node.get("method")? {
        Some(method) => Some(GrpcMethod {
            kind: value_kind(&method)?,
            service: method.text_of("service")?.filter(|text| !text.is_empty()),
            method: method.text_of("method")?.filter(|text| !text.is_empty()),
        }),
        None => None,
    };
    Ok(GrpcMatch { method, headers: node.each("headers", named_match)? })
}

fn named_match(node: &Node<'_>) -> Read<NamedMatchSpec> {
    Ok(NamedMatchSpec {
        name: node.need("name")?.text()?.to_owned(),
        kind: value_kind(node)?,
        value: node.need("value")?.text()?.to_owned(),
    })
}

fn value_kind(node: &Node<'_>) -> Read<ValueKind> {
    let kind = node.text_or("type", "Exact")?;
    Ok(match kind.as_str() {
        "Exact" => ValueKind::Exact,
        "RegularExpression" => ValueKind::Regex,
        _ => ValueKind::Unknown(kind),
    })
}

fn filter(node: &Node<'_>) -> Read<Filter> {
    let kind = node.need("type")?.text()?;
    Ok(match kind {
        "RequestHeaderModifier" => Filter::RequestHeaders(modifier(&node.need("requestHeaderModifier")?)?),
        "ResponseHeaderModifier" => Filter::ResponseHeaders(modifier(&node.need("responseHeaderModifier")?)?),
        "RequestRedirect" => match address::redirect(&node.need("requestRedirect")?)? {
            Ok(redirect) => Filter::Redirect(redirect),
            Err(part) => Filter::Unknown(format!("{kind} with {part}")),
        },
        "URLRewrite" => match address::rewrite(&node.need("urlRewrite")?)? {
            Ok(rewrite) => Filter::Rewrite(rewrite),
            Err(part) => Filter::Unknown(format!("{kind} with {part}")),
        },
        "ExtensionRef" => match extension(node)? {
            Some(name) => Filter::Asynchronous(name),
            None => Filter::Unknown(kind.to_owned()),
        },
        _ => Filter::Unknown(kind.to_owned()),
    })
}

/// The name of the AsyncPolicy that an extension is; `None` for all others.
fn extension(node: &Node<'_>) -> Read<Option<String>> {
    let Some(reference) = node.get("extensionRef")? else { return Ok(None) };
    let (group, kind) = (reference.text_or("group", "")?, reference.text_or("kind", "")?);
    if group != "tidegate.dev" || kind != "AsyncPolicy" {
        return Ok(None);
    }
    Ok(Some(reference.need("name")?.text()?.to_owned()))
}

fn modifier(node: &Node<'_>) -> Read<HeaderModifier> {
    Ok(HeaderModifier {
        set: node.each("set", header)?,
        add: node.each("add", header)?,
        remove: node.each("remove", |name| header_name(name))?,
    })
}

fn header(node: &Node<'_>) -> Read<(String, String)> {
    let value = node.need("value")?;
    let text = value.text()?;
    // RFC 9110 §5.5: no control characters, or the message would be cut in two.
    if text.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        return Err(value.fault("holds a control character"));
    }
    Ok((header_name(&node.need("name")?)?, text.to_owned()))
}

fn header_name(node: &Node<'_>) -> Read<String> {
    let text = node.text()?;
    // RFC 9110 §5.6.2, token.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(node.fault(format!("{text:?} is not a header name")));
    }
    Ok(text.to_ascii_lowercase())
}

fn timeouts(rule: &Node<'_>) -> Read<Timeouts> {
    let Some(node) = rule.get("timeouts")? else { return Ok(Timeouts::default()) };
    let read = |key| -> Read<Option<Duration>> {
        let duration = node.get(key)?.map(|node| node.duration()).transpose()?;
        Ok(duration.filter(|duration| !duration.is_zero()))
    };
    Ok(Timeouts { request: read("request")?, backend_request: read("backendRequest")? })
}

fn retry(rule: &Node<'_>) -> Read<Option<RetrySpec>> {
    let Some(node) = rule.get("retry")? else { return Ok(None) };
    Ok(Some(RetrySpec {
        attempts: node.get("attempts")?.map_or(Ok(1), |node| node.number())?,
        codes: node.each("codes", |code| code.number_in(400..=599))?,
        backoff: node.get("backoff")?.map(|node| node.duration()).transpose()?,
    }))
}
