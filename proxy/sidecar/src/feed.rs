//! feed: what the controller says, as one snapshot that workers share.
//!
//! One stream for the process. Workers say what they need; the stream is told, and everything that
//! arrives at once becomes one new snapshot. While the controller is away the last snapshot holds.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use policy::limits;
use policy::snapshot::{DestinationKey, Snapshot, Version};
use policy::wire::v1::policy_client::PolicyClient;
use policy::wire::v1::watch_request::Kind;
use policy::wire::v1::{Ack, Hello, Rejected, Subscribe, WatchRequest, WatchResponse};
use policy::wire::{self, DocumentError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use transport::errors::chain;
use transport::tls::Tls;

use crate::health::Health;
use crate::link::{Backoff, Credential, Link};

/// Messages that wait for the stream, and needs that wait for the feed.
const QUEUE: usize = 256;

/// Something a worker needs, or no longer.
enum Need {
    Add(DestinationKey),
    Release(DestinationKey),
}

/// A worker's end of the feed.
#[derive(Clone)]
pub(crate) struct FeedHandle {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    needs: mpsc::Sender<Need>,
}

impl FeedHandle {
    /// What holds now, and word of every change.
    pub(crate) fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Asks for a destination; its documents come with a later snapshot.
    pub(crate) async fn need(&self, key: DestinationKey) {
        // Without a feed there is no process any more.
        let _ = self.needs.send(Need::Add(key)).await;
    }

    /// Gives one back.
    pub(crate) async fn release(&self, key: DestinationKey) {
        let _ = self.needs.send(Need::Release(key)).await;
    }
}

/// The stream's end of the feed.
pub(crate) struct Feed {
    link: Link,
    tls: Tls,
    health: Arc<Health>,
    pod: String,
    inbound: std::net::SocketAddr,
    snapshot: watch::Sender<Arc<Snapshot>>,
    needs: mpsc::Receiver<Need>,
    /// How many workers need what.
    wanted: HashMap<DestinationKey, u32>,
}

impl Feed {
    pub(crate) fn new(
        link: Link,
        tls: Tls,
        health: Arc<Health>,
        pod: String,
        inbound: std::net::SocketAddr,
    ) -> (Self, FeedHandle) {
        let (snapshot, seen) = watch::channel(Arc::new(Snapshot::default()));
        let (sender, needs) = mpsc::channel(QUEUE);
        let feed = Self { link, tls, health, pod, inbound, snapshot, needs, wanted: HashMap::new() };
        (feed, FeedHandle { snapshot: seen, needs: sender })
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let heard = self.stream(&mut backoff).await;
            if let Err(error) = heard {
                let trouble = chain(error.as_ref());
                tracing::warn!(controller = self.link.controller, error = trouble, "the policy stream ended");
                self.health.not_informed(trouble);
            }
            let pause = backoff.wait();
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(need) = self.needs.recv() => { self.note(need); }
                }
            }
        }
    }

    /// One stream, from its first message to its end.
    async fn stream(&mut self, backoff: &mut Backoff) -> anyhow::Result<()> {
        while !self.tls.is_ready() {
            tokio::select! {
                () = tokio::time::sleep(limits::CONTROL_BACKOFF_MIN) => {}
                Some(need) = self.needs.recv() => { self.note(need); }
            }
        }
        let channel = self.link.channel(Credential::Certificate(self.tls.clone())).await?;
        let mut client =
            PolicyClient::new(channel).max_decoding_message_size(limits::CONTROL_MESSAGE_BYTES_MAX);
        let (say, said) = mpsc::channel(QUEUE);
        say.send(request(Kind::Hello(self.hello()))).await?;
        say.send(request(Kind::Subscribe(self.everything()))).await?;
        let mut stream = client
            .watch(ReceiverStream::new(said))
            .await
            .map_err(|status| anyhow::anyhow!("the controller refuses: {}", status.message()))?
            .into_inner();
        tracing::info!(controller = self.link.controller, "connected to the controller");
        self.health.connected();
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => {
                        *backoff = Backoff::new();
                        let ack = self.apply(&message);
                        let is_whole = ack.digest == message.digest;
                        say.send(request(Kind::Ack(ack))).await?;
                        if !is_whole {
                            self.forget_versions();
                            anyhow::bail!("what is held here is not what the controller sent: asking for all of it");
                        }
                    }
                    Ok(None) => anyhow::bail!("the controller ended the stream"),
                    Err(status) => anyhow::bail!("{}: {}", status.code(), status.message()),
                },
                Some(need) = self.needs.recv() => {
                    if let Some(subscribe) = self.note(need) {
                        say.send(request(Kind::Subscribe(subscribe))).await?;
                    }
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        let held = self.snapshot.borrow().versions.iter().map(|(k, v)| (k.clone(), v.to_string())).collect();
        let address = self.inbound.ip();
        let addresses = if address.is_unspecified() { Vec::new() } else { vec![IpAddr::to_string(&address)] };
        Hello {
            pod: self.pod.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held,
            addresses,
            inbound_port: self.inbound.port().into(),
        }
    }

    fn everything(&self) -> Subscribe {
        // What is held and no longer needed was given up while nobody could be told.
        let held = self.snapshot.borrow();
        let given_up = held.destinations.keys().filter(|key| !self.wanted.contains_key(*key));
        Subscribe {
            add: self.wanted.keys().map(ToString::to_string).collect(),
            remove: given_up.map(ToString::to_string).collect(),
        }
    }

    /// Counts who needs what; the message that tells the controller, if it must be told.
    fn note(&mut self, need: Need) -> Option<Subscribe> {
        match need {
            Need::Add(key) => {
                let count = self.wanted.entry(key.clone()).or_insert(0);
                *count += 1;
                (*count == 1).then(|| Subscribe { add: vec![key.to_string()], remove: Vec::new() })
            }
            Need::Release(key) => {
                let count = self.wanted.get_mut(&key)?;
                *count -= 1;
                if *count > 0 {
                    return None;
                }
                self.wanted.remove(&key);
                Some(Subscribe { add: Vec::new(), remove: vec![key.to_string()] })
            }
        }
    }

    /// Makes the next snapshot of all that came at once, but for what is not understood.
    fn apply(&mut self, message: &WatchResponse) -> Ack {
        let mut next = Snapshot::clone(&self.snapshot.borrow());
        let mut rejected = Vec::new();
        for document in &message.changed {
            match wire::decode(document) {
                Ok((document, version)) => next.put(document, version),
                Err(error) => {
                    tracing::warn!(key = document.key, error = chain(&error), "a document is refused");
                    // The controller is told: what is refused is not asked for again. One that was
                    // changed on the way is.
                    if !matches!(error, DocumentError::Content(_))
                        && let Ok(version) = document.version.parse()
                    {
                        next.versions.insert(document.key.clone(), version);
                    }
                    rejected.push(Rejected {
                        key: document.key.clone(),
                        version: document.version.clone(),
                        reason: chain(&error),
                    });
                }
            }
        }
        for key in &message.removed {
            next.remove(key);
        }
        let digest = next.digest().to_string();
        tracing::debug!(
            sequence = message.sequence,
            changed = message.changed.len(),
            removed = message.removed.len(),
            "snapshot applied"
        );
        if next.mesh.is_some() && next.inbound.is_some() {
            self.health.informed();
        }
        self.snapshot.send_replace(Arc::new(next));
        Ack { sequence: message.sequence, digest, rejected }
    }

    /// Makes the next stream send everything; what is held stays in force until then.
    fn forget_versions(&mut self) {
        self.snapshot.send_if_modified(|snapshot| {
            let mut next = Snapshot::clone(snapshot);
            next.versions = BTreeMap::<String, Version>::new();
            *snapshot = Arc::new(next);
            false
        });
    }
}

fn request(kind: Kind) -> WatchRequest {
    WatchRequest { kind: Some(kind) }
}
