//! rewrite: another address for a request, told to its client or given to its backend.
//!
//! The filters RequestRedirect and URLRewrite of the Gateway API (HTTPRequestRedirectFilter,
//! HTTPURLRewriteFilter, HTTPPathModifier of v1). The query stays as it is in both.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{HOST, HeaderValue, LOCATION};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Response, StatusCode, Uri};
use policy::name::Domain;
use policy::route::{PathChange, PathMatch, Redirect, Rewrite, Scheme};

use crate::body::Body;
use crate::headers::authority;
use crate::metrics::Series;
use crate::outcome::{Cause, Failure, PROXY_STATUS};
use crate::route::CompiledModifier;

/// The `Proxy-Status` (RFC 9209) of a redirection: no error, and not from any server.
const REDIRECTED: &str = "tidegate; details=\"redirected by a rule of the Service's routes\"";

/// How a path is changed.
enum NewPath {
    Full(String),
    /// What the rule matched gives way to this; neither ends in a slash.
    Prefix {
        matched: String,
        with: String,
    },
}

/// A redirection ready to be told.
pub(crate) struct CompiledRedirect {
    status: StatusCode,
    scheme: Option<Scheme>,
    hostname: Option<Domain>,
    port: Option<u16>,
    path: Option<NewPath>,
    pub(crate) response_headers: Vec<CompiledModifier>,
    pub(crate) series: Arc<Series>,
}

/// What a backend sees instead of what the client asked for.
pub(crate) struct CompiledRewrite {
    hostname: Option<(Authority, HeaderValue)>,
    path: Option<NewPath>,
}

impl NewPath {
    /// `matched` is the path of the rule's match.
    fn new(change: &PathChange, matched: Option<&PathMatch>) -> Result<Self, String> {
        match (change, matched) {
            (PathChange::Full(path), _) => Ok(Self::Full(path.clone())),
            (PathChange::Prefix(with), Some(PathMatch::Prefix(matched))) => Ok(Self::Prefix {
                matched: matched.trim_end_matches('/').to_owned(),
                with: with.trim_end_matches('/').to_owned(),
            }),
            (PathChange::Prefix(with), None) => {
                Ok(Self::Prefix { matched: String::new(), with: with.trim_end_matches('/').to_owned() })
            }
            (PathChange::Prefix(_), Some(_)) => {
                Err("a prefix is to be replaced, and the path is not matched by one".to_owned())
            }
        }
    }

    fn of<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        match self {
            Self::Full(path) => Cow::Borrowed(path),
            Self::Prefix { matched, with } => {
                let rest = path.strip_prefix(matched.as_str()).unwrap_or(path);
                match (with.is_empty(), rest.is_empty()) {
                    (true, true) => Cow::Borrowed("/"),
                    (true, false) => Cow::Borrowed(rest),
                    (false, _) => Cow::Owned(format!("{with}{rest}")),
                }
            }
        }
    }
}

/// The path as it is to be, and the query as it is.
fn path_and_query(new: Option<&NewPath>, uri: &Uri) -> Result<PathAndQuery, Failure> {
    let old = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let Some(new) = new else { return Ok(old) };
    let path = new.of(old.path());
    let whole = match old.query() {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => path,
    };
    PathAndQuery::try_from(&*whole)
        .map_err(|error| Failure::new(Cause::Configuration, format!("the path cannot be rewritten: {error}")))
}

impl CompiledRedirect {
    pub(crate) fn new(
        redirect: &Redirect,
        matched: Option<&PathMatch>,
        response_headers: Vec<CompiledModifier>,
        series: Arc<Series>,
    ) -> Result<Self, String> {
        let status = StatusCode::from_u16(redirect.status).ok().filter(StatusCode::is_redirection);
        Ok(Self {
            status: status.ok_or_else(|| format!("{} is no status of a redirection", redirect.status))?,
            scheme: redirect.scheme,
            hostname: redirect.hostname.clone(),
            port: redirect.port,
            path: redirect.path.as_ref().map(|path| NewPath::new(path, matched)).transpose()?,
            response_headers,
            series,
        })
    }

    /// The response for a request that went to `meant`.
    pub(crate) fn response(&self, parts: &Parts, meant: &Authority) -> Result<Response<Body>, Failure> {
        let told = self.location(parts, meant)?;
        let location = HeaderValue::from_str(&told)
            .map_err(|_| Failure::new(Cause::Configuration, format!("{told:?} is no Location")))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, location);
        response.headers_mut().insert(PROXY_STATUS, HeaderValue::from_static(REDIRECTED));
        for change in &self.response_headers {
            change.apply(response.headers_mut());
        }
        Ok(response)
    }

    /// Without a port where it is the scheme's own. One that is not written is the scheme's where that is
    /// written, else the one the client went to.
    fn location(&self, parts: &Parts, meant: &Authority) -> Result<String, Failure> {
        let asked = authority(&parts.uri, &parts.headers).unwrap_or_else(|| meant.clone());
        let host = self.hostname.as_ref().map_or(asked.host(), Domain::as_str);
        let scheme = self.scheme.unwrap_or(Scheme::Http);
        let port = match (self.port, self.scheme) {
            (Some(port), _) => Some(port),
            (None, Some(_)) => None,
            (None, None) => meant.port_u16().or(asked.port_u16()),
        };
        let port = port.filter(|port| *port != scheme.port());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(format!("{}://{host}{port}{}", scheme.as_str(), path_and_query(self.path.as_ref(), &parts.uri)?))
    }
}

impl CompiledRewrite {
    pub(crate) fn new(rewrite: &Rewrite, matched: Option<&PathMatch>) -> Result<Self, String> {
        let hostname = |name: &Domain| {
            let wrong = || format!("{name} is no hostname");
            let authority = Authority::try_from(name.as_str()).map_err(|_| wrong())?;
            Ok::<_, String>((authority, HeaderValue::from_str(name.as_str()).map_err(|_| wrong())?))
        };
        Ok(Self {
            hostname: rewrite.hostname.as_ref().map(hostname).transpose()?,
            path: rewrite.path.as_ref().map(|path| NewPath::new(path, matched)).transpose()?,
        })
    }

    /// Changes the request for its backend.
    pub(crate) fn apply(&self, parts: &mut Parts) -> Result<(), Failure> {
        // A tunnel has no path, and its authority is where it leads (RFC 9110 §9.3.6).
        if parts.method == Method::CONNECT {
            return Ok(());
        }
        let path = path_and_query(self.path.as_ref(), &parts.uri)?;
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.path_and_query = Some(path);
        if let Some((authority, host)) = &self.hostname {
            if uri.authority.is_some() {
                uri.authority = Some(authority.clone());
            }
            if uri.authority.is_none() || parts.headers.contains_key(HOST) {
                parts.headers.insert(HOST, host.clone());
            }
        }
        parts.uri = Uri::from_parts(uri).map_err(|error| {
            Failure::new(Cause::Configuration, format!("no address comes of it: {error}"))
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
