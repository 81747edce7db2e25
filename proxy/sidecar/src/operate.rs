//! operate: what an operator asks of the queues, on the admin port.
//!
//! | asked | answered |
//! |---|---|
//! | `GET /queues` | every queue and the condition of its store |
//! | `GET /queues/messages?queue=` | a page of its messages, without bodies |
//! | `GET /queues/message?id=` | one message, the names of its headers |
//! | `GET /queues/export?queue=` | a page of NDJSON with bodies; `Tidegate-Next` says where the next begins |
//! | `POST /queues/pause`, `resume`, `purge`, `redrive` | what was done; parameters stand in the query |
//! | `/.tidegate/requests/…` | what the workload is answered, of the requests this sidecar keeps: no other is asked |
//! | `GET /` | the page |
//!
//! Loopback alone, and only under an address ([`guard`]). Credentials are never shown.

mod export;
pub(crate) mod guard;
mod look;
mod query;
pub(crate) mod shown;

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use policy::limits;
use policy::queue::Durability;
use policy::snapshot::Snapshot;
use queue::{Failed, Part, Queue, QueueView, RedriveError};
use request::body::Body;
use serde_json::json;
use tokio::sync::watch;

use crate::admit::problem::{self, Kind, Problem};
use crate::messages::{Asker, Messages, document, is_reserved};
use crate::page::{self, Chosen, View};
use crate::policies::Word;
use crate::queues::Queues;
use query::Query;

const BAD_QUERY: Kind =
    Kind { name: "bad-query", title: "The query cannot be understood", status: StatusCode::BAD_REQUEST };
const UNKNOWN_QUEUE: Kind =
    Kind { name: "unknown-queue", title: "No queue has this name", status: StatusCode::NOT_FOUND };
const UNKNOWN_PATH: Kind =
    Kind { name: "unknown-path", title: "There is nothing here", status: StatusCode::NOT_FOUND };
const UNDER_WAY: Kind = Kind {
    name: "redrive-under-way",
    title: "The dead letters of this queue are being redriven already",
    status: StatusCode::CONFLICT,
};
const FOREIGN: Kind = Kind {
    name: "foreign",
    title: "This is answered to its own page and to programs alone",
    status: StatusCode::FORBIDDEN,
};

/// Queues an error names at most.
const NAMED_MAX: usize = 20;
/// Messages on the page.
const PAGE_MESSAGES: usize = 25;

/// Whether a path of the admin port is answered here.
pub(crate) fn is_ours(path: &str) -> bool {
    path == "/"
        || path == "/queues"
        || path.starts_with("/queues/")
        || path.starts_with("/page/")
        || is_reserved(path)
}

/// Answers operators.
pub(crate) struct Operate {
    queues: Arc<Queues>,
    messages: Arc<Messages>,
    /// What the controller says.
    snapshot: watch::Receiver<Arc<Snapshot>>,
    pod: String,
}

/// One queue, and the store that keeps it.
struct Found {
    queue: Queue,
    view: QueueView,
}

/// What is asked: which resource, with which parameters.
struct Asked {
    path: String,
    query: Query,
}

impl Operate {
    pub(crate) fn new(
        queues: Arc<Queues>,
        messages: Arc<Messages>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        pod: String,
    ) -> Self {
        Self { queues, messages, snapshot, pod }
    }

    /// What the controller says of a queue's policy.
    fn word_on(&self, queue: &str) -> Word {
        Word::on(&self.snapshot.borrow(), queue)
    }

