//! watch: one stream for each proxy, kept current.
//!
//! A stream is asked for its next answer when the one before has gone out, or waits alone for room: what
//! changes while a slow reader has none is not queued but found anew, so it skips to the newest. The
//! server's own task for the response drives it, and what a proxy says is read there too.

mod carried;
mod session;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::unfold;
use policy::identity::Identity;
use policy::limits;
use policy::name::Domain;
use policy::wire::v1::{self, watch_request::Kind};
use tonic::{Request, Status, Streaming};

use crate::documents::Documents;
use crate::metrics::Metrics;
use crate::proxies::{Proxies, Proxy, Rejected, Seat};
use session::Session;

pub(crate) use carried::PolicyService;

/// Whom the client certificate of a connection names; put on every request by the server.
#[derive(Debug, Clone)]
pub(crate) struct PeerIdentity(pub(crate) Option<Identity>);

/// The answers of one stream.
type Answers = Pin<Box<dyn futures_util::Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

/// Serves `Watch`.
pub(crate) struct Watcher {
    documents: Arc<Documents>,
    proxies: Arc<Proxies>,
    metrics: Arc<Metrics>,
    trust_domain: Domain,
}

impl Watcher {
    pub(crate) fn new(
        documents: Arc<Documents>,
        proxies: Arc<Proxies>,
        metrics: Arc<Metrics>,
        trust_domain: Domain,
    ) -> Self {
        Self { documents, proxies, metrics, trust_domain }
    }

    fn identity<T>(&self, request: &Request<T>) -> Result<Identity, Status> {
        let peer = request.extensions().get::<PeerIdentity>().and_then(|peer| peer.0.clone());
        let identity = peer.ok_or_else(|| {
            Status::unauthenticated("Watch takes a client certificate that names a workload: Certify first")
        })?;
        if identity.trust_domain != self.trust_domain {
            let message = format!("{identity} is not of trust domain {}", self.trust_domain);
            return Err(Status::permission_denied(message));
        }
        Ok(identity)
    }

    /// All answers to what a proxy says.
    ///
    /// # Errors
    /// UNAUTHENTICATED and PERMISSION_DENIED without a certificate of the mesh, RESOURCE_EXHAUSTED where
    /// too many streams are open.
    fn watch(&self, request: Request<Streaming<v1::WatchRequest>>) -> Result<Answers, Status> {
        let identity = self.identity(&request)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let proxy = Proxy {
            identity: identity.to_string(),
            pod: String::new(),
            version: String::new(),
            connected_since: since,
            sent: 0,
            acknowledged: 0,
            digest_ok: false,
            documents: 0,
            rejected: Vec::new(),
        };
        let seat = self.proxies.enter(proxy).ok_or_else(|| {
            Status::resource_exhausted("as many Watch streams as this controller serves are open")
        })?;
        let stream = Stream {
            requests: request.into_inner(),
            session: Session::new(self.documents.enter(seat.number(), identity)),
            seat,
            metrics: self.metrics.clone(),
            is_greeted: false,
            due: true,
        };
        Ok(stream.answers())
    }
}

struct Stream {
    requests: Streaming<v1::WatchRequest>,
    session: Session,
    seat: Seat,
    metrics: Arc<Metrics>,
    /// Hello came.
    is_greeted: bool,
    /// There may be something to send.
    due: bool,
}

impl Stream {
    /// All answers, until the proxy ends the stream or says what it must not.
    fn answers(self) -> Answers {
        Box::pin(unfold(Some(self), |stream| async move {
            let mut stream = stream?;
            match stream.next().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(stream))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// The next answer, as soon as there is one; meanwhile what the proxy says is taken.
    async fn next(&mut self) -> Result<Option<v1::WatchResponse>, Status> {
        if !self.is_greeted && !self.greet().await? {
            return Ok(None);
        }
        loop {
            if std::mem::take(&mut self.due) {
                let answer = self.session.answer();
                self.due = self.session.is_behind();
                if let Some(answer) = answer {
                    self.metrics.documents_sent.inc_by(answer.changed.len() as u64);
                    let (sent, documents) = (answer.sequence, self.session.len());
                    self.seat.note(|proxy| (proxy.sent, proxy.documents) = (sent, documents));
                    return Ok(Some(answer));
                }
            }
            tokio::select! {
                message = self.requests.message() => match message {
                    Ok(Some(v1::WatchRequest { kind: Some(kind) })) => self.due |= self.take(kind)?,
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(None),
                    Err(status) => {
                        tracing::debug!(identity = %self.session.identity(), %status, "stream ended");
                        return Ok(None);
                    }
                },
                () = self.session.woken() => self.due = true,
            }
        }
    }

    /// Whether Hello came, and not the end.
    async fn greet(&mut self) -> Result<bool, Status> {
        let first = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, self.requests.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no Hello came"))?;
        match first? {
            Some(v1::WatchRequest { kind: Some(Kind::Hello(hello)) }) => self.hello(hello),
            Some(_) => return Err(Status::invalid_argument("the first message has to be Hello")),
            None => return Ok(false),
        }
        self.is_greeted = true;
        Ok(true)
    }

    fn hello(&mut self, hello: v1::Hello) {
        let cut = |text: &str| text.chars().take(253).collect::<String>();
        let (pod, version) = (cut(&hello.pod), cut(&hello.version));
        tracing::info!(identity = %self.session.identity(), pod, version, held = hello.held.len(), "proxy connected");
        self.seat.note(|proxy| (proxy.pod, proxy.version) = (pod, version));
        self.session.hello(hello);
    }

    /// Whether there may be something to send now.
    fn take(&mut self, kind: Kind) -> Result<bool, Status> {
        match kind {
            Kind::Hello(_) => Err(Status::invalid_argument("Hello is the first message and no later one")),
            Kind::Subscribe(subscribe) => {
                self.session.subscribe(subscribe);
                Ok(true)
            }
            Kind::Ack(ack) => {
                self.acknowledge(ack);
                Ok(false)
            }
        }
    }

    fn acknowledge(&mut self, ack: v1::Ack) {
        let digest_ok = self.session.acknowledge(ack.sequence, &ack.digest, ack.rejected.is_empty());
        let rejected = Rejected::list(ack.rejected);
        if let Some(first) = rejected.first() {
            self.metrics.documents_rejected.inc_by(rejected.len() as u64);
            tracing::warn!(
                identity = %self.session.identity(),
                documents = rejected.len(),
                key = first.key,
                reason = first.reason,
                "documents were not applied"
            );
        }
        let sequence = ack.sequence;
        self.seat.note(|proxy| {
            proxy.acknowledged = sequence;
            // An older answer's digest says nothing: a newer one is on its way.
            if let Some(ok) = digest_ok {
                proxy.digest_ok = ok;
            }
            proxy.rejected = rejected;
        });
    }
}
