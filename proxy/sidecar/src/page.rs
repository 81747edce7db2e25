//! page: the queues for whoever has a browser, rendered here.
//!
//! One document, a style sheet and a short script of our own, nothing from elsewhere: the policy in
//! `Content-Security-Policy` lets nothing else run, whatever a message's text holds. Without the
//! script the page loads itself again; buttons are forms.

mod plot;
mod queue;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use maud::{DOCTYPE, Markup, html};
use request::body::Body;

use crate::operate::shown::{Listed, Overview, Shown, Store};

/// `same-origin` and not `no-referrer`: with that, a form's `Origin` would be `null` (Fetch §3.2).
const REFERRER: &str = "same-origin";
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/refresh.js");

/// All that one page shows.
pub(crate) struct View {
    pub(crate) overview: Overview,
    pub(crate) chosen: Option<Chosen>,
    /// What the button before did.
    pub(crate) said: Option<String>,
}

/// The queue that is looked into.
pub(crate) struct Chosen {
    pub(crate) queue: Listed,
    /// `waiting`, `dead` or `quarantined`.
    pub(crate) part: &'static str,
    pub(crate) messages: Vec<Shown>,
    /// Where the next page of messages begins.
    pub(crate) next: Option<u64>,
    /// This is not the first.
    pub(crate) later: bool,
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let set: [(HeaderName, &'static str); 7] = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, REFERRER),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The style sheet or the script.
pub(crate) fn asset(path: &str) -> Option<Response<Body>> {
    let (kind, text) = match path {
        "/page/style.css" => ("text/css; charset=utf-8", STYLE),
        "/page/refresh.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return None,
    };
    Some(answer(StatusCode::OK, kind, text.to_owned()))
}

/// The page.
pub(crate) fn page(view: &View) -> Response<Body> {
    let title = match &view.chosen {
        Some(chosen) => format!("{} · {}", chosen.queue.name, view.overview.pod),
        None => format!("Queues of {}", view.overview.pod),
    };
    answer(StatusCode::OK, "text/html; charset=utf-8", document(&title, true, &body(view)).into_string())
}

/// A page that says what went wrong.
pub(crate) fn problem(status: StatusCode, title: &str, detail: &str) -> Response<Body> {
    let body = html! {
        main {
            h1 { (title) }
            p.bad role="alert" { (detail) }
            p { a href="/" { "All queues" } }
        }
    };
    answer(status, "text/html; charset=utf-8", document(title, false, &body).into_string())
}

/// Takes out of a query what the button before did, and says it in a sentence: an address that
/// somebody else made must not put words of their own on the page.
pub(crate) fn said(query: &str) -> (String, Option<String>) {
    let (mut rest, mut word, mut number) =
        (form_urlencoded::Serializer::new(String::new()), String::new(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "said" => word = value.into_owned(),
            "n" => number = value.parse::<u64>().ok(),
            _ => drop(rest.append_pair(&name, &value)),
        }
    }
    let said = match word.as_str() {
        "paused" => Some("Paused: requests are still taken in, none is delivered.".to_owned()),
        "resumed" => Some("Resumed.".to_owned()),
        "redriving" => Some("The dead letters are being brought back.".to_owned()),
        "redriven" => Some("The message is back in its queue.".to_owned()),
        "purged" => number.map(|number| format!("{number} purged.")),
        _ => None,
    };
    (rest.finish(), said)
}

fn document(title: &str, lives: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Tidegate" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/page/style.css";
                @if lives {
                    script src="/page/refresh.js" defer {}
                    noscript { meta http-equiv="refresh" content="10"; }
                }
            }
            body { (body) }
        }
    }
}

fn body(view: &View) -> Markup {
    let overview = &view.overview;
    html! {
        header {
            a.home href="/" { "Tidegate" }
            span { (overview.pod) }
            span.faint { (overview.identity) }
        }
        main {
            @if let Some(said) = &view.said { p.said role="status" { (said) } }
            (condition(overview))
            @match &view.chosen {
                Some(chosen) => (queue::inside(chosen)),
                None => (all(overview)),
            }
        }
    }
}

fn all(overview: &Overview) -> Markup {
    html! {
        h1 { "Queues" }
        @if overview.queues.is_empty() {
            p.faint { "No request was taken in yet: there is a queue as soon as one is." }
        }
        div.cards {
            @for listed in &overview.queues { (queue::card(listed)) }
        }
    }
}

fn condition(overview: &Overview) -> Markup {
    html! {
        @if let Some(why) = &overview.trouble {
            p.bad role="alert" { b { "The queue's directory is not open: " } (why) }
        }
        @for store in &overview.stores { (room(store)) }
    }
}

fn room(store: &Store) -> Markup {
    html! {
        @if let Some(why) = &store.poisoned {
            p.bad role="alert" {
                b { "The store (" (store.durability) ") cannot be trusted, restart the sidecar: " } (why)
            }
        }
        @if let Some(why) = &store.damaged {
            p.bad role="alert" {
                b { "The store (" (store.durability) ") is damaged, start the sidecar with --queue-salvage: " } (why)
            }
        }
        @if let Some(why) = &store.doubted {
            p.bad role="alert" {
                b { "The store (" (store.durability) ") goes on with files whose disk has failed: " } (why)
            }
        }
        @if let Some(why) = &store.full {
            p.bad role="alert" { b { "The store (" (store.durability) ") is full, nothing is taken in: " } (why) }
        }
        p.room {
            meter min="0" max=(store.bytes_max) value=(store.bytes) high=(store.bytes_max / 10 * 9) {}
            span { (store.durability) ": " (bytes(store.bytes)) " of " (bytes(store.bytes_max)) }
        }
    }
}

/// `17 B`, `1.5 KiB`.
#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn bytes(number: u64) -> String {
    let (mut shown, mut unit) = (number as f64, 0);
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    while shown >= 1023.95 && unit + 1 < units.len() {
        shown /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{shown:.1} {}", units[unit]) }
}

/// `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
fn span(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and saturating")]
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests;
