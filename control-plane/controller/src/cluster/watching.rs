//! watching: one kind listed, then watched, for as long as somebody listens.
//!
//! ```text
//!   list ──listed──▶ watch ──ends, or fails──▶ watch from where it was
//!    ▲                 │
//!    └──── 410: what happened since is forgotten ◀┘
//! ```
//!
//! What the API server says is told as it comes; objects stay in force until a whole list does not
//! name them any more. A try that fails is told as the kind's [`Health`], once for each change of it,
//! and followed by a wait. This is written out here rather than left to kube's `watcher`, which does
//! not say when a broken watch stands again, and asks at once after one that ended at once.

use std::time::Duration;

use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use policy::limits;
use resources::ObjectId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::kind::{Kind, Page, Raw, Said, Select};
use super::lines;

/// A page of a list that takes longer will not come.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// The API server answers a watch at once, and then goes on.
const WATCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the API server keeps a watch, in seconds: a random time of these, so that not all end
/// together. It sends a bookmark at least every minute.
const WATCH_SECONDS: std::ops::Range<u32> = 240..290;
/// A watch without a word for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(100);
/// A watch that ends sooner, with nothing told, is as good as one that failed.
const WATCH_SHORT: Duration = Duration::from_secs(1);

/// What is heard of a kind.
#[derive(Debug)]
pub(super) struct Heard {
    /// The kind.
    pub(super) kind: &'static Kind,
    /// Which watch of it: one that was ended may still be heard.
    pub(super) watch: u64,
    /// What.
    pub(super) event: Event,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A list begins.
    Begin,
    /// An object is there, or changed.
    Put(ObjectId, Said),
    /// An object is gone.
    Gone(ObjectId),
    /// A list is whole: what it did not name is gone.
    Listed,
    /// The watch itself.
    Health(Health),
}

/// How a watch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    /// It stands.
    Good,
    /// The API server cannot be reached, or cannot answer.
    Away(String),
    /// We may not.
    Forbidden(String),
    /// The API server knows no such kind, or not this version of it.
    NotServed,
    /// It says no for another reason.
    Refused(String),
}

/// Why there is nothing to go on with.
#[derive(Debug)]
enum Broken {
    /// Nobody listens.
    Unheard,
    /// 410: begin with a list.
    Expired,
    /// Something is the matter.
    Ill(Health),
}

/// One kind's list and watch.
pub(super) struct Watch {
    client: Client,
    kind: &'static Kind,
    version: String,
    number: u64,
    tell: mpsc::Sender<Heard>,
    health: Option<Health>,
    backoff: Backoff,
    /// The cluster's version up to which everything is told.
    at: Option<String>,
}

impl Watch {
    /// Of `kind` in `version`; what it tells carries `number`.
    pub(super) fn new(
        client: Client,
        kind: &'static Kind,
        (version, number): (String, u64),
        tell: mpsc::Sender<Heard>,
    ) -> Self {
        Self { client, kind, version, number, tell, health: None, backoff: Backoff::new(), at: None }
    }