    /// Answers a request for a path that [`is_ours`]; its body is not read.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        if let Err(problem) = guarded(request.method(), request.headers()) {
            return problem.into_response();
        }
        if is_reserved(request.uri().path()) {
            return self.messages.answer(request, &Asker::Ourselves).await;
        }
        if let Some(asset) = page::asset(request.uri().path()) {
            return asset;
        }
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let text = request.uri().query().unwrap_or_default().to_owned();
        drop(request);
        let for_page = path == "/" || text.split('&').any(|pair| pair == "from=page");
        let answered = match method {
            Method::GET if path == "/" => self.page(&text).await,
            Method::GET => self.look(path, &text).await,
            Method::POST => self.act(path, &text).await,
            _ => Err(Problem::new(problem::METHOD, format!("{method} is not for {path}"))),
        };
        answered.unwrap_or_else(|problem| {
            if problem.kind == problem::METHOD {
                return problem.allowing("GET, HEAD, POST");
            }
            if for_page {
                return page::problem(problem.kind.status, problem.kind.title, &problem.detail);
            }
            problem.into_response()
        })
    }

    async fn look(&self, path: String, text: &str) -> Result<Response<Body>, Problem> {
        let asked = Asked { path, query: Query::read(text, SystemTime::now())? };
        match asked.path.as_str() {
            "/queues" => {
                let overview = self.overview().await?;
                Ok(document(StatusCode::OK, &value(&overview)))
            }
            "/queues/messages" => self.listed(&asked.query).await,
            "/queues/message" => {
                let shown = self.message(&asked.query).await?;
                Ok(document(StatusCode::OK, &value(&shown)))
            }
            "/queues/export" => {
                let found = self.find(&asked.query).await?;
                export::page(&found.queue, &found.view.name, &asked.query).await
            }
            path => Err(unknown(path)),
        }
    }

    async fn listed(&self, query: &Query) -> Result<Response<Body>, Problem> {
        let found = self.find(query).await?;
        let (messages, next) = look::messages(&found.queue, &found.view.name, query).await?;
        let part = query::word(query.part);
        let page = json!({ "queue": found.view.name, "part": part, "messages": messages, "next": next });
        Ok(document(StatusCode::OK, &page))
    }

    async fn act(&self, path: String, text: &str) -> Result<Response<Body>, Problem> {
        let query = Query::read(text, SystemTime::now())?;
        let Some(verb @ ("pause" | "resume" | "purge" | "redrive")) = path.strip_prefix("/queues/") else {
            return Err(unknown(&path));
        };
        query.fits(verb)?;
        if verb == "redrive" && query.id.is_some() {
            return self.redrive_one(&query).await;
        }
        let found = self.find(&query).await?;
        let (queue, name) = (&found.queue, found.view.name.as_str());
        let filter = query.filtered();
        tracing::info!(queue = name, part = query::word(query.part), filter, "an operator asks to {verb}");
        let (said, done) = match verb {
            "pause" => {
                queue.pause(name).await.map_err(failed)?;
                ("paused", json!({ "queue": name, "paused": "operator" }))
            }
            "resume" => {
                let no_policy = self.word_on(name) == Word::Gone;
                queue.resume(name, no_policy).await.map_err(failed)?;
                ("resumed", json!({ "queue": name, "paused": null }))
            }
            "purge" => {
                let purged = queue.purge(name, query.part, &query.filter).await.map_err(failed)?;
                ("purged", json!({ "queue": name, "part": query::word(query.part), "purged": purged }))
            }
            _ => {
                let rate = query.rate.unwrap_or(limits::REDRIVE_PER_SECOND_MAX);
                let begun = queue.redrive_all(name, rate, query.filter.clone(), query.replace).await;
                let redrive = look::redrive(&begun.map_err(not_redriven)?);
                let dead = found.view.dead;
                (
                    "redriving",
                    json!({ "queue": name, "redriving": true, "deadLetters": dead, "redrive": redrive }),
                )
            }
        };
        if query.from_page {
            return Ok(back(&query, said, done.get("purged").and_then(serde_json::Value::as_u64)));
        }
        let status = if said == "redriving" { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(document(status, &done))
    }

    /// As the message's own resource redrives it.
    async fn redrive_one(&self, query: &Query) -> Result<Response<Body>, Problem> {
        let id = query.id.as_deref().unwrap_or_default();
        let wrong = |_| Problem::new(BAD_QUERY, format!("id={id:?} is not the id of a message"));
        let request = Request::post(format!("/.tidegate/requests/{id}:redrive")).body(()).map_err(wrong)?;
        let answer = self.messages.answer(request, &Asker::Ourselves).await;
        if query.from_page && answer.status().is_success() {
            return Ok(back(query, "redriven", None));
        }
        Ok(answer)
    }

    /// The queue that is asked for.
    async fn find(&self, query: &Query) -> Result<Found, Problem> {
        let name = query.queue.as_deref();
        let name = name.ok_or_else(|| Problem::new(BAD_QUERY, "queue= is needed: GET /queues lists them"))?;
        let (mut matching, mut names) = (Vec::new(), Vec::new());
        for (durability, queue) in self.opened() {
            for view in queue.queues().await.map_err(failed)? {
                let asked = query.durability.as_deref().is_none_or(|asked| asked == look::word(durability));
                names.push(view.name.clone());
                if view.name == name && asked {
                    matching.push(Found { queue: queue.clone(), view });
                }
            }
        }
        if matching.len() > 1 {
            let detail = format!("{name} has messages in memory and on disk: say durability=local or memory");
            return Err(Problem::new(BAD_QUERY, detail));
        }
        matching.pop().ok_or_else(|| self.no_queue(name, &names))
    }

    fn no_queue(&self, name: &str, names: &[String]) -> Problem {
        let mut detail = match names {
            [] => format!("there is no queue {name:?}, nor any other"),
            names => {
                let shown = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = if names.len() > NAMED_MAX { ", …" } else { "" };
                format!("there is no queue {name:?}; there is {shown}{more}")
            }
        };
        if let Some(trouble) = self.queues.trouble() {
            detail += &format!("; the queue's directory is not open: {}", trouble.why);
        }
        Problem::new(UNKNOWN_QUEUE, detail)
    }

    fn opened(&self) -> impl Iterator<Item = (Durability, Queue)> {
        let both = [Durability::Local, Durability::Memory].into_iter();
        both.filter_map(|durability| Some((durability, self.queues.opened(durability)?)))
    }

    /// Why a store cannot be trusted any more, if one cannot.
    pub(crate) fn poisoned(&self) -> Option<Arc<str>> {
        self.opened().find_map(|(_, queue)| queue.condition().poisoned)
    }

    async fn page(&self, text: &str) -> Result<Response<Body>, Problem> {
        let (text, said) = page::said(text);
        let query = Query::read(&text, SystemTime::now())?;
        let overview = self.overview().await?;
        let Some(name) = &query.queue else {
            return Ok(page::page(&View { overview, chosen: None, said }));
        };
        let durability = query.durability.as_deref();
        let chosen = overview.queues.iter().find(|listed| {
            listed.name == *name && durability.is_none_or(|durability| durability == listed.durability)
        });
        let names = || overview.queues.iter().map(|listed| listed.name.clone()).collect::<Vec<_>>();
        let listed = chosen.ok_or_else(|| self.no_queue(name, &names()))?.clone();
        let found =
            self.find(&Query { durability: Some(listed.durability.to_owned()), ..query.clone() }).await?;
        let query = Query { limit: PAGE_MESSAGES, ..query.clone() };
        let (messages, next) = look::messages(&found.queue, name, &query).await?;
        let part = query::word(query.part);
        let chosen = Some(Chosen { queue: listed, part, messages, next, later: query.after.is_some() });
        Ok(page::page(&View { overview, chosen, said }))
    }
}

