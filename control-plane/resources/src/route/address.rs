//! address: filters that change where a request goes: RequestRedirect and URLRewrite.
//!
//! A value of a later version costs its own filter alone: `Err` holds the field and what stands there.

use policy::limits;
use policy::route::{PathChange, Redirect, Rewrite, Scheme};

use crate::node::{Node, Read};

/// The statuses that a redirection may have (HTTPRequestRedirectFilter.statusCode), the default among them.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
const STATUS: u16 = 302;

/// Where a client is told to go.
pub(super) fn redirect(node: &Node<'_>) -> Read<Result<Redirect, String>> {
    let status =
        node.get("statusCode")?.map_or(Ok(STATUS), |status| status.number_in(0..=u64::from(u16::MAX)))?;
    if !STATUSES.contains(&status) {
        return Ok(Err(format!("statusCode {status}")));
    }
    let scheme = match node.text_of("scheme")?.as_deref() {
        None => None,
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(other) => return Ok(Err(format!("scheme {other:?}"))),
    };
    let path = match path(node)? {
        Ok(path) => path,
        Err(unknown) => return Ok(Err(unknown)),
    };
    let hostname = node.get("hostname")?.map(|name| name.parsed()).transpose()?;
    let response_headers = Vec::new();
    Ok(Ok(Redirect { status, scheme, hostname, port: node.port_of("port")?, path, response_headers }))
}

/// What a backend sees instead.
pub(super) fn rewrite(node: &Node<'_>) -> Read<Result<Rewrite, String>> {
    let path = match path(node)? {
        Ok(path) => path,
        Err(unknown) => return Ok(Err(unknown)),
    };
    Ok(Ok(Rewrite { hostname: node.get("hostname")?.map(|name| name.parsed()).transpose()?, path }))
}

/// How the path is changed, if it is.
fn path(node: &Node<'_>) -> Read<Result<Option<PathChange>, String>> {
    let Some(path) = node.get("path")? else { return Ok(Ok(None)) };
    let value = |key: &str| {
        let value = path.need(key)?;
        let text = value.text_within(limits::PATH_REPLACEMENT_CHARS_MAX)?;
        // RFC 3986 §3.3: what would end the path or may not stand in one.
        let is_path = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
        if !is_path || !(text.is_empty() || text.starts_with('/')) {
            return Err(value.fault(format!("{text:?} is no path: it begins with \"/\" and has no query")));
        }
        Ok(text.to_owned())
    };
    Ok(match path.need("type")?.text()? {
        "ReplaceFullPath" => {
            let full = value("replaceFullPath")?;
            Ok(Some(PathChange::Full(if full.is_empty() { "/".to_owned() } else { full })))
        }
        "ReplacePrefixMatch" => Ok(Some(PathChange::Prefix(value("replacePrefixMatch")?))),
        other => Err(format!("path of type {other:?}")),
    })
}
