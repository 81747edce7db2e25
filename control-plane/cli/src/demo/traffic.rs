//! traffic: the requests of the demo, and how each was answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pods::HOST;
use crate::workload::REQUEST_ID;

/// Clients that ask at once, each on a connection of its own.
pub(crate) const CLIENTS: u64 = 8;
/// The requests are spread over this time, so that a receiver can be stopped in the middle.
pub(crate) const SPREAD: Duration = Duration::from_secs(4);
/// How long one request may take, retries by the sidecar included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Of so many requests, one is asked to fail under `--fault failed-request`.
const FAIL_EVERY: u64 = 20;

/// What is sent, and where.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The outbound address of web's sidecar.
    pub(crate) outbound: SocketAddr,
    /// The ids of the requests.
    pub(crate) ids: Range<u64>,
    /// The time they are spread over.
    pub(crate) spread: Duration,
    /// Whether a share of them is sent where the answer is 500.
    pub(crate) failing: bool,
}

/// How the requests went.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Answers by class of status (`2xx`).
    pub(crate) classes: BTreeMap<String, u64>,
    /// Requests without an answer, by what happened instead.
    pub(crate) unanswered: BTreeMap<String, u64>,
}

impl Sent {
    /// Adds how others went.
    pub(crate) fn add(&mut self, other: Self) {
        for (class, number) in other.classes {
            *self.classes.entry(class).or_default() += number;
        }
        for (why, number) in other.unanswered {
            *self.unanswered.entry(why).or_default() += number;
        }
    }
}

impl Plan {
    /// One POST of four; of five, one for the prices.
    pub(crate) fn method(id: u64) -> Method {
        if id.is_multiple_of(4) { Method::POST } else { Method::GET }
    }

    fn path(&self, id: u64) -> String {
        match id {
            id if self.failing && id % FAIL_EVERY == 7 => "/fail".to_owned(),
            id if id % 5 == 1 => format!("/prices/{id}"),
            id => format!("/orders/{id}"),
        }
    }

    fn request(&self, id: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        let method = Self::method(id);
        let body = if method == Method::POST { format!("{{\"order\":{id}}}") } else { String::new() };
        let request = Request::builder()
            .method(method)
            .uri(self.path(id))
            .header(header::HOST, HOST)
            .header(REQUEST_ID, id)
            .body(Full::new(Bytes::from(body)))?;
        Ok(request)
    }

    /// Sends all; `bar` counts them.
    pub(crate) async fn send(self, bar: ProgressBar) -> anyhow::Result<Sent> {
        let next = Arc::new(AtomicU64::new(self.ids.start));
        let plan = Arc::new(self);
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client(plan.clone(), next.clone(), begun, bar.clone()));
        }
        let mut sent = Sent::default();
        while let Some(client) = clients.join_next().await {
            let one = client.context("a client broke")??;
            sent.add(one);
        }
        Ok(sent)
    }
}

async fn client(
    plan: Arc<Plan>,
    next: Arc<AtomicU64>,
    begun: Instant,
    bar: ProgressBar,
) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    let mut connection = None;
    loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        if id >= plan.ids.end {
            return Ok(sent);
        }
        #[expect(clippy::cast_precision_loss, reason = "a share of the time, to the microsecond or so")]
        let share = (id - plan.ids.start) as f64 / (plan.ids.end - plan.ids.start) as f64;
        let due = begun + plan.spread.mul_f64(share);
        tokio::time::sleep_until(due).await;
        let (counts, what) =
            match tokio::time::timeout(REQUEST_TIMEOUT, one(&plan, &mut connection, id)).await {
                Ok(Ok(status)) => (&mut sent.classes, format!("{}xx", status.as_u16() / 100)),
                Ok(Err(error)) => (&mut sent.unanswered, format!("{error:#}")),
                Err(_) => (&mut sent.unanswered, format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
            };
        *counts.entry(what).or_default() += 1;
        bar.inc(1);
    }
}

/// One request on the client's connection, which is made anew after a failure.
async fn one(
    plan: &Plan,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    id: u64,
) -> anyhow::Result<StatusCode> {
    let mut sender = match connection.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => connect(plan.outbound).await.context("web's sidecar takes no connection")?,
    };
    sender.ready().await.context("web's sidecar closed the connection")?;
    let response = sender.send_request(plan.request(id)?).await.context("no answer")?;
    let status = response.status();
    response.into_body().collect().await.context("the answer broke off")?;
    *connection = Some(sender);
    Ok(status)
}

/// A connection to a sidecar, as an application makes it.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends when its sender is dropped.
    tokio::spawn(connection);
    Ok(sender)
}
