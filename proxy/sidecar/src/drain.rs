//! drain: how the sidecar beside a pod that is to end comes to its own end.
//!
//! Two words, because a native sidecar hears two. As soon as a pod is to end, the kubelet runs the
//! preStop hooks of all its containers and sends the application SIGTERM; the sidecar's SIGTERM follows
//! only when the application has gone (kubernetes v1.36.3, pkg/kubelet/kuberuntime: `killContainer` runs
//! `executePreStopHook` before `ordering.waitForTurn`). So
//!
//! - **drain** (`POST /drain`, which `tidegate-proxy drain` sends as the preStop hook): not ready,
//!   asynchronous requests refused, what is queued delivered at full speed. Synchronous traffic in both
//!   directions goes on: the application still works, and clients elsewhere still send here until they
//!   have heard.
//! - **stop** (SIGTERM, `POST /shutdown`): the same if it was not told yet; then GOAWAY, the last
//!   deliveries, the store closed, the end.
//!
//! The grace runs from the first of the two, because the kubelet's does. An application that takes
//! longer than it leaves the sidecar the two seconds that the kubelet gives at least
//! (`minimumGracePeriodInSeconds`): [`LAST_MOMENT`] of them are used.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use request::drain::Drain;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::health::Health;
use crate::queues::Queues;

/// What is left for the end where the application has used up the grace: less than the two seconds
/// after which the kubelet kills.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// How long the hook waits for an answer: a sidecar that does not answer in this time will hear SIGTERM.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the program is told to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// To go on.
    #[default]
    Nothing,
    /// The pod is to end.
    Drain,
    /// This program is to end.
    Stop,
}

/// Waits for the word, then for everything under way.
pub(crate) async fn stop(
    config: &Config,
    health: &Health,
    drain: &Drain,
    queues: &Queues,
    mut told: watch::Receiver<Told>,
) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut began = None;
    loop {
        let word = tokio::select! {
            _ = terminate.recv() => Told::Stop,
            _ = interrupt.recv() => Told::Stop,
            word = heard(&mut told) => word,
        };
        if began.is_none() {
            tracing::info!(grace = %config.drain_grace, "draining");
            health.drain();
            queues.begin_drain();
            began = Some(Instant::now());
        }
        if word == Told::Stop {
            break;
        }
    }
    drain.begin();
    let now = Instant::now();
    let end = (began.unwrap_or(now) + *config.drain_grace).max(now + LAST_MOMENT.min(*config.drain_grace));
    let finish = async {
        queues.drain(end).await;
        let left = drain.finished(end.saturating_duration_since(Instant::now())).await;
        if left > 0 {
            tracing::warn!(connections = left, "the grace is over: what is left is cut");
        }
    };
    tokio::select! {
        () = finish => {}
        _ = terminate.recv() => tracing::warn!("told to stop again: ending at once"),
        _ = interrupt.recv() => tracing::warn!("told to stop again: ending at once"),
    }
    Ok(())
}

/// The next word that differs from the last; for ever where none can come any more.
async fn heard(told: &mut watch::Receiver<Told>) -> Told {
    if told.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *told.borrow_and_update()
}

/// Tells the sidecar at `admin` to drain.
///
/// # Errors
/// It does not answer, or refuses. The kubelet then goes on to SIGTERM all the same.
pub(crate) async fn ask(admin: SocketAddr) -> anyhow::Result<()> {
    // It listens on every address; this answers on loopback alone.
    let own = if admin.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { admin.ip() };
    let address = SocketAddr::new(own, admin.port());
    let asked = timeout(ASK_TIMEOUT, post_drain(address)).await;
    asked
        .with_context(|| {
            format!("the sidecar at {address} did not answer within {} s", ASK_TIMEOUT.as_secs())
        })?
        .with_context(|| format!("the sidecar at {address} was not told to drain (is it running?)"))
}

async fn post_drain(address: SocketAddr) -> anyhow::Result<()> {
    let tcp = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post("/drain")
        .header(http::header::HOST, address.to_string())
        .body(Empty::<bytes::Bytes>::new())?;
    let status = sender.send_request(request).await?.status();
    connection.abort();
    anyhow::ensure!(status == http::StatusCode::ACCEPTED, "it answered {status}");
    Ok(())
}