    /// Lists and watches until nobody listens.
    pub(super) async fn run(mut self) {
        loop {
            let done = match self.at.clone() {
                None => self.list().await,
                Some(at) => self.watch(at).await,
            };
            match done {
                Ok(true) => continue,
                Ok(false) => {}
                Err(Broken::Unheard) => return,
                Err(Broken::Expired) => self.at = None,
                Err(Broken::Ill(health)) => {
                    if self.is(health).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(self.backoff.pause()).await;
        }
    }

    /// Reads a whole list, page by page.
    async fn list(&mut self) -> Result<bool, Broken> {
        self.tell(Event::Begin).await?;
        let mut more = None;
        loop {
            let request = self.list_request(more.take())?;
            let text = timeout(LIST_TIMEOUT, self.client.request_text(request)).await;
            let text = text.map_err(|_| silent("list"))?.map_err(broken)?;
            let page: Page = serde_json::from_str(&text)
                .map_err(|error| Broken::Ill(Health::Refused(format!("the list cannot be read: {error}"))))?;
            drop(text);
            let next = page.more().map(str::to_owned);
            let version = page.resource_version().to_owned();
            for raw in page.items {
                self.put(raw).await?;
            }
            if next.is_none() {
                self.tell(Event::Listed).await?;
                self.is(Health::Good).await?;
                self.at = Some(version);
                return Ok(true);
            }
            more = next;
        }
    }

    /// Watches from `at`; whether it is worth going on at once.
    async fn watch(&mut self, at: String) -> Result<bool, Broken> {
        let began = Instant::now();
        let request = self.watch_request(&at)?;
        let opened = timeout(WATCH_TIMEOUT, lines::open(&self.client, request)).await;
        let mut events = opened.map_err(|_| silent("watch"))?.map_err(broken)?;
        self.is(Health::Good).await?;
        // One that breaks off or falls silent is asked for again; only if that fails something is wrong.
        while let Ok(Some(event)) = timeout(SILENCE_MAX, events.next()).await {
            self.hear(event).await?;
            self.backoff.reset();
        }
        if began.elapsed() >= WATCH_SHORT {
            self.backoff.reset();
        }
        Ok(began.elapsed() >= WATCH_SHORT)
    }

    async fn hear(&mut self, event: WatchEvent<Raw>) -> Result<(), Broken> {
        match event {
            WatchEvent::Added(raw) | WatchEvent::Modified(raw) => {
                self.known(raw.resource_version());
                self.put(raw).await
            }
            WatchEvent::Deleted(raw) => {
                self.known(raw.resource_version());
                match raw.id(self.kind) {
                    Some(id) => self.tell(Event::Gone(id)).await,
                    None => Ok(()),
                }
            }
            WatchEvent::Bookmark(bookmark) => {
                self.known(Some(&bookmark.metadata.resource_version));
                Ok(())
            }
            WatchEvent::Error(status) => Err(broken(kube::Error::Api(status))),
        }
    }

    fn known(&mut self, version: Option<&str>) {
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            self.at = Some(version.to_owned());
        }
    }

    async fn put(&self, raw: Raw) -> Result<(), Broken> {
        let Some(id) = raw.id(self.kind) else { return Ok(()) };
        self.tell(Event::Put(id, raw.read(self.kind, &self.version))).await
    }

    /// Tells how it is, where that is new. What exactly keeps the API server away may differ from try
    /// to try.
    async fn is(&mut self, health: Health) -> Result<(), Broken> {
        let same = |old: &Health| std::mem::discriminant(old) == std::mem::discriminant(&health);
        if self.health.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.health = Some(health.clone());
        self.tell(Event::Health(health)).await
    }

    async fn tell(&self, event: Event) -> Result<(), Broken> {
        let heard = Heard { kind: self.kind, watch: self.number, event };
        self.tell.send(heard).await.map_err(|_| Broken::Unheard)
    }

    fn list_request(&self, more: Option<String>) -> Result<http::Request<Vec<u8>>, Broken> {
        let mut params = ListParams::default().limit(limits::API_PAGE_MAX);
        params.continue_token = more;
        match self.kind.select {
            Select::All | Select::Metadata => {}
            Select::Fields(fields) => params = params.fields(fields),
            Select::Labels(labels) => params = params.labels(labels),
        }
        let at = Request::new(self.kind.path(&self.version));
        let made = match self.kind.select {
            Select::Metadata => at.list_metadata(&params),
            _ => at.list(&params),
        };
        made.map_err(|error| Broken::Ill(Health::Refused(error.to_string())))
    }

    fn watch_request(&self, version: &str) -> Result<http::Request<Vec<u8>>, Broken> {
        let mut params = WatchParams::default().timeout(fastrand::u32(WATCH_SECONDS));
        match self.kind.select {
            Select::All | Select::Metadata => {}
            Select::Fields(fields) => params = params.fields(fields),
            Select::Labels(labels) => params = params.labels(labels),
        }
        let at = Request::new(self.kind.path(&self.version));
        let made = match self.kind.select {
            Select::Metadata => at.watch_metadata(&params, version),
            _ => at.watch(&params, version),
        };
        made.map_err(|error| Broken::Ill(Health::Refused(error.to_string())))
    }
}

fn silent(what: &str) -> Broken {
    Broken::Ill(Health::Away(format!("the {what} is not answered")))
}

fn broken(error: kube::Error) -> Broken {
    match health(error) {
        Some(health) => Broken::Ill(health),
        None => Broken::Expired,
    }
}

/// What an error says of the API server and us; `None` for 410.
pub(super) fn health(error: kube::Error) -> Option<Health> {
    let status = match error {
        kube::Error::Api(status) => status,
        error => return Some(Health::Away(chain(&error))),
    };
    let said = status.message.clone();
    match status.code {
        410 => None,
        403 => Some(Health::Forbidden(said)),
        404 => Some(Health::NotServed),
        408 | 429 | 500.. => Some(Health::Away(said)),
        _ => Some(Health::Refused(said)),
    }
}

/// An error with all that it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = inner.source();
    }
    said
}