/// Refuses what a foreign page may have sent.
fn guarded(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let wrong = guard::misnamed(headers).or_else(|| if reads { None } else { guard::foreign(headers) });
    wrong.map_or(Ok(()), |why| Err(Problem::new(FOREIGN, why)))
}

/// The page again, after a button.
fn back(query: &Query, said: &str, number: Option<u64>) -> Response<Body> {
    let mut to = form_urlencoded::Serializer::new(String::new());
    to.append_pair("queue", query.queue.as_deref().unwrap_or_default());
    to.append_pair("durability", query.durability.as_deref().unwrap_or_default());
    to.append_pair("part", query::word(query.part)).append_pair("said", said);
    if let Some(number) = number {
        to.append_pair("n", &number.to_string());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::try_from(format!("/?{}", to.finish())) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn unknown(path: &str) -> Problem {
    Problem::new(UNKNOWN_PATH, format!("{path}: see /queues, or the page at /"))
}

fn value(shown: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(shown).unwrap_or_default()
}

/// What the queue could not do, with the whole of its reason.
fn failed(failed: Failed) -> Problem {
    match failed {
        Failed::UnknownQueue => Problem::new(UNKNOWN_QUEUE, "it was removed just now"),
        failed => Problem::new(problem::NO_QUEUE, transport::errors::chain(&failed).to_string()),
    }
}

fn not_redriven(error: RedriveError) -> Problem {
    match error {
        RedriveError::UnderWay(_) => {
            let help = "wait for its end (redriving in GET /queues), or put this one in its place with replace=true (tidegate dlq redrive --replace)";
            Problem::new(UNDER_WAY, format!("{error}; {help}"))
        }
        RedriveError::Failed(error) => failed(error),
        other => Problem::new(problem::NO_QUEUE, other.to_string()),
    }
}

/// NDJSON, and where the next page begins.
fn lines(text: Vec<u8>, next: Option<u64>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if let Some(next) = next {
        headers.insert("tidegate-next", HeaderValue::from(next));
    }
    response
}

/// The part of a store a message of this state lies in.
fn part_of(state: queue::MessageState) -> Part {
    if state == queue::MessageState::DeadLettered { Part::Dead } else { Part::Waiting }
}

#[cfg(test)]
mod tests;
