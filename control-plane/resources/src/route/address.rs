//! address: filters that change where a request goes: RequestRedirect and URLRewrite.

use policy::route::{PathChange, Redirect, Rewrite, Scheme};

use crate::node::{Node, Read};

/// The statuses that a redirection may have (HTTPRequestRedirectFilter.statusCode), the default among them.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
const STATUS: u16 = 302;
/// Characters of a path (HTTPPathModifier).
const PATH_MAX: usize = 1024;

/// `None` when it changes the path in a way that this version does not know.
pub(super) fn redirect(node: &Node<'_>) -> Read<Option<Redirect>> {
    let status = match node.get("statusCode")? {
        None => STATUS,
        Some(status) => {
            let number = status.number_in(300..=399)?;
            if !STATUSES.contains(&number) {
                return Err(status.fault(format!("{number}: write 301, 302, 303, 307 or 308")));
            }
            number
        }
    };
    let known = [("http", Scheme::Http), ("https", Scheme::Https)];
    let scheme = node.get("scheme")?.map(|scheme| scheme.one_of(&known, &[])).transpose()?;
    let Some(path) = path(node)? else { return Ok(None) };
    let hostname = node.get("hostname")?.map(|name| name.parsed()).transpose()?;
    let response_headers = Vec::new();
    Ok(Some(Redirect { status, scheme, hostname, port: node.port_of("port")?, path, response_headers }))
}

/// Likewise.
pub(super) fn rewrite(node: &Node<'_>) -> Read<Option<Rewrite>> {
    let Some(path) = path(node)? else { return Ok(None) };
    Ok(Some(Rewrite { hostname: node.get("hostname")?.map(|name| name.parsed()).transpose()?, path }))
}

/// How the path is changed, if it is; `None` for a way that this version does not know.
fn path(node: &Node<'_>) -> Read<Option<Option<PathChange>>> {
    let Some(path) = node.get("path")? else { return Ok(Some(None)) };
    let value = |key: &str| {
        let value = path.need(key)?;
        let text = value.text_within(PATH_MAX)?;
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
            Some(Some(PathChange::Full(if full.is_empty() { "/".to_owned() } else { full })))
        }
        "ReplacePrefixMatch" => Some(Some(PathChange::Prefix(value("replacePrefixMatch")?))),
        _ => None,
    })
}
