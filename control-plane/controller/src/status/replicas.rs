//! replicas: the other replicas of the controller, asked how far their proxies have come.
//!
//! They are the ready endpoints of the controller's own Service. One that does not answer is one whose
//! proxies are not known, never one without proxies.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::limits;
use policy::wire::operator::operator_client::OperatorClient;
use policy::wire::operator::{Answer, ProgressRequest, Standing, Subject};
use resources::ObjectId;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::codegen::Service;

use crate::documents::Documents;
use crate::index::Named;
use crate::proxies::Progress;
use crate::serve::Tls;

/// The controller's Service, and its port for proxies.
const SERVICE: &str = "tidegate-controller";
const PORT: &str = "grpc";

/// The other replicas.
pub(crate) struct Replicas {
    documents: Arc<Documents>,
    tls: Arc<Tls>,
    service: Named,
    /// The pod we are.
    pod: String,
    lines: BTreeMap<SocketAddr, Client>,
    /// Those of which it was said that they do not answer.
    silent: BTreeSet<SocketAddr>,
    waited: Duration,
}

type Client = OperatorClient<Line>;

/// What the others say of each object, one answer of each replica: the whole and the parts in their
/// order, `None` where it does not know the object as it is here.
pub(super) type Said = BTreeMap<ObjectId, Vec<Option<Vec<Progress>>>>;

impl Replicas {
    /// Those of the controller's Service in `namespace` that do not stand in `pod`.
    pub(crate) fn new(documents: Arc<Documents>, tls: Arc<Tls>, (namespace, pod): (&str, &str)) -> Self {
        let service = (namespace.to_owned(), SERVICE.to_owned());
        let (pod, lines, silent) = (pod.to_owned(), BTreeMap::new(), BTreeSet::new());
        Self { documents, tls, service, pod, lines, silent, waited: Duration::ZERO }
    }

    /// Asks all of them at once about objects and their generations.
    pub(super) async fn ask(&mut self, subjects: &[(ObjectId, i64)]) -> Said {
        let others = self.others();
        self.lines.retain(|address, _| others.contains(address));
        self.silent.retain(|address| others.contains(address));
        let questions: Vec<_> = others
            .into_iter()
            .map(|address| {
                let (line, tls) = (self.lines.remove(&address), self.tls.clone());
                async move {
                    let all = timeout(limits::PROGRESS_TIMEOUT, whole(&tls, address, line, subjects)).await;
                    (address, all.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time"))))
                }
            })
            .collect();
        let asked = Instant::now();
        let heard = join_all(questions).await;
        self.waited = asked.elapsed();
        let mut said = Said::new();
        for (address, answer) in heard {
            let answers = self.heard(address, answer);
            for (place, (id, _)) in subjects.iter().enumerate() {
                let known = answers.get(place).filter(|answer| answer.known);
                let progress = known.map(|answer| answer.standings.iter().map(progress).collect());
                said.entry(id.clone()).or_default().push(progress);
            }
        }
        said
    }

    /// How long the last answers took.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// Says once that a replica does not answer, and once that it does again.
    fn heard(&mut self, address: SocketAddr, answer: anyhow::Result<(Client, Vec<Answer>)>) -> Vec<Answer> {
        match answer {
            Ok((line, answers)) => {
                self.lines.insert(address, line);
                if self.silent.remove(&address) {
                    tracing::info!(%address, "the other replica answers again");
                }
                answers
            }
            Err(error) => {
                if self.silent.insert(address) {
                    let error = format!("{error:#}");
                    tracing::warn!(%address, error, "the other replica does not say what its proxies have");
                }
                Vec::new()
            }
        }
    }

    fn others(&self) -> BTreeSet<SocketAddr> {
        let ready = self.documents.ask(|index| index.ready(&self.service, PORT));
        let others = ready.into_iter().filter(|(_, pod)| pod.as_deref() != Some(&*self.pod));
        others.map(|(address, _)| address).take(limits::REPLICAS_MAX).collect()
    }
}

fn progress(standing: &Standing) -> Progress {
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let refused = standing.refusals.iter().map(|one| (one.pod.clone(), one.reason.clone()));
    let (needing, current) = (number(standing.needing), number(standing.current));
    Progress { needing, current, rejected: refused.collect() }
}

/// Everything one replica says, over `line` or a new one.
async fn whole(
    tls: &Tls,
    address: SocketAddr,
    line: Option<Client>,
    subjects: &[(ObjectId, i64)],
) -> anyhow::Result<(Client, Vec<Answer>)> {
    let mut line = match line {
        Some(line) => line,
        None => connect(tls, address).await?,
    };
    let mut answers = Vec::with_capacity(subjects.len());
    for some in subjects.chunks(limits::PROGRESS_SUBJECTS_MAX) {
        let subjects = some.iter().map(|(id, generation)| Subject {
            kind: id.kind.to_owned(),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            generation: *generation,
        });
        let request = ProgressRequest { subjects: subjects.collect() };
        let answer =
            line.progress(request).await.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
        let answer = answer.into_inner().answers;
        anyhow::ensure!(answer.len() == some.len(), "{} answers to {} questions", answer.len(), some.len());
        answers.extend(answer);
    }
    Ok((line, answers))
}

/// Whoever answers there has to have our own identity.
async fn connect(tls: &Tls, address: SocketAddr) -> anyhow::Result<Client> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    let name = ServerName::try_from(tls.identity().dns_name())?;
    let stream = tls.connector().connect(name, stream).await.context("the TLS handshake failed")?;
    let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // It ends with the line, or when the other side ends it.
    tokio::spawn(connection);
    let client = OperatorClient::with_origin(Line(requests), Uri::from_static("https://controller"));
    Ok(client.max_decoding_message_size(limits::CONTROL_MESSAGE_BYTES_MAX))
}

/// A connection to one replica.
#[derive(Clone)]
struct Line(SendRequest<Body>);

impl Service<Request<Body>> for Line {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
