//! swarm: the simulated proxies, each a connection and a stream.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use policy::wire::v1::{self, watch_request::Kind};
use rustls::ClientConfig;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::controller::Controller;
use crate::load::{Talk, call, certify, connect, say};
use crate::plan::{ACCOUNTS, NAMESPACES, Plan, account, namespace};
use crate::race::Race;

/// Handshakes under way at once.
const CONNECTING: usize = 64;
const MARK: &[u8] = b"\"mark-";

/// All proxies.
pub(crate) struct Swarm {
    seat: Arc<Seat>,
    proxies: JoinSet<anyhow::Result<Held>>,
    /// Dropped, a proxy ends and tells what it held.
    leave: HashMap<usize, mpsc::Sender<()>>,
}

/// What all proxies share.
struct Seat {
    plan: Arc<Plan>,
    race: Arc<Race>,
    address: std::net::SocketAddr,
    certificates: Vec<Arc<ClientConfig>>,
    connecting: Semaphore,
}

/// What a proxy held in the end.
struct Held {
    proxy: usize,
    versions: HashMap<String, String>,
}

/// What came again after a reconnect.
pub(crate) struct Again {
    pub(crate) proxies: usize,
    pub(crate) documents: u64,
    pub(crate) bytes: u64,
}

impl Swarm {
    /// Everybody connected, and in possession of all that it needs.
    pub(crate) async fn connect(
        plan: &Arc<Plan>,
        controller: &Controller,
        race: Arc<Race>,
    ) -> anyhow::Result<Self> {
        let mut certificates = Vec::new();
        for number in 0..NAMESPACES * ACCOUNTS {
            let (space, account) = (namespace(number / ACCOUNTS), format!("a{}", number % ACCOUNTS));
            certificates.push(certify(controller, &space, &account).await?);
        }
        let connecting = Semaphore::new(CONNECTING);
        let address = controller.address;
        let seat = Seat { plan: plan.clone(), race, address, certificates, connecting };
        let mut swarm = Self { seat: Arc::new(seat), proxies: JoinSet::new(), leave: HashMap::new() };
        let everybody = (0..plan.proxies).map(|proxy| Held { proxy, versions: HashMap::new() }).collect();
        swarm.enter(everybody).await?;
        Ok(swarm)
    }

    async fn enter(&mut self, proxies: Vec<Held>) -> anyhow::Result<()> {
        let (ready, mut whole) = mpsc::channel(1024);
        let wanted = proxies.len();
        for held in proxies {
            let (stay, left) = mpsc::channel(1);
            self.leave.insert(held.proxy, stay);
            self.proxies.spawn(proxy(self.seat.clone(), held, ready.clone(), left));
        }
        for _ in 0..wanted {
            tokio::select! {
                ready = whole.recv() => ready.context("nobody is there any more")?,
                ended = self.proxies.join_next() => {
                    ended.context("nobody is there")??.context("a proxy ended")?;
                }
            }
        }
        Ok(())
    }

    /// The first `count` proxies leave and come again with what they held.
    pub(crate) async fn reconnect(&mut self, count: usize) -> anyhow::Result<Again> {
        (0..count).for_each(|proxy| drop(self.leave.remove(&proxy)));
        let mut held = Vec::new();
        while held.len() < count {
            held.push(self.proxies.join_next().await.context("nobody is there")???);
        }
        let before = self.seat.race.counts();
        self.enter(held).await?;
        let now = self.seat.race.counts();
        let (documents, bytes) = (now.documents - before.documents, now.bytes - before.bytes);
        Ok(Again { proxies: count, documents, bytes })
    }
}

/// One proxy, until it is told to leave.
async fn proxy(
    seat: Arc<Seat>,
    mut held: Held,
    ready: mpsc::Sender<()>,
    mut left: mpsc::Receiver<()>,
) -> anyhow::Result<Held> {
    let pod = seat.plan.pod(held.proxy);
    let service = pod / seat.plan.each;
    let certificate = &seat.certificates[service % NAMESPACES * ACCOUNTS + account(pod)];
    let place = seat.connecting.acquire().await?;
    let send = connect(seat.address, certificate.clone()).await?;
    let (mut out, answer) = call(send.clone(), "/tidegate.policy.v1.Policy/Watch")?;
    let tell = |kind: Kind| v1::WatchRequest { kind: Some(kind) };
    let hello = v1::Hello { pod: format!("p{pod}"), held: held.versions.clone(), ..v1::Hello::default() };
    say(&mut out, &tell(Kind::Hello(hello)), false)?;
    let add = seat.plan.needed(held.proxy).map(|service| format!("s{service}.{}.svc:80", namespace(service)));
    let subscribe = v1::Subscribe { add: add.collect(), remove: Vec::new() };
    say(&mut out, &tell(Kind::Subscribe(subscribe)), false)?;
    let mut talk = Talk::new(answer.await?.into_body());
    drop(place);
    let whole = 2 + 2 * seat.plan.needs;
    let mut marks = HashMap::new();
    let mut ready = Some(ready);
    loop {
        let next = tokio::select! {
            next = talk.next::<v1::WatchResponse>() => next?,
            _ = left.recv() => return Ok(held),
        };
        let (answer, bytes) = next.context("the controller ended the stream")?;
        seat.race.count(answer.changed.len(), bytes);
        for document in answer.changed {
            see(&seat, &mut marks, &document);
            held.versions.insert(document.key, document.version);
        }
        answer.removed.iter().for_each(|key| drop(held.versions.remove(key)));
        let ack = v1::Ack { sequence: answer.sequence, digest: answer.digest, rejected: Vec::new() };
        say(&mut out, &tell(Kind::Ack(ack)), false)?;
        if held.versions.len() == whole
            && let Some(ready) = ready.take()
        {
            ready.send(()).await?;
        }
    }
}

/// Reads the mark on a backend.
fn see(seat: &Seat, marks: &mut HashMap<usize, u64>, document: &v1::Document) {
    let Some(key) = document.key.strip_prefix("backend/s") else { return };
    let at = document.body.windows(MARK.len()).position(|bytes| bytes == MARK);
    let digits = |bytes: &[u8]| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0_u64, |n, byte| n * 10 + u64::from(byte - b'0'))
    };
    let Some(at) = at else { return };
    let service = usize::try_from(digits(key.as_bytes())).unwrap_or_default();
    let mark = digits(&document.body[at + MARK.len()..]);
    let before = marks.insert(service, mark).unwrap_or(0);
    if mark > before {
        seat.race.reach(service, before, mark);
    }
}
