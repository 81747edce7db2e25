//! export: messages whole, a line of JSON each, without credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::SET_COOKIE;
use http::{HeaderMap, Response};
use policy::limits;
use queue::{Exported, Queue};
use request::body::Body;
use serde_json::{Value, json};

use super::look::{before, choose, shown};
use super::query::Query;
use super::{Problem, failed, lines, value};
use crate::admit::call::{Answered, Call};

/// Bytes of one page, kept responses and base64 included; a message that is larger goes alone.
const PAGE_BYTES_MAX: u64 = 8 << 20;

/// The next page: a message is read when there is room for it, one at a time.
pub(super) async fn page(queue: &Queue, name: &str, query: &Query) -> Result<Response<Body>, Problem> {
    let (chosen, mut next) = choose(queue, name, query, query.limit.min(limits::EXPORT_MAX)).await?;
    let mut text = Vec::new();
    for peeked in chosen {
        let id = peeked.status.id;
        if !text.is_empty() && text.len() as u64 + peeked.bytes > PAGE_BYTES_MAX {
            next = before(id);
            break;
        }
        let read = queue.export(name, query.part, before(id), 1).await.map_err(failed)?;
        // It may have gone meanwhile; then this is the one after it.
        let Some(exported) = read.items.into_iter().find(|item| item.peeked.status.id == id) else {
            continue;
        };
        serde_json::to_writer(&mut text, &line(&exported)).unwrap_or_default();
        text.push(b'\n');
    }
    Ok(lines(text, next))
}

fn line(exported: &Exported) -> Value {
    let mut line = value(&shown(&exported.peeked));
    line["bodyBase64"] = STANDARD.encode(&exported.body).into();
    match Call::decode(exported.call.clone()) {
        Ok(call) => {
            let header = |(name, value): (&str, &[u8])| json!([name, String::from_utf8_lossy(value)]);
            line["method"] = call.method.clone().into();
            line["authority"] = call.authority.clone().into();
            line["path"] = call.path.clone().into();
            line["grpc"] = call.grpc.into();
            line["headers"] = call.shown().map(header).collect();
            line["credentials"] = if call.has_credentials() { "left out".into() } else { Value::Null };
        }
        Err(error) => line["damaged"] = error.to_string().into(),
    }
    line["response"] = exported.response.clone().map_or(Value::Null, response);
    line
}

/// The response kept with a dead letter.
fn response(kept: queue::Response) -> Value {
    let shown = |headers: &HeaderMap| -> Value {
        let kept = headers.iter().filter(|(name, _)| *name != SET_COOKIE);
        kept.map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect()
    };
    match Answered::decode(kept.head) {
        Ok((status, headers, trailers)) => json!({
            "status": status.as_u16(),
            "headers": shown(&headers),
            "trailers": shown(&trailers),
            "bodyBase64": STANDARD.encode(&kept.body),
        }),
        Err(error) => json!({ "damaged": error.to_string() }),
    }
}
